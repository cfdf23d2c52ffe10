"""The names that readers bring their formats to, and what is checked of each.

Two keys are needed:

    observations   (pairs, observation_dim) floating point
    actions        (pairs, action_dim) floating point, in the environment's units

These are used where present, as ``collect`` writes them:

    mean_reward         mean return of the demonstrator's episodes; computed where rewards and ends of episodes are known
    std_reward          their standard deviation
    rewards             (pairs,)
    episode_lengths     (episodes,) integers that sum to pairs
    terminated          (episodes,) whether each ended in a terminal state; needs episode_lengths
    final_observations  (episodes, observation_dim) after each last step; needs episode_lengths
    random_returns      (100,) returns of uniformly random actions on the test bank
    expert_returns      (100,) returns of the expert's mean action on the test bank
    metadata            environment_id, expert, expert_sha256, seed, kind of actions, max_episode_steps, versions,
                        observation_keys

Whatever converts to float32, int64 or bool without another meaning is read. What other tools call these, and how they say
where episodes end, is in :mod:`lightning_bc.demonstrations.readers._names`; further keys are never looked at.
"""

import difflib
import numbers
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_bc.demonstrations.readers._arrays import (
    column_of,
    flags_of,
    lengths_of,
    matrix_of,
    number_of,
    returns_of,
    rounded_away,
)
from lightning_bc.demonstrations.readers._names import arranged, layout_of
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError

NEEDED = ("observations", "actions")
STATED = ("mean_reward", "std_reward", "random_returns", "expert_returns", "metadata")
METADATA: dict[str, type] = {
    "environment_id": str,
    "expert": str,
    "expert_sha256": str,
    "seed": numbers.Integral,
    "actions": str,
    "max_episode_steps": numbers.Integral,
    "versions": dict,
    "observation_keys": tuple,
}
"""What ``collect`` and ``convert`` say of where the demonstrations come from, and of which type each is."""


def existing(path: str) -> Path:
    """``path``, where a file is.

    Raises:
        InputError: there is none.
    """
    if not Path(path).is_file():
        beside = [file.name for file in Path(path).absolute().parent.glob("*") if file.is_file()]
        near = difflib.get_close_matches(Path(path).name, beside, n=2, cutoff=0.7)
        nearest = f" Nearest there: {', '.join(near)}." if near else ""
        raise InputError(
            f"{path}: no such demonstration file.{nearest} Collect it with\n"
            f"    python -m lightning_bc collect --env ENVIRONMENT_ID --expert EXPERT.pt --output {shlex.quote(str(path))}\n"
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
    metadata = {} if not isinstance(given, dict) else {key: given[key] for key in METADATA if given.get(key) is not None}
    named = metadata.get("observation_keys")
    if isinstance(named, list | tuple) and all(isinstance(one, str) for one in named):
        metadata["observation_keys"] = tuple(named)
    for key, value in metadata.items():
        if not isinstance(value, METADATA[key]):
            raise InputError(
                f"{path}: metadata's {key} is {value!r}, wanted a value of type {METADATA[key].__name__}. "
                "Collect it anew, or remove the key."
            )
    return Origin(
        path,
        mean_return=number_of(path, "mean_reward", content),
        std_return=number_of(path, "std_reward", content),
        random_returns=returns_of(path, "random_returns", content),
        expert_returns=returns_of(path, "expert_returns", content),
        **metadata,
    )


def trajectories(
    path: str, content: Mapping[str, Any], sha256: str, one_episode: bool = False, is_apart: bool = False
) -> Trajectories:
    """Check flat arrays, under the names of any tool, and make trajectories of them.

    ``one_episode`` and ``is_apart``: see :func:`_names.arranged`.
    """
    found, layout = list(content), layout_of(content)
    content = arranged(path, content, one_episode, is_apart)
    missing = [key for key in NEEDED if key not in content]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; found {', '.join(map(str, found)) or 'nothing'}. A demonstration file "
            f"holds at least {' and '.join(NEEDED)}; other names for them are in docs/your-data.md."
        )
    observations, actions = (matrix_of(path, key, content[key], "pairs") for key in NEEDED)
    pairs = len(observations)
    if len(actions) != pairs:
        more = ""
        if pairs > len(actions) and "episode_lengths" in content:
            more = f" There may be one more after each of {len(content['episode_lengths'])} episodes."
        elif pairs > len(actions):
            more = " Where there is one more after each episode, give episode_lengths."
        raise InputError(
            f"{path}: {pairs} observations but {len(actions)} actions, of shapes {tuple(observations.shape)} and "
            f"{tuple(actions.shape)}; each observation needs its action, (pairs, dimensions).{more}"
        )
    rewards = column_of(path, "rewards", content["rewards"], "pairs") if "rewards" in content else None
    if rewards is not None and len(rewards) != pairs:
        raise InputError(f"{path}: {len(rewards)} rewards for {pairs} pairs; each pair needs its reward.")
    knows_episodes = "episode_lengths" in content
    made = Trajectories(
        observations=observations,
        actions=actions,
        lengths=lengths_of(path, content["episode_lengths"], pairs) if knows_episodes else torch.tensor([pairs]),
        rewards=rewards,
        origin=replace(
            origin(path, content),
            sha256=sha256,
            layout=f"arrays {layout}",
            rounded_away=rounded_away(content["observations"], observations),
        ),
        knows_episodes=knows_episodes,
    )
    return replace(
        made,
        terminated=_terminated(path, content["terminated"], made) if "terminated" in content else None,
        final_observations=_final(path, content["final_observations"], made) if "final_observations" in content else None,
    )


def _terminated(path: str, value: Any, made: Trajectories) -> Tensor:
    """Whether each episode terminated. Where ends are not known, all that can be said is that none did."""
    found = flags_of(path, "terminated", value, "episode")
    if not made.knows_episodes and not found.any():
        return torch.zeros(1, dtype=torch.bool)
    _per_episode(path, "terminated", len(found), made)
    return found


def _final(path: str, value: Any, made: Trajectories) -> Tensor:
    final = matrix_of(path, "final_observations", value, "episodes")
    if made.knows_episodes or len(final) > 1:
        _per_episode(path, "final_observations", len(final), made)
    if final.shape[1] != made.observations.shape[1]:
        raise InputError(
            f"{path}: final_observations have {final.shape[1]} dimensions, observations {made.observations.shape[1]}; "
            "both need the same."
        )
    return final


def _per_episode(path: str, key: str, found: int, made: Trajectories) -> None:
    if not made.knows_episodes or found != len(made.lengths):
        if not made.knows_episodes:
            raise InputError(
                f"{path}: {key} has {found} values for {len(made)} pairs, and nothing says where episodes end. Give "
                "episode_lengths, so that there is one per episode, or remove the key."
            )
        raise InputError(f"{path}: {found} {key} for {len(made.lengths)} episodes; each needs one, or remove the key.")
