"""Training: what Lightning and the data cost, and what is left to the matrix products.

Each offline strategy trains by ``Trainer.fit`` as the command line sets it up, without rollouts, beside a plain loop over
random batches with the same loss, optimizer and schedule, and beside the matrix products of these steps alone, which are
recorded and computed again on the same numbers.
"""

import logging
import time
import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.measure import DEVICE, ENVIRONMENT, Row, Settings, race, rate, seconds
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.environments import environment_spaces
from lightning_bc.strategies import MSE, OfflineStrategy, strategies
from lightning_bc.trainer_flags import TRAINER_DEFAULTS, quiet_lightning

LONGEST = 6.0
"""Seconds of the plain loop, about, from which on fewer steps than 1000 are timed, though 200 at least: in the first of them
an update is recorded, which costs several."""

PRODUCTS = ("mm.default", "addmm.default", "bmm.default", "baddbmm.default")


class Clock(Callback):
    """Seconds between the first and the last training step."""

    seconds = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Start."""
        self.seconds = -time.perf_counter()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Stop."""
        self.seconds += time.perf_counter()


class Products(TorchDispatchMode):
    """Record the matrix products: (kernel, arguments)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and note the call."""
        if f"{func.overloadpacket.__name__}.{func._overloadname}" in PRODUCTS:
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def rows(settings: Settings) -> list[Row]:
    """Pairs per second."""
    quiet_lightning()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    data, most = random_pairs(settings, settings.sized(250_000, 1000)), settings.sized(1000, 4)
    few, found = most // 100 + 1, []
    offline = [cls for cls in strategies().values() if issubclass(cls, OfflineStrategy)]
    for cls in [MSE] if settings.quick else offline:
        seconds_of_a_step = by_hand(cls, data, few) / few
        steps = min(most, max(most // 5, int(LONGEST / seconds_of_a_step)))
        trainer, hand = partial(by_trainer, cls, data, steps), partial(by_hand, cls, data, steps)
        bare = partial(by_products, products(new(cls, data), data.batch_size), steps)
        for beside, other in (("plain loop", hand), ("bare products", bare)):
            pairs = steps * data.batch_size
            found.append(rate(cls.__name__, beside, pairs, "pairs/s", race(trainer, other, settings.rounds)))
    return found


def random_pairs(settings: Settings, pairs: int, batch_size: int = 250) -> Demonstrations:
    """Data of the environment's sizes: what the numbers are does not matter to the time."""
    spaces, random, episode = environment_spaces(ENVIRONMENT), np.random.default_rng(0), 1000
    path = settings.folder / f"random-{pairs}.npz"
    if not path.exists():
        np.savez(
            path,
            observations=random.standard_normal((pairs, spaces.observation_dim), np.float32),
            actions=random.uniform(-1, 1, (pairs, len(spaces.action_low))).astype(np.float32),
            episode_lengths=np.full(pairs // episode, episode),
        )
    return Demonstrations(str(path), ENVIRONMENT, batch_size=batch_size, validation_fraction=0)


def new(cls: type[OfflineStrategy], data: Demonstrations, **options: Any) -> OfflineStrategy:
    """An untrained strategy for the data's environment."""
    return cls(data.observation_dim, data.action_low, data.action_high, **options)


def by_trainer(cls: type[OfflineStrategy], data: Demonstrations, steps: int, **options: Any) -> float:
    """Seconds of ``Trainer.fit`` as the command line sets it up, without rollouts, checkpoints, loggers and bar."""
    clock = Clock()
    flags: dict[str, Any] = TRAINER_DEFAULTS | {"max_epochs": -1, "max_steps": steps}
    flags |= {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(**flags, callbacks=[clock], accelerator="auto", devices=1)
    trainer.fit(new(cls, data, **options), datamodule=data)
    return clock.seconds


def by_hand(cls: type[OfflineStrategy], data: Demonstrations, steps: int) -> float:
    """Seconds of the plain loop."""
    model = new(cls, data).to(DEVICE)
    pairs = data.training_observations.to(DEVICE), data.training_actions.to(DEVICE)
    model.border.fit(pairs[0])
    model.fit_actions(model.border.scaled(pairs[1]))
    optimizer = model.optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    def loop() -> None:
        for rows in torch.randint(len(pairs[0]), (steps, data.batch_size), device=DEVICE):
            loss, _ = model.loss(*model.across((pairs[0][rows], pairs[1][rows])))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()

    return seconds(loop)


def products(model: OfflineStrategy, batch: int) -> list[tuple[Any, tuple[Any, ...]]]:
    """The matrix products of a training step on ``batch`` pairs."""
    model.to(DEVICE).fit_actions(torch.rand(1000, model.action_dim, device=DEVICE) - 0.5)
    observations = torch.randn(batch, model.observation_dim, device=DEVICE)
    with Products() as recorded:
        loss, _ = model.loss(observations, torch.rand(batch, model.action_dim, device=DEVICE) - 0.5)
        loss.backward()
    return recorded.calls


def by_products(calls: list[tuple[Any, tuple[Any, ...]]], steps: int) -> float:
    """Seconds of them alone."""

    def loop() -> None:
        for _ in range(steps):
            for kernel, arguments in calls:
                kernel(*arguments)

    with torch.no_grad():
        return seconds(loop)
