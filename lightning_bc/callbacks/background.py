"""Points of the curve that worker processes play while training goes on: when that can be, when it pays, and their order."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_bc.acting import CannotBeFrozenError
from lightning_bc.environments import usable_cores
from lightning_bc.episode_metrics import recording_is_needed
from lightning_bc.episodes import SELECTION_BANK
from lightning_bc.errors import DivergedError, NotFiniteError
from lightning_bc.rollout_workers import Played, Workers
from lightning_bc.runs.curve import Point
from lightning_bc.strategies import Strategy
from lightning_bc.strategies.base import evaluating
from lightning_bc.strategies.contract import data_of

PAYS_AFTER = 30.0
"""Seconds of playing that are still to come before workers are started unasked: that costs each some seconds of a core."""

MOST_WORKERS = 8
"""That are started unasked."""

MANY_CORES = 4
"""From so many on half of them train a small network as fast as all."""

SECONDS_PER_STEP, SECONDS_PER_ANSWER, SECONDS_PER_PAIR = 3e-5, 6e-11, 1.2e-10
"""Of a core: a step of HalfCheetah's physics, and for each weight one answer and one pair of an update."""


@dataclass(frozen=True)
class Pending:
    """A point whose episodes are being played.

    Attributes:
        step: Lightning's.
        axes: how far training was.
        future: of the episodes.
    """

    step: int
    axes: Point
    future: Future[Played]


class Background:
    """Workers, and the points that they are at, in order.

    Args:
        workers: how many; as many points more may wait for one of them.
        environment_id: where they play.
        episodes: per point.
    """

    def __init__(self, workers: int, environment_id: str, episodes: int) -> None:
        self.environment_id, self.episodes, self.most = environment_id, episodes, 2 * workers
        self.pending: deque[Pending] = deque()
        self.seconds_waited = 0.0
        self._workers = Workers(workers, environment_id, episodes)

    def submit(self, step: int, axes: Point, module: Strategy) -> None:
        """Have the point of ``step`` played with the module's present weights."""
        with evaluating(module):
            player = module.remembering(module.frozen())
        future = self._workers.submit(player, SELECTION_BANK.seeds(self.episodes), recording_is_needed(self.environment_id))
        self.pending.append(Pending(step, axes, future))

    def arrived(self, most: int, look: Callable[[], None]) -> Iterator[tuple[Pending, Played]]:
        """The oldest points as far as they are played; waits until at most ``most`` are not.

        Raises:
            InputError: a worker failed, was killed or hangs.
            DivergedError: an action, an observation or a return is not finite.
        """
        while self.pending and (len(self.pending) > most or self.pending[0].future.done()):
            started = time.perf_counter()
            try:
                played = self._workers.result(self.pending[0].future, look)
            except NotFiniteError as error:
                raise DivergedError(self.pending[0].step, str(error).rstrip(".")) from error
            self.seconds_waited += time.perf_counter() - started
            yield self.pending.popleft(), played

    def close(self) -> None:
        """End the workers."""
        number = self._workers.number
        words = f"{number} worker process{'es' * (number > 1)} played; training waited {self.seconds_waited:.1f} s for them"
        rank_zero_only(print)(f"\nrollouts: {words}")
        self._workers.close()


def why_not(trainer: Trainer, module: Strategy) -> str | None:
    """Why no other process can play this run's points; None where one can."""
    callbacks: Any = trainer.callbacks                              # type: ignore[attr-defined]
    watching = [one for one in callbacks if str(getattr(one, "monitor", None)).startswith("rollout/")]
    if module.learns_by_acting:
        return f"{type(module).__name__} acts while it learns"
    if trainer.world_size > 1:
        return "several processes train"
    if watching:
        return f"{type(watching[0]).__name__} watches the curve and needs each point at once"
    try:
        module.frozen()
    except CannotBeFrozenError as error:
        return f"{type(module).__name__} cannot be sent to another process: {error}"
    return None


def workers_that_pay(module: Strategy, seconds: float, eval_freq: int, cores: int) -> int:
    """How many are worth their start, where a point takes ``seconds`` here and the run has ``cores``; 0 for none."""
    if module.run_length is None:
        return 0
    points = (module.run_length - module.position) // eval_freq
    if cores == 1 or seconds * points < PAYS_AFTER:
        return 0
    threads = torch.get_num_threads()
    return min(cores if threads == 1 else cores - threads, points, MOST_WORKERS)


def cores_of_run() -> int:
    """How many there are; OMP_NUM_THREADS leaves the others to somebody else."""
    return min(usable_cores(), torch.get_num_threads())


@contextmanager
def training_cores(trainer: Trainer, module: Strategy, played_per_update: float) -> Iterator[None]:
    """Inside the block a strategy that learns from demonstrations on the CPU trains on its share of the cores.

    That is half of them; the other half is for those who play. Where a worker takes one of the cores on which two threads
    train, each product of the other thread waits for it: then one thread alone trains several times as fast. Of two or three
    cores training takes all where playing is short beside it, and episodes are played in between. The number of threads
    changes how sums are rounded, so it depends on nothing that is measured, and not on workers.

    Args:
        played_per_update: environment steps of the curve for each update.
    """
    threads = torch.get_num_threads()
    if trainer.strategy.root_device.type == "cpu" and not module.learns_by_acting:
        cores = cores_of_run()
        takes_all = cores < MANY_CORES and _playing_is_short(module, played_per_update, data_of(trainer).batch_size)
        torch.set_num_threads(cores if takes_all else max(1, cores // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _playing_is_short(module: Strategy, played_per_update: float, pairs: int) -> bool:
    """Whether a core plays for an update in less than 3/4 of the time in which it makes it, roughly."""
    weights = sum(parameter.numel() for actor in module.actors for parameter in actor.parameters())
    answers = module.network_evaluations / len(module.actors)
    playing = played_per_update * (SECONDS_PER_STEP + answers * weights * SECONDS_PER_ANSWER)
    return playing < 0.75 * pairs * weights * SECONDS_PER_PAIR
