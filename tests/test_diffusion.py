"""Diffusion against closed forms of Gaussian processes."""

import numpy as np
import pytest
import torch
from conftest import build_strategy
from scipy import stats

from lightning_bc.errors import InputError
from lightning_bc.strategies import Diffusion
from lightning_bc.strategies.diffusion import cosine_schedule


def one_dimensional(**options):
    return build_strategy(Diffusion, observation_dim=1, action_low=[-1.0], action_high=[1.0], **options)


def test_signal_falls_from_one_to_nearly_nothing():
    signal = cosine_schedule(10)
    assert signal[0] == 1
    assert (signal.diff() < 0).all()
    assert 0 < signal[-1] < 1e-4
    expected = np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert float(signal[5]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("now", "then"), [(10, 9), (7, 3), (1, 0)])
def test_ancestral_step_is_the_posterior_of_the_forward_process(now, then):
    """Bayes' rule by hand: q(a_then | a) times q(a_now | a_then), both Gaussian, normalised on a grid."""
    strategy, action, noisy = one_dimensional(), 0.3, -0.4
    before, after = (float(strategy.signal[time]) for time in (now, then))
    mean, scale = strategy.step_back(torch.tensor([[noisy]]), torch.tensor([[action]]), now, then, deterministic=False)
    if then == 0:
        assert float(mean) == pytest.approx(action, abs=1e-6)
        assert float(scale) == 0
        return
    grid = np.linspace(-6, 6, 200_001)
    ratio = before / after
    posterior = stats.norm.pdf(grid, np.sqrt(after) * action, np.sqrt(1 - after))
    posterior *= stats.norm.pdf(noisy, np.sqrt(ratio) * grid, np.sqrt(1 - ratio))
    posterior /= posterior.sum()
    expected = (grid * posterior).sum()
    assert float(mean) == pytest.approx(expected, abs=1e-4)
    assert float(scale) == pytest.approx(np.sqrt(((grid - expected) ** 2 * posterior).sum()), abs=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "action"])
@pytest.mark.parametrize("deterministic", [True, False], ids=["DDIM", "ancestral"])
def test_a_perfect_denoiser_samples_the_data(prediction, deterministic, monkeypatch):
    """For actions from Normal(0.1, 0.2) the best predictions are known; the samples must have that distribution."""
    mean, scale, samples = 0.1, 0.2, 4000
    strategy = one_dimensional(steps=300, prediction=prediction)

    def perfect(observations, noisy, time):
        signal = strategy.signal[time].unsqueeze(-1)
        gain = signal.sqrt() * scale**2 / (signal * scale**2 + 1 - signal)
        action = mean + gain * (noisy - signal.sqrt() * mean)
        return action if prediction == "action" else (noisy - signal.sqrt() * action) / (1 - signal).sqrt()

    monkeypatch.setattr(strategy, "_network_at", perfect)
    torch.manual_seed(0)
    if deterministic:  # DDIM is a map of the noise: many noises in place of the one that act uses
        strategy.start_noise = torch.randn(samples, 1)
    with torch.inference_mode():
        actions = strategy.act(torch.zeros(samples, 1), deterministic)[:, 0].numpy()
    assert stats.kstest(actions, stats.norm(mean, scale).cdf).pvalue > 0.01
    assert stats.kstest(actions + 0.02, stats.norm(mean, scale).cdf).pvalue < 0.01


def test_fewer_steps_may_be_taken_when_acting():
    calls = []
    strategy = one_dimensional(steps=10, act_steps=3)
    strategy.network.register_forward_hook(lambda *_: calls.append(1))
    strategy(torch.zeros(2, 1))
    assert len(calls) == 3
    with pytest.raises(InputError, match=r"--model.act_steps 11: wanted 1 to --model.steps, 10"):
        one_dimensional(steps=10, act_steps=11)


def test_the_deterministic_action_starts_from_noise_and_not_from_zeros():
    one, other = (build_strategy(Diffusion, action_low=[-1.0] * 50, action_high=[1.0] * 50) for _ in range(2))
    assert 0.7 < one.start_noise.std() < 1.3
    assert torch.equal(one.start_noise, other.start_noise)
