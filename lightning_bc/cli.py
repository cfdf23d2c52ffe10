"""The command line: which commands there are, and what becomes of errors.

Torch, Lightning and Gymnasium take seconds to import, so a command brings its own modules only once it is called.
"""

import difflib
import gc
import importlib
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from lightning_bc import __version__
from lightning_bc.errors import InputError, NotImportedError, in_a_line, needs_extra
from lightning_bc.stopping import NUMBERS, STOPPING, StoppedError

DEBUG = "--debug"


Run = Callable[[str, list[str]], int | None]


@dataclass(frozen=True)
class Command:
    """What a command is for, and what imports the function that runs it: ``main(name, arguments)`` -> exit status."""

    words: str
    load: Callable[[], Run]
    example: str


def _train() -> Run:
    from lightning_bc.training import run

    return run


def _flags_of(
    module: str, function: str, positional: tuple[str, str] | None = None, extra: tuple[str, str] | None = None
) -> Callable[[], Run]:
    """Runs a function whose arguments are the command's flags.

    The ``positional`` one is given without a flag: its name, with + behind it where there may be several and ? where there
    may be none, and its help. ``extra`` is what needs an optional extra, and its name.
    """

    def load() -> Run:
        with _extra(*extra) if extra else nullcontext():
            command = getattr(importlib.import_module(module), function)
        from lightning_bc.arguments import Parser, with_lists

        def run(name: str, args: list[str]) -> None:
            parser = Parser(prog=f"python -m lightning_bc {name}", description=(command.__doc__ or "").split("\n")[0])
            if positional is not None:
                name_of_it, words = positional[0].rstrip("+?"), positional[1]
                nargs = positional[0][-1] if positional[0] != name_of_it else None
                parser.add_argument(name_of_it, type=str, nargs=nargs, help=words)
            skip: set[str | int] | None = None if positional is None else {name_of_it}
            parser.add_function_arguments(command, as_group=False, skip=skip)
            _knowing_own(partial(command, **parser.instantiate(parser.parse_args(with_lists(args))).as_dict()))

        return run

    return load


def _knowing_own(command: Callable[[], object], imported: frozenset[str] = frozenset()) -> None:
    """Call ``command``; where a checkpoint's class is not known, again once its run's own configuration has named it.

    Commands load policies before they do anything.
    """
    try:
        command()
    except NotImportedError as error:
        from lightning_bc.runs.own_classes import import_own

        if error.names <= imported or not import_own(error):
            raise
        _knowing_own(command, imported | error.names)


@contextmanager
def _extra(what: str, extra: str) -> Iterator[None]:
    """Inside the block a module of others that is missing is one of the optional ``extra``."""
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("lightning_bc"):
            raise
        raise needs_extra(what, extra, str(error.name)) from error


def _sweep() -> Run:
    with _extra("sweep", "sweep"):
        from lightning_bc.study.sweep import sweep
    return lambda name, args: sweep(args)


def _study() -> Run:
    from lightning_bc.study.command import study

    return lambda name, args: study(args)


COMMANDS = {
    "fit": Command(
        "train a strategy, draw its curve, score it on the test bank",
        _train,
        "fit --config configs/gmm.yaml",
    ),
    "validate": Command(
        "measure a checkpoint's loss on held-out episodes",
        _train,
        "validate --run RUN",
    ),
    "test": Command(
        "score a checkpoint on the test bank again",
        _train,
        "test --run RUN",
    ),
    "evaluate": Command(
        "play checkpoints and experts, and compare what they earn",
        _flags_of(
            "lightning_bc.tools.evaluate",
            "evaluate_files",
            ("policies+", "checkpoints, names of runs, experts, or folders of them, played in the order of their steps"),
        ),
        "evaluate checkpoints/RUN checkpoints/experts/HalfCheetah-v5.pt --env HalfCheetah-v5",
    ),
    "collect": Command(
        "play an expert and write demonstrations",
        _flags_of("lightning_bc.demonstrations.collect", "collect"),
        "collect --env HalfCheetah-v5 --expert checkpoints/experts/HalfCheetah-v5.pt",
    ),
    "inspect": Command(
        "print what a data file holds, and the command that learns from it",
        _flags_of("lightning_bc.tools.inspection", "inspect", ("file", "a file, a folder or minari:DATASET_ID")),
        "inspect mine.npz --env Hopper-v5",
    ),
    "convert": Command(
        "write data files of any format as one .pt file or folder of shards",
        _flags_of("lightning_bc.tools.conversion", "convert", ("files+", "files, folders or minari:DATASET_ID")),
        "convert mine.hdf5 --output data/mine.pt",
    ),
    "play": Command(
        "write a video of a checkpoint's episodes",
        _flags_of("lightning_bc.tools.video", "film", extra=("play", "video")),
        "play --ckpt_path RUN --output cheetah.mp4",
    ),
    "export": Command(
        "write a checkpoint as JSON, safetensors and ONNX, or as a CleanRL actor",
        _flags_of("lightning_bc.tools.export", "export"),
        "export --ckpt_path RUN --output policy --onnx true",
    ),
    "study": Command(
        "run every fit of a file: rows x columns x seeds",
        _study,
        "study studies/models.yaml --jobs 2",
    ),
    "sweep": Command(
        "search settings of fit, and score the best with fresh seeds",
        _sweep,
        "sweep --config configs/gmm.yaml --grid data.batch_size=500,1000,2000 --seeds 5",
    ),
    "report": Command(
        "draw curves, tables and a page from finished runs",
        _flags_of(
            "lightning_bc.report.report",
            "report",
            ("logs?", "folder of runs, usually lightning_logs"),
            extra=("report", "report"),
        ),
        "report lightning_logs --output docs/results",
    ),
}


