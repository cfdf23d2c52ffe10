"""Mean and scale against numpy, dimensions that do not vary, and bounds of the actions that the data stay far from."""

import numpy as np
import pytest
import torch
from conftest import BUDGET, fit, write_pendulum

import lightning_bc
from lightning_bc.border import Border
from lightning_bc.errors import InputError


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


@pytest.mark.parametrize(("low", "high"), [([-np.inf], [np.inf]), ([0.0], [np.nan]), ([1.0], [1.0]), ([0.0], [1.0, 2.0])])
def test_bounds_that_are_none_are_refused(low, high):
    with pytest.raises(InputError, match="wanted as many finite numbers"):
        Border(3, low, high)


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


LOW, HIGH = [-200.0, 0.0, -1.0, 5.0, 0.0], [200.0, 100.0, 1.0, 7.0, 0.3]


def narrowed():
    border = Border(3, LOW, HIGH)
    ends = torch.tensor([[-2.0, 0.0, -0.9, 6.0, 0.1], [2.0, 4.0, 0.9, 6.0, 0.14]])
    return border, border.narrow(torch.cat([ends, ends.mean(0, keepdim=True)]))


def test_bounds_far_from_the_actions_give_way_to_what_the_actions_take():
    """A quarter of the range more on either side, never beyond the bounds; one that is well used stays."""
    border, told = narrowed()
    assert "take: 0: -3 to 3 of -200 to 200; 1: 0 to 5 of 0 to 100; 3: 5.999 to 6.001 of 5 to 7; 4: 0.09 to 0.15" in told
    low, high = border.reach
    np.testing.assert_allclose(low, [-3.0, 0.0, -1.0, 5.999, 0.09], atol=1e-5)
    np.testing.assert_allclose(high, [3.0, 5.0, 1.0, 6.001, 0.15], atol=1e-5)
    assert (low[2], high[2]) == (LOW[2], HIGH[2])
    corners = border.unscaled(torch.tensor([[-1.0] * 5, [1.0] * 5]))
    assert (corners >= torch.tensor(LOW)).all()
    assert (corners <= torch.tensor(HIGH)).all()


def test_what_a_border_reaches_is_told_of_one_that_is_loaded_too():
    border, told = narrowed()
    again = Border(3, LOW, HIGH)
    assert again.narrowed == ""
    again.load_state_dict(border.state_dict())
    assert again.narrowed.startswith("0: -3 to 3 of -200 to 200; 1: 0 to 5 of 0 to 100; 3: ")
    assert again.narrowed in told


def test_a_border_built_with_the_reach_is_the_same():
    for border in (narrowed()[0], Border(3, LOW, HIGH), Border(3, [0.1], [0.7])):
        again = Border(3, *border.reach)
        for name, value in border.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name


def test_other_data_begin_from_the_bounds_again_and_given_borders_stay():
    border, _ = narrowed()
    wide = torch.tensor([LOW, HIGH])
    border.is_given = True
    assert not border.narrow(wide)
    assert border.reach[1][0] == pytest.approx(3.0, rel=1e-5)
    border.is_given = False
    assert not border.narrow(wide)
    assert border.reach == (LOW, HIGH)


def test_a_run_learns_and_plays_within_them_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_pendulum("pendulum.pt")                            # actions in [-1, 1] of [-3, 3]
    flags = f"{BUDGET} --model.network.hidden_sizes [8]"
    checkpoint = f"checkpoints/{fit(data, 'GaussianMixture', flags)}/last.ckpt"
    assert "and the policy stays near what they take: 0: -1.4" in capsys.readouterr().out
    policy = lightning_bc.load(checkpoint)
    (low,), (high,) = policy.strategy.border.reach
    assert high - low == pytest.approx(1.5 * np.ptp(lightning_bc.read_demonstrations(data).actions.numpy()), rel=1e-4)
    far = policy(1e3 * torch.randn(1000, 4, generator=torch.Generator().manual_seed(0)), deterministic=False)
    assert low - 1e-6 <= far.min() < far.max() <= high + 1e-6
    callback = "--trainer.callbacks DAgger --trainer.callbacks.round_every 2 --trainer.callbacks.rounds 1"
    teacher = "--trainer.callbacks.expert test_border:push"
    name = fit(data, "MSE", f"{flags} {callback} {teacher}")        # labels may take more of the bounds
    assert lightning_bc.load(f"checkpoints/{name}/last.ckpt").strategy.border.reach == ([-3.0], [3.0])


def push(observations):
    """An expert that pushes as hard as it can."""
    return np.full((len(observations), 1), 3.0, np.float32)
