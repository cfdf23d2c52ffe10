"""Files: written whole or not at all, never over what a user has, and known by their SHA-256."""

import hashlib
import os
import re
import shutil
import socket
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from lightning_bc.aliases import StateDict
from lightning_bc.errors import InputError
from lightning_bc.stopping import STOPPING

CHECKPOINTS = Path("checkpoints")
"""Where the checkpoints of runs lie, in a folder for each."""


def shipped(path: str | Path) -> Path:
    """``path`` where something lies there, else what comes with the package under the same name, if anything does.

    What comes with it, ``configs/`` and ``checkpoints/experts/``, lies beside the package in a checkout and within it
    once it is installed.
    """
    package = Path(__file__).parent
    for folder in (Path(), package.parent, package / "shipped"):
        if (folder / path).exists():
            return folder / path
    return Path(path)


def checkpoint_of_run(run: str | Path) -> Path | None:
    """The last checkpoint of the run that is meant by its name, or by a folder of it; None where there is none."""
    path = Path(run)
    folders = [CHECKPOINTS / path] if len(path.parts) == 1 else []
    if path.is_dir():                                               # either of the run's two
        folders = [path, path.absolute().parent.parent / CHECKPOINTS / path.name]
    return next((folder / "last.ckpt" for folder in folders if (folder / "last.ckpt").is_file()), None)


def new_file(output: str | Path, flag: str = "--output") -> Path:
    """``output``, which ``flag`` names, as a path to write to: nothing lies there, and its folder is there and takes files.

    Raises:
        InputError: the file exists, its folder cannot be made, or no file can be made in it.
    """
    path = Path(output)
    if path.exists():
        raise InputError(f"{path}: exists and is not overwritten. Move it away or choose another {flag}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: its folder cannot be made ({error.strerror}). Choose another {flag}.") from error
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        words = f"no file can be made in its folder ({error.strerror})"
        raise InputError(f"{path}: {words}. Choose another {flag}.") from error
    return path


def refuse_without_room(path: str | Path, size: int) -> None:
    """Raise InputError where the disk of ``path``, whose folder is there, has less than ``size`` bytes left."""
    free = shutil.disk_usage(Path(path).parent).free
    if free < size:
        raise InputError(
            f"{path}: takes about {size / 1e6:,.3g} MB, and {free / 1e6:,.3g} MB of space are left on its disk. Make room, "
            "or choose another --output."
        )


@contextmanager
def creating(path: str | Path) -> Iterator[Path]:
    """A folder that is at ``path``, where nothing lies, once the block has ended without an error."""
    path = Path(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary) / path.name                        # of the usual permissions, which the outer one has not
        folder.mkdir()
        yield folder
        folder.rename(path)


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that takes the place of ``path`` in one atomic move when the block ends without an error.

    The temporary file lies beside its target, since a move between file systems would be a copy and could be torn. It is
    synced before the move, and its folder after it. What a process that was killed has left beside the target goes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    with STOPPING.held_back():
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{_writer()}-", suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
            _sync(path.parent)
        except BaseException:                                       # no half file stays behind
            Path(temporary).unlink(missing_ok=True)
            raise


def _writer() -> str:
    """This process, in the name of a file that it is writing."""
    return "_".join(re.findall(r"\w+", socket.gethostname())) + f".{os.getpid()}"


def _sweep(path: Path) -> None:
    """Remove what processes of this machine that are no more have left beside ``path``."""
    host, own = _writer().rsplit(".", 1)
    for left in path.parent.glob(f".{path.name}.{host}.*-*.partial"):
        found = re.search(r"\.(\d+)-[^.]*\.partial$", left.name)
        if found and found[1] != own and not _is_alive(int(found[1])):
            left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _sync(folder: Path) -> None:
    """Make a move within ``folder`` last; where folders cannot be synced it does so by itself, later."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


@contextmanager
def owning(path: str | Path) -> Iterator[None]:
    """Be the one process that writes ``path``, a file or a folder, while the block runs; it ends with the process too.

    Raises:
        InputError: another one is, by its process id and machine.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = _beside(path, "lock"), _beside(path, "owner")
    try:
        with FileLock(lock, timeout=0):
            owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            try:
                yield
            finally:
                owner.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
    except Timeout as error:
        who = owner.read_text() if owner.is_file() else "another process"
        raise InputError(f"{path}: {who} is writing it. Wait until that has ended, or choose another name.") from error


def refuse_owned(path: str | Path) -> None:
    """Raise InputError where another process owns ``path``; nothing is made."""
    if _beside(Path(path), "lock").exists():
        with owning(path):
            pass


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f".{path.name}.{ending}")


def refuse_damaged(path: str | Path) -> None:
    """Look at the checksums of a zip archive, which ``torch.save`` writes and ``torch.load`` passes over.

    Raises:
        InputError: what lies in it is not what was written.
    """
    try:
        if not zipfile.is_zipfile(path):                            # this too raises, where disks are counted
            return
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:                                      # zipfile has many kinds
        raise InputError(f"{path}: is damaged ({error}). Take another copy of it, or make it again.") from error
    if damaged is not None:
        raise InputError(
            f"{path}: is damaged: {damaged} in it is not what was written, by its checksum. Take another copy of it, or "
            "make it again."
        )


def write(path: str | Path, content: StateDict) -> None:
    """Save ``content`` with ``torch.save`` at ``path``, as :func:`replacing` does."""
    import torch  # here alone: a task on a Ray node does without it

    with replacing(path) as file:
        torch.save(content, file)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` at ``path``, as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(text.encode())


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(digests: Sequence[str]) -> str:
    """One digest for files that are used together, from theirs in their order; that of a single file stays its own."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
