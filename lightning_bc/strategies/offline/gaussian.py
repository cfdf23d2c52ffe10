"""Gaussian: the baseline, maximum likelihood of a squashed Normal over the action.

    a = tanh(u),    u ~ Normal(mu(o), diag(sigma^2))
    log p(a | o) = sum_d [ log Normal(arctanh a_d; mu_d(o), sigma_d) - log(1 - a_d^2) ]

exact, on actions scaled to [-1, 1]; why before the tanh, and what happens on the bounds: squashing.py. The standard
deviations are learnt, but do not depend on the observation.

Why not. On demonstrations of a deterministic actor nothing bounds a likelihood with sigma(o): where the fit is already
good, sigma follows the residual towards zero, and since the mean's gradient is weighted by 1 / sigma(o)^2, those
observations pull far harder than the others. The mean can stop learning just where it is wrong (Seitzer 2022,
On the Pitfalls of Heteroscedastic Uncertainty Estimation, https://arxiv.org/abs/2203.09168), which for a gait is the rare
start-up. With one sigma per action dimension all observations weigh the same, as in MSE, and the loss stays an exact
likelihood. For noise that depends on the observation use GaussianMixture (gmm.py). The floor keeps sigma from vanishing
where the network can predict the training actions exactly, as it always can where demonstrations are few.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import functional as F

from lightning_bc.bounds import PositiveFloat, PositiveInt
from lightning_bc.networks import MLP, Network, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.optimizers import DefaultAdamW


class Gaussian(OfflineStrategy):
    """Maximise the log-probability of the expert's action under a squashed diagonal Normal.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps observations to action_dim outputs, the means before the tanh.
        minimum_scale: floor of the standard deviations before the tanh.
        history: how many observations the policy sees, the present one last.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    recordable = True
    logs = {
        "loss": Metric("nat per pair", "-(1/B) sum_pairs [log Normal(u; mu(o), sigma) - sum_d log(1 - a_d^2)]"),
        "scale": Metric("before the tanh", "mean of sigma over dimensions and, in a mixture, components"),
    }

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        minimum_scale: PositiveFloat = 0.1,
        history: PositiveInt = 1,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.minimum_scale = minimum_scale
        self.set_windows(history, horizon=1, chunk=1)
        self.network = network(self.input_size(), self.action_dim)
        self.raw_scale = nn.Parameter(torch.zeros(self.action_dim))

    @property
    def squashed_mean(self) -> Network | None:
        """The network, where it answers one observation."""
        return self.network if self.squashing.is_plain and not self.has_windows else None

    def distribution(self, observations: Tensor) -> Independent:
        """The Normal over u, before the tanh, given normalised ``observations`` (batch, observation_dim)."""
        mean = self.network(observations.flatten(1))                           # (batch, action_dim)
        scale = self.minimum_scale + F.softplus(self.raw_scale)     # (action_dim,)
        return Independent(Normal(mean, scale.expand_as(mean), validate_args=False), 1)

    def loss(self, observations: Tensor, actions: Tensor, within: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Negative log-probability of the expert's action."""
        distribution, actions = self.distribution(observations), actions.flatten(1)
        loss = -(distribution.log_prob(self.squashing.unsquash(actions)) - self.squashing.log_volume(actions)).mean()
        return loss, {"scale": distribution.base_dist.scale.detach().mean()}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The squashed mean, which is the median of the action, or a sample."""
        distribution = self.distribution(observations)
        return self.first_chunk(self.squashing(distribution.mean if deterministic else distribution.sample()))
