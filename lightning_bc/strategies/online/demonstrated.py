"""Where a learner that acts sees demonstrations: as transitions of their own, beside the replay's, and in its place.

**Normalisation.** Observations are standardised by the demonstrations' mean and standard deviation. A gradient penalty asks
for a slope of 1 whatever the direction: in the environment's units, where HalfCheetah's velocities vary ten times as much as
its angles, a discriminator would see hardly anything but velocities. Where an expert holds still, as on a pole that it
balances, a tenth of random play's standard deviation is the least.

**Demonstrations in the critics' batches.** A quarter of what actor and critics learn from are demonstrations, with the
learnt reward like the rest. Critics of the replay alone have no idea what it is worth to go where only the expert has
been: on Hopper they put the expert's steps far below the learner's own, and there the learner stayed. Half, as in Ball
2023 (https://arxiv.org/abs/2302.02948), teaches as fast at first, but then the learner's own mishaps are seen too
rarely, and its return dips again and again.

**Terminated episodes.** A learnt reward that is positive everywhere would teach a learner to stay alive whatever the
expert did, and a negative one to die early. So states get a last entry that is 0 while the episode lives, and an
episode that terminated goes on for ever in an absorbing state, all zeros but for that last entry, whose reward r is
learnt like any other; the episode is worth r / (1 - gamma) from there on. The entry is then 10, as far from the living
as they are from each other at most: nearer, the penalty's slope would keep r above the reward of a living state that is
far from the expert's, and dying would pay.
"""

from dataclasses import replace

import torch
from torch import Tensor

from lightning_bc.border import Border
from lightning_bc.strategies.contract import Transitions
from lightning_bc.strategies.online.replay import Replay, normalised

WIDEST = 10.0
"""Standard deviations: how far random play may reach, and how far the absorbing state lies from the living."""


class Demonstrated:
    """The demonstrations' transitions.

    Args:
        transitions: in the environment's units.
        border: between these and the learner's.
    """

    def __init__(self, transitions: Transitions, border: Border) -> None:
        self.transitions = replace(transitions, actions=border.scaled(transitions.actions).clamp(-1.0, 1.0))
        self.border = border

    def fit_border(self, replay: Replay) -> None:
        """The demonstrations' mean and standard deviation, the latter at least a tenth of random play's."""
        least = replay.observations.double().std(dim=0, correction=0) / WIDEST
        deviation, mean = torch.std_mean(self.transitions.observations.double(), dim=0, correction=0)
        self.border.take(mean, torch.maximum(deviation, least))

    def sample(self, size: int) -> Transitions:
        """``size`` of them, as the learner sees them."""
        return normalised(self.transitions.sample(size), self.border)

    def mixed(self, batch: Transitions, share: float = 0.25) -> Transitions:
        """Demonstrations in place of the first ``share`` of ``batch``."""
        number = max(1, round(share * len(batch.rewards)))          # of the smallest batch too
        demonstrated = self.sample(number)
        return Transitions(*(torch.cat([a, b[number:]]) for a, b in zip(demonstrated.columns, batch.columns, strict=True)))


class AbsorbingStates:
    """Transitions of states that go on after a termination.

    Args:
        observation_dim: size of an observation; a state has one entry more.
        action_dim: size of an action.
    """

    def __init__(self, observation_dim: int, action_dim: int) -> None:
        self.state_dim, self.action_dim = observation_dim + 1, action_dim

    def inputs(self, batch: Transitions) -> Tensor:
        """States, actions and next states side by side, (batch, 2 state_dim + action_dim)."""
        alive = torch.zeros_like(batch.observations[:, :1])
        ended = batch.terminated.unsqueeze(-1)                      # (batch, 1)
        following = torch.cat([batch.next_observations * (1 - ended), WIDEST * ended], dim=-1)
        return torch.cat([batch.observations, alive, batch.actions, following], dim=-1)

    def absorbed(self, rows: int, device: torch.device | str = "cpu") -> Tensor:
        """Inputs of ``rows`` transitions from the absorbing state to itself, with the action zero."""
        state = torch.zeros(self.state_dim, device=device)
        state[-1] = WIDEST
        return torch.cat([state, torch.zeros(self.action_dim, device=device), state]).expand(rows, -1)

    def inputs_and_ends(self, batch: Transitions) -> Tensor:
        """``inputs``, and behind them a step in the absorbing state for each transition that terminated."""
        return torch.cat([self.inputs(batch), self.absorbed(self.count_ends(batch), batch.terminated.device)])

    def count_ends(self, batch: Transitions) -> int:
        """How many of ``batch`` terminated: the one number that an update of a discriminator waits for."""
        return int(batch.terminated.sum())
