"""Scores: one trained policy on the test bank, and results.json."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_bc.environments import make
from lightning_bc.episodes import TEST_BANK, TEST_EPISODES, play
from lightning_bc.references import References
from lightning_bc.strategies.base import Strategy

LATENCY_CALLS = 200


def score(strategy: Strategy, environment_id: str, references: References) -> dict[str, Any]:
    """Play the test bank and say how well that went.

    The score is the mean return of 100 test-bank episodes with deterministic actions; the same with sampled actions is
    given beside it. See docs/metrics.md for each key.
    """
    strategy.eval()
    environments = make(environment_id, TEST_EPISODES)
    returns = {
        deterministic: play(
            strategy.player(deterministic), environments, TEST_BANK.seeds(TEST_EPISODES), device=strategy.device
        ).returns
        for deterministic in (True, False)
    }
    environments.close()
    mean = float(returns[True].mean())
    return {
        "environment_id": environment_id,
        "strategy": type(strategy).__name__,
        "score": mean,
        "score_std": float(returns[True].std()),
        "normalized": float(references.normalized(mean)),
        "failed_episodes": float(references.failed(returns[True]).mean()) if references.has_expert else float("nan"),
        "sampled_score": float(returns[False].mean()),
        "sampled_normalized": float(references.normalized(returns[False].mean())),
        "references": references.as_dict(),
        "action_latency_ms": {str(batch): latency(strategy, batch) for batch in (1, 10)},
        "network_evaluations": network_evaluations(strategy),
        "parameters": sum(parameter.numel() for parameter in strategy.parameters()),
        "test_seeds": [TEST_BANK.first, TEST_BANK.first + TEST_EPISODES - 1],
        "returns": returns[True].tolist(),
        "sampled_returns": returns[False].tolist(),
    }


def latency(strategy: Strategy, batch: int) -> float:
    """Median milliseconds per played action of one deterministic call on ``batch`` observations, on its device."""
    observations = _observations(strategy, batch)
    seconds = []
    with torch.inference_mode():
        for _ in range(LATENCY_CALLS):
            started = time.perf_counter()
            strategy(observations).cpu()
            seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds)) / strategy.chunk


def network_evaluations(strategy: Strategy) -> float:
    """How often one played deterministic action evaluates the strategy's network."""
    calls: list[None] = []
    hook = strategy.actor.register_forward_hook(lambda *_: calls.append(None))
    with torch.inference_mode():
        strategy(_observations(strategy, 1))
    hook.remove()
    return len(calls) / strategy.chunk


def _observations(strategy: Strategy, batch: int) -> torch.Tensor:
    """Zeros that the strategy can answer: (batch, observation_dim), of windows (batch, history, observation_dim)."""
    window = (strategy.history,) if strategy.has_windows else ()
    return torch.zeros(batch, *window, strategy.observation_dim, device=strategy.device)


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write results.json in one move; what is not a number, where no expert is known, is null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(_without_nan(results), indent=1, allow_nan=False) + "\n")
    temporary.replace(path)


def _without_nan(value: Any) -> Any:
    """``value`` with null in place of each number that JSON does not know."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
