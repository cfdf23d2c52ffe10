"""A cloned actor goes on as a learning one, without its return collapsing at the hand-over.

Critics that know nothing send a cloned actor wherever they err, and within some hundred updates it has forgotten what it was
cloned from. What keeps it, in the order in which it happens:

    replay    is filled by the clone's own play, a = tanh(m(o) + sigma e) with a small sigma, in place of random actions
    critics   learn alone at first: what the clone's actions are worth, and those near them
    actor     maximises  E[min_i Q_i(o, a) - alpha log pi(a | o)] / mean |Q|  -  w E[KL(pi(. | o) || clone(. | o))]

An actor can be trusted as far as the critics have seen actions, which is some sigma around the clone's, and farther as it
plays. So w falls from 0.03 by half in every ``anchor`` updates. It ends at 0.004, since the divergence, and no learnt
temperature, keeps the entropy: alpha stays at 0.01. Learnt, it rose to 0.35 within 11,000 updates of Hopper's actor, since
the clone's sigma held the entropy under its target, and the return went up from 1483 to 3111 and down to 693. Dividing by
the mean |Q| lets one w stand for rewards of any size (TD3+BC, Fujimoto 2021, https://arxiv.org/abs/2106.06860; a weight
that falls while learning goes on: Beeson 2022, https://arxiv.org/abs/2211.11802).
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.networks import Network
from lightning_bc.strategies.online.soft_actor_critic import LOG_SCALE_RANGE, SquashedGaussian

SCALE = 0.1
"""Standard deviation of the actor before the tanh at first."""

TEMPERATURE = 0.01
"""What entropy is worth, at most."""

WEIGHT, LEAST_WEIGHT = 0.03, 0.004
"""w at first, and at last."""


def raw_log_scale(scale: float) -> float:
    """The actor's output of which :class:`SquashedGaussian` makes the standard deviation ``scale``."""
    low, high = LOG_SCALE_RANGE
    return math.atanh(2 * (math.log(scale) - low) / (high - low) - 1)


def with_scale(means: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> StateDict:
    """A cloned network's weights for one that answers with raw log standard deviations too, the same for every observation.

    Whatever the network is, only its last layer differs: there the means' rows come first.

    Args:
        means: of a network with action_dim outputs, the means before the tanh.
        wanted: of the same network with 2 action_dim outputs; gives names and shapes.
    """
    weights: StateDict = {}
    for name, value in means.items():
        rows = wanted[name].shape[:1] if name in wanted else value.shape[:1]
        if value.dim() and rows[0] == 2 * len(value) and wanted[name].shape[1:] == value.shape[1:]:
            rest = torch.zeros_like(value) if value.dim() > 1 else torch.full_like(value, raw_log_scale(SCALE))
            value = torch.cat([value, rest])
        weights[name] = value
    return weights


class Clone:
    """The clone that an actor began as, which holds it near; no part of the agent, so that who plays it needs none.

    Args:
        network: the actor's at first; it is copied.
    """

    def __init__(self, network: Network) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.weight = torch.zeros(())                               # w, a tensor, since updates are replayed

    def to(self, device: torch.device) -> None:
        """Bring it where the actor learns."""
        self.network, self.weight = self.network.to(device), self.weight.to(device)

    def anchor(self, policy: SquashedGaussian, observations: Tensor) -> Tensor:
        """What the actor's loss adds for ``policy`` at ``observations`` (batch, observation_dim), a scalar."""
        return self.weight * divergence(policy, SquashedGaussian(self.network(observations))).mean()


def divergence(policy: SquashedGaussian, other: SquashedGaussian) -> Tensor:
    """KL(policy || other) in nats, (batch,). The tanh changes both alike, so it is that of the Normals before it."""
    narrowing = policy.log_scale - other.log_scale                  # (batch, action_dim)
    shift = (policy.mean - other.mean) / other.log_scale.exp()
    return (0.5 * (shift.square() + (2 * narrowing).exp() - 1) - narrowing).sum(-1)
