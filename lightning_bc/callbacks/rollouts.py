"""The reward-over-time curve: vectorised episodes of the selection bank, every ``eval_freq`` optimizer steps."""

import math
import time
from collections import deque
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import NonNegativeInt, PositiveInt, check_arguments
from lightning_bc.callbacks.background import Background, cores_of_run, training_cores, why_not, workers_that_pay
from lightning_bc.callbacks.checked import refuse_blind
from lightning_bc.callbacks.points import held_out_point, honour_signals, log, of_episodes, played_point
from lightning_bc.callbacks.stalled import Stalled
from lightning_bc.callbacks.validations import space_validations
from lightning_bc.environments import Environments, environment_spaces, limit_episodes, make
from lightning_bc.errors import takes_state
from lightning_bc.ranks import STOP, on_rank_zero
from lightning_bc.runs.curve import HELD_OUT_LOSS, RETURN, Curve, Point
from lightning_bc.stopping import STOPPING
from lightning_bc.strategies import OfflineStrategy, Strategy, data_of
from lightning_bc.strategies.contract import Data

LARGEST_GROUP = 100
"""Optimizer steps that share a training step: more would hold as many batches in memory, and signals would wait for them."""


def largest_group(steps: int) -> int:
    """The largest divisor of so many ``steps`` that is no larger."""
    return next(size for size in range(min(steps, LARGEST_GROUP), 0, -1) if steps % size == 0)


