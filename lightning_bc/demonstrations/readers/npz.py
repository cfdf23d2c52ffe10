"""NumPy archives with the names of :mod:`lightning_bc.demonstrations.readers._names`; metadata they have none."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lightning_bc.demonstrations.readers import _checks, _episodes
from lightning_bc.demonstrations.readers._names import NAMES, known
from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.files import refuse_damaged, sha256

ANSWERS_TO = (".npz",)


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check everything."""
    refuse_damaged(_checks.existing(path))                          # also where an array's name is what is damaged
    return _episodes.trajectories(path, _load(path, NAMES), sha256(path), one_episode, keys)


def peek(path: str) -> Origin:
    """Read what the file says about itself."""
    return _checks.origin(path, _load(path, _checks.STATED))


def _load(path: str, keys: Iterable[str]) -> Mapping[str, Any]:
    """Every name in the archive; only the arrays of our ``keys`` are opened, None stands for the others."""
    file = _checks.existing(path)
    try:
        with np.load(file, allow_pickle=False) as archive:
            opened = {name for key, name in known(archive.files).items() if key in keys and key != "metadata"}
            return {name: archive[name] if name in opened else None for name in archive.files}
    except Exception as error:
        raise _checks.unreadable(path, error) from error
