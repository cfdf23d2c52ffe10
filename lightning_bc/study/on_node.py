"""What a Ray task does on its node: one fit in a folder of its own, whose files go home whenever it has saved.

Imports no more than it needs, so that a worker is there at once.
"""

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired

import numpy as np
import ray

from lightning_bc.files import replacing, sha256
from lightning_bc.study.process import start

CACHE = Path(tempfile.gettempdir()) / f"lightning_bc-ray-{os.getuid()}"

Files = dict[str, bytes]
"""Contents by path, relative to the working folder."""

Brought = Mapping[str, tuple[str, "ray.ObjectRef[np.ndarray]"]]
"""Files that a fit reads, by path: their SHA-256, and their content as (bytes,) uint8 in Ray's store."""


def run(
    words: Sequence[str], brought: Brought, begun: Files, folders: Sequence[str], every: float
) -> Iterator[tuple[int | None, Files]]:
    """Run a fit.

    Args:
        words: what Python is told.
        begun: the files of the run, as far as it has come elsewhere.
        folders: those that the run writes, the one of its logs first.
        every: seconds between two looks at what it has saved.

    Yields:
        None and, where a checkpoint has been saved, what is new; at the end the exit status and what is new.
    """
    with tempfile.TemporaryDirectory(dir=_cache("runs"), ignore_cleanup_errors=True) as scratch:
        work = Path(scratch)
        for path, (digest, content) in brought.items():
            target = work / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(cached(digest, content))
        write_files(work, begun)
        sent = written(work, folders)
        child = start([sys.executable, *words], work / folders[0], folder=work)
        try:
            status = None
            while status is None:
                with suppress(TimeoutExpired):
                    status = child.wait(every)
                times = written(work, folders)
                new = [path for path in times if times[path] != sent.get(path)]
                if status is not None or any(path.endswith(".ckpt") for path in new):
                    sent = times
                    yield status, read_files(work, new)
        finally:
            child.kill()
            child.wait()


def cached(digest: str, content: "ray.ObjectRef[np.ndarray]") -> Path:
    """The file with this SHA-256 on this node, fetched if it is not there or damaged.

    Raises:
        OSError: what was fetched has another SHA-256, or cannot be written.
    """
    path = _cache("data") / digest
    if not path.exists() or sha256(path) != digest:
        with replacing(path) as file:
            ray.get(content).tofile(file)
        if sha256(path) != digest:
            path.unlink()
            raise OSError(f"a file of SHA-256 {digest} came to this node with another one")
    return path


def written(folder: Path, folders: Sequence[str]) -> dict[str, int]:
    """When each file in these folders of ``folder`` was written; those with a dot in front are not whole, and left out."""
    files = (path for name in folders for path in (folder / name).rglob("*") if path.name[0] != "." and path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


def read_files(folder: Path, paths: Iterable[str]) -> Files:
    """Contents; checkpoints are read first, so that the curve is not behind them."""
    return {path: (folder / path).read_bytes() for path in sorted(paths, key=lambda path: not path.endswith(".ckpt"))}


def write_files(folder: Path, files: Files) -> None:
    """Write files, each whole or not at all: checkpoints behind the curve that belongs to them, results last."""
    for path in sorted(files, key=lambda path: (path.endswith("results.json"), path.endswith(".ckpt"))):
        with replacing(folder / path) as file:
            file.write(files[path])


def _cache(name: str) -> Path:
    folder = CACHE / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
