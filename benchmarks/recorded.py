"""Optimizer steps that are recorded once and replayed, beside the same without, on the CPU.

Offline strategies learn 300,000 random pairs of HalfCheetah's sizes, in batches of 250; SAC, TD3 and IQ-Learn update from a
replay of 5000 random transitions, one environment step each. Both ways take turns in one Trainer. cuda_graphs.py measures
the same on a CUDA device.
"""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.measure import ENVIRONMENT, Row, Settings, rate, wait
from benchmarks.training import random_pairs
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.strategies import Needs, Strategy, strategies
from lightning_bc.trainer_flags import quiet_lightning

PAIRS = 300_000
REPLAY = 5000


class Compare(Callback):
    """Times groups of training steps, replayed and not in turn."""

    def __init__(self, steps: int, rounds: int) -> None:
        self.steps, self.rounds = steps, rounds
        self.seconds: dict[bool, list[float]] = {True: [], False: []}  # of ``steps`` steps, replayed and not
        self.began, self.first = 0.0, 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Close a measurement after ``steps`` optimizer steps, and begin one of the other way."""
        assert isinstance(module, Strategy)
        taken = module.steps_taken["optimizer_steps"]
        if taken - self.first < self.steps:
            return
        wait()
        if self.began:
            each = (time.perf_counter() - self.began) / (taken - self.first)
            self.seconds[module.record_updates].append(self.steps * each)
        if min(map(len, self.seconds.values())) > self.rounds:      # the first of each warms up
            trainer.should_stop = True
        module.record_updates = not module.record_updates
        wait()
        self.began, self.first = time.perf_counter(), module.steps_taken["optimizer_steps"]


def compare(cls: type[Strategy], settings: Settings, steps: int, accelerator: str) -> list[tuple[float, float]]:
    """Seconds of ``steps`` optimizer steps, replayed and not, by round."""
    nothing = cls.needs is Needs.NOTHING
    data = Demonstrations(None, ENVIRONMENT) if nothing else random_pairs(settings, PAIRS)
    options: dict[str, Any] = {"learning_starts": REPLAY, "updates_per_step": 1.0} if cls.learns_by_acting else {}
    options |= {"total_environment_steps": 10**8} if cls.learns_by_acting else {"schedule": "constant"}
    module = cls(
        observation_dim=data.observation_dim, action_low=data.action_low, action_high=data.action_high, **options
    )
    timer = Compare(steps, settings.rounds)
    Trainer(
        accelerator=accelerator, devices=1, max_epochs=-1, callbacks=[timer], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    ).fit(module, datamodule=data)  # fmt: skip
    return list(zip(timer.seconds[True][1:], timer.seconds[False][1:], strict=False))


def rows(settings: Settings, accelerator: str = "cpu", beside: str = "through Python and autograd") -> list[Row]:
    """Of each strategy whose updates can be recorded, ACT with fewer steps, since one takes long."""
    quiet_lightning()
    steps = settings.sized(800 if accelerator == "gpu" else 200, 20)
    found = []
    for name, cls in strategies().items():
        if cls.recordable:
            taken = steps // 10 if name == "ACT" else steps
            found.append(rate(name, beside, taken, "steps/s", compare(cls, settings, taken, accelerator)))
    return found
