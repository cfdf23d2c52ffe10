"""What every strategy that learns from demonstrations alone shares: training steps, and measures on held-out episodes."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanMetric, MeanSquaredError

from lightning_bc.acting import Frozen
from lightning_bc.aliases import StateDict
from lightning_bc.episodes import forked_random_state
from lightning_bc.errors import takes_state
from lightning_bc.ranks import mean_over_ranks, weights_of_shares
from lightning_bc.strategies.base import Metrics, Schedule, Strategy
from lightning_bc.strategies.contract import Metric, data_of
from lightning_bc.strategies.offline.averaging import Averages
from lightning_bc.strategies.offline.explained_variance import ExplainedVariance
from lightning_bc.strategies.offline.squashing import SATURATED_RANGE, Squashing, saturated_share
from lightning_bc.strategies.recorded import Update

Batch = tuple[Tensor, ...]
"""Observations and actions in the environment's units; of windows, also which actions lie within the episode."""

VALIDATION: Mapping[str, Metric] = {
    "loss": Metric("that of `train/loss`", "the same loss, mean over the held-out pairs"),
    "action_mean_squared_error": Metric("squared", "mean over pairs and dimensions of (a - p)^2"),
    "explained_variance": Metric(
        "1",
        "mean of 1 - Var(a - p) / Var(a) over the dimensions whose held-out actions vary (standard deviation above 1e-6 of "
        "the mean's magnitude); 1 is perfect, NaN means that none varies",
    ),
    "action_mean_absolute_error": Metric("the actions' own", "mean over pairs and dimensions of abs(a - p), unscaled"),
    "action_root_mean_squared_error": Metric("the actions' own", "sqrt of the mean of (a - p)^2, unscaled"),
}
"""What strategies that learn from demonstrations measure on held-out episodes, by name without ``validation/``."""


def size_of(batch: Batch) -> int | Tensor:
    """What the loss is a mean over: pairs; of windows, the actions within the episode."""
    return batch[2].sum() if len(batch) > 2 else len(batch[1])


