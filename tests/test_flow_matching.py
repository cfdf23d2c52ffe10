"""Flow matching against the velocity field that is known for Gaussian actions."""

import pytest
import torch
from conftest import build_strategy
from scipy import stats

from lightning_bc.errors import InputError
from lightning_bc.strategies import FlowMatching


def one_dimensional(**options):
    return build_strategy(FlowMatching, observation_dim=1, action_low=[-1.0], action_high=[1.0], **options)


def perfect_velocity(mean, scale):
    """E[a - e | a_t] for a ~ Normal(mean, scale) and e ~ Normal(0, 1)."""

    def velocity(observations, points, time):
        t = time.unsqueeze(-1)
        variance = t**2 * scale**2 + (1 - t) ** 2
        return mean + (t * scale**2 - (1 - t)) / variance * (points - t * mean)

    return velocity


def test_the_perfect_velocity_carries_noise_to_the_data(monkeypatch):
    strategy = one_dimensional(act_steps=200)
    monkeypatch.setattr(strategy, "velocity", perfect_velocity(0.1, 0.2))
    torch.manual_seed(0)
    with torch.inference_mode():
        actions = strategy.act(torch.zeros(4000, 1), deterministic=False)[:, 0].numpy()
    assert stats.kstest(actions, stats.norm(0.1, 0.2).cdf).pvalue > 0.01
    assert stats.kstest(actions + 0.02, stats.norm(0.1, 0.2).cdf).pvalue < 0.01


def test_one_step_of_the_perfect_velocity_is_the_mean(monkeypatch):
    strategy = one_dimensional(act_steps=1)
    monkeypatch.setattr(strategy, "velocity", perfect_velocity(0.1, 0.2))
    actions = strategy.act(torch.zeros(100, 1), deterministic=False)
    torch.testing.assert_close(actions, torch.full((100, 1), 0.1))


def test_loss_is_least_at_the_perfect_velocity(monkeypatch):
    """Its least value is the mean conditional variance of the velocity; a shifted field costs the shift squared more."""
    strategy, best = one_dimensional(), perfect_velocity(0.1, 0.2)
    actions = 0.1 + 0.2 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    losses = []
    for shift in (0.0, 0.5):
        monkeypatch.setattr(strategy, "velocity", lambda *inputs, shift=shift: best(*inputs) + shift)
        torch.manual_seed(1)
        losses.append(float(strategy.loss(torch.zeros(len(actions), 1), actions)[0]))
    assert losses[1] - losses[0] == pytest.approx(0.25, abs=0.01)


def test_the_network_is_evaluated_once_a_step_and_none_is_refused():
    calls = []
    strategy = one_dimensional(act_steps=4)
    strategy.network.register_forward_hook(lambda *_: calls.append(1))
    strategy(torch.zeros(2, 1))
    assert len(calls) == 4
    with pytest.raises(InputError, match="wanted at least 1"):
        one_dimensional(act_steps=0)
