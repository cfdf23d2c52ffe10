"""A folder with one file per episode, in any of the formats of files; their order is that of their names (2 before 10)."""

import hashlib
from dataclasses import replace
from pathlib import Path

from lightning_bc.demonstrations import readers
from lightning_bc.demonstrations.readers import _checks, _episodes
from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError

ANSWERS_TO = ("/",)


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check every file; one that does not say where episodes end is an episode."""
    parts = [readers.read(file, True, keys.chosen, keys.environment) for file in _files(path)]
    shared = ("environment_id", "expert", "actions", "observation_keys")
    stated = {key: {getattr(part.origin, key) for part in parts} for key in shared}
    for key, what in (("environment_id", "environment"), ("observation_keys", "kind of observations")):
        if len(stated[key]) > 1:
            raise InputError(
                f"{path}: holds episodes of {' and '.join(sorted(map(str, stated[key])))}. Keep those of one {what} in a "
                "folder."
            )
    digest = hashlib.sha256("".join(part.origin.sha256 for part in parts).encode()).hexdigest()
    same = {key: values.pop() for key, values in stated.items() if len(values) == 1}
    layout = f"{len(parts)} files, the first with {parts[0].origin.layout}"
    made = _episodes.together(parts, Origin(path, sha256=digest, note=parts[0].origin.note, layout=layout, **same))
    if made.rewards is not None or any(part.origin.mean_return is None for part in parts):
        return made
    total = sum(part.mean_return * len(part.lengths) for part in parts)
    return replace(made, origin=replace(made.origin, mean_return=total / len(made.lengths)))


def peek(path: str) -> Origin:
    """What the first file says about the environment."""
    first = readers.peek(_files(path)[0])
    return Origin(path, environment_id=first.environment_id)


def _files(path: str) -> list[Path]:
    """The files in the folder that a reader answers to."""
    endings = {ending for ending in readers.readers() if ending.startswith(".")}
    found = [file for file in Path(path).iterdir() if not file.name.startswith(".") and not file.is_dir()]
    files = [file for file in found if file.suffix.lower() in endings]
    if not files:
        raise InputError(
            f"{path}: is a folder without files of episodes. A folder holds one file per episode, with one of the endings "
            f"{', '.join(sorted(endings))}."
        )
    return sorted((_checks.existing(str(file)) for file in files), key=lambda file: _episodes.natural(file.name))
