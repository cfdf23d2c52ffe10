"""Bounded actions on an unbounded axis: a = tanh(u) / c, so that a density over u has no bounds to fall off.

A Normal over the action itself puts probability beyond the bounds, and where an expert's noise is squashed, as SAC's
a = tanh(m + sigma e) (Haarnoja 2018, https://arxiv.org/abs/1812.05905), E[a] lies nearer the middle than tanh(m): a clone of
that mean acts too weakly where the expert acts near a bound. Before the squashing the noise is symmetric, and
E[arctanh(a)] = m. So the strategies that regress, or that build on Normals, do so with u = arctanh(c a).

How much of the tanh's range the actions take is c. It is 1, the squashing of such an expert, unless the training actions
saturate: an expert that is driven onto its bounds (TD3's, clipped commands of people) leaves many actions where arctanh is
infinite, errors there outweigh all others, and between two bounds there is a jump. Then c = 0.9: the bounds lie at
u = 1.47, where the tanh still bends little, and what goes beyond them is clipped. Measured in docs/action-models.md.

By the change of variables log p(a) = log p(u) - log(da / du), da / du = (1 - (c a)^2) / c, summed over dimensions.
"""

import torch
from torch import Tensor, nn

LARGEST = 0.999
"""The largest tanh(u): arctanh is infinite at 1, where u = 3.8 is taken."""

SATURATED_SHARE = 0.01
"""How many of the numbers in the training actions may lie on the bounds before c falls."""

SATURATED_RANGE = 0.9
"""What it falls to."""


def saturated_share(actions: Tensor) -> float:
    """How many of the numbers in scaled ``actions`` (pairs, action_dim) lie on the bounds, 0 to 1.

    An action that does not vary counts for nothing: nowhere can it fall off its bound.
    """
    varying = actions[:, actions.amin(dim=0) < actions.amax(dim=0)]
    return int((varying.abs() >= LARGEST).sum()) / max(1, varying.numel())


class Squashing(nn.Module):
    """The map between scaled actions a and u, chosen by the training actions."""

    range: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("range", torch.ones(()))               # c

    def fit(self, actions: Tensor) -> None:
        """Choose c by the scaled training ``actions`` (pairs, action_dim)."""
        self.range.fill_(SATURATED_RANGE if saturated_share(actions) > SATURATED_SHARE else 1.0)

    @property
    def is_plain(self) -> bool:
        """Whether a = tanh(u), as in other people's actors."""
        return float(self.range) == 1

    def unsquash(self, actions: Tensor) -> Tensor:
        """u = arctanh(c a) of scaled ``actions`` (..., action_dim), at most 3.8."""
        return self._within(actions).arctanh()

    def log_volume(self, actions: Tensor) -> Tensor:
        """log |det da / du| = sum_d [log(1 - (c a_d)^2) - log c] of ``actions`` (..., action_dim), moved in likewise."""
        return ((-self._within(actions).square()).log1p() - self.range.log()).sum(-1)

    def forward(self, u: Tensor) -> Tensor:
        """a = tanh(u) / c; beyond the bounds where tanh(u) is above c."""
        return u.tanh() / self.range

    def bounded(self, u: Tensor) -> Tensor:
        """``u`` moved to where actions are, at most arctanh(min(c, 0.999)) from 0."""
        largest = self.range.clamp(max=LARGEST).arctanh()
        return torch.maximum(torch.minimum(u, largest), -largest)

    def _within(self, actions: Tensor) -> Tensor:
        return (self.range * actions.clamp(-1.0, 1.0)).clamp(-LARGEST, LARGEST)
