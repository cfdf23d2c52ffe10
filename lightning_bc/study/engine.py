"""Runs fits: one process per fit, each with cores and devices of its own."""

import itertools
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from types import FrameType
from typing import Protocol

import torch

from lightning_bc.runs import folders
from lightning_bc.runs.plan import Fit
from lightning_bc.study.process import failure, start

Ended = Callable[[tuple[Fit, str | None]], None]
"""Takes a fit that has ended, and the last lines of what it printed if it failed."""


class Engine(Protocol):
    """Runs fits somewhere."""

    @property
    def slots(self) -> int:
        """How many fits run at the same time."""

    def start(self, fit: Fit, ended: Ended) -> None:
        """Run a fit, and then call ``ended``, from any thread; returns at once."""

    def stop(self) -> None:
        """End what still runs, and wait for it."""


class StoppedError(Exception):
    """SIGINT or SIGTERM came, by its number."""


def drive(engine: Engine, next_fit: Callable[[], Fit | None], ended: Ended) -> None:
    """Run fits until there is none left; each is asked for when there is room for it, so that it may depend on the others.

    Args:
        next_fit: the next fit to start; None where there is none before another one ends.
        ended: called with each fit that has ended.

    Raises:
        StoppedError: a signal came; the fits that were running have been ended by then, and go on from their checkpoints.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    done: SimpleQueue[tuple[Fit, str | None]] = SimpleQueue()
    running = 0
    try:
        while True:
            while running < engine.slots and (fit := next_fit()) is not None:
                engine.start(fit, done.put)
                running += 1
            if not running:
                return
            ended(done.get())
            running -= 1
    except BaseException:
        for number in before:
            signal.signal(number, signal.SIG_IGN)                   # while the fits save
        engine.stop()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Local:
    """This machine: the cores that this process may use are shared out among ``slots`` fits, and the GPUs in turn.

    Args:
        slots: fits at the same time.
        command: the command of a fit.
    """

    def __init__(self, slots: int, command: Callable[[Fit], list[str]] = lambda fit: fit.command()) -> None:
        self.slots, self.command = slots, command
        self._numbers, self._slot = itertools.count(), threading.local()
        self._threads = ThreadPoolExecutor(slots, initializer=self._take_slot)
        self._lock, self._children, self._stopping = threading.Lock(), set[subprocess.Popen[bytes]](), False

    def _take_slot(self) -> None:
        """Settle what the fits of this thread may use; they inherit the thread's cores."""
        number, environment = next(self._numbers), dict(os.environ)
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            own = cores[number % len(cores) :: self.slots]
            os.sched_setaffinity(0, own)
            environment["OMP_NUM_THREADS"] = str(len(own))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = list(map(str, range(torch.cuda.device_count()))) if visible is None else visible.split(",")
        if devices and self.slots > 1:
            environment["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        self._slot.environment = environment

    def start(self, fit: Fit, ended: Ended) -> None:
        """Run a fit in the next free thread."""
        self._threads.submit(lambda: ended((fit, self._run(fit))))

    def _run(self, fit: Fit) -> str | None:
        try:
            logs = folders.LOGS / fit.name
            with self._lock:
                if self._stopping:
                    return "stopped"
                child = start(self.command(fit), logs, self._slot.environment)
                self._children.add(child)
            status = child.wait()
            with self._lock:
                self._children.remove(child)
            return failure(status, logs)
        except OSError as error:                                    # a full disk, a lost folder: the rest goes on
            return str(error)

    def stop(self) -> None:
        """Ask the fits that run to end, as after SIGTERM, and wait for them."""
        with self._lock:
            self._stopping = True
            for child in self._children:
                child.terminate()
        self._threads.shutdown(cancel_futures=True)
