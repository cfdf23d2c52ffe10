"""Several processes that train one policy, each on its share of every batch: what they have to do together.

A rank is one of them; rank zero plays and writes, and the others wait for what it found.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import subprocess_script
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lightning_bc.errors import DivergedError, ExitedError, InputError

_Answer = TypeVar("_Answer")

_SHARED = (InputError, DivergedError, ExitedError, SIGTERMException)
"""What the other ranks raise as rank zero does."""

LAUNCHER = "LIGHTNING_BC_LAUNCHER"
"""The variable that tells a rank which process has started it."""

LOOK_SECONDS = 0.5
PATIENCE = 5.0
"""Seconds for a rank whose neighbour has ended to come to that by itself."""


def by_srun(environment: Mapping[str, str]) -> bool:
    """Whether srun has started this process as one of several; ``environment`` holds its variables."""
    return environment.get("SLURM_NTASKS", "1") != "1" and "SLURM_STEP_ID" in environment


class Stop:
    """Whether this process was told to end by SIGTERM. All ranks have to end at the same step: see :meth:`together`."""

    is_wanted = False

    @contextmanager
    def listening(self, trainer: Trainer) -> Iterator[None]:
        """Inside the block take SIGTERM of several ranks, in place of Lightning's handler of it, and of the command's own.

        Lightning's sends to the other ranks from within the handler, between two halves of whatever the process is sending.
        """
        self.is_wanted = False
        if trainer.world_size == 1:
            yield
            return
        trainer._signal_connector._sigterm_notifier_fn = self._take  # type: ignore[method-assign]
        self._launcher = trainer.strategy.launcher
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def together(self, trainer: Trainer) -> None:
        """Let the Trainer of every rank stop after this step, if one of them was told to."""
        if trainer.world_size > 1:
            wanted = torch.tensor(float(self.is_wanted), device=trainer.strategy.root_device)
            if float(trainer.strategy.reduce(wanted, reduce_op="sum")) > 0:
                trainer._signal_connector.received_sigterm = True

    def _take(self, signum: int, _: Any) -> None:
        if not self.is_wanted and self._launcher is not None:
            self._launcher.kill(signum)                             # the processes that this one has started
        self.is_wanted = True


STOP = Stop()
"""Of this process."""


def on_rank_zero(trainer: Trainer, call: Callable[[], _Answer]) -> _Answer:
    """What ``call`` answers on rank zero, or raises there; the other ranks wait for it."""
    if trainer.world_size == 1:
        return call()
    answer: Any = None
    error: BaseException | None = None
    if trainer.is_global_zero:
        try:
            answer = call()
        except (Exception, SIGTERMException) as raised:
            error = raised
    shared = error if error is None or isinstance(error, _SHARED) else RuntimeError(f"rank zero: {error}")
    answer, shared = trainer.strategy.broadcast((answer, shared))
    if failure := error or shared:
        raise failure
    return answer


def weights_of_shares(trainer: Trainer, sizes: Sequence[int | Tensor]) -> list[float]:
    """What the mean over this rank's share of each batch has to be multiplied by.

    The mean over ranks of what was so weighted is the mean over the joint batch, however unequal the shares are.

    Args:
        trainer: of this rank.
        sizes: of this rank's shares, in what their means are over.
    """
    device = trainer.strategy.root_device
    own = torch.stack([torch.as_tensor(size, dtype=torch.float64, device=device) for size in sizes])
    joint: Tensor = trainer.strategy.reduce(own.clone(), reduce_op="sum")
    return (own * trainer.world_size / joint).tolist()


def mean_over_ranks(trainer: Trainer, values: Tensor) -> Tensor:
    """The mean of ``values`` over all ranks."""
    return trainer.strategy.reduce(values.clone(), reduce_op="mean")


def of_all_ranks(trainer: Trainer, own: _Answer) -> list[_Answer]:
    """What each rank has, by rank."""
    if trainer.world_size == 1:
        return [own]
    every: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(every, own)
    return every


def seed_of_rank(seed: int, rank: int) -> int:
    """Where the random numbers of a rank begin, so that two ranks do not draw the same noise."""
    return int(np.random.SeedSequence((seed, rank)).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def ending_together(trainer: Trainer, way_on: Callable[[], str]) -> Iterator[None]:
    """Inside the block no rank outlives another one that was killed or has failed alone, wherever it waits for it.

    What every rank raises, each raises too, and ends by itself. Ranks of other machines, and those that torchrun or srun has
    started, are known by the broken connection, and to torchrun and srun.

    Args:
        trainer: of this rank.
        way_on: what lies there, and the command that goes on.

    Raises:
        InputError: another rank has ended by itself.
    """
    if trainer.world_size == 1:
        yield
        return
    over, before = threading.Event(), os.environ.get(LAUNCHER)
    observer = subprocess_script._launch_process_observer
    # Lightning's ends this process by SIGKILL, without a word, and also one that is at its last lines
    subprocess_script._launch_process_observer = lambda child_processes: None
    if trainer.local_rank == 0:
        os.environ[LAUNCHER] = str(os.getpid())                     # for those that it starts
    threading.Thread(target=_watch, args=(trainer, way_on, over), daemon=True).start()
    try:
        yield
    except (DivergedError, ExitedError, SIGTERMException):
        raise
    except Exception as error:
        lost = None
        if _is_of_connection(error):
            time.sleep(LOOK_SECONDS)                                # a process that ends closes its connections first
            lost = _lost(trainer) or "the connection to another rank was lost"
        for process in _started(trainer):
            process.kill()
        if lost is None:
            raise
        raise InputError(_in_words(lost, way_on)) from error
    finally:
        over.set()
        subprocess_script._launch_process_observer = observer
        if before is None:
            os.environ.pop(LAUNCHER, None)
        else:
            os.environ[LAUNCHER] = before


def _watch(trainer: Trainer, way_on: Callable[[], str], over: threading.Event) -> None:
    """End this process where it waits for a rank that is no more: most calls to the others wait for half an hour."""
    while not over.wait(LOOK_SECONDS):
        lost = _lost(trainer)
        if lost is not None and not over.wait(PATIENCE):
            for process in _started(trainer):
                process.kill()
            print(f"error: {_in_words(lost, way_on)}", file=sys.stderr, flush=True)
            os._exit(2)


_POLLING = threading.Lock()
"""Of two threads that poll a process at once, one is told that it runs, also where it does not."""


def _lost(trainer: Trainer) -> str | None:
    """Which rank of this machine has ended with an error, in words."""
    first = trainer.global_rank - trainer.local_rank
    for number, process in enumerate(_started(trainer), first + 1):
        with _POLLING:
            status = process.poll()
        if status:
            how = f"exit status {status}" if status > 0 else signal.Signals(-status).name
            return f"rank {number} has ended by itself, by {how}" + ", perhaps for its memory" * (status == -signal.SIGKILL)
    if trainer.local_rank and os.environ.get(LAUNCHER, str(parent := os.getppid())) != str(parent):
        return f"rank {first} has ended by itself"
    return None


def _in_words(lost: str, way_on: Callable[[], str]) -> str:
    return f"{lost}, and the others cannot go on without it. Of this run, {way_on()}"


def _is_of_connection(error: Exception) -> bool:
    """Gloo has no type of its own for it: [.../gloo/transport/tcp/pair.cc:537] Connection closed by peer."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _started(trainer: Trainer) -> list[subprocess.Popen[bytes]]:
    """The processes that this one has started for further devices."""
    return getattr(trainer.strategy.launcher, "procs", [])
