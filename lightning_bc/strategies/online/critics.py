"""Critics: an ensemble of Q functions, of which the least is believed (Fujimoto 2018, https://arxiv.org/abs/1802.09477).

They are layer-normalised, which keeps their values from running away at more than a few updates per step and costs little
(Ball 2023, https://arxiv.org/abs/2302.02948).
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
