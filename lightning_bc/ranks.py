"""Several processes that train one policy, each on its share of every batch: what they have to do together.

A rank is one of them; rank zero plays and writes, and the others wait for what it found.
"""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lightning_bc.errors import DivergedError, InputError

_Answer = TypeVar("_Answer")

_SHARED = (InputError, DivergedError, SIGTERMException)
"""What the other ranks raise as rank zero does."""


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
def ending_children(trainer: Trainer) -> Iterator[None]:
    """End the processes that this one has started for further devices where it alone ends with an error inside the block.

    They would wait for it for ever. What every rank raises, they raise too, and end by themselves.
    """
    try:
        yield
    except (DivergedError, SIGTERMException):
        raise
    except Exception:
        for process in getattr(trainer.strategy.launcher, "procs", []):
            process.kill()
        raise
