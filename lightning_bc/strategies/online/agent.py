"""What every agent that learns by acting has: an actor, its average, and the parts that optimizers move.

**An averaged actor.** Actor and critics chase each other, a discriminator too, and the return goes up and down on the way.
What plays and is scored is the average of the actor's weights, each of update n with a weight growing as n^9, so that it is
over about the last tenth (polynomial-decay averaging, Shamir 2013, https://arxiv.org/abs/1212.1824; of the generator in
generative adversarial training, Yazici 2019, https://arxiv.org/abs/1806.04498). What collects and learns is the actor
itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_bc.networks import Network
from lightning_bc.strategies.base import Metrics
from lightning_bc.strategies.contract import Transitions
from lightning_bc.strategies.online.watch import Watch

Descend = Callable[[str, Tensor], None]
"""Takes a step of the optimizer of a named part, down the gradient of a scalar loss."""

Parts = dict[str, list[nn.Parameter]]
"""What each optimizer moves, by name; ``critic`` is always there."""


class Agent(nn.Module, ABC):
    """An actor-critic. Observations are normalised, actions scaled to [-1, 1]."""

    network: Network
    """The actor that learns, and that collects."""

    averaged: Network
    """The average of its weights, which plays and is scored."""

    actor_every: int
    """Updates of the critics for each one of the actor."""

    rate_of_average: Tensor
    """How far the average goes towards the actor in the present update; a tensor, since updates are replayed."""

    actor_learns: bool = True
    """False while the critics learn alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rate_of_average", torch.ones(()), persistent=False)

    @abstractmethod
    def parts(self) -> Parts:
        """What each optimizer moves."""

    @abstractmethod
    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The averaged actor's actions for ``observations`` (batch, observation_dim), (batch, action_dim)."""

    @abstractmethod
    def explore(self, observations: Tensor) -> Tensor:
        """The learning actor's actions while it collects; shaped as in ``act``."""

    @abstractmethod
    def improve(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """What follows the critics' step of update ``number``: the actor's, and those of slow copies and averages."""

    @abstractmethod
    def check(self, watch: Watch) -> None:
        """Warn of what goes wrong."""


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, rate: float | Tensor) -> None:
    """Move the parameters of ``slow`` by ``rate``, a number or scalar, of the way to those of ``fast``."""
    for behind, ahead in zip(slow.parameters(), fast.parameters(), strict=True):
        behind.lerp_(ahead, rate)


def averaging_rate(number: int) -> float:
    """How far an average over the last tenth goes towards the weights of update ``number``; all the way at the first."""
    return 10 / (number + 10)
