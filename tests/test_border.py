"""Mean and scale against numpy, and dimensions that do not vary."""

import numpy as np
import pytest
import torch

from lightning_bc.border import Border


def fitted(observations):
    border = Border(observations.shape[1], [-1.0], [1.0])
    border.fit(torch.as_tensor(observations, dtype=torch.float32))
    return border


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e5], ids=["no offset", "offset 1e3", "offset -1e5"])
def test_mean_and_scale_equal_numpy(offset):
    spread = np.array([0.1, 1.0, 100.0])
    observations = (np.random.default_rng(0).standard_normal((50_000, 3)) * spread + offset).astype(np.float32)
    border = fitted(observations)
    np.testing.assert_allclose(border.mean, observations.mean(0, dtype=np.float64), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(border.scale, observations.std(0, dtype=np.float64), rtol=1e-6)


def test_normalized_observations_have_mean_zero_and_standard_deviation_one():
    observations = 5 + 3 * np.random.default_rng(0).standard_normal((10_000, 4))
    normalized = fitted(observations).observe(torch.as_tensor(observations, dtype=torch.float32)).double()
    torch.testing.assert_close(normalized.mean(0), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(normalized.std(0, correction=0), torch.ones(4, dtype=torch.float64), rtol=1e-5, atol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e-20, 1e8, -1e30])
def test_constant_dimension_is_only_centred(value):
    observations = np.random.default_rng(0).standard_normal((1001, 2))
    observations[:, 1] = value
    border = fitted(observations)
    assert border.scale[1] == 1
    normalized = border.observe(torch.as_tensor(observations, dtype=torch.float32))
    assert (normalized[:, 1] == 0).all()
    assert normalized[:, 0].std() > 0.9


def test_rounding_noise_on_a_large_offset_is_not_blown_up():
    observations = np.full((1000, 1), 1e6, np.float32)
    observations[::2] = np.nextafter(np.float32(1e6), np.float32(2e6))
    border = fitted(observations)
    assert border.observe(torch.from_numpy(observations)).abs().max() < 0.1


def test_small_but_real_variation_is_normalized():
    observations = 1e-6 * np.random.default_rng(0).standard_normal((1000, 1))
    np.testing.assert_allclose(fitted(observations).scale, observations.std(0), rtol=1e-3)


def test_one_pair_is_enough():
    border = fitted(np.array([[1.0, -2.0]]))
    assert border.observe(torch.tensor([[2.0, -2.0]])).tolist() == [[1.0, 0.0]]


def test_mean_and_scale_travel_in_the_state_dict():
    source = fitted(np.random.default_rng(0).standard_normal((100, 3)) * 4 + 2)
    target = Border(3, [-1.0], [1.0])
    target.load_state_dict(source.state_dict())
    inputs = torch.randn(5, 3)
    assert torch.equal(source.observe(inputs), target.observe(inputs))
    assert not torch.equal(target.observe(inputs), inputs)
