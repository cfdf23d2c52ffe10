"""What a Ray task does on its node: one fit in a folder of its own, whose files go home whenever it has saved.

Imports no more than it needs, so that a worker is there at once.
"""

import hashlib
import os
import secrets
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import ray

from lightning_bc.study.process import start

CACHE = Path(tempfile.gettempdir()) / f"lightning_bc-ray-{os.getuid()}"

Files = dict[str, bytes]
"""Contents by path, relative to the working folder."""

Brought = Mapping[str, tuple[str, "ray.ObjectRef[np.ndarray]"]]
"""Files that a fit reads, by path: their SHA-256, and their content as (bytes,) uint8 in Ray's store."""


def run(
    words: Sequence[str], brought: Brought, begun: Files, folders: Sequence[str], every: float, threads: int
) -> Iterator[tuple[int | None, Files]]:
    """Run a fit.

    Args:
        words: what Python is told.
        begun: the files of the run, as far as it has come elsewhere.
        folders: those that the run writes, the one of its logs first.
        every: seconds between two looks at what it has saved.
        threads: that it may use.

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
        sent = _times(work, folders)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        child = start([sys.executable, *words], work / folders[0], environment, cwd=work)
        waiting = threading.Thread(target=child.wait)               # Popen's own waiting with a limit looks every 0.05 s
        waiting.start()
        try:
            ended = False
            while not ended:
                waiting.join(every)
                ended = not waiting.is_alive()
                times = _times(work, folders)
                new = sorted(path for path in times if times[path] != sent.get(path))
                if ended or any(path.endswith(".ckpt") for path in new):
                    # in this order, so that the curve is not behind the checkpoint
                    files = {path: (work / path).read_bytes() for path in new}
                    sent = times
                    yield child.returncode if ended else None, files
        finally:
            child.kill()
            waiting.join()


def cached(digest: str, content: "ray.ObjectRef[np.ndarray]") -> Path:
    """The file with this SHA-256 on this node, fetched if it is not there or damaged.

    Raises:
        OSError: what was fetched has another SHA-256, or cannot be written.
    """
    path = _cache("data") / digest
    if path.exists() and sha256(path) == digest:
        return path
    partial = path.with_name(f".{digest}.{secrets.token_hex(4)}")
    ray.get(content).tofile(partial)
    if sha256(partial) != digest:
        partial.unlink()
        raise OSError(f"a file of SHA-256 {digest} came to this node with another one")
    partial.replace(path)
    return path


def write_files(folder: Path, files: Files) -> None:
    """Write files, each whole or not at all, results last."""
    for path in sorted(files, key=lambda path: path.endswith("results.json")):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.write_bytes(files[path])
        partial.replace(target)


def read_files(folder: Path, folders: Sequence[str]) -> Files:
    """The files in these folders of ``folder``; those that are being written have a dot in front, and are left out."""
    return {path: (folder / path).read_bytes() for path in sorted(_times(folder, folders))}


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _times(folder: Path, folders: Sequence[str]) -> dict[str, int]:
    """When each file was written."""
    files = (path for name in folders for path in (folder / name).rglob("*") if path.name[0] != "." and path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


def _cache(name: str) -> Path:
    folder = CACHE / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
