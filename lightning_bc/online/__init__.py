"""What strategies that act while they learn share: replay, soft actor-critic, discriminators."""

from lightning_bc.online.discriminators import Discriminator, classification_loss, gradient_penalty
from lightning_bc.online.replay import Replay, Transitions
from lightning_bc.online.soft_actor_critic import Critics, SquashedGaussian

__all__ = [
    "Critics",
    "Discriminator",
    "Replay",
    "SquashedGaussian",
    "Transitions",
    "classification_loss",
    "gradient_penalty",
]
