"""Readers of demonstrations, one file per format: a module in this folder is enough to be found.

A reader has

    ANSWERS_TO                   the endings (".npz"; "/" of a folder, "/meta/info.json" of one that holds this file) or
                                 prefixes ("minari:") of the paths that it reads
    read(path) -> Trajectories   everything, checked
    peek(path) -> Origin         what the file says about itself, without its arrays and so without their SHA-256

and makes both with what all share: :mod:`lightning_bc.demonstrations.readers._names` knows the usual names and how they mark
ends of episodes, ``_episodes`` layouts with episodes apart, ``_observations`` which of several observations are meant,
``_checks`` what is needed and in which words it is refused, and ``_arrays`` which values convert.
"""

import functools
import importlib
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError


class Reader(Protocol):
    """What a module in this folder fulfils."""

    ANSWERS_TO: tuple[str, ...]

    def read(self, path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
        """Read and check everything.

        ``one_episode``: it is one, unless it says itself where episodes end; ``keys``: which observations are meant, where
        there are several.
        """

    def peek(self, path: str) -> Origin:
        """Read what the file says about itself."""


@functools.cache
def readers() -> dict[str, Reader]:
    """Every reader by the endings and prefixes that it answers to."""
    found: dict[str, Reader] = {}
    for info in pkgutil.iter_modules(__path__):
        if not info.name.startswith("_"):
            reader = cast(Reader, importlib.import_module(f"{__name__}.{info.name}"))
            found |= dict.fromkeys(reader.ANSWERS_TO, reader)
    return found


def read(
    path: str | Path,
    one_episode: bool = False,
    observation_keys: Sequence[str] = (),
    environment_keys: Sequence[str] = (),
) -> Trajectories:
    """Read and check demonstrations.

    Args:
        path: a file, a folder of files, or what a reader's prefix begins.
        one_episode: whether they are one episode, unless they say themselves where episodes end.
        observation_keys: where a file keeps several observations, those that are put side by side, in this order; where it
            keeps one array of an environment with dictionaries, the order of its columns.
        environment_keys: of the environment's Dict space, in its order, which is taken where nothing is chosen.

    Raises:
        InputError: no reader answers to the path, or what lies there is missing, truncated, holds pickled objects, lacks a
            key, or an array has the wrong shape, type or length, or is empty or not finite. The message names the file,
            the field and the way out.
    """
    keys = ObservationKeys(tuple(observation_keys), tuple(environment_keys))
    return _reader_of(str(path)).read(str(path), one_episode, keys)


def peek(path: str | Path) -> Origin:
    """What a file says about itself, without reading its arrays.

    Raises:
        InputError: as :func:`read` does for a file that cannot be opened.
    """
    return _reader_of(str(path)).peek(str(path))


def exists(path: str | Path) -> bool:
    """Whether there is something to peek into: a file or folder that is there, or a path with a reader's prefix."""
    return _prefix(str(path)) != "" or Path(path).exists()


def stem(path: str | Path) -> str:
    """What demonstrations are called in names of runs and tables: no folder, no ending, no prefix."""
    path = str(path)
    return Path(path.removeprefix(_prefix(path)).replace("\\", "/")).stem


def _prefix(path: str) -> str:
    return next((name for name in readers() if name.endswith(":") and path.startswith(name)), "")


def _ending(path: str) -> str:
    if not Path(path).is_dir():
        return Path(path).suffix.lower()
    holds = [name for name in readers() if name.startswith("/") and name != "/"]
    return next((name for name in holds if (Path(path) / name[1:]).is_file()), "/")


def _reader_of(path: str) -> Reader:
    reader = readers().get(_prefix(path) or _ending(path))
    if reader is None:
        folders = ", ".join(f"FOLDER{name}" for name in sorted(readers()) if name.startswith("/") and name != "/")
        files = ", ".join(f"*{name}" for name in sorted(readers()) if name.startswith("."))
        prefixes = ", ".join(f"{name}..." for name in sorted(readers()) if name.endswith(":"))
        raise InputError(
            f"{path}: is of no known kind of demonstrations. Known: {files}, FOLDER/ of such files, {folders}, {prefixes}. "
            "Convert it to one of them: see docs/your-data.md."
        )
    return reader
