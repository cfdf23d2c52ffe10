"""Soft actor-critic: a policy that maximises reward and entropy (Haarnoja 2018, https://arxiv.org/abs/1812.05905).

The policy is a squashed Gaussian, and an ensemble of critics, of which the least is believed, answers for its future:

    a = tanh(m(o) + sigma(o) e),    log pi(a | o) = log Normal(u; m, sigma) - sum_d log(1 - a_d^2)
    Q_i(o, a) <- r + gamma (1 - terminated) (min_j Qbar_j(o', a') - alpha log pi(a' | o')),    a' ~ pi(. | o')
    pi <- argmax E[ min_i Q_i(o, a) - alpha log pi(a | o) ]
    alpha <- falls while the entropy is above -action_dim, rises while it is below

Qbar are slowly moving averages of Q. Critics are layer-normalised, which keeps their values from running away at more than
a few updates a step and costs little (Ball 2023, https://arxiv.org/abs/2302.02948).
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LOG_SCALE_RANGE = (-5.0, 2.0)


class SquashedGaussian:
    """tanh of a diagonal Normal.

    Args:
        outputs: of the actor's network, (batch, 2 action_dim): means, then raw log standard deviations.
    """

    def __init__(self, outputs: Tensor) -> None:
        low, high = LOG_SCALE_RANGE
        self.mean, raw = outputs.chunk(2, dim=-1)                   # (batch, action_dim)
        self.log_scale = low + (high - low) * (raw.tanh() + 1) / 2

    def sample(self) -> tuple[Tensor, Tensor]:
        """Actions (batch, action_dim), differentiable in the outputs, and their log-probabilities (batch,)."""
        noise = torch.randn_like(self.mean)
        before_tanh = self.mean + self.log_scale.exp() * noise
        return before_tanh.tanh(), self._log_probability(before_tanh, noise)

    def log_probability(self, actions: Tensor, largest: float = 1 - 1e-5) -> Tensor:
        """log pi of given ``actions`` (batch, action_dim), those on a bound moved in, (batch,)."""
        before_tanh = actions.clamp(-largest, largest).arctanh()
        return self._log_probability(before_tanh, (before_tanh - self.mean) / self.log_scale.exp())

    def _log_probability(self, before_tanh: Tensor, noise: Tensor) -> Tensor:
        log_normal = -0.5 * noise.square() - self.log_scale - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) without the rounding of 1 - 1
        log_volume = 2 * (math.log(2) - before_tanh - F.softplus(-2 * before_tanh))
        return (log_normal - log_volume).sum(-1)


class Critics(nn.Module):
    """An ensemble of Q functions as one: their weights are stacked, so that a layer of all is one batched product.

    Each is a multi-layer perceptron of (observation, action) with layer normalisation before each activation; without gains
    and shifts, for speed.

    Args:
        input_size: observation_dim + action_dim.
        hidden_sizes: widths of the hidden layers.
        members: how many critics.
    """

    def __init__(self, input_size: int, hidden_sizes: tuple[int, ...] = (256, 256), members: int = 2) -> None:
        super().__init__()
        sizes = [input_size, *hidden_sizes, 1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for size_in, size_out in itertools.pairwise(sizes):
            bound = size_in**-0.5                                   # as nn.Linear begins
            self.weights.append(nn.Parameter(torch.empty(members, size_in, size_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(members, 1, size_out).uniform_(-bound, bound)))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Q values of ``observations`` (batch, observation_dim) and ``actions`` (batch, action_dim): (members, batch)."""
        hidden = torch.cat([observations, actions], dim=-1).expand(len(self.weights[0]), -1, -1)
        *hidden_layers, last = zip(self.biases, self.weights, strict=True)
        for bias, weight in hidden_layers:
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = F.layer_norm(hidden, hidden.shape[-1:]).relu_()
        return torch.baddbmm(last[0], hidden, last[1]).squeeze(-1)
