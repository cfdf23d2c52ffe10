"""Dictionaries saved with ``torch.save``, with the names of :mod:`lightning_bc.demonstrations.readers._names`.

Lists of episodes too: see :mod:`lightning_bc.demonstrations.readers._episodes`.
"""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as _multiarray
import torch

from lightning_bc import files
from lightning_bc.demonstrations.readers import _checks, _episodes
from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys
from lightning_bc.demonstrations.trajectories import Origin, Trajectories

ANSWERS_TO = (".pt", ".pth")

# What a pickled NumPy array or scalar needs to be rebuilt: data, no code.
_NUMPY_GLOBALS: list[Any] = [
    np.ndarray,
    np.dtype,
    _multiarray._reconstruct,
    _multiarray.scalar,
    bytes,                                                          # of an array without elements
    *{type(np.dtype(code)) for code in np.typecodes["All"]},
    (_multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),  # files written with NumPy 1
    (_multiarray.scalar, "numpy.core.multiarray.scalar"),
]


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check everything."""
    return _episodes.trajectories(path, _load(path, mmap=False), files.sha256(path), one_episode, keys)


def peek(path: str) -> Origin:
    """Read what the file says about itself; its arrays are mapped and not read."""
    return _episodes.origin(path, _load(path, mmap=True))


def write(path: str | Path, made: Trajectories) -> None:
    """Write trajectories whole or not at all; the counterpart of :func:`read`."""
    files.write(path, _content(made))


def checked(path: str | Path, made: Trajectories) -> Trajectories:
    """The same as it is read once it is written at ``path``.

    Raises:
        InputError: it would be refused then.
    """
    return replace(_checks.trajectories(str(path), _content(made), sha256=""), origin=made.origin)


def _content(made: Trajectories) -> dict[str, Any]:
    """What a file holds of trajectories."""
    origin = made.origin
    stated = {key: getattr(origin, key) for key in _checks.METADATA}
    content = {
        "observations": made.observations,
        "actions": made.actions,
        "rewards": made.rewards,
        "episode_lengths": made.lengths if made.knows_episodes else None,
        "terminated": made.terminated,
        "final_observations": made.final_observations,
        "mean_reward": origin.mean_return,
        "std_reward": origin.std_return,
        "random_returns": torch.tensor(origin.random_returns, dtype=torch.float64) if origin.random_returns else None,
        "expert_returns": torch.tensor(origin.expert_returns, dtype=torch.float64) if origin.expert_returns else None,
        "metadata": {key: value for key, value in stated.items() if value is not None},
    }
    return {key: value for key, value in content.items() if value is not None}


def _load(path: str, mmap: bool) -> Any:
    file = _checks.existing(path)
    if not mmap:
        files.refuse_damaged(file)
    try:
        with torch.serialization.safe_globals(_NUMPY_GLOBALS):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(file))
    except Exception as error:
        raise _checks.unreadable(path, error) from error
    return content
