"""What the Trainer costs: ``fit`` without rollouts against a hand-written loop over the same tensors, same step.

    python benchmarks/training.py [--data FILE] [--batch-size 250] [--steps 2000] [--rounds 5]

Both train the same MSE strategy with the same optimizer and schedule on the same index batches. Rounds are interleaved, so
that a machine whose speed drifts slows both alike, and the ratio printed is the median over rounds.
"""

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lightning_bc.demonstrations import Demonstrations
from lightning_bc.strategies import MSE
from lightning_bc.trainer_flags import TRAINER_DEFAULTS


class Clock(Callback):
    """Seconds between the first and the last training step."""

    seconds = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start."""
        self.seconds = -time.perf_counter()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop."""
        self.seconds += time.perf_counter()


def by_trainer(data: Demonstrations, steps: int) -> float:
    """Pairs per second of ``Trainer.fit`` as the command line sets it up, without rollouts, checkpoints and bar."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = TRAINER_DEFAULTS | {"max_epochs": -1, "max_steps": steps}
        trainer = Trainer(
            **settings,
            callbacks=[clock],
            logger=TensorBoardLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        trainer.fit(new_model(data), datamodule=data)
        return data.pairs_seen(steps) / clock.seconds


def by_hand(data: Demonstrations, device: torch.device) -> float:
    """Pairs per second of the plain loop."""
    model = new_model(data).to(device)
    model.border.fit(data.training_observations)
    batches = data.train_dataloader()
    optimizer = model.optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=batches.num_batches)
    started = time.perf_counter()
    for group in batches:
        for observations, actions in group:
            loss, _ = model.loss(model.border.observe(observations), model.border.scaled(actions))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return data.pairs_seen(batches.num_batches) / (time.perf_counter() - started)


def new_model(data: Demonstrations) -> MSE:
    """An untrained strategy for the data's environment."""
    return MSE(observation_dim=data.observation_dim, action_low=data.action_low, action_high=data.action_high)


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data/HalfCheetah-v5-sampled-2400000.pt")
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")

    data = Demonstrations(arguments.data, batch_size=arguments.batch_size, validation_fraction=0)
    rows = []
    for number in range(arguments.rounds + 1):
        trainer = by_trainer(data, arguments.steps)
        assert data.trainer is not None
        hand = by_hand(data, data.trainer.strategy.root_device)
        if number > 0:                                              # the first round warms up
            rows.append((trainer, hand))
            print(f"round {number}: Trainer {trainer:,.0f} pairs/s, by hand {hand:,.0f}, ratio {trainer / hand:.3f}")
    ratio = statistics.median(trainer / hand for trainer, hand in rows)
    print(f"median ratio {ratio:.3f} on {data.trainer.strategy.root_device}")


if __name__ == "__main__":
    main()
