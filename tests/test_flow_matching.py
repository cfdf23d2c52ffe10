"""Flow matching against the path's end that is known for Gaussian actions; all of it before the tanh, u = arctanh(a)."""

import pytest
import torch
from conftest import build_strategy, refused
from scipy import integrate, stats

from lightning_bc.strategies import FlowMatching

MEAN, SCALE = 0.1, 0.2


def one_dimensional(**options):
    return build_strategy(FlowMatching, observation_dim=1, action_low=[-1.0], action_high=[1.0], **options)


def perfect_end(observations, points, time):
    """E[u | u_t] for u ~ Normal(MEAN, SCALE) and e ~ Normal(0, 1)."""
    t = time.unsqueeze(-1)
    variance = t**2 * SCALE**2 + (1 - t) ** 2
    return MEAN + t * SCALE**2 / variance * (points - t * MEAN)


def test_the_perfect_end_carries_noise_to_the_data(monkeypatch):
    strategy = one_dimensional(act_steps=200)
    monkeypatch.setattr(strategy, "end", perfect_end)
    torch.manual_seed(0)
    with torch.inference_mode():
        ends = strategy.act(torch.zeros(4000, 1), deterministic=False)[:, 0].arctanh().numpy()
    assert stats.kstest(ends, stats.norm(MEAN, SCALE).cdf).pvalue > 0.01
    assert stats.kstest(ends + 0.02, stats.norm(MEAN, SCALE).cdf).pvalue < 0.01


@pytest.mark.parametrize(("spacing", "last"), [(1.0, 1 / 50), (3.0, 1 / 50**3)])
def test_the_spacing_shortens_the_last_steps_and_leads_to_the_data_too(spacing, last, monkeypatch):
    strategy = one_dimensional(act_steps=50, spacing=spacing)
    times = [strategy.time_of(step) for step in range(51)]
    assert times[0] == 0
    assert times[-1] == 1
    assert times == sorted(times)
    assert times[-1] - times[-2] == pytest.approx(last)
    monkeypatch.setattr(strategy, "end", perfect_end)
    torch.manual_seed(0)
    with torch.inference_mode():
        ends = strategy.act(torch.zeros(1000, 1), deterministic=False)[:, 0].arctanh().numpy()
    assert stats.kstest(ends, stats.norm(MEAN, SCALE).cdf).pvalue > 0.01


@pytest.mark.parametrize(("steps", "spacing"), [(50, 10.0), (2, 200.0)])
def test_steps_that_are_shorter_than_rounding_are_none(steps, spacing, monkeypatch):
    strategy = one_dimensional(act_steps=steps, spacing=spacing)
    monkeypatch.setattr(strategy, "end", perfect_end)
    for deterministic in (True, False):
        assert strategy.act(torch.zeros(100, 1), deterministic).isfinite().all()


def test_one_step_to_the_perfect_end_is_the_mean(monkeypatch):
    strategy = one_dimensional(act_steps=1)
    monkeypatch.setattr(strategy, "end", perfect_end)
    actions = strategy.act(torch.zeros(100, 1), deterministic=False)
    torch.testing.assert_close(actions, torch.full((100, 1), MEAN).tanh())


@pytest.mark.parametrize(("noise_scale", "least", "most"), [(0.0, 0.0, 0.0), (0.1, 0.05, 0.3), (1.0, 1.0, 1.0)])
def test_the_deterministic_action_is_a_quantile_and_a_low_noise_scale_brings_it_to_the_median(
    noise_scale, least, most, monkeypatch
):
    strategy = one_dimensional(act_steps=300, noise_scale=noise_scale)
    monkeypatch.setattr(strategy, "end", perfect_end)
    end = strategy.act(torch.zeros(1, 1), deterministic=True).arctanh().item()
    assert strategy.start_noise.abs() > 0.5  # or temperatures would hardly differ
    assert least - 0.02 < (end - MEAN) / SCALE / strategy.start_noise.item() < most + 0.02


def test_loss_is_least_at_the_perfect_end(monkeypatch):
    """Its least value is the mean conditional variance of the end; a shifted end costs the shift squared more."""
    strategy = one_dimensional()
    actions = (MEAN + SCALE * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))).tanh()
    losses = []
    for shift in (0.0, 0.5):
        monkeypatch.setattr(strategy, "end", lambda *inputs, shift=shift: perfect_end(*inputs) + shift)
        torch.manual_seed(1)
        losses.append(float(strategy.loss(torch.zeros(len(actions), 1), actions)[0]))
    least, _ = integrate.quad(lambda t: SCALE**2 * (1 - t) ** 2 / (t**2 * SCALE**2 + (1 - t) ** 2), 0, 1)
    assert losses[0] == pytest.approx(least, rel=0.01)
    assert losses[1] - losses[0] == pytest.approx(0.25, abs=0.001)


def test_the_network_is_evaluated_once_a_step_and_none_is_refused(capsys):
    calls = []
    strategy = one_dimensional(act_steps=4)
    strategy.network.register_forward_hook(lambda *_: calls.append(1))
    strategy(torch.zeros(2, 1))
    assert len(calls) == 4
    assert "a whole number, at least 1" in refused(capsys, "fit", "--model", "FlowMatching", "--model.act_steps", "0")
