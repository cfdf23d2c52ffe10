"""Generative adversarial imitation learning: be mistaken for the expert (Ho 2016, https://arxiv.org/abs/1606.03476).

    D(s, a) = sigmoid(f(s, a)) -> 1 on the expert, 0 on the learner
    reward  = log D - log(1 - D) = f(s, a)

Sign. At the best discriminator D = p_expert / (p_expert + p_learner), so that f = log p_expert(s, a) - log p_learner(s, a):
positive where the expert goes more often than the learner does, negative where the learner strays. Maximising its mean
under the learner minimises KL(p_learner || p_expert). (Ho's paper labels the learner 1 and minimises log D; the reward there
is - log D of that, never negative, and so rewards mere survival.)

Off-policy, with a gradient penalty and absorbing states: rewards.py, demonstrated.py.
"""

from torch import Tensor, nn

from lightning_bc.strategies.online.adversarial import AdversarialImitation
from lightning_bc.strategies.online.demonstrated import AbsorbingStates
from lightning_bc.strategies.online.discriminators import Discriminator


class StateAction(nn.Module):
    """f(s, a): a discriminator that does not look at the next state.

    Args:
        states: whose inputs it is given.
    """

    def __init__(self, states: AbsorbingStates) -> None:
        super().__init__()
        self.width = states.state_dim + states.action_dim
        self.discriminator = Discriminator(self.width)

    def forward(self, inputs: Tensor) -> Tensor:
        """f (batch,) of ``inputs`` (batch, 2 state_dim + action_dim), which begin with state and action."""
        return self.discriminator(inputs[:, : self.width])


class GAIL(AdversarialImitation):
    """Soft actor-critic on the logit of a discriminator of (state, action)."""

    def discriminator(self, discount: float) -> nn.Module:
        """f(s, a)."""
        return StateAction(self.states)
