"""Gates: against gymnasium's own loop, against scipy, and by policies whose success can be computed by hand."""

import functools
import importlib
import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from conftest import BUDGET
from scipy import integrate, stats

import lightning_bc
from lightning_bc.cli import main
from lightning_bc.demonstrations.collect import collect
from lightning_bc.demonstrations.experts import load_expert, shipped_expert
from lightning_bc.environments import GATES, BatchedGates, environment_spaces, make
from lightning_bc.environments.gates import HALF_WIDTH, OFFSET, WALLS
from lightning_bc.episode_metrics import measure_all
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.references import References
from lightning_bc.runs.curve import read_curve

IDS = [f"lightning_bc:{name}" for name in GATES]
NOISE = 0.03
UNKNOWN = References(0.0, np.nan, "")


def expert_of(environment_id):
    return load_expert(shipped_expert(environment_id), environment_id)


def one_wall(density, dimensions=1):
    """The probability that a landing, measured from the wall's middle, is in an opening, where dimensions are alike."""
    inside = [integrate.quad(density, at - HALF_WIDTH, at + HALF_WIDTH)[0] for at in (-OFFSET, OFFSET)]
    return sum(share**dimensions for share in inside)


def demonstrated(odds):
    """The density of a demonstrator's landing from the wall's middle."""
    return lambda x: sum(odds[k] * stats.norm.pdf(x, (-OFFSET, OFFSET)[k], NOISE) for k in (0, 1))


def success_of(policy, environment_id, episodes=1000, deterministic=True):
    return lightning_bc.evaluate(
        policy, environment_id, episodes, deterministic=deterministic, bank="selection"
    ).metrics["success"]


# The environment


@pytest.mark.parametrize("environment_id", IDS)
def test_a_batch_steps_as_gymnasium_steps_each(environment_id):
    """Experts and random actions, over ends of episodes, with some standing still, and from a saved state."""
    batched, others = make(environment_id, 6), [gymnasium.make(environment_id) for _ in range(6)]
    assert isinstance(batched, BatchedGates)
    observations, _ = batched.reset(seed=3)
    np.testing.assert_array_equal(observations, [one.reset(seed=3 + i)[0] for i, one in enumerate(others)])
    expert, generator = expert_of(environment_id), np.random.default_rng(0)
    ends = set()
    torch.manual_seed(0)
    for step in range(60):
        actions = expert(torch.tensor(observations, dtype=torch.float32), deterministic=False).numpy()
        actions[generator.random(6) < 0.1] = 0.0
        active = generator.random(6) < 0.8
        if step == 30:
            state = batched.state_dict()
            batched = make(environment_id, 6)
            batched.load_state_dict(state)
        before = observations
        observations, rewards, terminated, truncated, infos = batched.step(actions, active)
        np.testing.assert_array_equal(observations, batched.observations)
        for i, one in enumerate(others):
            if not active[i]:
                assert (rewards[i], terminated[i], truncated[i]) == (0.0, False, False)
                np.testing.assert_array_equal(observations[i], before[i])
                continue
            seen, *wanted, _ = one.step(actions[i])
            assert [rewards[i], terminated[i], truncated[i]] == wanted
            ended = wanted[1] or wanted[2]
            np.testing.assert_array_equal(infos["final_obs"][i] if ended else observations[i], seen)
            if ended:
                ends.add(tuple(wanted))
                np.testing.assert_array_equal(observations[i], one.reset()[0])
    assert ends >= {(0.0, True, False), (1.0, True, True)}          # at a wall, and behind the last one


def test_another_batch_or_variant_does_not_take_a_state():
    state = make(IDS[0], 2).state_dict()
    with pytest.raises(ValueError, match="these sub-environments are lightning_bc:Gates2D-v0"):
        make(IDS[2], 2).load_state_dict(state)
    with pytest.raises(ValueError, match="of 2 sub-environments; 3 are needed"):
        make(IDS[0], 3).load_state_dict(state)
    environments = make(IDS[0], 2)
    environments.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gymnasium.error.ResetNeeded, match="Sub-environment 1 was never reset"):
        environments.step(np.zeros((2, 1)))


