"""Temporal ensembling: ask at every step, and play the mean of what all answers so far plan for it."""

import torch
from torch import Tensor

from lightning_bc.players import Memory, Policy

LARGEST_EXPONENT = 80.0
"""Of the ratio of two weights: exp(40), the largest weight itself, is far from float32's largest number."""


class Ensembling(Memory):
    """Shows a policy the last ``history`` observations at every step, and plays the mean of its overlapping chunks.

    An answer at step t plans a_t(t), ..., a_t(t + chunk - 1). What is played at step t is the mean of a_s(t) over the steps
    s = t - chunk + 1, ..., t of the episode, with the weights

        w_i = exp(-m i),    i = 0 for the oldest of them

    (Zhao 2023, https://arxiv.org/abs/2304.13705): a smaller m follows new observations sooner. It averages actions, so where
    answers differ in which of two ways they go, it plays what lies between.

    Args:
        policy: (batch, history, observation_dim) to (batch, horizon, action_dim), in the environment's units.
        history: how many observations it sees, the present one last.
        chunk: how many of its actions are used, at most horizon.
        coefficient: m, 0 or above.
    """

    def __init__(self, policy: Policy, history: int, chunk: int, coefficient: float) -> None:
        super().__init__(policy, history, chunk)
        ages = torch.arange(chunk, dtype=torch.float64)             # of an answer when each of its actions is played
        self._weights = (coefficient * (ages - (chunk - 1) / 2)).exp().float()  # (chunk,); w_i but for a factor
        self._sums = torch.empty(0)                                 # (num_envs, chunk, action_dim) of weighted actions
        self._totals = torch.empty(0)                               # (num_envs, chunk) of weights

    def begin(self, observations: Tensor, rows: Tensor, num_envs: int) -> None:
        """Fill the history with the first observation, and forget what was planned."""
        if len(self._left) != num_envs:
            self._sums = torch.empty(0)
            self._totals = observations.new_zeros(num_envs, self.chunk)
        super().begin(observations, rows, num_envs)
        self._totals[rows] = 0
        if len(self._sums):
            self._sums[rows] = 0

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """The mean of what is planned for this step."""
        answers = self.policy(self._look(observations, rows))[:, : self.chunk]  # (playing, chunk, action_dim)
        if not len(self._sums):
            self._sums = answers.new_zeros(len(self._left), *answers.shape[1:])
        weights = self._weights.to(answers.device)
        sums = self._sums[rows] + weights.unsqueeze(-1) * answers
        totals = self._totals[rows] + weights                       # (playing, chunk)
        self._sums[rows] = torch.cat([sums[:, 1:], torch.zeros_like(sums[:, :1])], dim=1)
        self._totals[rows] = torch.cat([totals[:, 1:], torch.zeros_like(totals[:, :1])], dim=1)
        return sums[:, 0] / totals[:, :1]
