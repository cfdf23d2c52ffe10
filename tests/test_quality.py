"""What is called an outlier: a value that ruins its dimension, and nothing that data have of their own."""

import warnings

import pytest
import torch

from lightning_bc.demonstrations import quality
from lightning_bc.demonstrations.action_noise import action_noise
from lightning_bc.demonstrations.trajectories import Origin, Trajectories


def draws(kind, pairs=20_000):
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(pairs, generator=generator)
    rare = torch.rand(pairs, generator=generator) < 0.002
    if kind == "heavy tails":                                       # Student's t with 3 degrees of freedom
        return normal / (torch.randn(pairs, 3, generator=generator).square().sum(dim=1) / 3).sqrt()
    return {
        "normal": normal,
        "two modes": normal + 1000 * (torch.rand(pairs, generator=generator) < 0.5),
        "one mode is rare": normal + 1000 * rare,
        "zero most of the time": torch.where(rare, 500 * normal, 0.0),
        "zero but once": torch.where(torch.arange(pairs) == 9, 800.0, 0.0),
        "impacts": torch.where(rare, 300 * normal.abs(), 0.01 * normal),
        "constant": torch.full((pairs,), 3.0),
        "far from zero": 1e5 + normal,
        "clipped": (3 * normal).clamp(-1, 1),
    }[kind]


KINDS = (
    "normal",
    "heavy tails",
    "two modes",
    "one mode is rare",
    "zero most of the time",
    "zero but once",
    "impacts",
    "constant",
    "far from zero",
    "clipped",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pairs", [20, 500, 20_000])
def test_no_false_alarm(kind, pairs):
    assert quality.outliers(draws(kind, pairs).unsqueeze(1)) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("one mode is rare", "impacts")])
@pytest.mark.parametrize("pairs", [20, 20_000])
def test_a_value_that_ruins_its_dimension_is_found_with_its_row(kind, pairs):
    columns = torch.stack([draws("normal", pairs), draws(kind, pairs)], dim=1)
    columns[7, 1] = 1e30
    (found,) = quality.outliers(columns)
    assert (found.row, found.dimension) == (7, 1)
    assert found.value == pytest.approx(1e30)
    assert found.inflation > 100


def test_missing_values_that_were_written_as_a_number_are_all_found():
    column = draws("normal")
    column[::2000] = -9999.0
    assert [found.row for found in quality.outliers(column.unsqueeze(1))] == list(range(0, 20_000, 2000))


def episodes(*numbers):
    """Trajectories of the episodes of these numbers; equal numbers are copies."""
    observations = torch.cat([torch.randn(5, 2, generator=torch.Generator().manual_seed(number)) for number in numbers])
    lengths = torch.full((len(numbers),), 5)
    return Trajectories(observations, observations.clone(), lengths, origin=Origin("mine.npz"))


def test_copied_episodes_are_found_and_warned_of():
    assert quality.copied_episodes(episodes(1, 2, 1, 3, 1)) == [2, 4]
    other = episodes(1, 2, 1)
    other.actions[-1] += 1e-3
    assert quality.copied_episodes(other) == []
    with pytest.warns(UserWarning, match=r"mine\.npz: 2 of 5 episodes are copies .*the first is episode 2"):
        quality.warn(episodes(1, 2, 1, 3, 1))


def test_actions_that_are_all_equal_are_warned_of():
    made = episodes(1, 2)
    made.actions[:, 0] = 2.0
    assert quality.Findings(made).concerns() == []                  # one dimension may be
    made.actions[:, 1] = 0.0
    with pytest.warns(UserWarning, match=r"mine\.npz: the actions of all 10 pairs are equal"):
        quality.warn(made)


def test_clean_demonstrations_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quality.warn(episodes(1, 2, 3))


def test_the_warning_names_row_dimension_and_value():
    made = episodes(1, 2, 3)
    made.observations[7, 1] = 1e30
    with pytest.warns(UserWarning, match=r"mine\.npz: observations\[7\] holds 1e\+30 in dimension 1, far from all other"):
        quality.warn(made)
    assert quality.Findings(made).concerns(hidden=[1]) == []


def test_values_that_float32_hardly_tells_apart_are_warned_of():
    made = episodes(*range(20))
    made.observations[:, 1] += 1e5                                  # steps of 1/128, below a hundredth of the deviation
    assert quality.Findings(made).rounding == ""
    made.observations[:, 1] += 4e5                                  # steps of 1/32
    with pytest.warns(UserWarning, match=r"mine\.npz: observations are rounded away in dimension 1: .* steps of 0\.03125"):
        quality.warn(made)
    made.observations[:, 1] = 5.0
    assert quality.Findings(made).rounding == ""                    # a constant has nothing to lose


def test_equal_rows_share_a_group():
    groups = quality.groups_of_equal(torch.tensor([[0.0, 1.0], [1.0, 0.0], [-0.0, 1.0], [1.0, 0.0], [1.0, 1e-30]]))
    assert groups[0] == groups[2] != groups[1] == groups[3] != groups[4]
    assert len(set(groups.tolist())) == 3


# The demonstrator's noise


def answered(dimensions, noise, pairs=5000, places=None):
    """Observations in so many dimensions, at ``places`` different ones, and a smooth answer to them with noise."""
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(places or pairs, dimensions, generator=generator)
    observations = observations[torch.arange(pairs) % len(observations)]
    actions = torch.tanh(observations[:, :2]) + noise * torch.randn(pairs, 2, generator=generator)
    return Trajectories(observations, actions, torch.tensor([pairs]), knows_episodes=False)


@pytest.mark.parametrize("places", [None, 100, 2500], ids=["all different", "often", "twice"])
def test_the_noise_of_an_expert_is_estimated(places):
    deviation = answered(2, 0.0).actions.std().item()
    assert action_noise(answered(2, 0.0, places=places)).verdict == "deterministic"
    found = action_noise(answered(2, 0.5, places=places))
    assert found.verdict == "noisy"
    assert found.share == pytest.approx(0.5 / (deviation**2 + 0.25) ** 0.5, rel=0.15)
    assert ("more than once" in found.how) == (places is not None)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_it_is_said_where_noise_cannot_be_told(noise):
    assert action_noise(answered(20, noise, pairs=1000)).verdict == "unknown"
    assert action_noise(answered(2, noise, pairs=50)).verdict == "unknown"


def test_steps_of_a_deterministic_expert_are_no_noise():
    """It answers 1 or -1 by the signs of two numbers: few neighbours differ, and those by very much."""
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(5000, 3, generator=generator)
    actions = observations[:, :2].sign()
    assert action_noise(Trajectories(observations, actions, torch.tensor([5000]), knows_episodes=False)).verdict != "noisy"
