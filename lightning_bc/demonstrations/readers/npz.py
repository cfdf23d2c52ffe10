"""NumPy archives with the names of :mod:`lightning_bc.demonstrations.readers._checks`; metadata they have none."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightning_bc.demonstrations.readers import _checks
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.files import sha256

ANSWERS_TO = (".npz",)


def read(path: str) -> Trajectories:
    """Read and check everything."""
    return _checks.trajectories(path, _load(path, [key for key in _checks.USED if key != "metadata"]), sha256(path))


def peek(path: str) -> Origin:
    """Read what the file says about itself."""
    return _checks.origin(path, _load(path, (*_checks.COMPUTABLE, *_checks.REFERENCES)))


def _load(path: str, keys: Sequence[str]) -> Mapping[str, Any]:
    """Every name in the archive; only the arrays of ``keys`` are opened, None stands for the others."""
    file = _checks.existing(path)
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] if key in keys else None for key in archive.files}
    except Exception as error:
        raise _checks.unreadable(path, error) from error
