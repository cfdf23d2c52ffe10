"""The names that readers bring their formats to, and what is checked of each.

Two keys are needed:

    observations   (pairs, observation_dim) floating point
    actions        (pairs, action_dim) floating point, in the environment's units

and two more, unless rewards and episode_lengths are there, from which they are computed:

    mean_reward    mean return of the demonstrator's episodes
    std_reward     their standard deviation

These are used where present, as ``collect`` writes them:

    rewards             (pairs,)
    episode_lengths     (episodes,) integers that sum to pairs
    terminated          (episodes,) whether each ended in a terminal state; needs episode_lengths
    final_observations  (episodes, observation_dim) after each last step; needs episode_lengths
    random_returns      (100,) returns of uniformly random actions on the test bank
    expert_returns      (100,) returns of the expert's mean action on the test bank
    metadata            environment_id, expert, expert_sha256, seed, kind of actions, versions

Whatever converts to float32, int64 or bool without another meaning is read; further keys are never looked at.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError

NEEDED = ("observations", "actions")
COMPUTABLE = ("mean_reward", "std_reward")
REFERENCES = ("random_returns", "expert_returns")
USED = (
    *(*NEEDED, *COMPUTABLE, "rewards", "episode_lengths", "terminated", "final_observations"),
    *(*REFERENCES, "metadata"),
)
METADATA = ("environment_id", "expert", "expert_sha256", "seed", "actions", "versions")


def existing(path: str) -> Path:
    """``path``, where a file is.

    Raises:
        InputError: there is none.
    """
    if not Path(path).is_file():
        raise InputError(
            f"{path}: no such demonstration file. Collect it with\n"
            f"    python -m lightning_bc collect --env ENVIRONMENT_ID --expert EXPERT.pt --output {path}\n"
            "or name another file with --data.path."
        )
    return Path(path)


def unreadable(path: str, error: Exception) -> InputError:
    """What to raise where ``error`` came of opening a file: it holds pickled objects, or is damaged."""
    is_refusal = "weights_only" in str(error).lower() or "allow_pickle" in str(error).lower()
    with Path(path).open("rb") as file:
        is_pickle = file.read(2).startswith((b"\x80", b"PK"))         # any other file is refused in the same words
    if is_refusal and is_pickle:
        return InputError(
            f"{path}: holds pickled Python objects, which could run code and are refused. Save plain tensors, arrays "
            "and numbers with torch.save, or an .npz."
        )
    reason = ": ".join([type(error).__name__, *([] if is_refusal else str(error).splitlines()[:1])])
    return InputError(
        f"{path}: cannot be read ({reason}). It may be truncated or not a "
        "demonstration file: copy it again or collect it anew with python -m lightning_bc collect."
    )


def origin(path: str, content: Mapping[str, Any]) -> Origin:
    """What ``content`` says of itself beside its arrays."""
    given = content.get("metadata")
    metadata: Mapping[str, Any] = given if isinstance(given, dict) else {}
    return Origin(
        path,
        mean_return=_number(path, "mean_reward", content),
        std_return=_number(path, "std_reward", content),
        random_returns=_returns(path, "random_returns", content),
        expert_returns=_returns(path, "expert_returns", content),
        **{key: metadata[key] for key in METADATA if key in metadata},
    )


def trajectories(path: str, content: Mapping[str, Any], sha256: str) -> Trajectories:
    """Check ``content`` and make trajectories of it."""
    found, content = list(content), {key: content[key] for key in USED if content.get(key) is not None}
    wanted = NEEDED if {"rewards", "episode_lengths"} <= set(content) else (*NEEDED, *COMPUTABLE)
    missing = [key for key in wanted if key not in content]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; found {', '.join(map(str, found)) or 'nothing'}. A demonstration file "
            f"holds at least {', '.join((*NEEDED, *COMPUTABLE))}; the last two are computed where rewards and "
            "episode_lengths are there."
        )
    observations, actions = (_array(path, key, content[key], "pairs", 2) for key in NEEDED)
    pairs = len(observations)
    if len(actions) != pairs:
        raise InputError(f"{path}: {pairs} observations but {len(actions)} actions; each observation needs its action.")
    rewards = _array(path, "rewards", content["rewards"], "pairs", 1) if "rewards" in content else None
    if rewards is not None and len(rewards) != pairs:
        raise InputError(f"{path}: {len(rewards)} rewards for {pairs} pairs; each pair needs its reward.")
    made = Trajectories(
        observations=observations,
        actions=actions,
        lengths=torch.tensor([pairs]),
        rewards=rewards,
        origin=replace(origin(path, content), sha256=sha256),
        knows_episodes=False,
    )
    if "episode_lengths" in content:
        made = replace(made, lengths=_lengths(path, content["episode_lengths"], pairs), knows_episodes=True)
    return replace(
        made,
        terminated=_terminated(path, content["terminated"], made) if "terminated" in content else None,
        final_observations=_final(path, content["final_observations"], made) if "final_observations" in content else None,
    )


def _tensor(path: str, key: str, value: Any, wanted: str) -> Tensor:
    """Any array as a tensor that needs no gradient."""
    try:
        if isinstance(value, np.ndarray):                           # byte orders and strides that torch does not know
            value = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="), copy=False)).reshape(value.shape)
        return torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {key} is a {type(value).__name__}, wanted {wanted}.") from error


def _array(path: str, key: str, value: Any, rows: str, ndim: int) -> Tensor:
    """A finite array as float32."""
    dimension = "observation_dim" if key.endswith("observations") else "action_dim"
    shape_wanted = f"({rows},)" if ndim == 1 else f"({rows}, {dimension})"
    tensor = _tensor(path, key, value, f"an array of shape {shape_wanted}")
    if not tensor.is_floating_point():
        raise InputError(f"{path}: {key} has type {tensor.dtype}, wanted floating point (float32).")
    if tensor.ndim != ndim:
        raise InputError(f"{path}: {key} has shape {tuple(tensor.shape)}, wanted {shape_wanted}.")
    if tensor.numel() == 0:
        raise InputError(f"{path}: {key} is empty, shape {tuple(tensor.shape)}. Collect at least one episode.")
    tensor = tensor.to(torch.float32)
    if not torch.isfinite(tensor.sum(dtype=torch.float64)):         # one pass without a mask of the array's size
        bad = (~torch.isfinite(tensor)).reshape(len(tensor), -1).any(dim=1).nonzero()[:, 0]
        row = tensor[bad[0]]
        name = "NaN" if torch.isnan(row).any() else "Inf"
        raise InputError(
            f"{path}: {key}[{bad[0].item()}] holds {name} (first of {len(bad)}). Remove these pairs, or collect again "
            "with python -m lightning_bc collect."
        )
    return tensor


def _lengths(path: str, value: Any, pairs: int) -> Tensor:
    found = _tensor(path, "episode_lengths", value, "an array of positive integers")
    is_whole = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    lengths = found.to(torch.int64) if is_whole else found          # torch can sum no uint32
    if not is_whole or lengths.ndim != 1 or lengths.sum() != pairs or lengths.min() < 1:
        raise InputError(
            f"{path}: episode_lengths must be positive integers that sum to the number of pairs, {pairs}; found "
            f"shape {tuple(found.shape)}, {found.dtype}, sum {lengths.sum().item()}."
        )
    return lengths


def _per_episode(path: str, key: str, found: Tensor, made: Trajectories) -> None:
    if not made.knows_episodes or len(found) != len(made.lengths):
        episodes = f"{len(made.lengths)} episode_lengths" if made.knows_episodes else "no episode_lengths"
        raise InputError(f"{path}: {len(found)} {key} for {episodes}; each episode needs one, or remove the key.")


def _terminated(path: str, value: Any, made: Trajectories) -> Tensor:
    found = _tensor(path, "terminated", value, "an array of yes or no, one per episode")
    if found.ndim != 1 or not ((found == 0) | (found == 1)).all():
        raise InputError(f"{path}: terminated must be yes or no for each episode; found shape {tuple(found.shape)}.")
    _per_episode(path, "terminated", found, made)
    return found.to(torch.bool)


def _final(path: str, value: Any, made: Trajectories) -> Tensor:
    final = _array(path, "final_observations", value, "episodes", 2)
    _per_episode(path, "final_observations", final, made)
    if final.shape[1] != made.observations.shape[1]:
        raise InputError(
            f"{path}: final_observations have {final.shape[1]} dimensions, observations {made.observations.shape[1]}; "
            "both need the same."
        )
    return final


def _number(path: str, key: str, content: Mapping[str, Any]) -> float | None:
    """One number, also as an array of one element."""
    value = content.get(key)
    if value is None:
        return None
    try:
        if isinstance(value, Tensor | np.ndarray):
            value = value.item()
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {key} is a {type(value).__name__}, wanted one number.") from error
    if not np.isfinite(number):
        raise InputError(f"{path}: {key} is {number}, wanted a finite number.")
    return number


def _returns(path: str, key: str, content: Mapping[str, Any]) -> tuple[float, ...]:
    if content.get(key) is None:
        return ()
    returns = _tensor(path, key, content[key], "an array of returns").to(torch.float64)
    if returns.ndim != 1 or returns.numel() == 0 or not returns.isfinite().all():
        raise InputError(
            f"{path}: {key} must be finite returns of shape (episodes,); found shape {tuple(returns.shape)}, mean "
            f"{returns.mean().item()}. Remove the key, or collect again with python -m lightning_bc collect."
        )
    return tuple(returns.tolist())
