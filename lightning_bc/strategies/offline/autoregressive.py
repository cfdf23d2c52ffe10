"""Autoregressive discretization: each action dimension a choice among bins, given the dimensions before it.

    p(a | o) = prod_d p(b_d | o, a_1 ... a_{d-1}) / width(b_d),    b_d = the bin of a_d

By the chain rule any distribution over the bins can be expressed: many humps, correlated dimensions, and no shape of noise
assumed but that it is uniform within a bin (for control: Metz 2017, Discrete Sequential Prediction of Continuous Actions,
https://arxiv.org/abs/1705.05035).

The network sees the observation alone and gives each dimension H features; the dimensions before it enter through a matrix
that is zero from the diagonal on (masked as in MADE, Germain 2015, https://arxiv.org/abs/1502.03509):

    h_d = relu(features_d(o) + sum_{j < d} W_dj a_j),    p(b_d = k | o, a_1 ... a_{d-1}) = softmax_k(V_d h_d + c_d)

So training is one pass over all dimensions with the expert's own action as the past (teacher forcing), and acting runs the
network once and then the small heads one after the other.

Bins are chosen with noise and decoded without it. With x_d the action's place on an axis where each bin is 1 wide, a bin's
target is the probability that x_d lands in it once Gaussian noise is added,

    - sum_d sum_k q_dk log p(b_d = k | ...),    q_dk = P(x_d + noise in bin k)

that is, maximum likelihood of actions with dequantisation noise, its expectation taken exactly. A hard label says that the
bin next to the right one is as wrong as any other; the smooth one tells the network which bins are neighbours (HL-Gauss:
Imani 2018, https://arxiv.org/abs/1806.04613; Farebrother 2024, https://arxiv.org/abs/2403.03950). A second head regresses
E[x_d | bin, context]; a chosen bin is decoded to that value, which removes the label noise,

    sum_d sum_k q_dk (x_d - m_dk(o, a_1 ... a_{d-1}))^2,    m_dk -> E[x_d | o, a_1 ... a_{d-1}, b_d = k]

So one action is decoded exactly, whichever of its bins was sampled, two humps further apart than the noise stay two, nothing
is lost to the width of the bins, and the outermost ones can give the bounds (compare the offsets of Behavior Transformers,
Shafiullah 2022, https://arxiv.org/abs/2206.11251, and the denoising of diffusion.py). A hump no wider than the noise comes
out narrower than it is.

Bins have equal width, or equal counts of training actions.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_bc.bounds import NonNegativeFloat, PositiveInt
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.optimizers import DefaultAdamW

_FEATURES = 64
"""H, features of each dimension's head."""

_SMALLEST_WIDTH = 1e-4
"""Of a bin: where many training actions share one value (a bound), quantile edges coincide, and a density needs a width."""


