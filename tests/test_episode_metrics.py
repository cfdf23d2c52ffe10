"""Metrics of episodes, against their equations; a user's own is found, measured and named."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pendulum

from lightning_bc import episode_metrics
from lightning_bc.cli import main
from lightning_bc.environments import BatchedMujoco
from lightning_bc.environments.one_by_one import OneByOne
from lightning_bc.episode_metrics import episode_metric, measure_all, recording_is_needed, walls
from lightning_bc.episodes import Episodes, play
from lightning_bc.references import References
from lightning_bc.runs.curve import read_curve

PLAYED = Episodes(np.array([1.0, 4.0, 10.0]), np.array([3, 5, 4]), np.zeros(3, dtype=bool))


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    """Metrics that a test adds are gone after it."""
    episode_metrics.episode_metrics()
    monkeypatch.setattr(episode_metrics, "_known", dict(episode_metrics._known))


def test_the_metrics_are_their_equations():
    measured = measure_all(PLAYED, References(-5.0, 10.0, "made up"))
    assert measured == {
        "return_mean": 5.0,
        "return_std": pytest.approx(math.sqrt((16 + 1 + 25) / 3)),
        "return_min": 1.0,
        "return_max": 10.0,
        "normalized_return": pytest.approx((5 + 5) / 15),
        "failed_episodes": pytest.approx(2 / 3),
        "episode_length": 4.0,
        "unstable_episodes": 0.0,
    }
    unstable = replace(PLAYED, unstable=np.array([False, True, False]))
    assert measure_all(unstable, References(-5.0, 10.0, "made up"))["unstable_episodes"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", [BatchedMujoco, OneByOne])
def test_an_unstable_simulation_counts_in_the_episode_in_which_mujoco_warned_of_it(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)                                     # MuJoCo writes its warnings into a file, too
    environments, steps = kind("HalfCheetah-v5", 2), []
    environments.reset(seed=[0, 1])
    advance = environments.step

    def exploding(actions, active=None):
        steps.append(actions)
        if len(steps) == 500:                                       # in the first episode of the second sub-environment
            if kind is BatchedMujoco:
                environments._batch.bind("qvel")[1] = 1e12
            else:
                environments.env.envs[1].unwrapped.data.qvel[:] = 1e12
        return advance(actions, active)

    environments.step = exploding
    played = play(lambda observations: 0 * observations[:, :6], environments, range(4))
    environments.close()
    assert played.unstable.tolist() == [False, True, False, False]


def test_without_an_expert_what_needs_one_is_not_a_number():
    measured = measure_all(PLAYED, References(-5.0, math.nan, "nobody"))
    assert {name for name, value in measured.items() if math.isnan(value)} == {"normalized_return", "failed_episodes"}


def test_choices_weigh_as_often_as_they_were_made(monkeypatch):
    """Entropies of 0 bits (8 choices) and 1 bit (2 choices), and divergences of 1 and 0 from even odds."""
    counts = np.zeros((8, 2, 2), dtype=np.int64)
    counts[0, 0], counts[1, 1] = [8, 0], [1, 1]
    monkeypatch.setattr(walls, "choices", lambda episodes: counts)
    episodes = replace(PLAYED, environment_id="Gates-v0")
    assert walls.choice_entropy(episodes, References(0.0, 8.0, "made up")) == pytest.approx(0.2)
    assert walls.choice_divergence(episodes, References(0.0, 8.0, "made up")) == pytest.approx(0.8)


def test_two_metrics_of_one_name_are_refused():
    def return_mean(episodes, references):
        return 0.0

    with pytest.raises(ValueError, match="return_mean"):
        episode_metric("reward", "another")(return_mean)


def test_a_metric_of_one_environment_is_measured_and_recorded_for_there_alone():
    @episode_metric(unit="reward", meaning="median of R", recorded=True, environments=("Reach-v0",))
    def median(episodes, references):
        return np.median(episodes.returns)

    assert recording_is_needed("boxes:Reach-v0")
    assert not recording_is_needed("InvertedPendulum-v5")
    nobody = References(-5.0, math.nan, "nobody")
    assert measure_all(replace(PLAYED, environment_id="boxes:Reach-v0"), nobody)["median"] == 4.0
    assert "median" not in measure_all(PLAYED, nobody)


def test_a_metric_of_ones_own_is_on_the_curve_and_in_the_results(tmp_path, monkeypatch):
    """Also one that reads what was observed, which is recorded for it alone."""
    monkeypatch.chdir(tmp_path)
    assert not recording_is_needed("InvertedPendulum-v5")

    @episode_metric(unit="environment steps", meaning="max_i T_i", recorded=True)
    def longest_episode(episodes, references):
        assert len(episodes.observations) == episodes.lengths.sum()
        return episodes.lengths.max()

    budget = "--trainer.max_steps 2 --rollouts.eval_freq 1 --rollouts.episodes 2 --data.batch_size 16"
    main(["fit", "--model", "MSE", "--data.path", write_pendulum("small.pt"), *budget.split()])
    folder = next(Path("lightning_logs").iterdir())
    curve = read_curve(folder / "curve.csv")
    assert (curve["rollout/longest_episode"] >= curve["rollout/episode_length"]).all()
    results = json.loads((folder / "results.json").read_text())
    assert results["metrics"]["longest_episode"] >= results["metrics"]["episode_length"]
    assert results["metrics"]["return_mean"] == results["score"] == pytest.approx(np.mean(results["returns"]))
    assert results["sampled_metrics"]["return_mean"] == results["sampled_score"]
