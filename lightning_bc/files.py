"""Files: written whole or not at all, never over what a user has, and known by their SHA-256."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch

from lightning_bc.aliases import StateDict
from lightning_bc.errors import InputError


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


def new_file(output: str | Path) -> Path:
    """``output`` as a path to write to: nothing lies there, and its folder has been made.

    Raises:
        InputError: the file exists, or its folder cannot be made.
    """
    path = Path(output)
    if path.exists():
        raise InputError(f"{path}: exists and is not overwritten. Move it away or choose another --output.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: its folder cannot be made ({error.strerror}). Choose another --output.") from error
    return path


def new_pt_file(path: str | Path) -> Path:
    """:func:`new_file` for demonstrations, which are read by the ending of their name.

    Raises:
        InputError: it exists, has another ending than .pt, or its folder cannot be made.
    """
    if Path(path).suffix != ".pt":
        raise InputError(f"{path}: wanted a file that ends in .pt.")
    return new_file(path)


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

    The temporary file lies beside its target, since a move between file systems would be a copy and could be torn, and
    is synced before the move.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:                                           # Ctrl-C too: no half file stays behind
        Path(temporary).unlink(missing_ok=True)
        raise


def write(path: str | Path, content: StateDict) -> None:
    """Save ``content`` with ``torch.save`` at ``path``, as :func:`replacing` does."""
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
