"""Callbacks that refuse a run before it begins."""

from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from lightning_bc.errors import InputError
from lightning_bc.runs.curve import columns
from lightning_bc.strategies import Strategy, data_of
from lightning_bc.strategies.offline.base import VALIDATION


@runtime_checkable
class Checked(Protocol):
    """A callback with a ``check``, which ``fit`` calls before any folder is made."""

    def check(self, module: LightningModule, environment_id: str) -> None:
        """Raise InputError where the callback cannot work under the strategy or in the environment."""


def refuse_blind(trainer: Trainer, measures_held_out: bool, module: Strategy) -> None:
    """Refuse callbacks that watch a metric which is never there, or which nothing would have them look at.

    Args:
        trainer: whose callbacks.
        measures_held_out: whether there are held-out episodes.
        module: the strategy; those that act while they learn have no validations.

    Raises:
        InputError: naming the callback, its metric, and those that there are.
    """
    metrics = [*columns(data_of(trainer).environment_id), *(f"train/{name}" for name in module.logs)]
    if not data_of(trainer).has_simulator:
        metrics = [name for name in metrics if not name.startswith("rollout/return")]
    metrics += [f"validation/{name}" for name in VALIDATION] if measures_held_out else []
    for callback in trainer.callbacks:                              # type: ignore[attr-defined]
        name, monitor = type(callback).__name__, getattr(callback, "monitor", None)
        if monitor is None:
            continue
        if module.learns_by_acting and isinstance(callback, EarlyStopping):
            raise InputError(
                f"--trainer.callbacks {name}: looks at its metric at validations, and strategies that act while they learn "
                "have none. Set their end with --model.total_environment_steps."
            )
        if monitor not in metrics:
            nothing = "" if measures_held_out else " Nothing is held out: see --data.validation_fraction."
            raise InputError(
                f"--trainer.callbacks {name} watches {monitor}, which this run does not measure.{nothing} There are "
                f"{', '.join(metrics)}."
            )
