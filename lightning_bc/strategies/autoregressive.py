"""Autoregressive discretization: each action dimension a choice among bins, given the dimensions before it.

    p(a | o) = prod_d p(b_d | o, b_1 ... b_{d-1}) / width(b_d),    b_d = the bin of a_d

By the chain rule any distribution over the bins can be expressed: many humps, correlated dimensions, and no shape of noise
assumed but that it is uniform within a bin (for control: Metz 2017, Discrete Sequential Prediction of Continuous Actions,
https://arxiv.org/abs/1705.05035).

The network sees the observation alone and gives each dimension H features; the dimensions before it enter through a matrix
that is zero from the diagonal on (masked as in MADE, Germain 2015, https://arxiv.org/abs/1502.03509):

    logits_d = V_d relu(features_d(o) + sum_{j < d} W_dj a_j) + c_d

So training is one pass over all dimensions with the expert's own action as the past (teacher forcing), and acting runs the
network once and then the small heads one after the other.

A chosen bin is decoded to the mean of the training actions in it: the outermost bins can so give the bounds. The past is
fed as decoded values too, in training as in acting. Bins have equal width, or equal counts of training actions.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, OfflineStrategy

_FEATURES = 64
"""H, features of each dimension's head."""

_SMALLEST_WIDTH = 1e-4
"""Of a bin: where many training actions share one value (a bound), quantile edges coincide, and a density needs a width."""


class Autoregressive(OfflineStrategy):
    """Maximise the log-probability of the expert's bins, dimension after dimension.

    Args:
        network: maps observations to 64 action_dim features.
        bins: number of bins B of each action dimension.
        binning: "uniform" for bins of equal width, "quantile" for equal counts of training actions.
        options: those of every strategy: optimizer, schedule.
    """

    edges: Tensor
    decoded: Tensor
    before: Tensor

    def __init__(
        self,
        network: NetworkFactory = MLP,
        bins: int = 20,
        binning: Literal["uniform", "quantile"] = "uniform",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.bins, self.binning = bins, binning
        dims = self.action_dim
        self.network = network(self.observation_dim, dims * _FEATURES)
        self.past_weight = nn.Parameter(torch.randn(dims, _FEATURES, dims) / dims**0.5)
        self.head_weight = nn.Parameter(torch.randn(dims, bins, _FEATURES) / _FEATURES**0.5)
        self.head_bias = nn.Parameter(torch.zeros(dims, bins))
        self.register_buffer("edges", torch.linspace(-1, 1, bins + 1).repeat(dims, 1))  # (action_dim, bins + 1)
        self.register_buffer("decoded", self._centres)              # (action_dim, bins)
        self.register_buffer("before", torch.ones(dims, dims).tril(-1).unsqueeze(1))  # (action_dim, 1, action_dim)

    def fit_actions(self, actions: Tensor) -> None:
        """Place the bins, and their decoded values, by the scaled training ``actions`` (pairs, action_dim)."""
        actions = actions.clamp(-1, 1)
        if self.binning == "quantile":
            rows = torch.arange(1, self.bins, device=actions.device) * len(actions) // self.bins
            self.edges[:, 1:-1] = actions.sort(dim=0).values[rows].T
        for dimension, (values, bins) in enumerate(zip(actions.T, self.bins_of(actions).T, strict=True)):
            counts = torch.bincount(bins, minlength=self.bins)
            sums = torch.zeros(self.bins, device=values.device).index_add_(0, bins, values)
            self.decoded[dimension] = torch.where(counts > 0, sums / counts, self._centres[dimension])

    def logits(self, observations: Tensor, past: Tensor) -> Tensor:
        """Logits (batch, action_dim, bins): each dimension sees those of ``past`` (batch, action_dim) before it."""
        features = self._features(observations)                     # (batch, action_dim, _FEATURES)
        features = features + torch.einsum("dhj,bj->bdh", self.past_weight * self.before, past)
        return torch.einsum("dkh,bdh->bdk", self.head_weight, features.relu()) + self.head_bias

    def log_probability_of_bins(self, observations: Tensor, bins: Tensor) -> Tensor:
        """Log-density, per unit of scaled action, of any action in ``bins`` (batch, action_dim), (batch,)."""
        log_bins = self.logits(observations, self.decode(bins)).log_softmax(-1)
        log_densities = log_bins - self.edges.diff(dim=-1).clamp(min=_SMALLEST_WIDTH).log()
        return log_densities.gather(-1, bins.unsqueeze(-1)).squeeze(-1).sum(-1)

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """Negative log-probability of the expert's action."""
        return -self.log_probability_of_bins(observations, self.bins_of(actions)).mean(), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Choose bin after bin, the likeliest or a sample, each given those before it."""
        features = self._features(observations)                     # (batch, action_dim, _FEATURES)
        chosen: list[Tensor] = []
        for dimension in range(self.action_dim):
            hidden = features[:, dimension]
            if chosen:
                hidden = hidden + torch.stack(chosen, dim=-1) @ self.past_weight[dimension, :, :dimension].T
            logits = hidden.relu() @ self.head_weight[dimension].T + self.head_bias[dimension]  # (batch, bins)
            bins = logits.argmax(-1) if deterministic else torch.multinomial(logits.softmax(-1), 1).squeeze(-1)
            chosen.append(self.decoded[dimension, bins])
        return torch.stack(chosen, dim=-1)

    def bins_of(self, actions: Tensor) -> Tensor:
        """The bin of each dimension of scaled ``actions`` (batch, action_dim), from 0 to bins - 1."""
        inner = self.edges[:, 1:-1].contiguous()                    # (action_dim, bins - 1)
        return torch.searchsorted(inner, actions.T.contiguous()).T  # (batch, action_dim)

    def decode(self, bins: Tensor) -> Tensor:
        """The action that stands for each of ``bins`` (batch, action_dim)."""
        return self.decoded.gather(1, bins.T).T

    @property
    def _centres(self) -> Tensor:
        return (self.edges[:, 1:] + self.edges[:, :-1]) / 2

    def _features(self, observations: Tensor) -> Tensor:
        return self.network(observations).unflatten(-1, (self.action_dim, _FEATURES))
