"""What a strategy and its data ask of each other; both sides depend on this file and on nothing of the other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_bc.references import References


class Needs(Enum):
    """What a strategy learns from.

    A strategy that needs pairs and declares a history or horizon above 1 is served windows of them: see
    :class:`lightning_bc.strategies.base.Strategy`.
    """

    NOTHING = "no demonstrations"
    PAIRS = "batches of demonstrated pairs, which the data serve"
    TRANSITIONS = "demonstrated transitions, from which the strategy draws for itself"


class Metric(NamedTuple):
    """What a metric that a strategy logs means; docs/metrics.md is made of these."""

    unit: str
    meaning: str


@dataclass(frozen=True)
class Transitions:
    """What happened in some steps.

    Attributes:
        observations: in the environment's units where they are kept, normalised where they are learnt from,
            (batch, observation_dim).
        actions: in the environment's units in demonstrations, scaled to [-1, 1] where they are learnt from,
            (batch, action_dim).
        rewards: of the environment, (batch,); zeros in demonstrations that have none.
        next_observations: where the step led, also where the episode ended there, (batch, observation_dim).
        terminated: 1 where the task ended there, so that nothing can be earned after it; 0 otherwise, also where the
            episode was only cut off by its time limit, (batch,).
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    next_observations: Tensor
    terminated: Tensor

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """The fields in their order; ``dataclasses.astuple`` would copy the tensors."""
        return tuple(vars(self).values())

    def sample(self, size: int) -> "Transitions":
        """``size`` of them, with replacement, drawn by torch's generator of the device."""
        rows = torch.randint(len(self.rewards), (size,), device=self.rewards.device)
        return Transitions(*(column[rows] for column in self.columns))


class Data(Protocol):
    """What strategies and callbacks may ask of the data module."""

    environment_id: str
    has_simulator: bool
    seed: int
    batch_size: int
    group_size: int

    @property
    def hidden_dimensions(self) -> Sequence[int]:
        """Entries of an observation that nobody who learns sees."""

    @property
    def observation_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training observations, (observation_dim,) float64, on the training device."""

    @property
    def training_actions(self) -> Tensor:
        """Actions of the training pairs in the environment's units, (pairs, action_dim), on the training device.

        Of more pairs than memory holds, a sample that is spread evenly over them.
        """

    @property
    def grows(self) -> bool:
        """Whether a callback adds pairs while learning."""

    @property
    def training_pairs(self) -> tuple[Tensor, Tensor]:
        """Observations and actions that are learnt from now, labelled ones included, in the environment's units.

        Shaped (pairs, observation_dim) and (pairs, action_dim), on the training device; of more pairs than memory holds, a
        sample that is spread evenly over them.
        """

    @property
    def training_transitions(self) -> Transitions:
        """The training pairs that have a successor, on the training device, in the environment's units."""

    @property
    def optimizer_steps(self) -> int | None:
        """Optimizer steps of the whole run under the Trainer's settings; None where these set no end."""

    @property
    def measures_held_out(self) -> bool:
        """Whether there are held-out episodes."""

    @property
    def pairs_per_validation(self) -> int:
        """Held-out pairs that a validation measures while training."""

    def held_out(self) -> Iterable[Any]:
        """The held-out episodes in large batches, all in one item; empty where nothing is held out."""

    @property
    def references(self) -> References:
        """Returns of the random policy and of the expert."""

    @property
    def expert_queries(self) -> int:
        """Labels that an expert was asked for while learning."""

    def pairs_seen(self, optimizer_steps: int) -> int:
        """Training pairs, with repetition, behind a number of optimizer steps."""

    def extend(self, observations: Tensor, actions: Tensor, lengths: Tensor) -> None:
        """Add episodes that were labelled while learning: their pairs one after another, and their lengths (episodes,)."""


def data_of(trainer: Trainer) -> Data:
    """The data module that a Trainer was given."""
    data: Any = getattr(trainer, "datamodule", None)
    if data is None:
        raise TypeError("a strategy is trained with a data module: trainer.fit(strategy, datamodule=Demonstrations(...))")
    return data
