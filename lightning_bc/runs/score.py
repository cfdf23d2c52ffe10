"""Scores: one trained policy on the test bank."""

import time
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from lightning_bc import versions
from lightning_bc.aliases import Config
from lightning_bc.environments import Environments, make
from lightning_bc.episode_metrics import measure_all, recording_is_needed, special_metrics
from lightning_bc.episodes import TEST_BANK, TEST_EPISODES, Episodes, play, single_threaded
from lightning_bc.errors import InputError
from lightning_bc.references import References
from lightning_bc.runs.results import Results
from lightning_bc.strategies.base import Strategy

LATENCY_CALLS = 200


def score(
    strategy: Strategy,
    environment_id: str,
    references: References,
    source: Config,
    path: Path,
    checkpoint: Config,
) -> Results:
    """Play the test bank and say how well that went.

    The score is the mean return of 100 test-bank episodes with deterministic actions; the same with sampled actions is
    given beside it. See docs/metrics.md for each entry.

    Args:
        strategy: the trained policy, with the checkpoint's weights.
        environment_id: where it acts.
        references: what returns are measured against.
        source: the demonstrations that it learnt from, as the data module describes them; empty for none.
        path: file of the checkpoint.
        checkpoint: what it holds: which run it is of, and how far training was at the last point of the curve.

    Raises:
        InputError: the checkpoint holds no point of a curve.
    """
    if "point" not in checkpoint:
        raise InputError(
            f"{path}: holds no point of the curve, so nothing says how long it was trained. It was saved by an earlier "
            "version or without lightning_bc's Rollouts; train it anew with python -m lightning_bc fit."
        )
    strategy.eval()
    with closing(make(environment_id, TEST_EPISODES)) as environments:
        played = {True: _play(strategy, environments, deterministic=True)}
        played[False] = _play(strategy, environments, deterministic=False) if strategy.stochastic else played[True]
    measured = {deterministic: measure_all(episodes, references) for deterministic, episodes in played.items()}
    best, sampled = measured[True], measured[False]
    return Results.from_dict(
        {
            **_about(strategy, environment_id, references, source, checkpoint),
            "checkpoint": str(path),
            "score": best["return_mean"],
            "score_std": best["return_std"],
            "normalized": best["normalized_return"],
            "failed_episodes": best["failed_episodes"],
            "sampled_score": sampled["return_mean"],
            "sampled_normalized": sampled["normalized_return"],
            "action_latency_ms": {str(batch): latency(strategy, batch) for batch in (1, 10)},
            "network_evaluations": strategy.network_evaluations,
            "returns": played[True].returns.tolist(),
            "sampled_returns": played[False].returns.tolist(),
            "metrics": best,
            "sampled_metrics": sampled,
        }
    )


def diverged(
    strategy: Strategy, environment_id: str, references: References, source: Config, path: Path, run: Config, what: str
) -> Results:
    """The results of a run that came to something that is no finite number: no score, and every episode failed.

    Args:
        strategy: as it learnt.
        environment_id: as in :func:`score`, and so are ``references`` and ``source``.
        path: the last checkpoint, whose weights are still finite; it may not be there.
        run: what a checkpoint would hold of the run: its name, its configuration and the last point of its curve.
        what: was not finite, and when.
    """
    nothing = ("score", "score_std", "normalized", "sampled_score", "sampled_normalized", "network_evaluations")
    return Results.from_dict(
        {
            **_about(strategy, environment_id, references, source, run),
            **dict.fromkeys(nothing),
            "checkpoint": str(path),
            "failed_episodes": 1.0,
            "action_latency_ms": {"1": None, "10": None},
            "returns": [],
            "sampled_returns": [],
            "diverged": what,
        }
    )


def _about(
    strategy: Strategy, environment_id: str, references: References, source: Config, checkpoint: Config
) -> dict[str, object]:
    """What results say of a run besides how well it plays."""
    point = checkpoint["point"]
    return {
        "run": checkpoint["run"],
        "environment_id": environment_id,
        "strategy": type(strategy).__name__,
        "references": references.as_dict(),
        "parameters": sum(parameter.numel() for parameter in strategy.parameters()),
        "test_seeds": [TEST_BANK.first, TEST_BANK.first + TEST_EPISODES - 1],
        **{name: int(point.get(name, 0)) for name in ("optimizer_steps", "environment_steps", "expert_queries", "pairs")},
        **{name: float(point.get(name, 0)) for name in ("seconds", "training_seconds")},
        "seed": checkpoint["config"]["seed_everything"],
        "data": source,
        "versions": versions(),
        "search": checkpoint["config"].get("search"),
    }


def _play(strategy: Strategy, environments: Environments, deterministic: bool) -> Episodes:
    """The episodes of the test bank."""
    return play(
        strategy.quick_player(deterministic),
        environments,
        TEST_BANK.seeds(TEST_EPISODES),
        record=recording_is_needed(environments.environment_id),
        device=strategy.device,
    )


def in_words(results: Results) -> str:
    """What the terminal shows of a score."""
    if results.diverged:
        return f"no score: {results.diverged}"
    references = results.references
    decimals = references.decimals(max(abs(results.score), results.score_std))
    normalized = sampled = failed = scale = ""
    if references.has_expert:
        normalized, sampled = (f", normalized {value:.3f}" for value in (results.normalized, results.sampled_normalized))
        failed = f", failed episodes {results.failed_episodes:.0%}"
        random, expert = (f"{value:.{decimals}f}" for value in (references.random_return, references.expert_return))
        scale = f"0 is random actions ({random}), 1 is {expert}, the "
    samples = (
        f"with sampled actions {results.sampled_score:.{decimals}f}{sampled} (drawn from what the strategy models, noise "
        "included; the score is that of the deterministic ones)\n"
    )
    same = results.sampled_returns == results.returns               # nothing is sampled, and there is nothing more to say
    return (
        f"score {results.score:.{decimals}f} +- {results.score_std:.{decimals}f}{normalized}{failed} "
        "(100 test-bank episodes, deterministic actions)\n"
        f"{'' if same else samples}"
        f"{special_in_words(results)}scale: {scale}{references.expert_source}\n"
        f"checkpoint        {results.checkpoint}"
    )


def special_in_words(results: Results) -> str:
    """A line of the metrics that only this environment has; nothing where there are none."""
    names = special_metrics(results.environment_id)
    shown = ", ".join(
        f"{name.replace('_', ' ')} {results.metrics[name]:.3f} | {results.sampled_metrics[name]:.3f}" for name in names
    )
    return f"{shown} (deterministic | sampled actions)\n" * bool(names)


def latency(strategy: Strategy, batch: int) -> float:
    """Median milliseconds per played action of one deterministic call on ``batch`` observations, as :func:`score` plays."""
    observations, policy = strategy.zero_observations(batch), strategy.quickest()
    seconds = []
    with torch.inference_mode(), single_threaded():
        for _ in range(LATENCY_CALLS):
            started = time.perf_counter()
            policy(observations).cpu()
            seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds)) / strategy.steps_per_answer
