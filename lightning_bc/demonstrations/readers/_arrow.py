"""Columns of Arrow tables as arrays (optional extra ``lerobot``: pyarrow), shared by the readers of such formats."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lightning_bc.demonstrations.readers import _checks
from lightning_bc.demonstrations.readers._names import known
from lightning_bc.errors import InputError, needs_extra
from lightning_bc.files import sha256


@contextmanager
def opened(path: str, file: Path) -> Iterator[Any]:
    """pyarrow, to read ``file`` with; what it raises is said in words that name ``path``.

    Raises:
        InputError: pyarrow is not installed, or the file is damaged.
    """
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise needs_extra(f"{path}: reading it", "lerobot") from error
    try:
        yield pyarrow
    except InputError:
        raise
    except Exception as error:
        raise _checks.unreadable(str(file), error) from error


def array_of(path: str, name: str, column: Any) -> np.ndarray:
    """A column of numbers, or of lists of them that are all equally long: (rows, ...).

    Raises:
        InputError: a value is missing, or lists differ in length.
    """
    import pyarrow

    array = column.combine_chunks() if isinstance(column, pyarrow.ChunkedArray) else column
    array = pyarrow.concat_arrays(array.chunks) if isinstance(array, pyarrow.ChunkedArray) else array
    shape = [len(array)]
    while True:
        array = array.storage if isinstance(array, pyarrow.ExtensionArray) else array
        if array.null_count:
            raise InputError(f"{path}: {name} lacks values, {array.null_count} of {len(array)}. Remove these rows.")
        if not is_list(array.type):
            return np.asarray(array.to_numpy(zero_copy_only=False)).reshape(shape)
        values = array.flatten()
        sizes = {len(values) // len(array)} if len(array) else {0}
        if not pyarrow.types.is_fixed_size_list(array.type):
            sizes = set(array.value_lengths().to_pylist()) or {0}
        if len(sizes) > 1:
            raise InputError(f"{path}: {name} holds lists of {min(sizes)} to {max(sizes)} values, wanted one length.")
        shape.append(sizes.pop())
        array = values


def episodes_of(path: str, table: Any) -> Any:
    """A table's content under its usual names, for ``_episodes``: rows are steps, or episodes where actions are matrices."""
    names = known(table.column_names)
    actions = table.column(names["actions"]).type if "actions" in names else None
    if actions is None or not is_list(actions) or not is_list(actions.value_type):
        arrays = {name: array_of(path, name, table.column(name)) for key, name in names.items() if key != "metadata"}
        return {**dict.fromkeys(table.column_names), **arrays}
    return [
        {name: _of_episode(f"{path}, episode {row}", name, table.column(name)[row]) for name in names.values()}
        for row in range(table.num_rows)
    ]


def sha256_of(files: Iterable[Path]) -> str:
    """The SHA-256 of several files' content."""
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()


def is_list(kind: Any) -> bool:
    """Whether values of that type are lists of any kind."""
    import pyarrow

    kind = kind.storage_type if isinstance(kind, pyarrow.BaseExtensionType) else kind
    types = pyarrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _of_episode(path: str, name: str, value: Any) -> Any:
    """One cell: an array of an episode's values, or one value."""
    if is_list(value.type) and value.is_valid:
        return array_of(path, name, value.values)
    return np.asarray(value.as_py())

