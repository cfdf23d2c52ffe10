"""Read, check and write demonstration files.

A file is a dictionary saved with ``torch.save``, or an ``.npz`` with the same names. Four keys are needed:

    observations   (pairs, observation_dim) floating point
    actions        (pairs, action_dim) floating point, in the environment's units
    mean_reward    mean return of the demonstrator's episodes
    std_reward     their standard deviation

and these are used where present, as ``collect`` writes them:

    rewards          (pairs,)
    episode_lengths  (episodes,) integers that sum to pairs
    random_returns   (100,) returns of uniformly random actions on the test bank
    expert_returns   (100,) returns of the expert's mean action on the test bank
    metadata         environment_id, expert, expert_sha256, seed, kind of actions, versions

``minari:DATASET_ID`` names a local Minari dataset where a path is expected (optional extra ``minari``).
"""

import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as _multiarray
import torch
from torch import Tensor

from lightning_bc.errors import InputError
from lightning_bc.files import sha256

REQUIRED_KEYS = ("observations", "actions", "mean_reward", "std_reward")
MINARI_PREFIX = "minari:"

# What a pickled NumPy array or scalar needs to be rebuilt: data, no code.
_NUMPY_GLOBALS: list[Any] = [
    np.ndarray,
    np.dtype,
    _multiarray._reconstruct,
    _multiarray.scalar,
    *{type(np.dtype(code)) for code in np.typecodes["All"]},
    (_multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),  # files written with NumPy 1
    (_multiarray.scalar, "numpy.core.multiarray.scalar"),
]


@dataclass(frozen=True)
class DemonstrationFile:
    """The checked contents of a demonstration file.

    Attributes:
        path: where it came from, for messages.
        observations: (pairs, observation_dim) float32.
        actions: (pairs, action_dim) float32.
        mean_reward: mean return of the demonstrator.
        std_reward: standard deviation of its returns.
        rewards: (pairs,) float32, or None.
        episode_lengths: (episodes,) int64, or None.
        random_returns: returns of random actions on the test bank, or None.
        expert_returns: returns of the expert's mean action on the test bank, or None.
        metadata: what ``collect`` noted; empty for a file of four keys.
        sha256: of the file; of a Minari dataset, of its observations and actions.
    """

    path: str
    observations: Tensor
    actions: Tensor
    mean_reward: float
    std_reward: float
    rewards: Tensor | None = None
    episode_lengths: Tensor | None = None
    random_returns: Tensor | None = None
    expert_returns: Tensor | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""


