"""Bounded actions on an unbounded axis: a = tanh(u), so that a density over u has no bounds to fall off.

A Normal over the action itself puts probability beyond the bounds, and where an expert's noise is squashed, as SAC's
a = tanh(m + sigma e) (Haarnoja 2018, https://arxiv.org/abs/1812.05905), E[a] lies nearer the middle than tanh(m): a clone of
that mean acts too weakly where the expert acts near a bound. Before the squashing the noise is symmetric, and
E[arctanh(a)] = m. So the strategies that regress, or that build on Normals, do so with u = arctanh(a).

By the change of variables log p(a) = log p(u) - log(1 - a^2), summed over dimensions.
"""

from torch import Tensor

LARGEST_ACTION = 0.999
"""arctanh is infinite on the bounds, where clipped demonstrations lie: there u = 3.8 is taken."""


def unsquash(actions: Tensor) -> Tensor:
    """u = arctanh(a) of scaled ``actions`` (..., action_dim), those on a bound moved in by a thousandth."""
    return actions.clamp(-LARGEST_ACTION, LARGEST_ACTION).arctanh()


def log_volume(actions: Tensor) -> Tensor:
    """log |det da / du| = sum_d log(1 - a_d^2) of scaled ``actions`` (..., action_dim), moved in as in unsquash: (...)."""
    return (-actions.clamp(-LARGEST_ACTION, LARGEST_ACTION).square()).log1p().sum(-1)
