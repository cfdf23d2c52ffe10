"""Adversarial inverse reinforcement learning: a reward that outlives its discriminator (Fu 2018,
https://arxiv.org/abs/1710.11248).

    f(s, a, s') = g(s, a) + gamma h(s') - h(s)
    log D - log(1 - D) = f(s, a, s') - alpha log pi(a | s)
    reward = f(s, a, s')

g is the reward proper, and h a potential, whose differences change no optimal policy (Ng 1999): what depends on the
dynamics can go there.

Sign. At the best discriminator f - alpha log pi = log p_expert(s, a) - log p_learner(s, a), so f is high where the expert
goes. Soft actor-critic earns f and pays alpha, its temperature, for each nat of log pi, so all in all it maximises
E[f - alpha log pi] = E[log p_expert - log p_learner], whose maximum is the expert. Fu's reward log D - log(1 - D) is that
sum already, for a policy gradient without an entropy of its own; here the reward is f alone.

Temperature. Fu's D = exp f / (exp f + pi) is the case alpha = 1. Soft actor-critic chooses alpha itself, and mostly far
below 1; with log pi at full weight the sum above would not cancel. Nor would f be learnt: off the policy, log pi ranges
over tens of nats (old actions in the replay, the expert's), the logits would be all log pi, and the classes told apart
without f. So the temperature begins at 0.1 rather than at 1.

log pi is of the present policy, for the expert's actions and for the replay's. Off-policy, with a gradient penalty (on f)
and absorbing states: rewards.py, demonstrated.py.
"""

import torch
from torch import Tensor, nn

from lightning_bc.strategies.online.adversarial import AdversarialImitation
from lightning_bc.strategies.online.demonstrated import AbsorbingStates
from lightning_bc.strategies.online.discriminators import Discriminator

_LEAST_LOG_PROBABILITY = -20.0
"""Of an action that a policy would never choose, log pi has no lower bound; above, the policy's least scale bounds it."""


class ShapedReward(nn.Module):
    """f(s, a, s') = g(s, a) + gamma h(s') - h(s).

    Args:
        states: whose inputs it is given.
        discount: gamma.
    """

    def __init__(self, states: AbsorbingStates, discount: float) -> None:
        super().__init__()
        self.discount, self.widths = discount, [states.state_dim, states.action_dim, states.state_dim]
        self.reward = Discriminator(states.state_dim + states.action_dim)  # g
        self.potential = Discriminator(states.state_dim, hidden_size=64)  # h

    def forward(self, inputs: Tensor) -> Tensor:
        """f (batch,) of ``inputs`` (batch, 2 state_dim + action_dim)."""
        state, action, following = inputs.split(self.widths, dim=-1)
        reward = self.reward(torch.cat([state, action], dim=-1))
        return reward + self.discount * self.potential(following) - self.potential(state)


class AIRL(AdversarialImitation):
    """Soft actor-critic on f of a discriminator that knows the policy."""

    def discriminator(self, discount: float) -> nn.Module:
        """f(s, a, s')."""
        return ShapedReward(self.states, discount)

    def logits(self, inputs: Tensor) -> Tensor:
        """f - alpha log pi of ``inputs``, (batch,); in the absorbing state nothing is chosen, and log pi is 0."""
        state, action, _ = inputs.split([self.states.state_dim, self.action_dim, self.states.state_dim], dim=-1)
        with torch.no_grad():
            log_probability = self.agent.policy(state[:, :-1]).log_probability(action).clamp(min=_LEAST_LOG_PROBABILITY)
        temperature = self.agent.log_temperature.detach().exp()
        return self.reward.f(inputs) - temperature * log_probability * (state[:, -1] == 0)
