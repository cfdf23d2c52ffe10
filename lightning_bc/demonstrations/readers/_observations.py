"""Observations that a file keeps as several entries: which of them are put side by side, and in which order.

An entry is an array with one row per step under a key of its own: robomimic's ``obs/KEY``, a part of a Dict space, a column
of LeRobot. The order is said by the first of these that is there:

    --data.observation_keys               as the user names them
    the environment's Dict space          where every one of its keys is an entry; in the order in which it is flattened
    the file                              where its format states a space of its own, as Minari's does
    there is one entry                    images are none

Where none is, the file is refused, since any order fits the shapes and only one the environment. Observations that are one
array have no entries; the keys then name the order of the array's columns, of an environment whose space is a Dict.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_bc.aliases import Columns
from lightning_bc.demonstrations.readers._arrays import tensor_of
from lightning_bc.demonstrations.readers._names import known
from lightning_bc.errors import InputError

_DEEPEST = 8
"""Groups in groups; a dictionary in a pickle may hold itself."""

FLAG = "--data.observation_keys"


@dataclass(frozen=True)
class ObservationKeys:
    """Which entries are wanted.

    Attributes:
        chosen: by --data.observation_keys; empty where nothing is chosen.
        environment: of the environment's Dict space, in the order in which it is flattened; empty for any other space.
    """

    chosen: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()

    def among(self, path: str, entries: Mapping[str, "Entry"], stated: Sequence[str] = ()) -> tuple[str, ...]:
        """Those of ``entries`` that are put side by side, in this order; ``stated``: as the file's format says.

        Raises:
            InputError: a key is not there or holds no numbers per step, or nothing says which entries are meant.
        """
        if self.chosen:
            return tuple(_checked(path, key, entries, self.chosen) for key in self.chosen)
        numbers = [key for key, entry in entries.items() if entry.is_numbers]
        said = self.environment if self.environment and set(self.environment) <= set(entries) else tuple(stated)
        if said or len(numbers) == 1:
            return tuple(_checked(path, key, entries, said) for key in said or numbers)
        if not numbers:
            raise InputError(f"{path}: observations are {_listed(entries)}; none of them holds numbers per step.")
        raise InputError(
            f"{path}: observations are several arrays, {_listed(entries)}. Name those that the environment observes, in its "
            f"order, for example  {FLAG} {' '.join(numbers[:2])}"
        )

    def of_columns(self, path: str) -> tuple[str, ...]:
        """Those that name the columns of one array, of an environment whose space is a Dict.

        Raises:
            InputError: they are not that environment's keys.
        """
        if self.chosen and sorted(self.chosen) != sorted(self.environment):
            wanted = f"all of {', '.join(self.environment)}, in the order of its columns" if self.environment else ""
            raise InputError(
                f"{path}: observations are one array, and {FLAG} is {' '.join(self.chosen)}. "
                + (f"Name {wanted}, or leave the flag away." if wanted else "Leave the flag away.")
            )
        return self.chosen


ANY = ObservationKeys()
"""Whatever the file has, where that is clear."""


@dataclass(frozen=True)
class Entry:
    """What is known of an entry before it is read: the shape of one step's value, and the kind of its numbers."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def is_image(self) -> bool:
        """Whether it looks like pixels: said so, bytes in rows and columns, or three dimensions of anything."""
        return self.dtype == "image" or len(self.shape) > 2 or (self.dtype == "uint8" and len(self.shape) == 2)

    @property
    def is_numbers(self) -> bool:
        """Whether it can be a part of an observation."""
        return not self.is_image and self.dtype.startswith(("float", "bfloat", "int", "uint", "bool"))

    def __str__(self) -> str:
        """For messages."""
        shape = str(self.shape).replace("-1", "?")                   # of lists in a table
        return f"{'image ' if self.is_image and self.dtype != 'image' else ''}{shape} {self.dtype}"

    @classmethod
    def of(cls, array: Any) -> "Entry":
        """Of an array with one row per step, of NumPy, torch or h5py; of a list of rows."""
        if isinstance(array, list | tuple):
            array = np.asarray(array) if array else np.zeros(0)
        shape = getattr(array, "shape", ())
        dtype = getattr(array, "dtype", type(array).__name__)
        return cls(tuple(shape[1:]), str(dtype).removeprefix("torch.").lstrip("<>=|"))


