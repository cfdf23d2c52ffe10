"""MeanFlow against the flow that is known for Gaussian actions; all of it before the tanh, u = arctanh(a)."""

import pytest
import torch
from conftest import build_strategy
from scipy import integrate, stats

from lightning_bc.strategies import MeanFlow
from lightning_bc.strategies.offline import mean_flow

MEAN, SCALE = 0.1, 0.2


def one_dimensional(**options):
    return build_strategy(MeanFlow, observation_dim=1, action_low=[-1.0], action_high=[1.0], **options)


def spread(time):
    """Standard deviation of z_t for u ~ Normal(MEAN, SCALE) and e ~ Normal(0, 1)."""
    return ((1 - time) ** 2 * SCALE**2 + time**2) ** 0.5


def perfect_action(observations, points, before, time):
    """z_t - t w: the flow keeps the quantile, z_r = m_r + sigma_r / sigma_t (z_t - m_t); at r = t w is its derivative."""
    r, t = before.unsqueeze(-1), time.unsqueeze(-1)
    quantile = (points - (1 - t) * MEAN) / spread(t)
    average = (points - (1 - r) * MEAN - spread(r) * quantile) / (t - r).clamp(min=1e-3)
    velocity = -MEAN + quantile * (t - (1 - t) * SCALE**2) / spread(t)
    return points - t * torch.where(t - r > 1e-3, average, velocity)


@pytest.mark.parametrize("act_steps", [1, 3])
def test_the_perfect_average_velocity_carries_noise_to_the_data(act_steps, monkeypatch):
    strategy = one_dimensional(act_steps=act_steps)
    monkeypatch.setattr(strategy, "action", perfect_action)
    torch.manual_seed(0)
    with torch.inference_mode():
        ends = strategy.act(torch.zeros(4000, 1), deterministic=False)[:, 0].arctanh().numpy()
    assert stats.kstest(ends, stats.norm(MEAN, SCALE).cdf).pvalue > 0.01
    assert stats.kstest(ends + 0.02, stats.norm(MEAN, SCALE).cdf).pvalue < 0.01


def squared_noise(before, time):
    """t^2 Var(v | z_t) (1 - (t - r) d_z w)^2: what is left of the loss where the identity holds on average."""
    return time**2 * SCALE**2 / spread(time) ** 2 * (spread(before) / spread(time)) ** 2


def test_loss_is_least_at_the_perfect_average_velocity(monkeypatch):
    """An action that is shifted by b costs E (b r / t)^2 more, as the identity says: a shift is forgotten where r is 0."""
    strategy = one_dimensional(interval_share=1.0)
    actions = (MEAN + SCALE * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))).tanh()
    losses = []
    for shift in (0.0, 0.5):
        monkeypatch.setattr(strategy, "action", lambda *inputs, by=shift: perfect_action(*inputs) + by)
        torch.manual_seed(1)
        with torch.no_grad():
            losses.append(float(strategy.loss(torch.zeros(len(actions), 1), actions)[0]))
    least, _ = integrate.dblquad(squared_noise, 0, 1, 0, lambda time: time)  # of two uniform times: density 2
    assert losses[0] == pytest.approx(2 * least, rel=0.02)
    assert losses[1] - losses[0] == pytest.approx(0.25 / 3, rel=0.02)


def test_without_intervals_the_loss_is_that_of_flow_matching(monkeypatch):
    strategy = one_dimensional(interval_share=0.0)
    observations, actions = torch.zeros(1000, 1), 1.8 * torch.rand(1000, 1) - 0.9
    monkeypatch.setattr(strategy, "action", lambda observations, points, before, time: 0.3 * points)
    torch.manual_seed(1)
    loss, _ = strategy.loss(observations, actions)
    torch.manual_seed(1)
    noise, times = torch.randn(1000, 1), 1 - torch.rand(2, 1000)
    points = torch.lerp(actions.arctanh(), noise, times.amax(0).unsqueeze(-1))
    torch.testing.assert_close(loss, (0.3 * points - actions.arctanh()).square().mean())


def test_the_target_of_the_identity_has_no_gradient(monkeypatch):
    strategy, seen = build_strategy(MeanFlow), []
    mse = mean_flow.mean_squared_error
    monkeypatch.setattr(mean_flow, "mean_squared_error", lambda *given: seen.append(given) or mse(*given))
    strategy.loss(torch.randn(6, 3), torch.rand(6, 2) - 0.5)
    ((averages, target, _),) = seen
    assert averages.requires_grad
    assert not target.requires_grad


@pytest.mark.parametrize("noise_scale", [0.0, 0.1, 1.0])
def test_the_deterministic_action_is_the_quantile_of_the_scaled_noise(noise_scale, monkeypatch):
    strategy = one_dimensional(noise_scale=noise_scale)
    monkeypatch.setattr(strategy, "action", perfect_action)
    action = strategy.act(torch.zeros(1, 1), deterministic=True)
    torch.testing.assert_close(action, (MEAN + SCALE * noise_scale * strategy.start_noise).tanh().unsqueeze(0))


def test_the_network_is_evaluated_once_per_action():
    strategy, calls = one_dimensional(), []
    strategy.network.register_forward_hook(lambda *_: calls.append(1))
    strategy(torch.zeros(2, 1))
    assert len(calls) == 1
