"""HDF5 files (optional extra ``hdf5``): flat as D4RL's, or with a group per episode as robomimic's.

    observations, actions, rewards, terminals, timeouts      https://github.com/Farama-Foundation/D4RL/wiki/Tasks
    data/demo_0/obs/KEY, data/demo_0/actions, ...            https://robomimic.github.io/docs/datasets/overview.html
    episode_0/observations, episode_0/actions, ...

Observations may be a group: see ``_observations``. The ``dones`` of an episode's group may mark successes in its midst: see
``_names``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning_bc.aliases import Columns
from lightning_bc.demonstrations.readers import _checks, _episodes
from lightning_bc.demonstrations.readers._names import NAMES, known
from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError, needs_extra
from lightning_bc.files import sha256

ANSWERS_TO = (".hdf5", ".h5")


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check everything."""
    with _opened(path) as file:
        episodes = _groups(file)
        content: Any = {name: _columns(group, NAMES) for name, group in episodes.items()}
        content = content or {**dict.fromkeys(file), **_columns(file, NAMES)}
        return _episodes.trajectories(path, content, sha256(path), one_episode, keys)


def peek(path: str) -> Origin:
    """Read what the file says about itself."""
    with _opened(path) as file:
        return _checks.origin(path, _columns(file, _checks.STATED))


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    file = _checks.existing(path)
    try:
        import h5py
    except ImportError as error:
        raise needs_extra(f"{path}: reading HDF5 files", "hdf5") from error
    try:
        with h5py.File(file) as opened:
            yield opened
    except InputError:
        raise
    except Exception as error:
        raise _checks.unreadable(path, error) from error


def _groups(file: Any) -> dict[str, Any]:
    """The groups with one episode each, by name; none where the file is flat."""
    parent = file.get("data", file)
    if not _is_group(parent) or "actions" in known(parent):
        return {}
    return {name: parent[name] for name in parent if _is_group(parent[name]) and "actions" in known(parent[name])}


def _columns(group: Any, keys: Any) -> Mapping[str, Any]:
    """The arrays of ``keys``, under the file's names; those in groups of observations are read where they are chosen."""
    found: Columns = {}
    for key, name in known(group).items():
        if key in keys and not _is_group(group[name]):
            found[name] = group[name][()]
        elif key in keys and key.endswith("observations"):
            found[name] = _entries(group[name])
    return found


def _entries(group: Any) -> Columns:
    """A group of observations, and groups in it, as dictionaries in the order of their names."""
    return {name: _entries(item) if _is_group(item) else item for name, item in sorted(group.items())}


def _is_group(item: Any) -> bool:
    return hasattr(item, "keys")
