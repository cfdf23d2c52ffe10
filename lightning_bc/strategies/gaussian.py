"""Gaussian: the baseline, maximum likelihood of a diagonal Normal over the action.

    log p(a | o) = sum_d [ -(a_d - mu_d(o))^2 / (2 sigma_d(o)^2) - log sigma_d(o) - log(2 pi) / 2 ]

exact, on actions scaled to [-1, 1]. Mean and standard deviation come from one network:

    mu(o) = tanh(output),    sigma(o) = minimum_scale + softplus(raw)

Why a floor. On demonstrations of a deterministic actor nothing bounds the likelihood: sigma follows the residual to zero,
and since the gradient of the mean is weighted by 1 / sigma^2, observations that are already fitted pull thousands of
times harder than those that are not. The mean stops learning just where it is wrong (Seitzer 2022, On the Pitfalls of
Heteroscedastic Uncertainty Estimation, https://arxiv.org/abs/2203.09168), which for a gait is the rare start-up. With a
floor at the size of an error that does no harm in control, the loss stays a likelihood, that of a Normal no sharper than
the floor, and below it the weights are all equal, as in MSE.
"""

from typing import Any

from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn import functional as F

from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, OfflineStrategy


class Gaussian(OfflineStrategy):
    """Maximise the log-probability of the expert's action under a diagonal Normal.

    Args:
        network: maps observations to 2 action_dim outputs, means and raw standard deviations.
        minimum_scale: floor of the standard deviation, in units of scaled actions (bounds at -1 and 1).
        options: those of every strategy: optimizer, schedule.
    """

    def __init__(self, network: NetworkFactory = MLP, minimum_scale: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.minimum_scale = minimum_scale
        self.network = network(self.observation_dim, 2 * self.action_dim)

    def distribution(self, observations: Tensor) -> Independent:
        """The Normal over scaled actions given normalised ``observations`` (batch, observation_dim)."""
        mean, raw = self.network(observations).chunk(2, dim=-1)     # (batch, action_dim) each
        return Independent(Normal(mean.tanh(), self.minimum_scale + F.softplus(raw), validate_args=False), 1)

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """Negative log-probability of the expert's action."""
        distribution = self.distribution(observations)
        loss = -distribution.log_prob(actions).mean()
        return loss, {"scale": distribution.base_dist.scale.detach().mean()}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The mean, or a sample."""
        distribution = self.distribution(observations)
        return distribution.mean if deterministic else distribution.sample()
