"""HDF5 files (optional extra ``hdf5``): flat as D4RL's, or with a group per episode as robomimic's.

    observations, actions, rewards, terminals, timeouts      https://github.com/Farama-Foundation/D4RL/wiki/Tasks
    data/demo_0/obs/KEY, data/demo_0/actions, ...            https://robomimic.github.io/docs/datasets/overview.html
    episode_0/observations, episode_0/actions, ...

Where observations are a group, they are all its arrays of at most two dimensions side by side, in the order of their names;
images are left out. The ``dones`` of an episode's group may mark successes in its midst, and are not looked at.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from lightning_bc.demonstrations.readers import _checks, _episodes
from lightning_bc.demonstrations.readers._names import NAMES, known
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError
from lightning_bc.files import sha256

ANSWERS_TO = (".hdf5", ".h5")


def read(path: str, one_episode: bool = False) -> Trajectories:
    """Read and check everything."""
    with _opened(path) as file:
        episodes = _groups(file)
        keys = [key for key in NAMES if not (episodes and key == "dones")]
        content: Any = [_columns(group, keys) for group in episodes] or {**dict.fromkeys(file), **_columns(file, keys)}
        note = _note((episodes or [file])[0])
    made = _episodes.trajectories(path, content, sha256(path), one_episode)
    return replace(made, origin=replace(made.origin, note=note))


def peek(path: str) -> Origin:
    """Read what the file says about itself."""
    with _opened(path) as file:
        return replace(_checks.origin(path, _columns(file, _checks.STATED)), note=_note((_groups(file) or [file])[0]))


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    file = _checks.existing(path)
    try:
        import h5py
    except ImportError as error:
        raise InputError(f"{path}: reading HDF5 files needs the optional extra: pip install -e '.[hdf5]'") from error
    try:
        with h5py.File(file) as opened:
            yield opened
    except Exception as error:
        raise _checks.unreadable(path, error) from error


def _groups(file: Any) -> list[Any]:
    """The groups with one episode each, in their natural order; none where the file is flat."""
    parent = file.get("data", file)
    if not _is_group(parent) or "actions" in known(parent):
        return []
    groups = [parent[name] for name in sorted(parent, key=_episodes.natural) if _is_group(parent[name])]
    return [group for group in groups if "actions" in known(group)]


def _columns(group: Any, keys: Any) -> Mapping[str, Any]:
    """The arrays of ``keys``, under the file's names; nothing else is opened."""
    found = {}
    for key, name in known(group).items():
        if key in keys and not _is_group(group[name]):
            found[name] = group[name][()]
        elif key in keys and key in ("observations", "next_observations"):
            parts = [np.asarray(array[()]).reshape(len(array), -1) for array in _low_dimensional(group[name]).values()]
            if parts:
                found[name] = np.concatenate(parts, axis=1)
    return found


def _low_dimensional(group: Any) -> dict[str, Any]:
    """The arrays of numbers per step in a group of observations, by name."""
    arrays = {name: group[name] for name in sorted(group) if not _is_group(group[name])}
    return {name: array for name, array in arrays.items() if array.ndim in (1, 2) and array.dtype.kind in "fiub"}


def _note(group: Any) -> str:
    """Which arrays observations are made of, where they are a group."""
    name = known(group).get("observations")
    if name is None or not _is_group(group[name]):
        return ""
    used = [f"{key} ({array.shape[1] if array.ndim == 2 else 1})" for key, array in _low_dimensional(group[name]).items()]
    return f"observations are {', '.join(used)}, side by side in this order"


def _is_group(item: Any) -> bool:
    return hasattr(item, "keys")