class Rollouts(Callback):
    """Play episodes while the policy learns, and log the reward-over-time curve.

    Before the first optimizer step, at every multiple of ``eval_freq`` and after the last one, the deterministic policy
    plays the first ``episodes`` episodes of the selection bank, and every metric of ``lightning_bc.episode_metrics`` is
    taken of them. TensorBoard's x axis is Lightning's step; optimizer steps, environment steps, training pairs seen and
    wall-clock seconds are logged beside it, as further axes. The metrics are described in docs/metrics.md.

    A checkpoint holds the last point as ``checkpoint["point"]``.

    Args:
        eval_freq: optimizer steps between two points of the curve; environment steps where a strategy acts while it learns.
            A checkpoint follows each.
        episodes: episodes per point, played side by side; 0 trains without a simulator, and the curve is then the loss and
            the error of the deterministic action on held-out episodes.
        video: at the end, write a video of the last checkpoint's first episode; beside the logs.
        max_episode_steps: steps after which an episode is cut off; where the environment has no time limit; default 1000.
        validation_freq: optimizer steps between two validations; default: so many that they take less than 5% of training's
            time, and one at each point where a callback watches the curve. See ``space_validations``.
        workers: processes that play while training goes on; 0 plays in between; default: one per core, once it is clear that
            they pay. The curve is the same. From Python the default is 0, since the script of a spawned process needs
            ``if __name__ == "__main__":``. Strategies that act while they learn, runs of several processes and those where a
            callback watches the curve play in between.

    Attributes:
        curve: the file that points are also written to, which the command line sets; None writes none.
        may_spawn: whether workers are started unasked, which the command line sets.
        arrivals: points that were played by workers, (step, point), until ``Checkpoints`` has saved what belongs to them.
    """

    _environments: Environments                                     # while a Trainer is at work

    def __init__(
        self,
        eval_freq: PositiveInt = 200,
        episodes: NonNegativeInt = 10,
        video: bool = False,
        max_episode_steps: PositiveInt | None = None,
        validation_freq: PositiveInt | None = None,
        workers: NonNegativeInt | None = None,
    ) -> None:
        check_arguments(Rollouts.__init__, locals())
        self.eval_freq, self.episodes, self.video = eval_freq, episodes, video
        self.max_episode_steps, self.validation_freq = max_episode_steps, validation_freq
        self.last_step = self.last_position = -1                    # of Lightning, and as eval_freq counts
        self.point: Point = {}                                      # the last one
        self.seconds_playing = 0.0                                  # over all sessions
        self.stalled = Stalled()
        self._started = 0.0
        self._cores = 1
        self._seconds_before = 0.0                                  # of the sessions before this one
        self._closing = ExitStack()
        self.curve: Curve | None = None
        self.workers, self.may_spawn = workers, False
        self.arrivals: deque[tuple[int, Point]] = deque()
        self.waits_to_save = True                                   # for the points that a checkpoint is to hold
        self._background: Background | None = None

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Have training stop wherever a point is due, or one's own ModelCheckpoint saves."""
        if stage == "fit":
            data = data_of(trainer)
            own = [getattr(one, "_every_n_train_steps", 0) or 0 for one in trainer.callbacks]  # type: ignore[attr-defined]
            data.group_size = largest_group(math.gcd(data.group_size, self.eval_freq, *own))
            if self.max_episode_steps is not None:
                limit_episodes(data.environment_id, self.max_episode_steps)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Make the environments once for the run, and look whether what other callbacks watch will be measured.

        Raises:
            InputError: it will not.
        """
        assert isinstance(module, Strategy)
        refuse_blind(trainer, data_of(trainer).measures_held_out, module)
        if isinstance(module, OfflineStrategy):
            space_validations(trainer, module, self.validation_freq, self.eval_freq)
        if self.episodes:
            self._environments = make(data_of(trainer).environment_id, self.episodes)
            self._closing.callback(self._environments.close)
            self._cores = cores_of_run()
            length = environment_spaces(data_of(trainer).environment_id).max_episode_steps or self.max_episode_steps
            played = self.episodes * (length or 1000) / self.eval_freq
            self._closing.enter_context(training_cores(trainer, module, played))
            if self.workers:
                self._start(self.workers, trainer, module)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Play before the first step."""
        self._started = time.perf_counter()
        if self.curve is not None and trainer.is_global_zero:
            self.curve.resume(self.last_step)
        if self.last_step < 0:
            self._play_once(trainer, module)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Log what training measured, and play when a multiple of ``eval_freq`` was reached or crossed."""
        assert isinstance(module, Strategy)
        STOPPING.look()
        STOP.together(trainer)
        module.refuse_divergence()
        if trainer.global_step % module.log_every == 0:
            measured = trainer.callback_metrics.items()
            log(trainer, {name: float(value) for name, value in measured if name.startswith("train/")})
        if module.position // self.eval_freq > self.last_position // self.eval_freq:
            self._play_once(trainer, module)
        elif self._background is not None:
            self._take(trainer, self._background.most)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Log what validation measured, at the optimizer step."""
        metrics = trainer.callback_metrics.items()
        log(trainer, {name: float(value) for name, value in metrics if name.startswith("validation/")})

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Play after the last step, and wait for all points."""
        self._play_once(trainer, module)
        self._take(trainer, 0)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Let environments and workers go."""
        self._background = None
        self._closing.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Let them go, too."""
        self.teardown(trainer, module, "fit")

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: StateDict) -> None:
        """Keep the last point where whoever reads the checkpoint finds it."""
        if self.waits_to_save:
            self._take(trainer, 0)
        checkpoint["point"] = self.point

    @takes_state
    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: StateDict) -> None:
        """Go on from the last point."""
        self.point = checkpoint["point"]
        self._seconds_before = self.point["seconds"]
        self.seconds_playing = self._seconds_before - self.point["training_seconds"]

    def state_dict(self) -> StateDict:
        """Where the curve stands."""
        return {"last_step": self.last_step, "last_position": self.last_position, **self.stalled.state_dict()}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on with the curve."""
        self.last_step, self.last_position = state["last_step"], state["last_position"]
        self.stalled.load_state_dict(state)

    @property
    def last_return(self) -> float | None:
        """Mean return of the last point; None before the first."""
        return self.point.get(RETURN)

    @property
    def merit(self) -> float | None:
        """What best.ckpt has most of."""
        return self.merit_of(self.point)

    def merit_of(self, point: Point) -> float | None:
        """The mean return; where nothing is played, minus the held-out loss."""
        loss = point.get(HELD_OUT_LOSS)
        return -loss if loss is not None and not self.episodes else point.get(RETURN)

    def is_waiting_for(self, step: int) -> bool:
        """Whether the point of ``step`` is still being played."""
        return self._background is not None and any(one.step == step for one in self._background.pending)

    def _play_once(self, trainer: Trainer, module: LightningModule) -> None:
        """Play and log one point, unless this step already has one (a resumed run, or one that ends at a point)."""
        assert isinstance(module, Strategy)
        step = trainer.global_step
        if step == self.last_step:
            return
        self.last_step, self.last_position = step, module.position
        if self._background is not None:
            self._background.submit(step, self._axes(module, data_of(trainer)), module)
            self._take(trainer, self._background.most)
            return
        if self.episodes:
            measured = on_rank_zero(trainer, partial(self._measure, trainer, module))
        else:                                                       # on every process, each of which holds a share
            measured = trainer.strategy.broadcast(self._measure(trainer, module))
        self._keep(trainer, step, measured)
        if module.learns_by_acting:
            self.stalled.look(self.point["environment_steps"], self.point["rollout/normalized_return"])
        if self.may_spawn and self.workers is None and self.episodes:
            workers = workers_that_pay(module, self.point["rollout/seconds"], self.eval_freq, self._cores)
            self._start(workers, trainer, module)

    def _measure(self, trainer: Trainer, module: Strategy) -> Point:
        """The point of this step."""
        started = time.perf_counter()
        if self.episodes:
            measured = played_point(trainer, module, self._environments, self.episodes)
        else:
            measured = held_out_point(trainer, module)
        seconds = time.perf_counter() - started
        self.seconds_playing += seconds
        return {**self._axes(module, data_of(trainer)), "rollout/seconds": seconds, **measured}

    def _start(self, workers: int, trainer: Trainer, module: Strategy) -> None:
        """Have workers play from here on, where they can."""
        reason = why_not(trainer, module) if workers else None
        if workers and reason is None:
            self._background = Background(workers, data_of(trainer).environment_id, self.episodes)
            self._closing.callback(self._background.close)
        elif workers and self.workers:
            rank_zero_only(print)(f"--rollouts.workers {workers}: {reason}, so episodes are played in between\n")

    def _take(self, trainer: Trainer, most: int) -> None:
        """Take the points that workers have played; wait until at most ``most`` are still to come."""
        if self._background is None:
            return
        waited = self._background.seconds_waited
        for pending, played in self._background.arrived(most, partial(honour_signals, trainer, 0)):
            measured = of_episodes(played.episodes, data_of(trainer).references)
            point = {**pending.axes, "rollout/seconds": played.seconds, **measured}
            self._keep(trainer, pending.step, point)
            self.arrivals.append((pending.step, point))
        self.seconds_playing += self._background.seconds_waited - waited

    def _keep(self, trainer: Trainer, step: int, point: Point) -> None:
        """Log and write a point."""
        self.point = point
        log(trainer, point, step)
        # where callbacks that watch a metric look: EarlyStopping, ModelCheckpoint
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.point.items()})
        for logger in trainer.loggers:
            logger.save()  # to disk: the curve must not lag behind the checkpoint that is saved next
        if self.curve is not None and trainer.is_global_zero:
            self.curve.append(step, self.point)

    def _axes(self, module: Strategy, data: Data) -> Point:
        """How far training is."""
        seconds_of_run = self._seconds_before + time.perf_counter() - self._started
        return {
            **{name: float(steps) for name, steps in module.steps_taken.items()},
            "expert_queries": float(data.expert_queries),
            "pairs": float(data.pairs_seen(module.global_step)),
            "seconds": seconds_of_run,
            "training_seconds": seconds_of_run - self.seconds_playing,
        }
