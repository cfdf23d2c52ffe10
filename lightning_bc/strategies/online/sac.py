"""Soft actor-critic on the environment's own reward: no imitation, but how experts come to be.

The losses stand in online/soft_actor_critic.py and interactive.py (Haarnoja 2018, https://arxiv.org/abs/1812.05905). Here
the reward is the environment's, so no demonstrations are read (``data.path: null``). A checkpoint is an expert for
``collect``.
"""

from typing import Any

from torch import Tensor

from lightning_bc.strategies.contract import Needs, Transitions
from lightning_bc.strategies.online.interactive import OnlineStrategy


class SAC(OnlineStrategy):
    """Maximise the environment's reward and the policy's entropy.

    Args:
        options: those of every interactive strategy.
    """

    needs = Needs.NOTHING

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    def rewards(self, batch: Transitions) -> Tensor:
        """The environment's."""
        return batch.rewards
