"""Gaussian mixture: several ways to act, each with its probability.

    a = tanh(u),    u ~ sum_k pi_k(o) Normal(mu_k(o), diag(sigma_k(o)^2)),    k = 1 ... components
    log p(a | o) = log sum_k pi_k(o) prod_d Normal(arctanh a_d; mu_kd(o), sigma_kd(o)) - sum_d log(1 - a_d^2)

a mixture density network (Bishop 1994, https://publications.aston.ac.uk/id/eprint/373), in robot learning the head of
BC-RNN-GMM (Mandlekar 2021, https://arxiv.org/abs/2108.03298). It can hold two humps where MSE and a Gaussian average
them. The likelihood is exact, on actions scaled to [-1, 1]; why before the tanh, and what happens on the bounds:
squashing.py. The standard deviations sigma(o) = minimum_scale + softplus(output) depend on the observation and have a floor.
Without it a component could shrink onto a single action and drive the likelihood to infinity, and on a deterministic expert
the means could stop learning where they are wrong (gaussian.py). The floor bounds how unequally observations weigh; with one
sigma for all of them the noise could not depend on the observation, which is what a mixture is for.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, OfflineStrategy
from lightning_bc.strategies.squashing import log_volume, unsquash


class GaussianMixture(OfflineStrategy):
    """Maximise the log-probability of the expert's action under a squashed mixture of diagonal Normals.

    Args:
        network: maps observations to components (1 + 2 action_dim) outputs: weights, means, raw standard deviations.
        components: number of mixture components.
        minimum_scale: floor of the standard deviations before the tanh.
        options: those of every strategy: optimizer, schedule.
    """

    def __init__(
        self, network: NetworkFactory = MLP, components: int = 5, minimum_scale: float = 0.1, **options: Any
    ) -> None:
        super().__init__(**options)
        self.components, self.minimum_scale = components, minimum_scale
        self.network = network(self.observation_dim, components * (1 + 2 * self.action_dim))

    def parameters_of(self, observations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights (batch, components), means and scales before the tanh (batch, components, action_dim)."""
        outputs = self.network(observations).unflatten(-1, (self.components, -1))  # (batch, components, 1 + 2 action_dim)
        logits, means, raw = outputs.split([1, self.action_dim, self.action_dim], dim=-1)
        return logits.squeeze(-1).log_softmax(-1), means, self.minimum_scale + F.softplus(raw)

    def distribution(self, observations: Tensor) -> MixtureSameFamily:
        """The mixture over u, before the tanh, given normalised ``observations`` (batch, observation_dim)."""
        log_weights, means, scales = self.parameters_of(observations)
        components = Independent(Normal(means, scales, validate_args=False), 1)
        return MixtureSameFamily(Categorical(logits=log_weights, validate_args=False), components, validate_args=False)

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """Negative log-probability of the expert's action."""
        log_weights, means, scales = self.parameters_of(observations)
        standardised = (unsquash(actions).unsqueeze(-2) - means) / scales     # (batch, components, action_dim)
        log_components = -0.5 * standardised.square() - scales.log() - 0.5 * math.log(2 * math.pi)
        log_mixture = (log_weights + log_components.sum(-1)).logsumexp(-1)
        loss = -(log_mixture - log_volume(actions)).mean()
        used = torch.exp(-(log_weights.exp() * log_weights).sum(-1)).mean()  # perplexity: components in use, 1 to k
        return loss, {"components_used": used.detach(), "scale": scales.detach().mean()}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The squashed mean of the likeliest component, or a sample."""
        if not deterministic:
            return self.distribution(observations).sample().tanh()
        log_weights, means, _ = self.parameters_of(observations)
        likeliest = log_weights.argmax(-1)                          # (batch,)
        return means[torch.arange(len(means), device=means.device), likeliest].tanh()