@pytest.mark.parametrize("environment_id", IDS)
def test_walls_are_drawn_anew_and_observed_and_actions_of_the_expert_are_within_the_bounds(environment_id):
    played = play(expert_of(environment_id).player(False), make(environment_id, 100), SELECTION_BANK.seeds(500), record=True)
    dimensions, spaces = GATES[environment_id.partition(":")[2]].dimensions, environment_spaces(environment_id)
    assert spaces.can_terminate
    assert spaces.max_episode_steps == played.lengths.max() == WALLS
    middles, progress = played.observations[:, dimensions : 2 * dimensions], played.observations[:, -1]
    assert stats.kstest(middles.ravel(), stats.uniform(-0.25, 0.5).cdf).pvalue > 1e-3
    assert set(np.unique(progress)) == {wall / WALLS for wall in range(WALLS)}
    assert (np.abs(played.actions) < spaces.action_high).all()
    assert (played.observations[progress == 0, :dimensions] == 0).all()


# The theorem


@pytest.mark.parametrize("environment_id", IDS)
def test_the_conditional_mean_hits_the_first_wall(environment_id):
    task = GATES[environment_id.partition(":")[2]]
    mean = integrate.quad(lambda x: x * demonstrated(task.odds)(x), -1, 1, points=(-OFFSET, OFFSET))[0]
    assert mean == pytest.approx(OFFSET * (task.odds[1] - task.odds[0]), abs=1e-6)
    assert abs(abs(mean) - OFFSET) > HALF_WIDTH + 0.09

    def regress(observations):
        return observations[:, task.dimensions : 2 * task.dimensions] + mean - observations[:, : task.dimensions]

    assert lightning_bc.evaluate(regress, environment_id, 200, bank="selection").mean == 0


def test_the_demonstrators_mean_action_is_the_conditional_mean():
    """By least squares on demonstrations: what MSE learns, without a network."""
    played = play(expert_of(IDS[0]).player(False), make(IDS[0], 100), SELECTION_BANK.seeds(2000), record=True)
    inputs = np.column_stack([played.observations, np.ones(len(played.observations))])
    found, *_ = np.linalg.lstsq(inputs, played.actions[:, 0], rcond=None)
    np.testing.assert_allclose(found, [-1, 1, 0, 0], atol=5 * 0.5 / 0.25 / len(inputs) ** 0.5)


def test_a_normal_of_the_right_mean_and_variance_passes_all_walls_with_two_in_a_million():
    deviation = np.sqrt(OFFSET**2 + NOISE**2)
    share = one_wall(stats.norm(0, deviation).pdf)
    assert share**WALLS == pytest.approx(2e-6, rel=0.05)

    def sample(observations):
        noise = deviation * torch.randn(len(observations), 1).numpy()
        return (observations[:, 1:2] - observations[:, :1] + noise).clip(-3, 3)

    result = lightning_bc.evaluate(sample, IDS[0], 2000, bank="selection")
    assert result.metrics["success"] == 0
    first = (result.returns > 0).mean()
    assert first == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 2000))


@pytest.mark.parametrize("environment_id", IDS)
def test_the_demonstrator_succeeds_as_often_as_its_noise_lets_it(environment_id):
    task = GATES[environment_id.partition(":")[2]]
    share = (1 - 2 * stats.norm.sf(HALF_WIDTH / NOISE)) ** (WALLS * task.dimensions)
    assert success_of(expert_of(environment_id), environment_id) == 1
    sampled = success_of(expert_of(environment_id), environment_id, deterministic=False)
    assert sampled == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 1000))


def test_two_dimensions_that_are_drawn_independently_of_each_other_miss_every_second_wall():
    def sample(observations):
        side = np.where(torch.rand(len(observations), 2).numpy() < 0.5, OFFSET, -OFFSET)
        return observations[:, 2:4] + side - observations[:, :2]

    result = lightning_bc.evaluate(sample, IDS[2], 2000, bank="selection")
    assert (result.returns > 0).mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 2000))
    assert result.metrics["success"] == pytest.approx(0.5**WALLS, abs=4 * np.sqrt(0.5**WALLS / 2000))


# The metrics


