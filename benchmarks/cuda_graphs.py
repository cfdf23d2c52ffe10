"""Optimizer steps on a CUDA device, replayed from a graph, beside the same with each kernel launched by itself.

Offline strategies learn 300,000 random pairs of HalfCheetah's sizes, in batches of 250; SAC, TD3 and IQ-Learn update from a
replay of 5000 random transitions, and act between groups of 8 updates. Both ways take turns in one Trainer.
"""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.measure import DEVICE, ENVIRONMENT, Row, Settings, rate
from benchmarks.training import random_pairs
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.strategies import Needs, Strategy, strategies
from lightning_bc.trainer_flags import quiet_lightning

PAIRS = 300_000
REPLAY = 5000


class Compare(Callback):
    """Times groups of training steps, with and without graphs in turn."""

    def __init__(self, steps: int, rounds: int) -> None:
        self.steps, self.rounds = steps, rounds
        self.seconds: dict[bool, list[float]] = {True: [], False: []}  # of ``steps`` steps, with graphs and without
        self.began, self.first = 0.0, 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Close a measurement after ``steps`` optimizer steps, and begin one of the other way."""
        assert isinstance(module, Strategy)
        taken = module.steps_taken["optimizer_steps"]
        if taken - self.first < self.steps:
            return
        torch.cuda.synchronize()
        if self.began:
            each = (time.perf_counter() - self.began) / (taken - self.first)
            self.seconds[module.cuda_graphs].append(self.steps * each)
        if len(self.seconds[False]) > self.rounds:                  # the first of each warms up
            trainer.should_stop = True
        module.cuda_graphs = not module.cuda_graphs
        torch.cuda.synchronize()
        self.began, self.first = time.perf_counter(), module.steps_taken["optimizer_steps"]


def compare(cls: type[Strategy], settings: Settings, steps: int) -> list[tuple[float, float]]:
    """Seconds of ``steps`` optimizer steps with graphs and without, by round."""
    nothing = cls.needs is Needs.NOTHING
    data = Demonstrations(None, ENVIRONMENT) if nothing else random_pairs(settings, PAIRS)
    options: dict[str, Any] = {"learning_starts": REPLAY, "updates_per_step": 1.0} if cls.learns_by_acting else {}
    options |= {"total_environment_steps": 10**8} if cls.learns_by_acting else {"schedule": "constant"}
    module = cls(
        observation_dim=data.observation_dim, action_low=data.action_low, action_high=data.action_high, **options
    )
    timer = Compare(steps, settings.rounds)
    Trainer(
        accelerator="gpu", devices=1, max_epochs=-1, callbacks=[timer], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    ).fit(module, datamodule=data)  # fmt: skip
    return list(zip(timer.seconds[True][1:], timer.seconds[False][1:], strict=False))


def rows(settings: Settings) -> list[Row]:
    """Of each strategy whose updates can be recorded; none without a CUDA device."""
    if DEVICE.type != "cuda":
        return []
    quiet_lightning()
    steps = settings.sized(800, 40)
    return [
        rate(name, "launched one by one", steps, "steps/s", compare(cls, settings, steps))
        for name, cls in strategies().items()
        if cls.recordable
    ]
