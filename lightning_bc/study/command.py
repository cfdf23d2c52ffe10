"""``python -m lightning_bc study``: every fit of a file, side by side, and what is told of them on the way."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NoReturn

from lightning_bc.aliases import Config
from lightning_bc.errors import InputError
from lightning_bc.report.tables import show_duration
from lightning_bc.runs import folders
from lightning_bc.runs.plan import Fit, Study
from lightning_bc.runs.results import Results
from lightning_bc.runs.store import Line, measured, read_store
from lightning_bc.study.engine import Engine, Local, StoppedError, drive
from lightning_bc.study.settled import Settled, meaning

DESCRIPTION = """Run every fit that a file of studies/ asks for: rows x columns x seeds.

  python -m lightning_bc study studies/models.yaml --dry-run
  python -m lightning_bc study studies/models.yaml --jobs 2

What is done is not run again, and what was broken off goes on, so the same command goes on where it was stopped. The table
is made by  python -m lightning_bc report --study FILE. See docs/study.md."""


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the message."""
        raise InputError(message)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Where fits run."""
    add = parser.add_argument
    add("--jobs", type=int, default=None, help="fits at the same time; they share cores and GPUs; default: 1")
    add("--engine", choices=["local", "ray"], default="local", help="this machine, or a Ray cluster; see docs/study.md")
    add("--address", metavar="HOST:PORT", help="of Ray's head; default: this machine's cluster, or a new one")
    add("--cpus", type=float, help="of each fit on Ray; default: 1")
    add("--gpus", type=float, help="of each fit on Ray, also a part of one; default: 0")


def make_engine(given: argparse.Namespace) -> Engine:
    """The engine that the flags ask for.

    Raises:
        InputError: there is no such engine, or the flags are those of another one.
    """
    of_other = ("jobs",) if given.engine == "ray" else ("address", "cpus", "gpus")
    for name in of_other:
        if (value := getattr(given, name)) is not None:
            raise InputError(f"--{name} {value}: goes with another engine than --engine {given.engine}.")
    if given.engine == "local":
        jobs = 1 if given.jobs is None else given.jobs
        if jobs < 1:
            raise InputError(f"--jobs {jobs}: wanted at least 1.")
        return Local(jobs)
    try:
        from lightning_bc.study.ray_engine import Ray
    except ModuleNotFoundError as error:
        raise InputError(f"--engine ray needs an optional extra ({error}): pip install -e '.[ray]'") from error
    return Ray(given.address, 1 if given.cpus is None else given.cpus, given.gpus or 0)


def study(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        The exit status: 0, 1 if a fit has failed, 128 + N after signal N.

    Raises:
        InputError: before the first fit, for what cannot be used.
    """
    parser = Parser("python -m lightning_bc study", None, DESCRIPTION, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("study", help="a file, see studies/")
    add_engine(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the fits and how long they may take")
    parser.add_argument("--only", metavar="K/N", help="the K-th of N equal parts, for job arrays; 0/N collects alone")
    given = parser.parse_args(args)
    plan = Study.read(given.study)
    fits = plan.part(given.only)
    missing = [fit for fit in fits if not fit.is_done()]
    engine = make_engine(given)
    if given.dry_run:
        for fit in fits:
            print(f"{'missing' if fit in missing else 'done   '}  {fit.place}\n  {shlex.join(fit.arguments())}")
        left = estimate(missing, measured(plan.fits, read_store()), engine.slots)
        print(f"{len(fits)} fits, {len(missing)} missing{left}")
        return 0
    print(f"{len(fits)} fits, {len(missing)} missing", flush=True)
    again = f"this goes on where it stopped: python -m lightning_bc study {shlex.join(args)}"
    try:
        collect(plan.demonstrations)
        refuse(missing)
        failed = run_all(engine, one_by_one(fits), len(fits))
    except StoppedError as stopped:
        print(f"\nstopped; {again}", file=sys.stderr)
        return 128 + int(stopped.args[0])
    for fit in failed:
        print(f"failed: {fit.place}: {shlex.join(fit.arguments())}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(fits)} fits failed; {again}", file=sys.stderr)
    return 1 if failed else 0


def estimate(missing: Sequence[Fit], known: Mapping[str, Line], slots: int) -> str:
    """How long the missing fits may take in ``slots``, by those of the same flags that are known, else by all that are."""
    by_flags: dict[str, list[float]] = {}
    for line in known.values():
        by_flags.setdefault(str(line["flags"]), []).append(float(line["seconds"]))
    if not (missing and by_flags):
        return ""
    usual = [fmean(seconds) for seconds in by_flags.values()]
    total = sum(fmean(by_flags.get(" ".join(fit.flags), usual)) for fit in missing)
    return f", about {show_duration(total / slots)}, {slots} at the same time"


def collect(demonstrations: Mapping[str, Sequence[str]]) -> None:
    """Make the files that are not there.

    Raises:
        InputError: one cannot be made; ``collect`` has said why.
    """
    for file, flags in demonstrations.items():
        if not Path(file).exists():
            command = [sys.executable, "-m", "lightning_bc", "collect", *flags, "--output", file]
            if subprocess.run(command, check=False).returncode:
                raise InputError(f"{file}: could not be collected, by {shlex.join(command[1:])}")


def refuse(fits: Iterable[Fit]) -> list[Config]:
    """Refuse, before the first fit, what ``fit`` would refuse, and bring demonstrations that it would collect itself.

    Returns:
        The configuration of each fit.

    Raises:
        InputError: naming the place in the study.
    """
    configs, data = [], set()
    for fit in fits:
        try:
            configs.append(config := meaning(fit.flags))
            if (path := str(config["data"]["path"])) not in data:
                Settled("fit", list(fit.flags)).prepare_data()
                data.add(path)
        except InputError as error:
            raise InputError(f"{fit.place}: {error}") from error
    return configs


def run_all(
    engine: Engine, next_fit: Callable[[], Fit | None], total: int, told: Callable[[Fit, str | None], None] = lambda *_: None
) -> list[Fit]:
    """Run fits, those that are done aside, and print the progress.

    Args:
        next_fit: the next fit, asked for when there is room for it; None where there is none before another one ends.
        total: how many there are.
        told: is called with each fit that has ended, or was done before, and with its last lines if it has failed.

    Returns:
        Those that failed.
    """
    failed: list[Fit] = []
    counts, busy = Counter[str](), dict[str, float]()               # seconds of each fit
    started, cores_before = time.monotonic(), sum(os.times()[2:4])  # those of processes that have ended

    def next_missing() -> Fit | None:
        while (fit := next_fit()) is not None and fit.is_done():
            counts["before"] += 1
            told(fit, None)
        if fit is not None:
            busy[fit.name] = -time.monotonic()
        return fit

    def ended(outcome: tuple[Fit, str | None]) -> None:
        fit, error = outcome
        counts["now"] += 1
        busy[fit.name] += time.monotonic()
        if error is not None:
            failed.append(fit)
            print(f"failed: {fit.name} ({fit.place})\n{error}", file=sys.stderr, flush=True)
        told(fit, error)
        results = Results.read(folders.results_path(fit.name)) if fit.is_done() else None
        score = "" if results is None else "diverged" if results.diverged else f"score {results.score:.5g}"
        left = total - counts["before"] - counts["now"]
        words = [f"{fit.name} {score}; {total - left - len(failed)} of {total} done"]
        words += [f"{len(failed)} failed"] if failed else []
        if left:
            seconds = (time.monotonic() - started) / counts["now"] * left
            words += [f"{min(left, engine.slots)} running", f"about {show_duration(seconds)} left"]
        print(", ".join(words), flush=True)

    drive(engine, next_missing, ended)
    if counts["now"]:
        wall, used = time.monotonic() - started, sum(os.times()[2:4]) - cores_before
        words = f"{show_duration(wall)}; busy {sum(busy.values()) / (wall * engine.slots):.2f} of the time"
        words += f", on {used / wall:.2f} cores" if isinstance(engine, Local) else ""
        print(f"{words}, with {engine.slots} fits at a time", flush=True)
    return failed


def one_by_one(fits: Iterable[Fit]) -> Callable[[], Fit | None]:
    """Fits for :func:`run_all`, in their order."""
    return partial(next, iter(fits), None)
