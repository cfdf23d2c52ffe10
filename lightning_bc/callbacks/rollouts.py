"""The reward-over-time curve: vectorised episodes of the selection bank, every ``eval_freq`` optimizer steps."""

import math
import time
import warnings
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import NonNegativeInt, PositiveInt
from lightning_bc.callbacks.checked import refuse_blind
from lightning_bc.environments import Environments, limit_episodes, make
from lightning_bc.episode_metrics import measure_all, recording_is_needed
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.errors import DivergedError, NotFiniteError, takes_state
from lightning_bc.runs.curve import HELD_OUT_LOSS, RETURN, Curve, Point
from lightning_bc.strategies import OfflineStrategy, Strategy, data_of
from lightning_bc.strategies.contract import Data

STALLED_ENVIRONMENT_STEPS = 100_000
STALLED_POINTS = 10
STALLED_GAIN = 0.02
STALLED_RETURN = 0.5
"""Normalized, as the gain; a curve that is flat above it may have arrived."""


class Rollouts(Callback):
    """Play episodes while the policy learns, and log the reward-over-time curve.

    Before the first optimizer step, at every multiple of ``eval_freq`` and after the last one, the deterministic policy
    plays the first ``episodes`` episodes of the selection bank, and every metric of ``lightning_bc.episode_metrics`` is
    taken of them. TensorBoard's x axis is Lightning's step; optimizer steps, environment steps, training pairs seen and
    wall-clock seconds are logged beside it, as further axes. The metrics are described in docs/metrics.md.

    A checkpoint holds the last point as ``checkpoint["point"]``.

    Args:
        eval_freq: optimizer steps, of strategies that act while they learn environment steps, between two points of the
            curve, and between two checkpoints and two validations.
        episodes: episodes per point, played side by side; 0 trains without a simulator, and the curve is then the loss and
            the error of the deterministic action on held-out episodes.
        video: at the end, write a video of the last checkpoint's first episode; beside the logs.
        max_episode_steps: steps after which an episode is cut off; where the environment has no time limit; default 1000.

    Attributes:
        curve: the file that points are also written to, which the command line sets; None writes none.
    """

    _environments: Environments                                     # while a Trainer is at work

    def __init__(
        self,
        eval_freq: PositiveInt = 80,
        episodes: NonNegativeInt = 10,
        video: bool = False,
        max_episode_steps: PositiveInt | None = None,
    ) -> None:
        self.eval_freq, self.episodes, self.video = eval_freq, episodes, video
        self.max_episode_steps = max_episode_steps
        self.last_step = self.last_position = -1                    # of Lightning, and as eval_freq counts
        self.point: Point = {}                                      # the last one
        self.seconds_playing = 0.0                                  # over all sessions
        self.recent: list[tuple[float, float]] = []                 # environment steps, normalized return
        self.warned = False
        self._started = 0.0
        self._seconds_before = 0.0                                  # of the sessions before this one
        self._closing = ExitStack()
        self.curve: Curve | None = None

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Have training stop for a point wherever one is due."""
        if stage == "fit":
            data = data_of(trainer)
            data.group_size = math.gcd(data.group_size, self.eval_freq)
            if self.max_episode_steps is not None:
                limit_episodes(data.environment_id, self.max_episode_steps)

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Make the environments once for the run, and look whether what other callbacks watch will be measured.

        Raises:
            InputError: it will not.
        """
        assert isinstance(module, Strategy)
        refuse_blind(trainer, data_of(trainer).measures_held_out, module)
        if self.episodes:
            self._environments = make(data_of(trainer).environment_id, self.episodes)
            self._closing.callback(self._environments.close)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Play before the first step."""
        self._started = time.perf_counter()
        if self.curve is not None and trainer.is_global_zero:
            self.curve.resume(self.last_step)
        self._play_once(trainer, module)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Log what training measured, and play when a multiple of ``eval_freq`` was reached or crossed."""
        assert isinstance(module, Strategy)
        module.refuse_divergence()
        if trainer.global_step % module.log_every == 0:
            measured = trainer.callback_metrics.items()
            self._log(trainer, {name: float(value) for name, value in measured if name.startswith("train/")})
        if module.position // self.eval_freq > self.last_position // self.eval_freq:
            self._play_once(trainer, module)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Log what validation measured, at the optimizer step."""
        metrics = trainer.callback_metrics.items()
        self._log(trainer, {name: float(value) for name, value in metrics if name.startswith("validation/")})

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Play after the last step."""
        self._play_once(trainer, module)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Let the environments go."""
        self._closing.close()

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: StateDict) -> None:
        """Keep the last point where whoever reads the checkpoint finds it."""
        checkpoint["point"] = self.point

    @takes_state
    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: StateDict) -> None:
        """Go on from the last point."""
        self.point = checkpoint["point"]
        self._seconds_before = self.point["seconds"]
        self.seconds_playing = self._seconds_before - self.point["training_seconds"]

    def state_dict(self) -> StateDict:
        """Where the curve stands."""
        return {name: getattr(self, name) for name in ("last_step", "last_position", "recent", "warned")}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on with the curve."""
        self.last_step, self.last_position = state["last_step"], state["last_position"]
        self.recent, self.warned = state["recent"], state["warned"]

    @property
    def last_return(self) -> float | None:
        """Mean return of the last point; None before the first."""
        return self.point.get(RETURN)

    @property
    def merit(self) -> float | None:
        """What best.ckpt has most of: the mean return; where nothing is played, minus the held-out loss."""
        loss = self.point.get(HELD_OUT_LOSS)
        return -loss if loss is not None and not self.episodes else self.last_return

    def _play_once(self, trainer: Trainer, module: LightningModule) -> None:
        """Play and log one point, unless this step already has one (a resumed run, or one that ends at a point)."""
        assert isinstance(module, Strategy)
        step = trainer.global_step
        if step == self.last_step:
            return
        if self.episodes:
            played = self._play(trainer, module) if trainer.is_global_zero else {}
        else:
            played = self._measure_held_out(trainer, module)        # on every process: each holds a share
        self.last_step, self.last_position = step, module.position
        self.point = trainer.strategy.broadcast(played)
        self._log(trainer, self.point)
        # where callbacks that watch a metric look: EarlyStopping, ModelCheckpoint
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in self.point.items()})
        for logger in trainer.loggers:
            logger.save()  # to disk: the curve must not lag behind the checkpoint that is saved next
        if self.curve is not None and trainer.is_global_zero:
            self.curve.append(step, self.point)
        if module.learns_by_acting:
            self._watch(self.point["environment_steps"], self.point["rollout/normalized_return"])

    def _watch(self, environment_steps: float, normalized_return: float) -> None:
        """Warn, once per run, of a return that has not moved for long.

        Looked at is the curve's end: STALLED_ENVIRONMENT_STEPS or STALLED_POINTS points, whichever is longer. It has not
        moved where the mean of its second half is under STALLED_RETURN and gains less than STALLED_GAIN on the first's.
        """
        self.recent.append((environment_steps, normalized_return))
        steps, returns = np.array(self.recent).T
        if len(steps) < STALLED_POINTS or steps[-1] - steps[0] < STALLED_ENVIRONMENT_STEPS:
            return
        first = min(np.flatnonzero(steps <= steps[-1] - STALLED_ENVIRONMENT_STEPS)[-1], len(steps) - STALLED_POINTS)
        self.recent = self.recent[first:]
        before, after = np.array_split(returns[first:], 2)
        if not self.warned and after.mean() < STALLED_RETURN and after.mean() - before.mean() < STALLED_GAIN:
            self.warned = True
            warnings.warn(
                f"the return has not moved for {steps[-1] - steps[first]:,.0f} environment steps: normalized, it was "
                f"{before.mean():.2f} on average in the first half of them and {after.mean():.2f} in the second. Look at "
                "train/entropy and train/q_value in TensorBoard; another --seed_everything, --model.optimizer.lr or "
                "--model.updates_per_step may get it going.",
                stacklevel=2,
            )

    @staticmethod
    def _log(trainer: Trainer, metrics: dict[str, float]) -> None:
        """Log at the optimizer step; by itself, Lightning would count calls of training_step.

        TensorBoard shows groups in the order of their names and opens the first: rollout, with the return. What the curve
        may be drawn over stands behind it in a group of its own; a count of 0, which may stay so, is left out.
        """
        shown = {name if "/" in name else f"time/{name}": value for name, value in metrics.items()}
        for name in ("time/environment_steps", "time/expert_queries"):
            if shown.get(name) == 0:
                del shown[name]
        for logger in trainer.loggers:
            logger.log_metrics(shown, step=trainer.global_step)

    def _measure_held_out(self, trainer: Trainer, module: Strategy) -> Point:
        """One point of the curve where nothing is played."""
        assert isinstance(module, OfflineStrategy)
        data, started = data_of(trainer), time.perf_counter()
        was_training = module.training
        module.eval()
        measured = module.held_out_figures(data.held_out())
        module.train(was_training)
        return self._point(module, data, started, {f"validation/{name}": value for name, value in measured.items()})

    def _play(self, trainer: Trainer, module: Strategy) -> Point:
        """One point of the curve.

        Raises:
            DivergedError: an action, an observation or a return is not finite.
        """
        data, started = data_of(trainer), time.perf_counter()
        was_training = module.training
        module.eval()
        try:
            episodes = play(
                module.player(),
                self._environments,
                SELECTION_BANK.seeds(self.episodes),
                record=recording_is_needed(data.environment_id),
                device=module.device,
                on_step=partial(honour_signals, trainer),
            )
        except NotFiniteError as error:
            raise DivergedError(module.steps_taken["optimizer_steps"], str(error).rstrip(".")) from error
        module.train(was_training)
        measured = measure_all(episodes, data.references)
        return self._point(module, data, started, {f"rollout/{name}": value for name, value in measured.items()})

    def _point(self, module: Strategy, data: Data, started: float, measured: Point) -> Point:
        """What was ``measured`` since ``started``, and how far training is."""
        seconds = time.perf_counter() - started
        self.seconds_playing += seconds
        seconds_of_run = self._seconds_before + time.perf_counter() - self._started
        return {
            **{name: float(steps) for name, steps in module.steps_taken.items()},
            "expert_queries": float(data.expert_queries),
            "pairs": float(data.pairs_seen(module.global_step)),
            "seconds": seconds_of_run,
            "training_seconds": seconds_of_run - self.seconds_playing,
            "rollout/seconds": seconds,
            **measured,
        }


def honour_signals(trainer: Trainer, steps: int) -> None:
    """End the run where SIGTERM has come: Lightning looks only between batches, and playing may take long."""
    if trainer.received_sigterm:
        raise SIGTERMException
