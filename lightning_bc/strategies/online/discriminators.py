"""Discriminators: which transitions are the expert's?"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Discriminator(nn.Sequential):
    """A multi-layer perceptron with two hidden layers of tanh and one logit, large where the input looks like the expert's.

    Args:
        input_size: size of the input.
        hidden_size: width of the hidden layers.
    """

    def __init__(self, input_size: int, hidden_size: int = 256) -> None:
        super().__init__(
            nn.Linear(input_size, hidden_size), nn.Tanh(),
            nn.Linear(hidden_size, hidden_size), nn.Tanh(),
            nn.Linear(hidden_size, 1),
        )  # fmt: skip

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (batch,) of ``inputs`` (batch, input_size)."""
        return super().forward(inputs).squeeze(-1)


def classification_loss(expert_logits: Tensor, learner_logits: Tensor) -> Tensor:
    """- E_expert[log D] - E_learner[log(1 - D)],  D = sigmoid(logit): binary cross-entropy, the expert's label being 1."""
    return F.softplus(-expert_logits).mean() + F.softplus(learner_logits).mean()


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], expert: Tensor, learner: Tensor) -> Tensor:
    """E (||grad D(x)|| - 1)^2 at random points between pairs of inputs (batch, input_size).

    A bounded slope keeps the reward informative where the two do not overlap (Gulrajani 2017,
    https://arxiv.org/abs/1704.00028; for imitation: Kostrikov 2019, https://arxiv.org/abs/1809.02925).
    """
    mixed = torch.lerp(expert, learner, torch.rand(len(expert), 1, device=expert.device)).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(mixed).sum(), mixed, create_graph=True)
    return (gradient.norm(dim=-1) - 1).square().mean()
