"""Gradient steps of SAC over those of stable-baselines3, which is needed for it.

Both have an actor and two critics of two hidden layers of 256, batches of 256 from a replay of random transitions, on a CPU
one thread, and their own defaults beyond that: our critics are layer-normalised, and our actor is updated every second time;
the second row updates it every time, as stable-baselines3 does.
"""

import importlib.util
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from benchmarks.measure import DEVICE, ENVIRONMENT, Row, Settings, race, rate, seconds
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.networks import MLP
from lightning_bc.strategies import SAC
from lightning_bc.trainer_flags import quiet_lightning


class Compare(Callback):
    """Once our replay is full and the Trainer stands, let both take turns.

    Args:
        theirs: SAC of stable-baselines3.
        steps: gradient steps per turn.
        rounds: of turns.
    """

    def __init__(self, theirs: Any, steps: int, rounds: int) -> None:
        self.theirs, self.steps, self.rounds = theirs, steps, rounds
        self.rows: list[Row] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """All rounds, then stop."""

        def ours(actor_every: int) -> float:
            module.agent.actor_every = actor_every
            return seconds(partial(module.learn, self.steps))

        theirs = partial(seconds, partial(self.theirs.train, gradient_steps=self.steps, batch_size=256))
        for what, every in (("SAC", 2), ("SAC, actor every time", 1)):
            found = race(partial(ours, every), theirs, self.rounds)
            self.rows.append(rate(f"{what}, {DEVICE.type}", "stable-baselines3", self.steps, "gradient steps/s", found))
        trainer.should_stop = True


def rows(settings: Settings) -> list[Row]:
    """Gradient steps per second; none where stable-baselines3 is not installed."""
    if importlib.util.find_spec("stable_baselines3") is None:
        return []
    import stable_baselines3

    quiet_lightning()
    threads, replay = torch.get_num_threads(), settings.sized(5000, 300)
    torch.set_num_threads(1)
    theirs = stable_baselines3.SAC(
        "MlpPolicy", ENVIRONMENT, learning_starts=replay, buffer_size=replay + 10, device=DEVICE, seed=0
    )
    theirs.learn(total_timesteps=replay + 1)
    data = Demonstrations(path=None, environment_id=ENVIRONMENT)
    ours = SAC(
        data.observation_dim,
        data.action_low,
        data.action_high,
        network=partial(MLP, hidden_sizes=(256, 256)),
        learning_starts=replay,
    )
    compare = Compare(theirs, settings.sized(200, 2), settings.rounds)
    Trainer(
        accelerator="gpu" if DEVICE.type == "cuda" else "cpu",
        devices=1,
        max_epochs=-1,
        callbacks=[compare],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(ours, datamodule=data)
    torch.set_num_threads(threads)
    return compare.rows
