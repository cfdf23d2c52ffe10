"""The discriminator's losses against torch's and known answers."""

import pytest
import torch
from torch.nn import functional as F

from lightning_bc.strategies.online.discriminators import classification_loss, gradient_penalty


def test_classification_loss_is_binary_cross_entropy():
    torch.manual_seed(0)
    expert, learner = 5 * torch.randn(30), 5 * torch.randn(20)
    expected = F.binary_cross_entropy_with_logits(expert, torch.ones(30))
    expected = expected + F.binary_cross_entropy_with_logits(learner, torch.zeros(20))
    torch.testing.assert_close(classification_loss(expert, learner), expected)


def test_classification_loss_of_extreme_logits_is_finite():
    assert classification_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_function_is_known(slope):
    weight = slope * F.normalize(torch.tensor([1.0, -2.0, 0.5]), dim=0)
    penalty = gradient_penalty(lambda x: x @ weight + 7, torch.randn(10, 3), torch.randn(10, 3))
    assert penalty.item() == pytest.approx((slope - 1) ** 2, abs=1e-6)


def test_gradient_penalty_is_taken_between_the_two_inputs_of_a_pair():
    points = []
    expert, learner = torch.zeros(200, 3), torch.linspace(1, 2, 200).unsqueeze(-1).expand(-1, 3)

    def discriminator(inputs):
        points.append(inputs.detach())
        return inputs.sum(-1)

    gradient_penalty(discriminator, expert, learner)
    shares = points[0] / learner                                    # (200, 3), of the way from one to the other
    assert (shares.std(-1) < 1e-6).all()                            # one a pair
    assert (shares >= 0).all()
    assert (shares <= 1).all()
    assert shares.mean().item() == pytest.approx(0.5, abs=0.1)


def test_gradient_penalty_has_a_gradient_in_the_weights():
    """(|w| - 1)^2 falls along w: its gradient is 2 (|w| - 1) w / |w|."""
    weight = torch.tensor([1.5, -2.0], requires_grad=True)
    gradient_penalty(lambda x: x @ weight, torch.randn(5, 2), torch.randn(5, 2)).backward()
    torch.testing.assert_close(weight.grad, 2 * (2.5 - 1) * weight.detach() / 2.5)
