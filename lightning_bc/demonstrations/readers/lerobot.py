"""LeRobot's datasets, and Parquet files of steps or episodes (optional extra ``lerobot``, which is pyarrow).

    meta/info.json, data/chunk-000/episode_000000.parquet    version 2: a file per episode
    meta/info.json, data/chunk-000/file-000.parquet          version 3: many episodes per file

    https://github.com/huggingface/lerobot, lerobot/datasets. Columns: ``observation.KEY`` or ``observation``, ``action``,
    ``episode_index``, ``frame_index``, and where they are there ``next.reward`` and ``next.success``, which tells episodes
    that terminated.

Videos and images are not read: see ``_observations`` for which of several observations are. ``next.done`` marks the last
step of each episode, which ``episode_index`` says already. A Parquet file with other names is read by the usual ones.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_only

from lightning_bc.aliases import Columns
from lightning_bc.demonstrations.readers import _arrow, _checks, _episodes
from lightning_bc.demonstrations.readers._names import NAMES
from lightning_bc.demonstrations.readers._observations import ANY, Entry, ObservationKeys
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError
from lightning_bc.texts import json_of

ANSWERS_TO = (".parquet", "/meta/info.json")

_PREFIX = "observation."
_ALONE = "observation"
_WITHOUT_KEYS = {_ALONE, "action", "episode_index", "frame_index"}
_OTHERS = {"action", "episode_index", "frame_index", "next.reward", "next.success"}
_USUAL = {name for alike in NAMES.values() for name in alike}


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check everything."""
    files = _files(path)
    with _arrow.opened(path, files[0]) as pyarrow:
        schema = pyarrow.parquet.read_schema(files[0])
        entries = {name: _entry(schema.field(name).type) for name in schema.names if name.startswith(_PREFIX)}
        if not entries and set(schema.names) & (_USUAL | _WITHOUT_KEYS) == _WITHOUT_KEYS:  # LeRobot has no other usual names
            entries = {_ALONE: _entry(schema.field(_ALONE).type)}
        is_lerobot = bool(entries)
        if is_lerobot:
            keys = ObservationKeys(keys.among(path, entries))
        wanted = {*keys.chosen, *_OTHERS} if is_lerobot else _USUAL
    tables = []
    for file in files:
        with _arrow.opened(path, file) as pyarrow:
            found = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
            tables.append(found.read([name for name in found.schema_arrow.names if name in wanted]))
            tables[-1].validate(full=True)
    with _arrow.opened(path, files[0]) as pyarrow:
        content = _steps(path, tables) if is_lerobot else _arrow.episodes_of(path, pyarrow.concat_tables(tables))
    _warn_of_missing(path, sum(table.num_rows for table in tables))
    return _episodes.trajectories(path, content, _arrow.sha256_of(files), one_episode, keys)


@rank_zero_only
def _warn_of_missing(path: str, rows: int) -> None:
    """Say where a dataset's files hold fewer frames than it says."""
    stated = json_of(Path(path) / "meta" / "info.json").get("total_frames", rows) if Path(path).is_dir() else rows
    if stated != rows:
        warnings.warn(
            f"{path}: its files hold {rows:,} frames, and meta/info.json says {stated:,}. Episodes are missing or too many: "
            "download it whole, if all of them are meant.",
            stacklevel=2,
        )


def peek(path: str) -> Origin:
    """Read what the files say about themselves, which is nothing of interest here."""
    files = _files(path)
    with _arrow.opened(path, files[0]) as pyarrow:
        pyarrow.parquet.read_schema(files[0])
    return Origin(path)


def _files(path: str) -> list[Path]:
    """The files of steps, in their order."""
    if not Path(path).is_dir():
        return [_checks.existing(path)]
    info, files = Path(path) / "meta" / "info.json", sorted((Path(path) / "data").rglob("*.parquet"))
    try:
        version = str(json_of(info)["codebase_version"])
    except (ValueError, TypeError, KeyError) as error:
        raise _checks.unreadable(str(info), error) from error
    if not files:
        raise InputError(f"{path}: is a LeRobot dataset ({version}) without files data/*/*.parquet. Download it whole.")
    return files


def _entry(kind: Any) -> Entry:
    """What a column's type says of it, as far as that tells numbers from the rest: sizes may be known from values alone."""
    shape = []
    while _arrow.is_list(kind):
        kind = getattr(kind, "storage_type", kind)
        shape.append(getattr(kind, "list_size", -1))
        kind = kind.value_type
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return Entry(tuple(shape), "image" if str(kind).startswith("struct") else names.get(str(kind), str(kind)))


def _steps(path: str, tables: Sequence[Any]) -> Columns:
    """LeRobot's columns under the usual names, sorted by episode and frame.

    Raises:
        InputError: the files have different columns, or an episode lacks frames or has them twice.
    """
    names = tables[0].column_names
    for table in tables:
        if table.column_names != names:
            raise InputError(f"{path}: its files have the columns {names} and {table.column_names}; all need the same.")
    columns = {name: np.concatenate([_arrow.array_of(path, name, table.column(name)) for table in tables]) for name in names}
    episodes, frames = (columns.pop(name, None) for name in ("episode_index", "frame_index"))
    observations = {name: columns.pop(name) for name in names if name.startswith(_PREFIX) or name == _ALONE}
    content: Columns = {"observations": observations, "actions": columns.get("action")}
    content["rewards"], success = columns.get("next.reward"), columns.get("next.success")
    if episodes is None or frames is None or not len(episodes):
        return {key: value for key, value in (content | {"episode_ids": episodes}).items() if value is not None}
    for name, column in (("episode_index", episodes), ("frame_index", frames)):
        if column.size != len(column) or column.dtype.kind not in "iu":
            raise InputError(f"{path}: {name} has shape {column.shape}, {column.dtype}; wanted one whole number per step.")
    episodes, frames = episodes.reshape(-1), frames.reshape(-1)
    order = np.lexsort((frames, episodes))
    episodes, frames = episodes[order], frames[order]
    same = episodes[1:] == episodes[:-1]
    torn = np.flatnonzero(same & (frames[1:] != frames[:-1] + 1))
    if len(torn):
        raise InputError(
            f"{path}: episode {episodes[torn[0]]} goes from frame {frames[torn[0]]} to {frames[torn[0] + 1]}. Each needs "
            "all of its frames once: download it whole, or keep one dataset per folder."
        )
    last = np.flatnonzero(np.append(~same, True))
    content = {key: _sorted(value, order) for key, value in content.items() if value is not None}
    content["episode_lengths"] = np.diff(last, prepend=-1)
    return content if success is None else content | {"terminated": np.asarray(success)[order][last]}


def _sorted(value: Any, order: np.ndarray) -> Any:
    return {key: column[order] for key, column in value.items()} if isinstance(value, dict) else value[order]