class Autoregressive(OfflineStrategy):
    """Maximise the log-probability of the expert's bins, dimension after dimension.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps observations to 64 action_dim features.
        bins: number of bins B of each action dimension.
        binning: "uniform" for bins of equal width, "quantile" for equal counts of training actions. Where many of these are
            equal, several bins lie at one place, of which one alone gets them.
        label_smoothing: standard deviation of the noise that bins are chosen with, in bins; 0 for hard labels.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    multimodal = True
    recordable = True
    logs = {
        "loss": Metric("nat per pair, and bin widths squared", "`train/cross_entropy` + `train/place_error`"),
        "cross_entropy": Metric(
            "nat per pair", "-(1/B) sum_pairs sum_d sum_k q_dk log p(b_d = k given o and the actions before d)"
        ),
        "place_error": Metric("bin widths squared", "(1/B) sum_pairs sum_d sum_k q_dk (x_d - m_dk)^2"),
    }

    edges: Tensor
    before: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        bins: PositiveInt = 20,
        binning: Literal["uniform", "quantile"] = "uniform",
        label_smoothing: NonNegativeFloat = 2.0,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.bins, self.binning, self.label_smoothing = bins, binning, label_smoothing
        dims = self.action_dim
        self.network = network(self.observation_dim, dims * _FEATURES)
        self.past_weight = nn.Parameter(torch.randn(dims, _FEATURES, dims) / dims**0.5)
        self.head_weight = nn.Parameter(torch.randn(dims, bins, _FEATURES) / _FEATURES**0.5)
        self.head_bias = nn.Parameter(torch.zeros(dims, bins))
        self.place_weight = nn.Parameter(torch.zeros(dims, bins, _FEATURES))
        self.place_bias = nn.Parameter((torch.arange(bins) + 0.5).repeat(dims, 1))  # bins' centres, until data say otherwise
        self.register_buffer("edges", torch.linspace(-1, 1, bins + 1).repeat(dims, 1))  # (action_dim, bins + 1)
        self.register_buffer("before", torch.ones(dims, dims).tril(-1).unsqueeze(1))  # (action_dim, 1, action_dim)

    def fit_actions(self, actions: Tensor) -> None:
        """Place the bins by the scaled training ``actions`` (pairs, action_dim)."""
        if self.binning == "quantile":
            rows = torch.arange(1, self.bins, device=actions.device) * len(actions) // self.bins
            self.edges[:, 1:-1] = actions.clamp(-1, 1).sort(dim=0).values[rows].T

    def heads(self, observations: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the bins and the places expected behind them, (batch, action_dim, bins) each.

        Each dimension sees those of ``past`` (batch, action_dim) before it.
        """
        past_weight = (self.past_weight * self.before).flatten(0, 1)  # (action_dim _FEATURES, action_dim)
        hidden = torch.addmm(self.network(observations), past, past_weight.T).relu()
        hidden = hidden.unflatten(-1, (self.action_dim, _FEATURES)).transpose(0, 1)  # (action_dim, batch, _FEATURES)
        log_bins, places = (
            torch.baddbmm(bias.unsqueeze(1), hidden, weight.mT).transpose(0, 1)
            for weight, bias in ((self.head_weight, self.head_bias), (self.place_weight, self.place_bias))
        )
        return log_bins.log_softmax(-1), places

    def log_probability(self, observations: Tensor, actions: Tensor) -> Tensor:
        """log p(a | o) of scaled ``actions`` (batch, action_dim), (batch,)."""
        actions = actions.clamp(-1.0, 1.0)
        log_bins, _ = self.heads(observations, actions)
        log_densities = log_bins - self.widths.log()
        return log_densities.gather(-1, self.bins_of(actions).unsqueeze(-1)).squeeze(-1).sum(-1)

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """Cross-entropy of the bins, and squared error of the places behind them in bins squared, summed over dimensions."""
        actions = actions.clamp(-1.0, 1.0)
        log_bins, places = self.heads(observations, actions)
        place = self.place_of(actions).unsqueeze(-1)                # (batch, action_dim, 1)
        labels = self.labels(place)                                 # (batch, action_dim, bins)
        cross_entropy = -(labels * log_bins).sum((1, 2)).mean()
        place_error = (labels * (places - place).square()).sum((1, 2)).mean()
        return cross_entropy + place_error, {"cross_entropy": cross_entropy.detach(), "place_error": place_error.detach()}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Choose bin after bin, the likeliest or a sample, each given the actions before it."""
        features = self.network(observations).unflatten(-1, (self.action_dim, _FEATURES))
        actions = features[:, 0, :0]                                # (batch, dimensions chosen so far)
        weights = torch.cat([self.head_weight, self.place_weight], dim=1)  # (action_dim, 2 bins, _FEATURES)
        biases = torch.cat([self.head_bias, self.place_bias], dim=1)
        for dimension in range(self.action_dim):
            past_weight = self.past_weight[dimension, :, :dimension]  # (_FEATURES, dimension)
            hidden = torch.addmm(features[:, dimension], actions, past_weight.T).relu()
            logits, places = torch.addmm(biases[dimension], hidden, weights[dimension].T).split(self.bins, dim=-1)
            bins = logits.argmax(-1, keepdim=True) if deterministic else torch.multinomial(logits.softmax(-1), 1)
            place = places.gather(-1, bins).squeeze(-1).clamp(0.0, float(self.bins))
            lower = place.long().clamp(max=self.bins - 1)           # the bin that the place is in, (batch,)
            edges = self.edges[dimension]
            action = torch.lerp(edges[:-1][lower], edges[1:][lower], place - lower)
            actions = torch.cat([actions, action.unsqueeze(-1)], dim=-1)
        return actions

    def bins_of(self, actions: Tensor) -> Tensor:
        """The bin of each dimension of scaled ``actions`` (batch, action_dim), from 0 to bins - 1."""
        inner = self.edges[:, 1:-1].contiguous()                    # (action_dim, bins - 1)
        return torch.searchsorted(inner, actions.T.contiguous()).T  # (batch, action_dim)

    def labels(self, place: Tensor) -> Tensor:
        """q, the smoothed labels of the ``place`` (batch, action_dim, 1): (batch, action_dim, bins)."""
        if self.label_smoothing == 0:
            bins = place.ceil().long().clamp(min=1) - 1             # with the upper edge in the bin
            return F.one_hot(bins.squeeze(-1), self.bins).float()
        edges = torch.arange(self.bins + 1, device=place.device)
        mass = torch.special.ndtr((edges - place) / self.label_smoothing).diff(dim=-1)
        return mass / mass.sum(-1, keepdim=True)                    # what noise carries over a bound comes back

    def place_of(self, actions: Tensor) -> Tensor:
        """x, how many bins lie below scaled ``actions`` (batch, action_dim), with fractions: 0 to bins, like actions."""
        bins = self.bins_of(actions).unsqueeze(-1)                  # (batch, action_dim, 1)
        within = (actions - self._of(bins, self.edges[:, :-1])) / self._of(bins, self.widths)
        return bins.squeeze(-1) + within.clamp(0.0, 1.0)

    @property
    def widths(self) -> Tensor:
        """Of the bins, (action_dim, bins)."""
        return self.edges.diff(dim=-1).clamp(min=_SMALLEST_WIDTH)

    def _of(self, bins: Tensor, table: Tensor) -> Tensor:
        """The entries of ``table`` (action_dim, bins) at ``bins`` (batch, action_dim, 1): (batch, action_dim)."""
        return table.expand(len(bins), -1, -1).gather(-1, bins).squeeze(-1)