def to_the_upper(share):
    """Lands in the middle of the upper opening with this probability, else of the lower one."""

    def policy(observations):
        side = np.where(torch.rand(len(observations), 1).numpy() < share, OFFSET, -OFFSET)
        return observations[:, 1:2] + side - observations[:, :1]

    return policy


@pytest.mark.parametrize("share", [0.5, 0.9, 1.0])
def test_entropy_and_divergence_of_choices_are_scipys(share):
    for environment_id in IDS[:2]:
        odds = GATES[environment_id.partition(":")[2]].odds
        metrics = lightning_bc.evaluate(to_the_upper(share), environment_id, 1000, bank="selection").metrics
        assert metrics["success"] == 1
        assert metrics["choice_entropy"] == pytest.approx(stats.entropy([1 - share, share], base=2), abs=0.03)
        assert metrics["choice_divergence"] == pytest.approx(stats.entropy([1 - share, share], odds, base=2), abs=0.03)


def test_one_action_per_observation_is_no_choice_though_both_openings_are_passed():
    def nearer(observations):
        side = np.where(observations[:, :1] > observations[:, 1:2], OFFSET, -OFFSET)
        return observations[:, 1:2] + side - observations[:, :1]

    metrics = lightning_bc.evaluate(nearer, IDS[0], 500, bank="selection").metrics
    assert metrics["choice_entropy"] == 0
    assert metrics["choice_divergence"] == 1


def test_where_no_wall_is_passed_nothing_was_chosen():
    played = play(lambda observations: torch.full((len(observations), 1), 2.0), make(IDS[0], 5), range(5), record=True)
    measured = measure_all(played, UNKNOWN)
    assert measured["success"] == 0
    assert np.isnan([measured["choice_entropy"], measured["choice_divergence"]]).all()


def test_the_metrics_are_of_gates_alone():
    played = play(lambda observations: torch.zeros(len(observations), 1), make("InvertedPendulum-v5", 2), range(2))
    assert not {"success", "choice_entropy", "choice_divergence"} & measure_all(played, UNKNOWN).keys()


# The commands


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder in which a configuration has been fitted to demonstrations made on demand, of fewer pairs than usual."""
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(importlib.import_module(collect.__module__), "collect", functools.partial(collect, pairs=400))
        main(["fit", "--run", "gates", "--config", "configs/gmm.yaml", "--env", IDS[0], *BUDGET.split()])
    return folder


def test_fit_needs_no_more_than_the_environment(fitted):
    results = json.loads((fitted / "lightning_logs/gates/results.json").read_text())
    assert results["environment_id"] == IDS[0]
    assert results["references"]["expert_return"] == WALLS
    assert 0 <= results["sampled_metrics"]["success"] <= 1
    assert "choice_entropy" in results["metrics"].keys() & results["sampled_metrics"].keys()
    assert "rollout/choice_divergence" in read_curve(fitted / "lightning_logs/gates/curve.csv")


def test_the_report_and_the_evaluator_show_them(fitted, monkeypatch, capsys):
    monkeypatch.chdir(fitted)
    main(["report", "lightning_logs", "--output", "results"])
    text = Path("results/report.md").read_text()
    assert "| Sampled success | Sampled choice entropy | Sampled choice divergence |" in text
    main(["evaluate", "checkpoints/gates/last.ckpt", "--episodes", "20"])
    assert "choice entropy" in capsys.readouterr().out


def test_it_draws_walls_openings_and_where_one_stands():
    environment = gymnasium.make(IDS[0], render_mode="rgb_array")
    (_, middle, _), _ = environment.reset(seed=0)
    environment.step(np.array([middle + OFFSET]))
    picture = environment.render()
    wall = picture[:, 82].mean(axis=-1)                             # beside the walker, whose path ends in the opening
    assert ((wall == 90) | (wall > 90)).all()
    assert (wall != 90).sum() == pytest.approx(2 * 2 * HALF_WIDTH * 100, abs=3)
    at = round(200 - 100 * (middle + OFFSET))
    assert (picture[at, 80] == (40, 90, 200)).all()


def test_a_video_is_written(fitted, monkeypatch):
    monkeypatch.chdir(fitted)
    main(["play", "--ckpt_path", "checkpoints/gates/last.ckpt", "--output", "gates.gif"])
    assert Path("gates.gif").stat().st_size > 0