def usage() -> str:
    """What ``--help`` prints."""
    return "\n".join(
        [
            "usage: python -m lightning_bc COMMAND [--OPTION VALUE ...]",
            "",
            "Clone an expert in continuous control.",
            "",
            "Commands; each has its own --help:",
            *(f"  {name:10}{command.words}" for name, command in COMMANDS.items()),
            "",
            "Examples; ready configurations lie in configs/:",
            *(f"  python -m lightning_bc {command.example}" for command in COMMANDS.values()),
            "",
            "  --version  print the version",
            "  --debug    with any command: print where errors and warnings come from, beside their line",
        ]
    )


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; errors that are meant for a person are printed alone, with --debug behind their traceback."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")              # NumPy's: policies that act are too small for more
    given = list(sys.argv[1:] if args is None else args)
    words = [word for word in given if word != DEBUG]
    if args is None and DEBUG not in given:
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
    try:
        with STOPPING.listening():
            _run(words, at_once=args is None)
    except KeyboardInterrupt as error:
        if args is None:                                            # this is the process: only its end is left
            gc.freeze()                                             # else Python looks through all objects once more
            for number in NUMBERS:
                signal.signal(number, signal.SIG_IGN)
        stopped = error if isinstance(error, StoppedError) else StoppedError(signal.SIGINT)
        if not stopped.is_told:
            _tell_stopped(words)
        sys.exit(128 + stopped.number)
    except Exception as error:
        line = in_a_line(error)
        if line is None:
            raise
        if DEBUG in given:
            traceback.print_exception(error)
        if isinstance(error, InputError) or _is_first():            # what training has come to all ranks tell
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)


def _show_warning(others: Callable[..., None], message: Warning | str, category: type[Warning], *rest: Any) -> None:
    """Print what is meant for a person without the line of code that it came from; ``others`` print other categories."""
    if category is UserWarning:
        print(f"warning: {message}", file=sys.stderr)
    else:
        others(message, category, *rest)


def _is_first() -> bool:
    """Whether this process is rank zero of those that train together, or alone."""
    return all(os.environ.get(variable, "0") == "0" for variable in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def _tell_stopped(words: Sequence[str]) -> None:
    if _is_first():
        command = f"python -m lightning_bc {shlex.join(words)}"
        way_on = f"It goes on, or begins again, with {command}"
        print(f"\nstopped; no file is half written. {way_on}", file=sys.stderr, flush=True)


@contextmanager
def _importing(end: Callable[[int], None]) -> Iterator[None]:
    """Modules are imported here: a signal calls ``end``; no garbage is looked for meanwhile, nor in them later on."""
    gc.disable()
    with STOPPING.ending(end):
        yield
    gc.freeze()
    gc.enable()


def _run(words: Sequence[str], at_once: bool) -> None:
    """Run a command with its arguments; ``at_once`` a signal ends the process while modules are imported.

    Raises:
        InputError: there is no such command, or it was given what cannot be used.
    """
    name, *rest = words or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name == "--version":
        print(f"lightning_bc {__version__}")
    elif name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        nearest = f" Nearest known: {near[0]}." if near else ""
        raise InputError(f"unknown command: {name}.{nearest} Commands: {', '.join(COMMANDS)}.")
    else:

        def end(number: int) -> None:
            _tell_stopped(words)
            os._exit(128 + number)

        with _importing(end) if at_once else nullcontext():
            run = COMMANDS[name].load()
        if status := run(name, rest):
            sys.exit(status)
