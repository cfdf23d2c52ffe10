"""Mean squared error before and after the tanh, and the border that forward crosses."""

import math

import numpy as np
import pytest
import torch
from conftest import build_strategy, constant_outputs, linear_problem, train

from lightning_bc.strategies import MSE


@pytest.mark.parametrize(
    ("scaled", "wanted"),
    [
        pytest.param([-1.0, 1.0], [-2.0, 3.0], id="corner"),
        pytest.param([0.0, 0.0], [-0.5, 1.5], id="middle"),
        pytest.param([0.5, -0.2], [0.25, 1.2], id="between"),
        pytest.param([-7.0, 1e9], [-2.0, 3.0], id="beyond the bounds"),
    ],
)
def test_forward_and_scale_are_inverse_maps_and_forward_clamps(scaled, wanted):
    strategy = build_strategy(MSE, network=constant_outputs(scaled), squash=False)
    with torch.inference_mode():
        actions = strategy(torch.zeros(1, 3))
    torch.testing.assert_close(actions, torch.tensor([wanted]))
    torch.testing.assert_close(strategy.border.scaled(actions), torch.tensor([scaled]).clamp(-1, 1))


squash_or_not = pytest.mark.parametrize("squash", [True, False], ids=["before tanh", "on the action"])


@squash_or_not
def test_mse_loss_is_the_mean_squared_distance(squash):
    strategy, (observations, actions) = build_strategy(MSE, squash=squash), linear_problem()
    outputs, targets = strategy.network(observations).detach().double().numpy(), actions.double().numpy()
    if squash:
        targets = np.arctanh(np.clip(targets, -0.999, 0.999))
    loss, _ = strategy.loss(observations, actions)
    np.testing.assert_allclose(loss.item(), np.mean((outputs - targets) ** 2), rtol=1e-5)
    acted = strategy.act(observations, deterministic=True).detach().numpy()
    np.testing.assert_allclose(acted, np.tanh(outputs) if squash else outputs, atol=1e-6)


@squash_or_not
def test_mse_finds_the_mean_before_or_after_the_squashing(squash):
    """Demonstrations of a soft actor-critic, a = tanh(m + sigma e): squashed, the clone is as decided as its mean."""
    strategy = build_strategy(
        MSE, 1, action_low=[-1.0], action_high=[1.0], network=constant_outputs([0.0]), squash=squash
    )
    generator = torch.Generator().manual_seed(0)
    actions = torch.tanh(1.0 + 0.5 * torch.randn(20_000, 1, generator=generator))
    train(strategy, lambda: (torch.zeros(20_000, 1), actions), steps=300, learning_rate=0.03)
    with torch.inference_mode():
        found = strategy(torch.zeros(1, 1)).item()
    assert found == pytest.approx(math.tanh(1.0) if squash else actions.mean().item(), abs=0.01)
    assert math.tanh(1.0) - actions.mean().item() > 0.03  # the two differ by more than the tolerance
