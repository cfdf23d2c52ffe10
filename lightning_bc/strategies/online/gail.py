"""Generative adversarial imitation learning: be mistaken for the expert (Ho 2016, https://arxiv.org/abs/1606.03476).

    D(s, a) = sigmoid(f(s, a)) -> 1 on the expert, 0 on the learner
    reward  = log D - log(1 - D) = f(s, a)

Sign. At the best discriminator D = p_expert / (p_expert + p_learner), so that f = log p_expert(s, a) - log p_learner(s, a):
positive where the expert goes more often than the learner does, negative where the learner strays. Maximising its mean
under the learner minimises KL(p_learner || p_expert). (Ho's paper labels the learner 1 and minimises log D; the reward there
is - log D of that, never negative, and so rewards mere survival.)

Off-policy and with a gradient penalty: adversarial.py.
"""

from typing import Any

from torch import Tensor, nn

from lightning_bc.strategies.online.adversarial import AdversarialStrategy
from lightning_bc.strategies.online.discriminators import Discriminator


class GAIL(AdversarialStrategy):
    """Soft actor-critic on the logit of a discriminator of (state, action).

    Args:
        options: those of every adversarial strategy.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.discriminator = Discriminator(self.state_dim + self.action_dim)

    def score(self, inputs: Tensor) -> Tensor:
        """f(s, a)."""
        return self.discriminator(inputs[:, : self.state_dim + self.action_dim])

    def logits(self, inputs: Tensor) -> Tensor:
        """f(s, a)."""
        return self.score(inputs)

    def discriminator_parameters(self) -> list[nn.Parameter]:
        """All of it."""
        return list(self.discriminator.parameters())
