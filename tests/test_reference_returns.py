"""What 0 and 1 of the normalized return are, and when there is no such scale."""

import math

import pytest
import torch
from conftest import write_pairs

from lightning_bc.demonstrations import Demonstrations, read
from lightning_bc.demonstrations.reference_returns import references
from lightning_bc.demonstrations.several import error_of, origin_of

RANDOM = [-50.0, -30.0] * 50
"""Returns with mean -40 and standard error 1."""


def scale(tmp_path, **changes):
    files = [read(write_pairs(tmp_path / "data.pt", random_returns=RANDOM, **changes))]
    return references("HalfCheetah-v5", origin_of(files), error_of(files))


def test_the_files_returns_are_the_scale(tmp_path):
    found = scale(tmp_path, expert_returns=[-3.5, -0.5])
    assert (found.random_return, found.expert_return) == (-40, -2)
    assert found.expert_source.endswith("2 test-bank episodes, 1 of which failed")
    assert found.normalized(-21) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"expert_returns": [-38.5] * 100},                          # within three standard errors
        {"expert_returns": [-60.0, 20.0] * 2},                      # above, by less than its own error
        {"expert_returns": [-55.0] * 100},                          # worse than random actions
        {"expert_returns": None, "mean_reward": -39.0},
    ],
)
def test_where_the_expert_is_not_clearly_better_than_random_actions_nothing_is_normalized(changes, tmp_path):
    found = scale(tmp_path, **changes)
    assert math.isnan(found.expert_return)
    assert "is not clearly above that of random actions, -40" in found.expert_source


def test_a_deterministic_environments_small_difference_is_a_scale(tmp_path):
    path = write_pairs(tmp_path / "data.pt", random_returns=[10.0] * 100, expert_returns=[10.01] * 100)
    assert references("HalfCheetah-v5", origin_of([read(path)])).has_expert


def test_an_episode_that_was_cut_off_early_does_not_count_for_the_demonstrators_return(tmp_path, capsys):
    cut = {"rewards": torch.tensor([5.0] * 8 + [1.0] * 2), "lengths": (4, 4, 2), "mean_reward": None}
    for expert_returns in (None, [3.0] * 100):
        path = tmp_path / f"{expert_returns is None}.pt"
        path = write_pairs(path, random_returns=RANDOM, expert_returns=expert_returns, **cut)
        data = Demonstrations(path, "HalfCheetah-v5", validation_fraction=0.0)  # which never terminates
        assert data.references.expert_return == (20.0 if expert_returns is None else 3.0)
        said = "its last episode was cut off after 2 steps; the mean return is that of the other 2"
        assert (said in capsys.readouterr().out) is (expert_returns is None)
