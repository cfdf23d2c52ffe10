"""Scores: what the terminal says of one, and checkpoints that have none."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY, build_strategy

from lightning_bc.episodes import Episodes
from lightning_bc.errors import InputError
from lightning_bc.references import References
from lightning_bc.runs.results import Results, results_name
from lightning_bc.runs.score import in_words, latency, score
from lightning_bc.strategies import strategies

KEPT = REPOSITORY / "tests" / "files" / "SAC-results.json"


def test_a_checkpoint_without_a_point_of_the_curve_is_refused_before_anything_is_played():
    strategy = build_strategy(strategies()["MSE"])
    with pytest.raises(InputError, match=r"mine\.ckpt: holds no point of the curve.*python -m lightning_bc fit"):
        score(strategy, "nowhere-v0", References(0.0, 1.0, "made up"), {}, Path("mine.ckpt"), {"run": "mine"})


def test_only_the_last_checkpoints_results_are_the_runs():
    assert results_name(Path("checkpoints/run/last.ckpt")) == "results.json"
    assert results_name(Path("checkpoints/run/best.ckpt")) == "results-best.json"


def test_the_words_of_a_score_say_what_it_is_measured_against():
    results = replace(
        Results.read(KEPT), score=5000.0, score_std=10.4, normalized=0.5, failed_episodes=0.07,
        references=References(-300.0, 10_300.0, "expert's mean action"),
    )  # fmt: skip
    words = in_words(results)
    assert "score 5000 +- 10, normalized 0.500, failed episodes 7% (100 test-bank episodes, deterministic actions)" in words
    sampled = replace(results, sampled_score=506.4, sampled_normalized=0.076)
    assert "with sampled actions 506, normalized 0.076 (drawn from what the strategy models" in in_words(sampled)
    assert "scale: 0 is random actions (-300), 1 is 10300, the expert's mean action" in words
    for sampled_returns, is_said in (([value - 1 for value in results.returns], True), (results.returns, False)):
        said = in_words(replace(results, sampled_returns=sampled_returns))
        assert ("with sampled actions" in said) == is_said          # a strategy that samples nothing has one score
    small = in_words(replace(results, score=0.49, score_std=0.4999, references=References(0.01, 1.0, "expert")))
    assert "score 0.490 +- 0.500" in small
    assert "0 is random actions (0.010), 1 is 1.000, the expert" in small
    unknown = replace(results, references=References(-300.0, math.nan, "no expert known"))
    assert "score 5000 +- 10 (100 test-bank" in in_words(unknown)
    assert "scale: no expert known" in in_words(unknown)


@pytest.mark.parametrize("name", ["Gaussian", "MSE"])
def test_a_score_is_that_of_deterministic_actions_on_the_test_bank_and_samples_stand_beside_it(name, monkeypatch):
    """MSE has no samples, and so plays once."""
    strategy, seeds_played = build_strategy(strategies()[name]), []
    answers = {True: np.array([10.0, 60.0, 80.0]), False: np.array([5.0, 4.0, 60.0])}

    def play(deterministic, environments, seeds, **_):
        seeds_played.append([*seeds])
        return Episodes(answers[deterministic], np.ones(3, int), np.ones(3, bool), environment_id="InvertedPendulum-v5")

    environments = SimpleNamespace(close=lambda: None, environment_id="InvertedPendulum-v5")
    monkeypatch.setattr("lightning_bc.runs.score.make", lambda environment_id, number: environments)
    monkeypatch.setattr("lightning_bc.runs.score.play", play)
    monkeypatch.setattr(strategy, "quick_player", lambda deterministic=True: deterministic)
    checkpoint = {"run": "mine", "point": {"optimizer_steps": 7.0}, "config": {"seed_everything": 3}}
    references = References(0.0, 100.0, "made up")
    found = score(strategy, "InvertedPendulum-v5", references, {}, Path("last.ckpt"), checkpoint)
    assert seeds_played == [[2_000_000_000, 2_000_000_001, 2_000_000_002]] * (2 if strategy.stochastic else 1)
    assert (found.score, found.normalized, found.returns) == (50, 0.5, [10, 60, 80])
    assert found.failed_episodes == pytest.approx(1 / 3)
    sampled = (found.sampled_score, found.sampled_normalized, found.sampled_returns)
    assert sampled == ((23, 0.23, [5, 4, 60]) if strategy.stochastic else (50, 0.5, [10, 60, 80]))
    assert found.sampled_metrics["failed_episodes"] == pytest.approx(2 / 3 if strategy.stochastic else 1 / 3)
    assert (found.optimizer_steps, found.seed) == (7, 3)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({}, 4), ({"chunk": 4}, 1), ({"chunk": 4, "temporal_ensembling": 0.1}, 4)],
    ids=["actions", "chunks", "ensembling"],
)
def test_the_latency_is_per_played_action(options, wanted, monkeypatch):
    """A clock that goes on by 4 ms between two looks at it."""
    ticks = itertools.count(step=0.004)
    monkeypatch.setattr("lightning_bc.runs.score.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    strategy = build_strategy(strategies()["MSE"], horizon=options.get("chunk", 1), **options)
    assert latency(strategy, 1) == pytest.approx(wanted)
