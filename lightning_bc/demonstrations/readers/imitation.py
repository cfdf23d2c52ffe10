"""Trajectories that imitation saves: a folder of HuggingFace datasets (optional extra ``lerobot``, which is pyarrow).

    dataset_info.json, state.json, data-00000-of-00001.arrow     https://imitation.readthedocs.io/en/latest/

One row per episode: ``obs`` with one row more than ``acts``, ``rews``, ``terminal``; ``infos`` are never looked at.
"""

from pathlib import Path

from lightning_bc.demonstrations.readers import _arrow, _checks, _episodes
from lightning_bc.demonstrations.readers._names import NAMES
from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError
from lightning_bc.texts import json_of

ANSWERS_TO = ("/dataset_info.json",)

_READ = {name for alike in NAMES.values() for name in alike}


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check everything."""
    files, parts = _files(path), []
    for file in files:
        with _arrow.opened(path, file) as pyarrow, pyarrow.memory_map(str(file)) as mapped:
            table = pyarrow.ipc.open_stream(mapped).read_all()
            table = table.select([name for name in table.column_names if name in _READ])
            table.validate(full=True)                               # offsets are the file's
            parts.append(table)
    with _arrow.opened(path, files[0]) as pyarrow:
        content = _arrow.episodes_of(path, pyarrow.concat_tables(parts))
    return _episodes.trajectories(path, content, _arrow.sha256_of(files), one_episode, keys)


def peek(path: str) -> Origin:
    """Read what the folder says about itself, which is nothing."""
    _files(path)
    return Origin(path)


def _files(path: str) -> list[Path]:
    """The folder's files of rows, in their order."""
    state = Path(path) / "state.json"
    try:
        names = [str(file["filename"]) for file in json_of(_checks.existing(str(state)))["_data_files"]]
    except (ValueError, TypeError, KeyError) as error:
        raise _checks.unreadable(str(state), error) from error
    if not names or any(Path(name).name != name for name in names):
        raise InputError(f"{state}: names the files {names}; wanted at least one, all of them in this folder.")
    return [_checks.existing(str(Path(path) / name)) for name in names]
