"""Pickled lists, dictionaries and arrays, as course homework and older tools keep them, read without running anything.

A pickle is a program. :class:`_DataUnpickler` knows only what rebuilds NumPy arrays and plain containers, imitation's
trajectories among them, and refuses all else by its name before it is imported. Layouts:
:mod:`lightning_bc.demonstrations.readers._episodes`.
"""

import collections
import io
import pickle
import re
from typing import Any

import numpy as np

from lightning_bc.demonstrations.readers import _checks, _episodes
from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError
from lightning_bc.files import sha256

ANSWERS_TO = (".pkl", ".pickle")


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check everything."""
    return _episodes.trajectories(path, _load(path), sha256(path), one_episode, keys)


def peek(path: str) -> Origin:
    """Read what the file says about itself; a pickle has no part that can be read alone."""
    return _episodes.origin(path, _load(path))


class _RefusedError(Exception):
    """What a pickle wants to build, and may not."""


class _DType:
    """A NumPy type as a pickle describes it, where it is a plain one.

    NumPy believes a pickle's description of a type that has fields or objects, and would take bytes of the file for
    pointers; so its own classes are never handed to a pickle.
    """

    def __init__(self, code: str, align: Any = False, copy: Any = False) -> None:
        if not re.fullmatch(r"[?biufcSUO]\d*", str(code)):
            raise _RefusedError(f"numpy.dtype {code}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that a pickle fills."""

    def __setstate__(self, state: Any) -> None:
        version, shape, described, is_fortran, data = state
        super().__setstate__((version, shape, described.dtype, is_fortran, data))


def _reconstruct(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """How protocols before 5 begin an array."""
    return _Array((0,), np.int8)


def _frombuffer(buffer: Any, described: _DType, shape: Any, order: Any, axes: Any = None) -> np.ndarray:
    """How protocol 5 writes an array."""
    flat = np.frombuffer(buffer, described.dtype)                   # refuses objects
    return flat.reshape(shape, order=order) if axes is None else flat.reshape(shape).transpose(axes)


def _scalar(described: _DType, data: Any) -> Any:
    """How one number is written."""
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, described.dtype)[0]


def _latin1(text: str, encoding: str) -> bytes:
    """How protocols before 3 write bytes; any other encoding would import a module that the file names."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding}, wanted latin1")
    return text.encode("latin1")


class _Fields(dict[str, Any]):
    """A dataclass of imitation, as the dictionary of its fields."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


_CONTAINERS = (bytes, bytearray, list, dict, tuple, set, frozenset, complex, slice, range)
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",                          # a name for _reconstruct, which asks for no other
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _latin1,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
}
for _name in ("Trajectory", "TrajectoryWithRew", "Transitions", "TransitionsWithRew"):
    _ALLOWED["imitation.data.types", _name] = _Fields
for _builtins in ("builtins", "__builtin__"):                       # Python 3, and protocols that Python 2 knows
    _ALLOWED |= {(_builtins, kind.__name__): kind for kind in _CONTAINERS}
for _numpy in ("numpy._core", "numpy.core"):                        # NumPy 2 and 1
    _ALLOWED |= {
        (f"{_numpy}.multiarray", "_reconstruct"): _reconstruct,
        (f"{_numpy}.multiarray", "scalar"): _scalar,
        (f"{_numpy}.numeric", "_frombuffer"): _frombuffer,
    }


class _DataUnpickler(pickle.Unpickler):
    """Rebuilds arrays and plain containers; nothing else is looked up, so that nothing is imported or called."""

    def find_class(self, module: str, name: str) -> Any:
        """What ``module.name`` stands for, where it is data."""
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f"{module}.{name}")
        return _ALLOWED[module, name]


def _load(path: str) -> Any:
    data = _checks.existing(path).read_bytes()
    try:
        return _DataUnpickler(io.BytesIO(data), encoding="latin1").load()
    except _RefusedError as refused:
        raise InputError(
            f"{path}: holds pickled Python objects ({refused}), which could run code and are refused; arrays, numbers and "
            "plain containers of them are read. In the program that made the file, save its arrays with numpy.savez."
        ) from refused
    except Exception as error:
        raise _checks.unreadable(path, error) from error
