"""Minimal iterative policy: regress the action, then once more from the regressed action.

Everything happens before the tanh, on u = arctanh(a) (squashing.py). One network is trained on two regressions, the second
of which sees the expert's action with a little noise e ~ Normal(0, I) at one fixed time t*:

    L = E [ || f(o, 0, 0) - u ||^2 + || f(o, t* u + (1 - t*) e, t*) - u ||^2 ]

It acts by two evaluations, without noise:

    u_1 = f(o, 0, 0),    u_2 = f(o, t* u_1, t*),    action = tanh(u_2)

Pan 2025, Much Ado About Noising, https://arxiv.org/abs/2512.01809: what flow matching gains over regression on benchmarks
of robots is not a distribution, but supervised intermediate steps with noise in their input, of which two are enough.

The minimiser of the second is E[u | o, t* u + (1 - t*) e], the mean over the expert's actions within about (1 - t*) / t* of
what it sees. So it brings an action beside the expert's back to the nearest of them, and one between two ways to act, where
the first regression leads, towards one of the two. Nothing is drawn, so there is nothing to sample. With a history and a
horizon above 1, u holds the next actions together, and o the last observations.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_bc.bounds import NonNegativeFloat, PositiveInt, UnitIntervalBelowOne
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.windows import mean_squared_error
from lightning_bc.strategies.optimizers import DefaultAdamW


class MIP(OfflineStrategy):
    """Regress the expert's action, and regress it again from near itself.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps (observations, actions, 0 for the first evaluation or 1 for the second) to horizon action_dim outputs.
        second_time: t*, the share of the action in what the second evaluation sees; the rest is noise in training.
        history: how many observations the policy sees, the present one last.
        horizon: how many actions, from the present one on, are modelled together.
        chunk: how many of these are played before the policy is asked again.
        temporal_ensembling: ask at every step, and play the mean of overlapping chunks with weights exp(-this i), i = 0 for
            the oldest; default: chunks are played one after the other.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    stochastic = False
    recordable = True
    logs = {
        "loss": Metric(
            "squared, before the tanh",
            "mean over batch and dimensions of (f(o, 0, 0) - u)^2 + (f(o, t* u + (1 - t*) e, t*) - u)^2",
        ),
    }

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        second_time: UnitIntervalBelowOne = 0.9,
        history: PositiveInt = 1,
        horizon: PositiveInt = 1,
        chunk: PositiveInt = 1,
        temporal_ensembling: NonNegativeFloat | None = None,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.second_time = second_time
        self.set_windows(history, horizon, chunk, temporal_ensembling)
        size = horizon * self.action_dim
        self.network = network(self.input_size(size + 1), size)

    def first(self, observations: Tensor) -> Tensor:
        """f(o, 0, 0), (batch, horizon action_dim)."""
        nothing = torch.zeros(observations.shape[0], self.horizon * self.action_dim + 1, device=observations.device)
        return self.network(torch.cat([observations.flatten(1), nothing], dim=-1))

    def second(self, observations: Tensor, near: Tensor) -> Tensor:
        """f(o, ``near``, t*), likewise."""
        return self.network(torch.cat([observations.flatten(1), near, torch.ones_like(near[:, :1])], dim=-1))

    def loss(self, observations: Tensor, actions: Tensor, within: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Squared errors of both evaluations."""
        wanted = self.squashing.unsquash(actions).flatten(1)        # (batch, horizon action_dim)
        near = torch.lerp(torch.randn_like(wanted), wanted, self.second_time)
        first = mean_squared_error(self.first(observations), wanted, within)
        return first + mean_squared_error(self.second(observations, near), wanted, within), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The action of the second evaluation; there is no other to sample."""
        return self.first_chunk(self.squashing(self.second(observations, self.second_time * self.first(observations))))