def side_by_side(
    path: str, content: Mapping[Any, Any], keys: ObservationKeys
) -> tuple[Mapping[Any, Any], tuple[str, ...] | None, str]:
    """``content`` with observations as one array each, the keys that these are of, and a note for people.

    Raises:
        InputError: what :meth:`ObservationKeys.among` refuses, or entries are not of one length.
    """
    names = known(name for name, value in content.items() if value is not None)
    first = content[names["observations"]] if "observations" in names else None
    entries = _entries(first)
    if entries is None:
        return content, keys.of_columns(path) or None, ""
    used = keys.among(path, {key: _described(path, key, array) for key, array in entries.items()})
    made, sizes = dict(content), dict[str, int]()
    for name in (names[key] for key in ("observations", "next_observations", "final_observations") if key in names):
        parts = _entries(content[name])
        if parts is not None:
            columns = {key: _matrix(path, f"{name}/{key}", parts, key) for key in used}
            made[name] = _together(path, name, columns)
            sizes = sizes or {key: column.shape[1] for key, column in columns.items()}
    return made, used, note_of(sizes)


def rows_of(observations: Any) -> int:
    """How many observations there are, of one array or of the first entry; 0 of anything else."""
    entries = _entries(observations)
    first = observations if entries is None else next(iter(entries.values()), ())
    return len(first) if getattr(first, "ndim", 0) > 0 else 0


def note_of(sizes: Mapping[str, int]) -> str:
    """What the columns of observations are: keys and their sizes."""
    return f"observations are {', '.join(f'{key} ({size})' for key, size in sizes.items())}, side by side in this order"


def _entries(value: Any, depth: int = 0) -> Mapping[str, Any] | None:
    """Arrays by key, those of groups in groups as ``group/key``; None of anything that has no entries."""
    if depth > _DEEPEST:
        return None
    if isinstance(value, list | tuple) and value and all(isinstance(step, Mapping) for step in value):
        shared = [key for key in value[0] if all(key in step for step in value)]
        value = {key: [step[key] for step in value] for key in shared}     # one dictionary per step
    if not isinstance(value, Mapping):
        return None
    found: Columns = {}
    for key, entry in value.items():
        nested = _entries(entry, depth + 1)
        found |= {str(key): entry} if nested is None else {f"{key}/{name}": part for name, part in nested.items()}
    return found


def _described(path: str, key: str, array: Any) -> Entry:
    try:
        return Entry.of(array)
    except ValueError as error:                                     # rows of several lengths
        raise InputError(f"{path}: {key} has rows of several shapes, wanted one for all steps.") from error


def _checked(path: str, key: str, entries: Mapping[str, Entry], keys: Sequence[str]) -> str:
    if keys.count(key) > 1:
        raise InputError(f"{FLAG} {' '.join(keys)}: names {key} {keys.count(key)} times. Name each entry once.")
    if key not in entries:
        near = difflib.get_close_matches(key, entries, n=1, cutoff=0.3)
        nearest = f" The nearest name is {near[0]}." if near else ""
        raise InputError(f"{path}: has no observation {key}; found {_listed(entries)}.{nearest} Name others with {FLAG}.")
    if not entries[key].is_numbers:
        numbers = [name for name, entry in entries.items() if entry.is_numbers]
        others = f" Name others with {FLAG}: {', '.join(numbers)}." if numbers else ""
        found = "an image" if entries[key].is_image else "no numbers"
        raise InputError(f"{path}: {key} is {found}, {entries[key]}, and policies take rows of numbers.{others}")
    return key


def _listed(entries: Mapping[str, Entry]) -> str:
    return ", ".join(f"{key} {entry}" for key, entry in entries.items()) or "an empty group"


def _matrix(path: str, name: str, parts: Mapping[str, Any], key: str) -> Tensor:
    """One entry as (steps, size), numbers of any kind."""
    if key not in parts:
        raise InputError(f"{path}: lacks {name}; found {', '.join(parts) or 'nothing'}. All observations need it.")
    value, wanted = parts[key], "numbers with one row per step"
    found = tensor_of(path, name, value if isinstance(value, Tensor | list | tuple) else np.asarray(value), wanted)
    if found.ndim == 0 or found.is_complex():
        raise InputError(f"{path}: {name} has shape {tuple(found.shape)}, {found.dtype}; wanted {wanted}.")
    return found.flatten(1) if found.ndim > 1 else found.unsqueeze(1)


def _together(path: str, name: str, columns: Mapping[str, Tensor]) -> Tensor:
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: {name} have {lengths} rows; each step needs one of each.")
    if any(column.is_floating_point() for column in columns.values()):
        columns = {key: column if column.is_floating_point() else column.float() for key, column in columns.items()}
    return torch.cat(list(columns.values()), dim=1)