class OfflineStrategy(Strategy):
    """A strategy that learns from demonstrations alone: a loss over a batch of (observation, action) pairs or windows.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        optimizer: which optimizer, and its learning rate and weight decay.
        schedule: "cosine" or "constant": see :class:`lightning_bc.strategies.base.Strategy`.
    """

    answers_by: int = 0
    """How many of the training pairs, the first ones, it acts by; ``condition`` takes them after each training step."""

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        optimizer: OptimizerCallable,
        schedule: Schedule,
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.squashing = Squashing()
        self.averages: Averages | None = None  # set by AveragedWeights
        self.automatic_optimization = False  # one training_step takes many optimizer steps
        self.validation_metrics = torch.nn.ModuleDict(
            {
                "action_mean_squared_error": MeanSquaredError(),
                "explained_variance": ExplainedVariance(),
                "action_mean_absolute_error": MeanAbsoluteError(),
                "action_root_mean_squared_error": MeanSquaredError(squared=False),
                "loss": MeanMetric(),
            }
        )

    @abstractmethod
    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """What training minimises.

        That of a strategy with windows takes a third argument, ``within``: which actions lie within the episode, (batch,
        horizon) bool; those behind its end repeat its last action.

        Args:
            observations: normalised, (batch, observation_dim); of windows (batch, history, observation_dim).
            actions: scaled to [-1, 1], (batch, action_dim); of windows (batch, horizon, action_dim).

        Returns:
            The scalar loss, and further scalars to log by name.
        """

    def fit_actions(self, actions: Tensor) -> None:
        """Take what a strategy needs to know of the scaled training ``actions`` (pairs, action_dim): where they saturate."""
        self.squashing.fit(actions)

    def begin(self, observations: Tensor, actions: Tensor) -> None:
        """Take what training begins with of the pairs that the strategy ``answers_by``, as ``loss`` sees them."""

    def condition(self, observations: Tensor, actions: Tensor) -> None:
        """Take the pairs that the strategy ``answers_by``, as ``loss`` sees them."""

    def settle(self) -> None:
        """Compute what acting needs and ``condition`` has put off."""

    def frozen(self) -> Frozen:
        """See :meth:`lightning_bc.strategies.base.Strategy.frozen`; what is put off is computed, and not written into it."""
        self.settle()
        return super().frozen()

    def setup(self, stage: str) -> None:
        """Take statistics from the training pairs; on resume a checkpoint's replace them."""
        super().setup(stage)
        if stage == "fit":
            data = data_of(self.trainer)
            self.border.take(*data.observation_moments)
            self.border.hide(data.hidden_dimensions)
            actions = data.training_actions.to(self.border.mean.device)  # pairs are on the GPU before the weights are
            if not data.grows and (told := self.border.narrow(actions)):  # labels to come may take more of the bounds
                rank_zero_only(print)(told)
            scaled = self.border.scaled(actions)
            self.fit_actions(scaled)
            if not all(module.is_plain for module in self.modules() if isinstance(module, Squashing)):
                rank_zero_only(print)(
                    f"actions: {saturated_share(scaled):.1%} of their numbers lie on the bounds, so the bounds are put at "
                    f"{SATURATED_RANGE} of the tanh's range (strategies/offline/squashing.py)"
                )
            if self.answers_by:
                self.begin(*self._pairs_to_answer_by())

    def _pairs_to_answer_by(self) -> tuple[Tensor, Tensor]:
        """The first ``answers_by`` of the present training pairs, as ``loss`` sees them."""
        pairs = data_of(self.trainer).training_pairs
        observations, actions = (column[: self.answers_by].to(self.border.mean.device) for column in pairs)
        return self.border.observe(observations), self.border.scaled(actions)

    def across(self, batch: Batch) -> Batch:
        """A ``batch`` as ``loss`` sees it."""
        observations, actions, *within = batch
        return self.border.observe(observations), self.border.scaled(actions), *within

    def training_step(self, batches: list[Batch], batch_index: int) -> None:
        """One optimizer step on each of the batches up to the next point of the curve.

        A round of Lightning's loop costs a good part of what an optimizer step of a small network does; here many steps
        share one (benchmarks/training.py).
        """
        optimizer: Any = self.optimizers()
        scheduler: Any = self.lr_schedulers()
        update: Update = partial(self.update, optimizer)
        is_recorded = self.is_recorded
        bare = [optimizer.optimizer] if is_recorded else []
        if self.averages is not None:
            self.averages.swap(self.parameters())                   # to the trained weights
        self.losses = []
        measured: list[Metrics] = []
        with self.replays(bare) if is_recorded else nullcontext():
            if is_recorded:
                update = self.replaying(0, partial(self.update, *bare), bare)
            for batch, weight in zip(batches, self._weights(batches), strict=True):
                measured.append(update(*batch) if weight == 1 else update(*batch, weight=weight))
                if is_recorded:
                    self.count_step(optimizer)
                if self.averages is not None:
                    self.averages.update(self.parameters(), self.global_step)
                if scheduler is not None:
                    scheduler.step()
                self.losses.append((self.global_step, "the loss", measured[-1]["loss"]))
        if self.averages is not None:
            self.averages.swap(self.parameters())                   # back, for all that acts, measures and saves
        if self.answers_by and self._trainer is not None:
            self.condition(*self._pairs_to_answer_by())
        means = {f"train/{name}": torch.stack([metrics[name] for metrics in measured]).mean() for name in measured[0]}
        if self._several:
            self._join(means)
        self.log_dict(means, logger=False)

    def update(self, optimizer: Any, *batch: Tensor, weight: float = 1.0) -> Metrics:
        """One optimizer step; the loss before it, and what else the loss measures, all multiplied by ``weight``."""
        loss, metrics = self.loss(*self.across(batch))
        if weight != 1:
            loss, metrics = weight * loss, {name: weight * value for name, value in metrics.items()}
        optimizer.zero_grad()
        self.manual_backward(loss)                                  # the gradient's mean over ranks, where there are several
        if self.gradient_clip_val is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.gradient_clip_val)
        optimizer.step()
        torch.clear_autocast_cache()                                # of the weights before the step, under mixed precision
        return {"loss": loss.detach(), **metrics}

    @property
    def _several(self) -> bool:
        """Whether several processes train together."""
        return self._trainer is not None and self._trainer.world_size > 1

    def _weights(self, batches: list[Batch]) -> list[float]:
        """What this rank's means over its shares of ``batches`` are multiplied by."""
        if not self._several:
            return [1.0] * len(batches)
        return weights_of_shares(self.trainer, [size_of(batch) for batch in batches])

    def _join(self, means: dict[str, Tensor]) -> None:
        """Make of what this rank measured what all of them have: they log it, and stop where a loss is not finite."""
        values = mean_over_ranks(self.trainer, torch.stack([*(loss for _, _, loss in self.losses), *means.values()]))
        self.losses = [(step, name, value) for (step, name, _), value in zip(self.losses, values, strict=False)]
        means.update(zip(means, values[len(self.losses) :], strict=True))

    def on_save_checkpoint(self, checkpoint: StateDict) -> None:
        """The weights that are trained, where the module's are averaged."""
        super().on_save_checkpoint(checkpoint)
        if self.averages is not None:
            checkpoint["averages"] = self.averages.state_dict()

    @takes_state
    def on_load_checkpoint(self, checkpoint: StateDict) -> None:
        """Go on with them."""
        super().on_load_checkpoint(checkpoint)
        if self.averages is not None and "averages" in checkpoint:
            self.averages.load_state_dict(checkpoint["averages"])

    def validation_step(self, batches: list[Batch], batch_index: int) -> None:
        """Loss, and how near the deterministic actions come, on held-out episodes."""
        self._measure(batches)
        for name, metric in self.validation_metrics.items() if batches else ():
            self.log(f"validation/{name}", metric, on_epoch=True, logger=False)  # type: ignore[arg-type]

    @torch.inference_mode()
    def held_out_figures(self, batches: Iterable[list[Batch]]) -> dict[str, float]:
        """The same outside of Lightning's validation, by the names of ``VALIDATION``; every process calls it."""
        for group in batches:
            self._measure(group)
        figures = {}
        for name in VALIDATION:
            metric: Any = self.validation_metrics[name]
            figures[name] = float(metric.compute())
            metric.reset()
        return figures

    def _measure(self, batches: list[Batch]) -> None:
        """Add ``batches`` to the metrics; of windows, the first action counts.

        Losses that draw noise draw the same at each validation, and training's random state is left alone.
        """
        metrics: Mapping[str, Any] = dict(self.validation_metrics.items())
        for batch in batches:
            observations, actions, *within = self.across(batch)
            with forked_random_state(0, self.device):
                loss, _ = self.loss(observations, actions, *within)
            metrics["loss"].update(loss, weight=size_of((observations, actions, *within)))
            with self.full_precision():
                predictions = self.act(observations, deterministic=True).clamp(-1.0, 1.0)
            if self.has_windows:
                predictions, actions = predictions[:, 0].contiguous(), actions[:, 0].contiguous()  # (batch, action_dim)
            unscaled = self.border.unscaled(predictions), self.border.unscaled(actions)
            for name in ("action_mean_squared_error", "explained_variance"):
                metrics[name].update(predictions, actions)
            for name in ("action_mean_absolute_error", "action_root_mean_squared_error"):
                metrics[name].update(*unscaled)
