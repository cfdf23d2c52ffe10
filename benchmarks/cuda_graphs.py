"""Optimizer steps per second on a CUDA device, replayed from a graph against launched kernel by kernel, side by side.

    python benchmarks/cuda_graphs.py [--steps 2000] [--rounds 3] [--strategies MSE,SAC]

Offline strategies learn 300,000 random pairs of HalfCheetah's sizes, in batches of 250; SAC, TD3 and IQ-Learn update from a
replay of 5000 random transitions, and act between groups of 8 updates. Both ways are measured in one Trainer in turn, and
the ratio printed is the median over rounds.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_bc.demonstrations import Demonstrations
from lightning_bc.strategies import Needs, Strategy, strategies

ENVIRONMENT = "HalfCheetah-v5"
PAIRS, EPISODE = 300_000, 1000
REPLAY = 5000


class Compare(Callback):
    """Times groups of training steps, with and without graphs in turn."""

    def __init__(self, steps: int, rounds: int) -> None:
        self.steps, self.rounds = steps, rounds
        self.speeds: dict[bool, list[float]] = {True: [], False: []}
        self.began, self.first = 0.0, 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Close a measurement after ``steps`` optimizer steps, and begin one of the other way."""
        assert isinstance(module, Strategy)
        taken = module.steps_taken["optimizer_steps"]
        if taken - self.first < self.steps:
            return
        torch.cuda.synchronize()
        if self.began:
            self.speeds[module.cuda_graphs].append((taken - self.first) / (time.perf_counter() - self.began))
        if len(self.speeds[False]) > self.rounds:                   # the first of each warms up
            trainer.should_stop = True
        module.cuda_graphs = not module.cuda_graphs
        torch.cuda.synchronize()
        self.began, self.first = time.perf_counter(), module.steps_taken["optimizer_steps"]


def random_pairs(path: Path) -> None:
    """Write pairs that nobody could learn."""
    torch.manual_seed(0)
    torch.save(
        {
            "observations": torch.randn(PAIRS, 17),
            "actions": torch.rand(PAIRS, 6) * 2 - 1,
            "episode_lengths": torch.full((PAIRS // EPISODE,), EPISODE),
            "metadata": {"environment_id": ENVIRONMENT},
        },
        path,
    )


def compare(cls: type[Strategy], path: Path, steps: int, rounds: int) -> dict[bool, list[float]]:
    """Steps per second of both ways, by round."""
    nothing = cls.needs is Needs.NOTHING
    data = Demonstrations(path=None if nothing else str(path), environment_id=ENVIRONMENT, group_size=80)
    options: dict[str, Any] = {"learning_starts": REPLAY, "updates_per_step": 1.0} if cls.learns_by_acting else {}
    options |= {"total_environment_steps": 10**8} if cls.learns_by_acting else {"schedule": "constant"}
    module = cls(
        observation_dim=data.observation_dim, action_low=data.action_low, action_high=data.action_high, **options
    )
    timer = Compare(steps, rounds)
    Trainer(
        accelerator="gpu", devices=1, max_epochs=-1, callbacks=[timer], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    ).fit(module, datamodule=data)  # fmt: skip
    return {way: speeds[1:] for way, speeds in timer.speeds.items()}


def main() -> None:
    """Compare and print."""
    recordable = [name for name, cls in strategies().items() if cls.recordable]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="optimizer steps per measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--strategies", default=",".join(recordable))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {arguments.rounds} rounds of {arguments.steps} steps")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pt"
        random_pairs(path)
        for name in arguments.strategies.split(","):
            speeds = compare(strategies()[name], path, arguments.steps, arguments.rounds)
            graph, plain = (statistics.median(speeds[way]) for way in (True, False))
            ratio = statistics.median(a / b for a, b in zip(speeds[True], speeds[False], strict=False))
            print(f"{name:16} {graph:8,.0f} steps/s by graph, {plain:8,.0f} without: {ratio:.1f} times", flush=True)


if __name__ == "__main__":
    main()
