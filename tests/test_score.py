"""Scores: what the terminal says of one, and checkpoints that have none."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, build_strategy

from lightning_bc.episodes import Episodes
from lightning_bc.errors import InputError
from lightning_bc.references import References
from lightning_bc.runs import score as scoring
from lightning_bc.runs.results import Results, results_name
from lightning_bc.runs.score import in_words, score
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


@pytest.mark.parametrize(("name", "calls"), [("MSE", [True]), ("Gaussian", [True, False])])
def test_a_strategy_that_has_no_samples_plays_once(name, calls, monkeypatch):
    played = []

    def play_once(strategy, environments, deterministic):
        played.append(deterministic)
        return Episodes(np.zeros(100), np.ones(100, int), np.zeros(100, bool), environment_id="Pendulum-v1")

    monkeypatch.setattr(scoring, "_play", play_once)
    monkeypatch.setattr(scoring, "make", lambda *_: nullcontext())
    monkeypatch.setattr(scoring, "closing", lambda made: made)
    checkpoint = {"point": {}, "run": "mine", "config": {"seed_everything": 0}}
    strategy, references = build_strategy(strategies()[name]), References(-1.0, 1.0, "made up")
    found = score(strategy, "Pendulum-v1", references, {}, Path("last.ckpt"), checkpoint)
    assert played == calls
    assert found.sampled_returns == found.returns
