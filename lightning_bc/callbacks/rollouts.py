"""The reward-over-time curve: vectorised episodes of the selection bank, every ``eval_freq`` optimizer steps."""

import time
import warnings
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_bc.environments import Environments, make
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.errors import InputError
from lightning_bc.strategies import Data, Strategy, data_of

STALLED_ENVIRONMENT_STEPS = 100_000
STALLED_POINTS = 10
STALLED_GAIN = 0.02
STALLED_RETURN = 0.5
"""Normalized, as the gain; a curve that is flat above it may have arrived."""


class Rollouts(Callback):
    """Play episodes while the policy learns, and log the reward-over-time curve.

    Before the first optimizer step, at every multiple of ``eval_freq`` and after the last one, the deterministic policy
    plays the first ``episodes`` episodes of the selection bank. TensorBoard's x axis is Lightning's step; optimizer steps,
    environment steps, training pairs seen and wall-clock seconds are logged beside it, as further axes. The metrics are
    described in docs/metrics.md.

    Args:
        eval_freq: optimizer steps, of strategies that act while they learn environment steps, between two points of the
            curve, and between two checkpoints and two validations.
        episodes: episodes a point, played side by side.
        video: at the end of the run, write a video of the last checkpoint's first episode beside the logs.
    """

    def __init__(self, eval_freq: int = 80, episodes: int = 10, video: bool = False) -> None:
        for flag, value in (("eval_freq", eval_freq), ("episodes", episodes)):
            if value < 1:
                raise InputError(f"--rollouts.{flag} {value}: wanted at least 1.")
        self.eval_freq, self.episodes, self.video = eval_freq, episodes, video
        self.last_step = self.last_position = -1                    # of Lightning, and as eval_freq counts
        self.metrics: dict[str, float] = {}                         # of the last point
        self.seconds_playing = 0.0                                  # over all sessions
        self.recent: list[tuple[float, float]] = []                 # environment steps, normalized return
        self.warned = False
        self._started = 0.0
        self._seconds_before = 0.0                                  # of the sessions before this one
        self._environments: Environments | None = None

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Make the environments once for the run."""
        self._environments = make(data_of(trainer).environment_id, self.episodes)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Play before the first step."""
        self._started = time.perf_counter()
        self._play_once(trainer, module)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Log what training measured, and play when a multiple of ``eval_freq`` was reached or crossed."""
        assert isinstance(module, Strategy)
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
        if self._environments is not None:
            self._environments.close()
            self._environments = None

    def state_dict(self) -> dict[str, Any]:
        """Where the curve stands."""
        names = ("last_step", "last_position", "metrics", "recent", "warned")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the curve."""
        self.last_step, self.last_position = state["last_step"], state["last_position"]
        self.metrics, self.recent, self.warned = state["metrics"], state["recent"], state["warned"]
        self._seconds_before = self.metrics["seconds"]
        self.seconds_playing = self._seconds_before - self.metrics["training_seconds"]

    @property
    def last_return(self) -> float | None:
        """Mean return of the last point; None before the first."""
        return self.metrics.get("rollout/return_mean")

    def _play_once(self, trainer: Trainer, module: LightningModule) -> None:
        """Play and log one point, unless this step already has one (gradient accumulation, a resumed run)."""
        assert isinstance(module, Strategy)
        step = trainer.global_step
        if step == self.last_step:
            return
        played = self._play(module, data_of(trainer)) if trainer.is_global_zero else {}
        self.last_step, self.last_position = step, module.position
        self.metrics = trainer.strategy.broadcast(played)
        self._log(trainer, self.metrics)
        for logger in trainer.loggers:
            logger.save()  # to disk: the curve must not lag behind the checkpoint that is saved next
        if module.learns_by_acting:
            self._watch(self.metrics["environment_steps"], self.metrics["rollout/normalized_return"])

    def _watch(self, environment_steps: float, normalized_return: float) -> None:
        """Warn, once a run, of a return that has not moved for long.

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
        """Log at the optimizer step; by itself, Lightning would count calls of training_step."""
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)

    def _play(self, module: LightningModule, data: Data) -> dict[str, float]:
        """The metrics of one point of the curve."""
        assert isinstance(module, Strategy)
        assert self._environments is not None
        started = time.perf_counter()
        was_training = module.training
        module.eval()
        seeds = SELECTION_BANK.seeds(self.episodes)
        episodes = play(module.player(), self._environments, seeds, device=module.device)
        module.train(was_training)
        returns = episodes.returns
        seconds = time.perf_counter() - started
        self.seconds_playing += seconds
        seconds_of_run = self._seconds_before + time.perf_counter() - self._started
        return {
            "rollout/return_mean": float(returns.mean()),
            "rollout/return_std": float(returns.std()),
            "rollout/return_min": float(returns.min()),
            "rollout/return_max": float(returns.max()),
            "rollout/normalized_return": float(data.references.normalized(returns.mean())),
            "rollout/episode_length": float(episodes.lengths.mean()),
            "rollout/seconds": seconds,
            "seconds": seconds_of_run,
            "training_seconds": seconds_of_run - self.seconds_playing,
            "pairs": float(data.pairs_seen(module.global_step)),
            "expert_queries": float(data.expert_queries),
            **{name: float(steps) for name, steps in module.steps_taken.items()},
        }
