"""Diffusion against closed forms of Gaussian processes; all of it before the tanh, u = arctanh(a)."""

import numpy as np
import pytest
import torch
from conftest import build_strategy
from scipy import stats

from lightning_bc.errors import InputError
from lightning_bc.strategies import Diffusion
from lightning_bc.strategies.offline.diffusion import cosine_schedule

MEAN, SCALE = 0.1, 0.2
predictions = pytest.mark.parametrize("prediction", ["epsilon", "action"])


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


def perfect(strategy):
    """The best prediction for u ~ Normal(MEAN, SCALE): E[u | u_t], or the noise that goes with it."""

    def network_at(observations, noisy, time):
        signal = strategy.signal[time].unsqueeze(-1)
        gain = signal.sqrt() * SCALE**2 / (signal * SCALE**2 + 1 - signal)
        clean = MEAN + gain * (noisy - signal.sqrt() * MEAN)
        return clean if strategy.prediction == "action" else (noisy - signal.sqrt() * clean) / (1 - signal).sqrt()

    return network_at


@predictions
@pytest.mark.parametrize("deterministic", [True, False], ids=["DDIM", "ancestral"])
def test_a_perfect_denoiser_samples_the_data(prediction, deterministic, monkeypatch):
    samples = 4000
    strategy = one_dimensional(steps=300, prediction=prediction, noise_scale=1.0)
    monkeypatch.setattr(strategy, "_network_at", perfect(strategy))
    torch.manual_seed(0)
    if deterministic:  # DDIM is a map of the noise: many noises in place of the one that act uses
        strategy.start_noise = torch.randn(samples, 1)
    with torch.inference_mode():
        clean = strategy.act(torch.zeros(samples, 1), deterministic)[:, 0].arctanh().numpy()
    assert stats.kstest(clean, stats.norm(MEAN, SCALE).cdf).pvalue > 0.01
    assert stats.kstest(clean + 0.02, stats.norm(MEAN, SCALE).cdf).pvalue < 0.01


@predictions
@pytest.mark.parametrize(("noise_scale", "least", "most"), [(0.0, 0.0, 0.0), (0.1, 0.05, 0.3), (1.0, 1.0, 1.0)])
def test_the_deterministic_action_is_a_quantile_and_a_low_noise_scale_brings_it_to_the_median(
    prediction, noise_scale, least, most, monkeypatch
):
    strategy = one_dimensional(steps=300, prediction=prediction, noise_scale=noise_scale)
    monkeypatch.setattr(strategy, "_network_at", perfect(strategy))
    clean = strategy.act(torch.zeros(1, 1), deterministic=True).arctanh().item()
    assert strategy.start_noise.abs() > 0.5  # or temperatures would hardly differ
    assert least - 0.02 < (clean - MEAN) / SCALE / strategy.start_noise.item() < most + 0.02


@predictions
def test_loss_is_least_at_the_perfect_denoiser(prediction, monkeypatch):
    """Its least value is the mean conditional variance of what is predicted; a shift costs its square more."""
    strategy = one_dimensional(prediction=prediction)
    best, losses = perfect(strategy), []
    actions = (MEAN + SCALE * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))).tanh()
    for shift in (0.0, 0.5):
        monkeypatch.setattr(strategy, "_network_at", lambda *inputs, shift=shift: best(*inputs) + shift)
        torch.manual_seed(1)
        losses.append(float(strategy.loss(torch.zeros(len(actions), 1), actions)[0]))
    signal = strategy.signal[1:].double().numpy()
    variance = SCALE**2 * (1 - signal) / (signal * SCALE**2 + 1 - signal)
    least = np.mean(variance if prediction == "action" else variance * signal / (1 - signal))
    assert losses[0] == pytest.approx(least, rel=0.01)
    assert losses[1] - losses[0] == pytest.approx(0.25, abs=0.005)


@predictions
def test_predictions_are_kept_within_the_bounds(prediction):
    """Far beyond them the tanh would be exactly 1, the bound that demonstrations are moved in from."""
    strategy = one_dimensional(prediction=prediction)
    torch.nn.init.constant_(strategy.network.layers[-1].bias, 1e4)
    actions = strategy.act(torch.zeros(5, 1), deterministic=True).abs()
    torch.testing.assert_close(actions, torch.full((5, 1), 0.999), rtol=0, atol=1e-5)


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


def test_the_noise_falls_to_its_scale_however_few_steps_are_taken():
    kept = []
    for act_steps in (1, 4, 10):
        strategy = build_strategy(Diffusion, steps=10, act_steps=act_steps, noise_scale=0.03)
        before, after = strategy.signal[5], strategy.signal[2]
        noisy, _ = strategy.step_back((1 - before).sqrt() * torch.ones(1, 2), torch.zeros(1, 2), 5, 2, deterministic=True)
        kept.append(((noisy / (1 - after).sqrt())[0, 0] ** act_steps).item())
    assert kept == pytest.approx([0.03] * 3, rel=1e-4)
