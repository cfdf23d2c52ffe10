"""Playing and acting: latency of the frozen policy over forward, and episodes over stepping through their states alone.

    OPENBLAS_NUM_THREADS=1 python benchmarks/playing.py [--rounds 5]

Each ratio is of two things that take turns, and the median over rounds is printed, so that a machine that does other work
too slows both alike. The states are those of the shipped expert's gait: its recorded actions are played again.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from lightning_bc.acting import freeze
from lightning_bc.demonstrations import load_expert
from lightning_bc.environments import environment_spaces, make
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.strategies import Strategy, strategies

ENVIRONMENT = "HalfCheetah-v5"
EXPERT = Path("checkpoints/experts/HalfCheetah-v5.pt")
BATCHES = (1, 5, 10, 50)
EPISODES = (5, 10, 50)


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def latencies(strategy: Strategy, batch: int, calls: int = 300) -> tuple[float, float]:
    """Median microseconds of ``forward`` and of the frozen policy."""
    observations, frozen = torch.randn(batch, strategy.observation_dim), strategy.frozen()
    with torch.inference_mode():
        pairs = [(seconds(lambda: strategy(observations)), seconds(lambda: frozen(observations))) for _ in range(calls)]
    before, after = np.median(pairs, axis=0)
    return 1e6 * float(before), 1e6 * float(after)


def playing(episodes: int, rounds: int) -> float:
    """Seconds of stepping with the expert's recorded actions, over those of playing it."""
    expert = load_expert(str(EXPERT), ENVIRONMENT)
    policy = freeze(expert, (environment_spaces(ENVIRONMENT).observation_dim,))
    environments, seeds = make(ENVIRONMENT, episodes), SELECTION_BANK.seeds(episodes)
    actions = play(policy, environments, seeds, record=True).actions
    assert actions is not None
    steps = actions.reshape(episodes, -1, actions.shape[1]).transpose(1, 0, 2).copy()  # (steps, episodes, action_dim)

    def step_alone() -> None:
        for now in steps:
            environments.step(now)

    ratios = []
    for _ in range(rounds):
        played = seconds(lambda: play(policy, environments, seeds))
        environments.reset(seed=list(seeds))
        ratios.append(seconds(step_alone) / played)
    environments.close()
    return statistics.median(ratios)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    spaces = environment_spaces(ENVIRONMENT)
    for name, cls in strategies().items():
        strategy = cls(spaces.observation_dim, spaces.action_low.tolist(), spaces.action_high.tolist()).eval()
        found = {batch: latencies(strategy, batch) for batch in BATCHES}
        words = ", ".join(f"{b}: {new / old:.2f} ({old:.0f} to {new:.0f} us)" for b, (old, new) in found.items())
        print(f"{name:16}frozen over forward at batch {words}", flush=True)
    for episodes in EPISODES:
        ratio = playing(episodes, rounds)
        print(f"playing {episodes} episodes: {ratio:.2f} of stepping through their states alone", flush=True)


if __name__ == "__main__":
    main()
