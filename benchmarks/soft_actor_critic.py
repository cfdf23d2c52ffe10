"""Gradient steps per second of soft actor-critic: ours against stable-baselines3, side by side in one run.

    pip install stable-baselines3
    python benchmarks/soft_actor_critic.py [--device cpu] [--threads 1] [--steps 200] [--rounds 9]

Both have an actor and two critics of two hidden layers of 256, batches of 256 from a replay of 5000 random transitions of
HalfCheetah-v5, and their own defaults beyond that: our critics are layer-normalised, and our actor is updated every second
time; the second row updates it every time, as stable-baselines3 does. Rounds are interleaved, so that a machine whose speed
drifts slows all alike, and the ratios printed are medians over rounds.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import stable_baselines3
import torch
from lightning.pytorch import Callback, Trainer

from lightning_bc.demonstrations import Demonstrations
from lightning_bc.networks import MLP
from lightning_bc.strategies import SAC

ENVIRONMENT = "HalfCheetah-v5"
REPLAY = 5000


class Compare(Callback):
    """Once our replay is full and the Trainer stands, time everything."""

    def __init__(self, theirs: stable_baselines3.SAC, steps: int, rounds: int) -> None:
        self.theirs, self.steps, self.rounds = theirs, steps, rounds
        self.seconds: dict[str, list[float]] = {}

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        """All rounds, then stop."""

        def ours(actor_every: int) -> None:
            module.agent.actor_every = actor_every
            module.learn(self.steps)

        contestants: dict[str, Callable[[], Any]] = {
            "ours": partial(ours, 2),
            "ours, actor every time": partial(ours, 1),
            "stable-baselines3": partial(self.theirs.train, gradient_steps=self.steps, batch_size=256),
        }
        for number in range(self.rounds + 1):
            for name, train in contestants.items():
                started = time.perf_counter()
                train()
                if module.device.type == "cuda":
                    torch.cuda.synchronize()
                if number > 0:                                      # the first round warms up
                    self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        trainer.should_stop = True


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200, help="gradient steps per round")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    theirs = stable_baselines3.SAC(
        "MlpPolicy", ENVIRONMENT, learning_starts=REPLAY, buffer_size=REPLAY + 10, device=arguments.device, seed=0
    )
    theirs.learn(total_timesteps=REPLAY + 1)
    data = Demonstrations(path=None, environment_id=ENVIRONMENT)
    ours = SAC(
        observation_dim=data.observation_dim,
        action_low=data.action_low,
        action_high=data.action_high,
        network=partial(MLP, hidden_sizes=(256, 256)),
        learning_starts=REPLAY,
    )
    compare = Compare(theirs, arguments.steps, arguments.rounds)
    accelerator = "gpu" if arguments.device == "cuda" else "cpu"
    Trainer(
        accelerator=accelerator,
        devices=1,
        max_epochs=-1,
        callbacks=[compare],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(ours, datamodule=data)
    reference = compare.seconds["stable-baselines3"]
    print(f"{arguments.device}, {arguments.threads} threads, {arguments.rounds} rounds of {arguments.steps} gradient steps")
    for name, seconds in compare.seconds.items():
        ratio = statistics.median(b / a for a, b in zip(seconds, reference, strict=True))
        print(f"{name:24} {arguments.steps / statistics.median(seconds):7.1f} gradient steps/s   {ratio:.2f} times")


if __name__ == "__main__":
    main()
