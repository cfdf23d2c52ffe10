"""How often held-out pairs are measured while training: so rarely that it costs next to nothing."""

import math
from typing import Any

from lightning.pytorch import Trainer

from lightning_bc.strategies import OfflineStrategy, data_of

SHARE = 0.03
"""Of training's arithmetic, by the count below; of its time it is then below 0.05, with what Lightning adds."""


def space_validations(trainer: Trainer, module: OfflineStrategy, every: int | None, eval_freq: int) -> None:
    """Have the Trainer validate about every so many optimizer steps, and at least once.

    Lightning counts items of the loader, of ``group_size`` steps each. By default the steps follow from a count of forward
    passes of the network: a training pair costs three (its gradient costs two), a held-out pair one for the loss and those
    of its action. Callbacks that watch the curve look at it at validations, so then there is one at each point.

    Args:
        trainer: whose interval is set; one that was set already, other than 1, stays.
        module: the strategy.
        every: optimizer steps between two validations; None for the default.
        eval_freq: optimizer steps between two points of the curve.
    """
    data = data_of(trainer)
    if trainer.val_check_interval != 1 or trainer.check_val_every_n_epoch is not None:
        return
    callbacks: Any = trainer.callbacks                              # type: ignore[attr-defined]
    watched = [str(callback.monitor) for callback in callbacks if getattr(callback, "monitor", None)]
    watches_curve = any(not name.startswith("validation/") for name in watched)
    if every is None:
        passes = data.pairs_per_validation * (1 + sum(module.network_calls()))
        every = eval_freq if watches_curve or passes == 0 else math.ceil(passes / (3 * data.batch_size * SHARE))
    if module.run_length is not None:
        every = min(every, module.run_length)
    trainer.val_check_interval = max(1, every // data.group_size)
