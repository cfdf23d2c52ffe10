"""What every strategy shares: the border to the environment's units, normalisation, the optimizer, and its checkpoint."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torchmetrics import ExplainedVariance, MeanSquaredError

from lightning_bc.episodes import forked_random_state
from lightning_bc.errors import InputError
from lightning_bc.networks import Network
from lightning_bc.normalization import Normalization

Metrics = dict[str, Tensor]

_LARGEST_OBSERVATION = 1e6
"""In standard deviations; beyond it products could overflow, and a policy must answer every finite observation."""


class Strategy(LightningModule, ABC):
    """A way of modelling actions: the border that all of them share. What maps observations is its ``network``.

    ``forward`` is what environments and users call: observations come in as the environment gives them and actions go
    out in its units. Inside, ``act`` and the losses see normalised observations and actions scaled to [-1, 1]:

        action = action_scale * scaled + action_bias,    action_scale = (high - low) / 2,    action_bias = (high + low) / 2

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        optimizer: which optimizer, and its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero along half a cosine over the run's optimizer steps
            (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983); "constant" leaves it.
    """

    network: Network
    action_scale: Tensor
    action_bias: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        optimizer: OptimizerCallable = lambda parameters: torch.optim.AdamW(
            parameters, lr=3e-3, weight_decay=1e-4, fused=True
        ),
        schedule: Literal["cosine", "constant"] = "cosine",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        for name in [name for name, value in self.hparams.items() if callable(value)]:
            del self.hparams[name]  # built by hand, not from YAML: a checkpoint holds plain values alone
        low, high = torch.tensor(action_low, dtype=torch.float32), torch.tensor(action_high, dtype=torch.float32)
        self.observation_dim, self.action_dim = observation_dim, len(low)
        self.optimizer, self.schedule = optimizer, schedule
        self.normalization = Normalization(observation_dim)
        self.register_buffer("action_scale", (high - low) / 2)
        self.register_buffer("action_bias", (high + low) / 2)
        self._random_state: dict[str, Any] | None = None

    needs_demonstrations = True
    """Whether ``data.path`` must name demonstrations."""

    log_every = 1
    """training_steps between two logs of what training measured."""

    @property
    def steps_taken(self) -> dict[str, int]:
        """How far training is, by the axes that curves are drawn over."""
        return {"optimizer_steps": self.trainer.global_step, "environment_steps": 0}

    @property
    def position(self) -> int:
        """What ``eval_freq`` counts: optimizer steps, of strategies that act while they learn environment steps."""
        return self.steps_taken["optimizer_steps"]

    @property
    def run_length(self) -> int | None:
        """The ``position`` where the run ends; None where the Trainer's settings set no end."""
        return self.trainer.datamodule.optimizer_steps  # type: ignore[attr-defined]

    @property
    def actor(self) -> Network:
        """The network that ``act`` evaluates."""
        return self.network

    @abstractmethod
    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Choose actions.

        Args:
            observations: normalised, (batch, observation_dim).
            deterministic: the strategy's best single answer in place of a sample.

        Returns:
            Scaled actions, (batch, action_dim); values outside [-1, 1] are clamped by ``forward``.
        """

    def forward(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Act on ``observations`` (batch, observation_dim); actions (batch, action_dim) in the environment's units."""
        normalised = self.normalization(observations).clamp(-_LARGEST_OBSERVATION, _LARGEST_OBSERVATION)
        scaled = self.act(normalised, deterministic).clamp(-1.0, 1.0)
        return self.action_scale * scaled + self.action_bias

    def scale(self, actions: Tensor) -> Tensor:
        """Bring ``actions`` (batch, action_dim) from the environment's units to [-1, 1]."""
        return (actions - self.action_bias) / self.action_scale

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule over the run's length."""
        optimizer = self.optimizer(self.parameters())
        if self.schedule == "constant":
            return optimizer
        # Asking the Trainer (estimated_stepping_batches) would make it build the loader early and lose the loader's
        # restored position, so the data module is asked first.
        steps = getattr(self.trainer.datamodule, "optimizer_steps", None)  # type: ignore[attr-defined]
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, T_max=steps or int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning saves no random state; an exact resume needs it."""
        checkpoint["strategy"] = type(self).__name__
        checkpoint["random_state"] = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            checkpoint["random_state"]["cuda"] = torch.cuda.get_rng_state(self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the saved random state until training starts."""
        self._random_state = checkpoint.get("random_state")

    def on_train_start(self) -> None:
        """Put the saved random state back, after everything that could have drawn from it."""
        if self._random_state is not None:
            torch.set_rng_state(self._random_state["cpu"].cpu())
            if self.device.type == "cuda" and "cuda" in self._random_state:
                torch.cuda.set_rng_state(self._random_state["cuda"].cpu(), self.device)
            self._random_state = None