def read(path: str | Path) -> DemonstrationFile:
    """Read and check a demonstration file, an ``.npz``, or ``minari:DATASET_ID``.

    Raises:
        InputError: if it is missing, truncated, holds pickled objects, lacks a key, or if an array has the wrong shape,
            rank, type or length, or is empty or not finite. The message names the file, the field and the way out.
    """
    path = str(path)
    if path.startswith(MINARI_PREFIX):
        content = _read_minari(path.removeprefix(MINARI_PREFIX))
        digest = hashlib.sha256(content["observations"].tobytes() + content["actions"].tobytes()).hexdigest()
        return _check(path, content, digest)
    return _check(path, _load(Path(path)), sha256(path))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a file that exists, without reading its arrays; empty where it has none.

    Raises:
        InputError: as :func:`read` does for a file that cannot be opened.
    """
    path = str(path)
    if path.startswith(MINARI_PREFIX):
        return {"environment_id": _minari_dataset(path.removeprefix(MINARI_PREFIX)).env_spec.id}
    if path.endswith(".npz"):
        return {}
    metadata = _load(Path(path), mmap=True).get("metadata", {})
    return metadata if isinstance(metadata, dict) else {}


def _load(path: Path, mmap: bool = False) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such demonstration file. Collect it with\n"
            f"    python -m lightning_bc collect --env ENVIRONMENT_ID --expert EXPERT.pt --output {path}\n"
            "or name another file with --data.path."
        )
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except Exception as error:
        is_refusal = "weights_only" in str(error).lower() or "allow_pickle" in str(error).lower()
        with path.open("rb") as file:
            is_pickle = file.read(2).startswith((b"\x80", b"PK"))     # any other file is refused in the same words
        if is_refusal and is_pickle:
            raise InputError(
                f"{path}: holds pickled Python objects, which could run code and are refused. Save plain tensors, arrays "
                "and numbers with torch.save, or an .npz."
            ) from error
        reason = ": ".join([type(error).__name__, *([] if is_refusal else str(error).splitlines()[:1])])
        raise InputError(
            f"{path}: cannot be read ({reason}). It may be truncated or not a "
            "demonstration file: copy it again or collect it anew with python -m lightning_bc collect."
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, wanted a dictionary with the keys {', '.join(REQUIRED_KEYS)}."
        )
    return content


def _check(path: str, content: dict[str, Any], digest: str) -> DemonstrationFile:
    missing = [key for key in REQUIRED_KEYS if key not in content]
    if missing:
        raise InputError(
            f"{path}: lacks {', '.join(missing)}; found {', '.join(map(str, content)) or 'nothing'}. "
            f"A demonstration file holds at least {', '.join(REQUIRED_KEYS)}."
        )
    arrays = {key: _array(path, key, content[key], ndim=2) for key in ("observations", "actions")}
    pairs = len(arrays["observations"])
    if len(arrays["actions"]) != pairs:
        raise InputError(
            f"{path}: {pairs} observations but {len(arrays['actions'])} actions; each observation needs its action."
        )
    rewards = content.get("rewards")
    if rewards is not None:
        rewards = _array(path, "rewards", rewards, ndim=1)
        if len(rewards) != pairs:
            raise InputError(f"{path}: {len(rewards)} rewards for {pairs} pairs; each pair needs its reward.")
    lengths = content.get("episode_lengths")
    if lengths is not None:
        try:
            lengths = torch.as_tensor(lengths)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{path}: episode_lengths is a {type(lengths).__name__}, wanted an array of positive integers."
            ) from error
        if lengths.ndim != 1 or lengths.is_floating_point() or lengths.sum() != pairs or lengths.min() < 1:
            raise InputError(
                f"{path}: episode_lengths must be positive integers that sum to the number of pairs, {pairs}; found "
                f"shape {tuple(lengths.shape)}, {lengths.dtype}, sum {lengths.sum().item()}."
            )
    metadata = content.get("metadata", {})
    return DemonstrationFile(
        path=path,
        **arrays,
        mean_reward=_number(path, "mean_reward", content["mean_reward"]),
        std_reward=_number(path, "std_reward", content["std_reward"]),
        rewards=rewards,
        episode_lengths=None if lengths is None else lengths.long(),
        random_returns=_optional_returns(path, "random_returns", content),
        expert_returns=_optional_returns(path, "expert_returns", content),
        metadata=metadata if isinstance(metadata, dict) else {},
        sha256=digest,
    )


def _array(path: str, key: str, value: Any, ndim: int) -> Tensor:
    """Check one array and return it as float32."""
    shape_wanted = {1: "(pairs,)", 2: f"(pairs, {key.removesuffix('s')}_dim)"}[ndim]
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {key} is a {type(value).__name__}, wanted an array of shape {shape_wanted}.") from error
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


def _number(path: str, key: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {key} is a {type(value).__name__}, wanted one number.") from error
    if not np.isfinite(number):
        raise InputError(f"{path}: {key} is {number}, wanted a finite number.")
    return number


def _optional_returns(path: str, key: str, content: dict[str, Any]) -> Tensor | None:
    if content.get(key) is None:
        return None
    try:
        returns = torch.as_tensor(content[key], dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {key} is a {type(content[key]).__name__}, wanted an array of returns.") from error
    if returns.ndim != 1 or returns.numel() == 0 or not returns.isfinite().all():
        raise InputError(
            f"{path}: {key} must be finite returns of shape (episodes,); found shape {tuple(returns.shape)}, mean "
            f"{returns.mean().item()}. Remove the key, or collect again with python -m lightning_bc collect."
        )
    return returns


def _minari_dataset(dataset_id: str) -> Any:
    try:
        import minari
    except ImportError as error:
        raise InputError(
            f"{MINARI_PREFIX}{dataset_id}: reading Minari datasets needs the optional extra: pip install -e '.[minari]'"
        ) from error
    try:
        return minari.load_dataset(dataset_id)
    except Exception as error:
        raise InputError(
            f"{MINARI_PREFIX}{dataset_id}: {error}. Local datasets: {', '.join(minari.list_local_datasets()) or 'none'}; "
            f"fetch one with  minari download {dataset_id}"
        ) from error


def _read_minari(dataset_id: str) -> dict[str, Any]:
    dataset = _minari_dataset(dataset_id)
    episodes = list(dataset.iterate_episodes())
    returns = np.array([episode.rewards.sum() for episode in episodes])
    return {
        # a Minari episode keeps one more observation than actions: the one after the last step
        "observations": np.concatenate([episode.observations[: len(episode.actions)] for episode in episodes]),
        "actions": np.concatenate([episode.actions for episode in episodes]),
        "rewards": np.concatenate([episode.rewards for episode in episodes]),
        "episode_lengths": np.array([len(episode.actions) for episode in episodes]),
        "mean_reward": returns.mean(),
        "std_reward": returns.std(),
        "metadata": {"environment_id": dataset.env_spec.id, "minari": dataset_id},
    }
