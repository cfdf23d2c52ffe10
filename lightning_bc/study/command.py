"""``python -m lightning_bc study``: every fit of a file, side by side, and what is told of them on the way."""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import NoReturn

from lightning_bc.aliases import Config
from lightning_bc.arguments import leaves_method_open
from lightning_bc.errors import InputError, needs_extra
from lightning_bc.report.tables import show_duration
from lightning_bc.runs import folders, resume
from lightning_bc.runs.held_out import read_results
from lightning_bc.runs.plan import Fit, Study
from lightning_bc.runs.store import Line, measured, read_store
from lightning_bc.stopping import StoppedError
from lightning_bc.study.engine import Engine, Local, run_all
from lightning_bc.study.process import DIE_TOGETHER, end
from lightning_bc.study.settled import Settled

DESCRIPTION = """Run every fit that a file of studies/ asks for: rows x columns x seeds.

  python -m lightning_bc study studies/models.yaml --dry-run
  python -m lightning_bc study studies/models.yaml --jobs 2

What is done is not run again, and what was broken off goes on, so the same command goes on where it was stopped. The table
is made by  python -m lightning_bc report --study FILE. See docs/study.md."""


class Parser(argparse.ArgumentParser):
    """A command's flags; refuses in one line."""

    def __init__(self, command: str, description: str) -> None:
        shape = argparse.RawDescriptionHelpFormatter
        super().__init__(f"python -m lightning_bc {command}", None, description, formatter_class=shape, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise the message."""
        raise InputError(re.sub(r"^argument (\S+): ", r"\1 ", message))

    def add_engine(self) -> None:
        """Where fits run."""
        add = self.add_argument
        add("--jobs", type=at_least_1, help="fits at the same time; they share cores and GPUs; default: 1")
        add("--engine", choices=["local", "ray"], default="local", help="this machine, or a Ray cluster; see docs/study.md")
        add("--address", metavar="HOST:PORT", help="of Ray's head; default: this machine's cluster, or a new one")
        add("--cpus", type=float, help="of each fit on Ray; default: 1")
        add("--gpus", type=float, help="of each fit on Ray, also a part of one; default: 0")


def at_least_1(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted a whole number, at least 1.")
    return int(text)


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
        return Local(given.jobs or 1)
    try:
        from lightning_bc.study.ray_engine import Ray
    except ModuleNotFoundError as error:
        raise needs_extra("--engine ray", "ray", str(error.name)) from error
    return Ray(given.address, 1 if given.cpus is None else given.cpus, given.gpus or 0)


def study(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        The exit status: 0, 1 if a fit has failed, 128 + N after signal N.

    Raises:
        InputError: before the first fit, for what cannot be used.
    """
    parser = Parser("study", DESCRIPTION)
    parser.add_argument("study", help="a file, see studies/")
    parser.add_engine()
    parser.add_argument("--dry-run", action="store_true", help="print the fits and how long they may take")
    parser.add_argument("--only", metavar="K/N", help="the K-th of N equal parts, for job arrays; 0/N collects alone")
    given = parser.parse_args(args)
    plan = Study.read(given.study)
    with suppress(ModuleNotFoundError):                             # the table needs the extra report, the fits do not
        from lightning_bc.report.study import check_figures

        check_figures(plan)
    fits = plan.part(given.only)
    missing = [fit for fit in fits if not fit.is_done()]
    engine = make_engine(given)
    if given.dry_run:
        for fit in fits:
            print(f"{'missing' if fit in missing else 'done   '}  {fit.place}\n  {shlex.join(fit.arguments())}")
    left = estimate(missing, measured(plan.fits, read_store()), engine.slots)
    print(f"{len(fits)} fits, {len(missing)} missing{left}", flush=True)
    if given.dry_run:
        # where none is named, demonstrations that may not be there yet choose the method
        refuse((fit for fit in missing if not leaves_method_open(fit.flags)), reads=False)
        return 0
    again = f"this goes on where it stopped: python -m lightning_bc study {shlex.join(args)}"
    try:
        collect(plan.demonstrations)
        refuse_changed(fit for fit in fits if fit not in missing)
        refuse(missing)
        failed = run_all(engine, fits, len(fits))
    except StoppedError as stopped:
        print(f"\nstopped; {again}", file=sys.stderr)
        return 128 + stopped.number
    diverged = [fit for fit in fits if fit.is_done() and read_results(folders.results_path(fit.name)).diverged]
    for fit in diverged:
        print(f"diverged: {fit.place}: {folders.LOGS / fit.name}", file=sys.stderr)
    failed = [fit for fit in failed if not fit.is_done()]           # another process may have had it, and done it since
    for fit in failed:
        print(f"failed: {fit.place}: {shlex.join(fit.arguments())}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(fits)} fits failed; {again}", file=sys.stderr)
    return 1 if failed or diverged else 0


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
            process = subprocess.Popen([*DIE_TOGETHER, *command])
            try:
                status = process.wait()
            except StoppedError:
                end([process])                                      # and it leaves nothing behind
                raise
            if status:
                raise InputError(f"{file}: could not be collected, by {shlex.join(command[1:])}")


def refuse(fits: Iterable[Fit], reads: bool = True) -> list[Config]:
    """Refuse, before the first fit, what ``fit`` would refuse, and bring demonstrations that it would collect itself.

    Args:
        reads: whether demonstrations are brought, and checked too.

    Returns:
        The different configurations.

    Raises:
        InputError: naming the place in the study.
    """
    configs: dict[tuple[str, ...], Config] = {}
    data = set[str]()
    for fit in fits:
        try:
            if fit.flags not in configs:
                settled = Settled(fit.flags)
                configs[fit.flags] = settled.saved_config
                if reads and (path := str(settled.saved_config["data"]["path"])) not in data:
                    settled.prepare_data()
                    data.add(path)
        except InputError as error:
            raise InputError(f"{fit.place}: {error}") from error
    return list(configs.values())


def refuse_changed(done: Iterable[Fit]) -> None:
    """Refuse fits that were run under another configuration than their flags mean now, or on other demonstrations.

    Raises:
        InputError: naming the place in the study, and what differs.
    """
    for fit, different in changed(done):
        raise InputError(
            f"{fit.place}: its run {fit.name} was made under another configuration, before and now: {different}. Put that "
            f"back, or remove {folders.LOGS / fit.name} and {folders.last_checkpoint(fit.name).parent}, and it is run again."
        )


def changed(done: Iterable[Fit]) -> Iterator[tuple[Fit, str]]:
    """Fits that were run under another configuration, since a file in configs/ or of demonstrations was changed: and how."""
    configs: dict[tuple[str, ...], Config | None] = {}
    digests: dict[str, str | None] = {}
    for fit in done:
        if not folders.config_path(fit.name).is_file():
            continue
        if fit.flags not in configs:
            try:
                configs[fit.flags] = Settled(fit.flags).saved_config
            except InputError:                                      # its demonstrations may be gone
                configs[fit.flags] = None
        before, now = folders.read_config(fit.name), configs[fit.flags]
        if before is None or now is None:
            continue
        data, path = read_results(folders.results_path(fit.name)).data, now["data"]["path"]
        found = resume.differences(before, {**now, "seed_everything": fit.seed}, None if data is None else data.sha256)
        known = folders.flatten(before)                             # a setting that was not there then is as it was
        different = {key: values for key, values in found.items() if key in known}
        if data is not None:
            if str(path) not in digests:
                digests[str(path)] = resume.sha256_of_files(path)
            if (digest := digests[str(path)]) not in (None, data.sha256):
                different[resume.PATH] = (f"SHA-256 {data.sha256[:12]} of {data.path}", f"{str(digest)[:12]} of {path}")
        if different:
            yield fit, folders.in_words(different)
