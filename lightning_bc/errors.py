"""The errors that are meant for a person."""

import difflib
import errno
import functools
import os
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class InputError(ValueError):
    """Something that the user gave cannot be used: a file, a flag, an environment.

    The message names it, the value found, the value wanted and the way out; the command line prints it alone, without a
    traceback.
    """


class NotImportedError(InputError):
    """A checkpoint is of a strategy or a network that nobody has imported.

    Args:
        message: for a person.
        run: the name of the checkpoint's run; None where it does not say.
        names: of the classes, of networks with their modules.
    """

    def __init__(self, message: str, run: object, names: Iterable[str]) -> None:
        super().__init__(message)
        self.run, self.names = run if isinstance(run, str) else None, frozenset(names)


class OtherVersionError(InputError):
    """A checkpoint lacks what this version keeps there; :func:`naming` puts its file in front."""


def takes_state(load: Callable[_Arguments, _Answer]) -> Callable[_Arguments, _Answer]:
    """Make of ``load``, which goes on from saved state, a function that refuses state of another version in one line.

    Raises:
        OtherVersionError: ``load`` does not find an entry.
    """

    @functools.wraps(load)
    def loading(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Answer:
        try:
            return load(*args, **kwargs)
        except KeyError as error:
            raise OtherVersionError(
                f"lacks {error.args[0]}, which {load.__qualname__.partition('.')[0]} goes on from: another version of "
                "lightning_bc has made this checkpoint. Go on with that version, or start a new run from its weights with "
                "--model.init_from."
            ) from error

    return loading


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Inside the block, what is wrong with the checkpoint ``source`` is said under that name."""
    try:
        yield
    except OtherVersionError as error:
        raise InputError(f"{source}: {error}") from error


class NotFiniteError(InputError):
    """A policy answers something that is no finite number."""


class ExitedError(RuntimeError):
    """A program of the user's, such as an environment, has called ``sys.exit`` in the midst of a command."""


class DivergedError(ArithmeticError):
    """Training has come to something that is no finite number.

    Args:
        step: the optimizer step.
        what: was not finite.
    """

    def __init__(self, step: int, what: str) -> None:
        super().__init__(f"diverged at optimizer step {step:,}: {what}.")
        self.step, self.what = step, what

    def __reduce__(self) -> tuple[type["DivergedError"], tuple[int, str]]:
        """Another process raises it too."""
        return type(self), (self.step, self.what)


_MAKE_ROOM = "What was there before is whole. Make room, and give the same command again."
_WRITABLE = "Give the command in a folder that can be written, or name another one."

WAYS_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _MAKE_ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _WRITABLE),
    errno.EISDIR: "Move that folder away, or name another file.",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "Raise the limit on open files (ulimit -n), or start fewer processes."),
}
"""Of errors of the operating system, by their number."""

LIBRARIES = {
    *("argparse", "gymnasium", "h5py", "jsonargparse", "lightning", "minari", "mujoco", "onnx", "onnxruntime", "optuna"),
    *("pyarrow", "ray", "safetensors", "torch", "wandb", "yaml", "zipfile"),
}
"""Whose errors are mostly of what they were given."""


def in_a_line(error: BaseException) -> str | None:
    """What a person reads of an error; None where it is a mistake of a program, of which the traceback is wanted.

    An error of the operating system counts also behind another one: torch's writer of checkpoints, for example, has one of
    its own when the disk is full.
    """
    if isinstance(error, InputError | DivergedError | ExitedError):
        return str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause is error or cause.errno in WAYS_OUT):
            path = cause.filename2 or cause.filename                # the second is where a file was to be moved
            where = "" if path is None else f"{path}: "
            is_full = cause.errno is None and str(cause).endswith("written")  # NumPy's: "120000 requested and 23520 written"
            number = errno.ENOSPC if is_full else cause.errno or 0
            words = os.strerror(number) if is_full else cause.strerror or str(cause) or type(cause).__name__
            return f"{where}{words}. {WAYS_OUT.get(number, 'With --debug it is shown where.')}"
        cause = cause.__cause__ or cause.__context__
    library = type(error).__module__.partition(".")[0]
    if library not in LIBRARIES:
        return None
    words = " ".join(str(error).split())[:400].rstrip(".")
    return f"{library}: {type(error).__name__}: {words}. With --debug it is shown where."


def raised_by(error: Exception | SystemExit) -> str:
    """What a program of the user's has raised, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    words = " ".join(str(error).split())[:400]
    words = f"called sys.exit({words})" if isinstance(error, SystemExit) else f"raised {type(error).__name__}: {words}"
    return f"{words} ({place.filename}, line {place.lineno})"


def refuse_unknown(source: str, keys: Collection[object], known: Collection[str]) -> None:
    """Refuse ``keys`` of the file ``source`` that are not ``known``.

    Raises:
        InputError: naming the first of them, and the nearest that is known, else all.
    """
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1) or [", ".join(known)]
            raise InputError(f"{source}: unknown: {key}. Nearest known: {near[0]}.")


def needs_extra(what: str, extra: str, missing: str = "") -> InputError:
    """What to raise where an optional extra is not installed; the remedy is one for wheels and checkouts alike.

    Args:
        what: the command, flag or file that needs it.
        extra: its name in setup.cfg.
        missing: the modules that were looked for, where several may be.
    """
    needed = f"{missing}, of " if missing else ""
    return InputError(f"{what} needs {needed}the optional extra {extra}: pip install 'lightning_bc[{extra}]'")