class OfflineStrategy(Strategy):
    """A strategy that learns from demonstrations alone: a loss over a batch of (observation, action) pairs.

    Args:
        options: those of :class:`Strategy`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False  # one training_step takes many optimizer steps
        self.validation_metrics = torch.nn.ModuleDict(
            {
                "action_mean_squared_error": MeanSquaredError(),
                "explained_variance": ExplainedVariance(),
            }
        )

    @abstractmethod
    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """What training minimises.

        Args:
            observations: normalised, (batch, observation_dim).
            actions: scaled to [-1, 1], (batch, action_dim).

        Returns:
            The scalar loss, and further scalars to log by name.
        """

    def fit_actions(self, actions: Tensor) -> None:  # most strategies need nothing of it
        """Take what a strategy needs to know of all scaled training ``actions`` (pairs, action_dim): bins, for example."""

    def setup(self, stage: str) -> None:
        """Take statistics from the training pairs; on resume a checkpoint's replace them."""
        if stage == "fit":
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.normalization.fit(data.training_observations)
            self.fit_actions(self.scale(data.training_actions))

    def training_step(self, batches: list[tuple[Tensor, Tensor]], batch_index: int) -> None:
        """One optimizer step on each of the batches up to the next point of the curve.

        A round of Lightning's loop costs a good part of what an optimizer step of a small network does; here many steps
        share one (benchmarks/training.py).
        """
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        sums: dict[str, Tensor] = {}
        for observations, actions in batches:
            loss, metrics = self.loss(self.normalization(observations), self.scale(actions))
            optimizer.zero_grad()  # type: ignore[union-attr]
            self.manual_backward(loss)
            optimizer.step()  # type: ignore[union-attr]
            if scheduler is not None:
                scheduler.step()  # type: ignore[union-attr]
            for name, value in {"loss": loss.detach(), **metrics}.items():
                sums[name] = sums.get(name, 0) + value
        self.log_dict({f"train/{name}": value / len(batches) for name, value in sums.items()}, logger=False)

    def validation_step(self, batches: list[tuple[Tensor, Tensor]], batch_index: int) -> None:
        """Loss, and how near the deterministic actions come, on held-out episodes.

        Losses that draw noise draw the same at each validation, and training's random state is left alone.
        """
        for batch_observations, batch_actions in batches:
            observations, actions = self.normalization(batch_observations), self.scale(batch_actions)
            with forked_random_state(batch_index, self.device):
                loss, _ = self.loss(observations, actions)
            self.log("validation/loss", loss, on_epoch=True, batch_size=len(actions), logger=False, sync_dist=True)
            predictions = self.act(observations, deterministic=True).clamp(-1.0, 1.0)
            for name, metric in self.validation_metrics.items():
                metric.update(predictions, actions)  # type: ignore[operator]
                self.log(f"validation/{name}", metric, on_epoch=True, logger=False)  # type: ignore[arg-type]


def strategies() -> dict[str, type[Strategy]]:
    """Every final strategy that has been imported, by class name."""
    found: dict[str, type[Strategy]] = {}
    queue: list[type[Strategy]] = [Strategy]  # type: ignore[type-abstract]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if not cls.__abstractmethods__:
            found[cls.__name__] = cls
    return dict(sorted(found.items()))


def strategy_of_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> type[Strategy]:
    """The class that a checkpoint holds the weights of.

    Lightning's ``SomeStrategy.load_from_checkpoint`` takes another strategy's file without complaint, so the class is
    read from the file; only classes that are already imported are accepted, so that a file cannot choose what runs.

    Raises:
        InputError: if it is no checkpoint of a known strategy.
    """
    name = checkpoint.get("strategy")
    cls = strategies().get(str(name))
    if cls is None:
        raise InputError(
            f"{path}: is a checkpoint of {name or 'something else'}, which is not a known strategy. "
            f"Known: {', '.join(strategies())}."
        )
    return cls


def load_strategy(path: str | Path) -> Strategy:
    """Rebuild the strategy that a checkpoint holds, whichever it is.

    Raises:
        InputError: if it is no checkpoint of a known strategy.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    return strategy_of_checkpoint(path, checkpoint).load_from_checkpoint(path, map_location="cpu", weights_only=True)
