"""Runs fits side by side, and tells how far they are; here a process per fit, with cores and devices of its own."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Protocol

import torch

from lightning_bc.errors import InputError
from lightning_bc.report.tables import show_duration
from lightning_bc.runs import folders
from lightning_bc.runs.held_out import HeldOutResults, read_results
from lightning_bc.runs.plan import Fit
from lightning_bc.stopping import NUMBERS, StoppedError
from lightning_bc.study.process import end, failure, start

TASKSET = shutil.which("taskset")


class Engine(Protocol):
    """Runs fits somewhere."""

    @property
    def slots(self) -> int:
        """How many fits run at the same time."""

    def start(self, fit: Fit) -> Callable[[], str | None]:
        """Start a fit; what is returned waits for its end, in any thread, and returns its last lines if it failed."""

    def stop(self) -> None:
        """End what still runs."""


def run_all(
    engine: Engine,
    fits: Iterable[Fit | None],
    total: int,
    told: Callable[[Fit, str | None], None] = lambda *_: None,
) -> list[Fit]:
    """Run fits, those that are done aside, and print the progress.

    Args:
        fits: each is asked for when there is room for it, so that it may depend on the others; None where there is none
            before another one ends.
        total: how many there are.
        told: is called with each fit that has ended, or was done before, and with its last lines if it has failed.

    Returns:
        Those that failed.

    Raises:
        StoppedError: a signal came; the fits that were running go on from their checkpoints.
    """
    events: SimpleQueue[tuple[Fit, str | None] | int] = SimpleQueue()   # may be put to in a signal handler

    def follow(fit: Fit, wait: Callable[[], str | None]) -> None:
        try:
            events.put((fit, wait()))
        except Exception as error:                                  # whatever it is, this program must not wait for ever
            events.put((fit, f"{type(error).__name__}: {error}"))

    failed, running, ran, left, started, coming = list[Fit](), 0, 0, total, time.monotonic(), iter(fits)
    try:
        with _signals_to(events.put):
            while True:
                while running < engine.slots and (fit := next(coming, None)) is not None:
                    if fit.is_done():
                        left -= 1
                        told(fit, None)
                        continue
                    running += 1
                    try:
                        threading.Thread(target=follow, args=(fit, engine.start(fit)), daemon=True).start()
                    except (OSError, InputError) as error:          # a full disk, a lost file: the rest goes on
                        events.put((fit, str(error)))
                if not running:
                    break
                event = events.get()
                if isinstance(event, int):
                    raise StoppedError(event)
                fit, last_lines = event
                if fit.is_done():                                   # one that has diverged: it would do so again
                    last_lines = None
                elif last_lines is None:
                    last_lines = f"ended without {folders.results_path(fit.name)}, as --trainer.max_time has it."
                running, ran, left = running - 1, ran + 1, left - 1
                if last_lines is not None:
                    failed.append(fit)
                    print(f"failed: {fit.name} ({fit.place})\n{last_lines}", file=sys.stderr, flush=True)
                told(fit, last_lines)
                words = [f"{fit.name} {_score(fit)}; {total - left - len(failed)} of {total} done"]
                words += [f"{len(failed)} failed"] if failed else []
                if left:
                    seconds = (time.monotonic() - started) / ran * left
                    words += [f"{min(left, engine.slots)} running", f"about {show_duration(seconds)} left"]
                print(", ".join(words), flush=True)
    except BaseException:
        with suppress(KeyboardInterrupt):                           # of a second signal: the engine then waits no longer
            engine.stop()
        raise
    while not events.empty():
        if isinstance(event := events.get(), int):                  # a signal that came behind the last fit's end
            raise StoppedError(event)
    return failed


@contextmanager
def _signals_to(put: Callable[[int], None]) -> Iterator[None]:
    """Inside the block ``put`` is called with the number of each signal."""
    before = {number: signal.signal(number, lambda number, _: put(number)) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _score(fit: Fit) -> str:
    """How a fit has ended, in words."""
    if not fit.is_done():
        return ""
    results = read_results(folders.results_path(fit.name))
    if isinstance(results, HeldOutResults):
        return results.in_a_line()
    return "diverged" if results.diverged else f"score {results.score:.5g}"


class Local:
    """This machine: the cores that this process may use are shared out among ``slots`` fits, and the GPUs in turn.

    Args:
        slots: fits at the same time.
        command: the command of a fit.
    """

    def __init__(self, slots: int, command: Callable[[Fit], list[str]] = lambda fit: fit.command()) -> None:
        self.slots, self.command = slots, command
        self._children: dict[int, subprocess.Popen[bytes]] = {}      # by slot
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._devices = list(map(str, range(torch.cuda.device_count()))) if visible is None else visible.split(",")

    def start(self, fit: Fit) -> Callable[[], str | None]:
        """Start a fit in a free slot."""
        taken = {slot for slot, child in self._children.items() if child.returncode is None}
        slot = min({*range(self.slots)} - taken)
        command, environment, logs = self.command(fit), dict(os.environ), folders.LOGS / fit.name
        if TASKSET is not None:                                     # on Linux
            cores = sorted(os.sched_getaffinity(0))
            own = cores[slot % len(cores) :: self.slots]
            command = [TASKSET, "--cpu-list", ",".join(map(str, own)), *command]
            stated = environment.get("OMP_NUM_THREADS", "")         # which may leave cores to somebody else
            environment["OMP_NUM_THREADS"] = str(min(len(own), int(stated) if stated.isdecimal() else len(own)))
        if self._devices and self.slots > 1:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        child = self._children[slot] = start(command, logs, environment)
        return lambda: failure(child.wait(), logs)

    def stop(self) -> None:
        """End the fits that run, also one that does not answer; they go on from their checkpoints."""
        end(self._children.values())
