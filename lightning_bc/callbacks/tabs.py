"""TensorBoard's tabs: hyper-parameters beside the return reached, and the returns of all runs on one plot."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from lightning_bc.stopping import STOPPING

RETURNS = ("rollout/return_mean", "rollout/normalized_return")

LAYOUT = {
    "Return while learning": {
        "return of all runs": ["Multiline", ["rollout/return_mean"]],
        "normalized return of all runs": ["Multiline", ["rollout/normalized_return"]],
        "return, worst to best episode": ["Margin", ["rollout/return_mean", "rollout/return_min", "rollout/return_max"]],
    }
}
"""The tab Custom Scalars."""


class TensorBoardTabs(Callback):
    """Fill the tabs HParams and Custom Scalars, once per run, where the logger is TensorBoard's.

    ``TensorBoardLogger.log_hyperparams`` would also log a value for each metric, a point of the curve that was never
    played; here the tab shows the curve's own last value.

    Args:
        hyperparameters: the run's settings, by dotted name.
    """

    def __init__(self, hyperparameters: Mapping[str, Any]) -> None:
        self.hyperparameters = {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in hyperparameters.items()
        }

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Write both, unless the run is resumed and has them."""
        if trainer.global_step or not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                with STOPPING.held_back():
                    logger.experiment.add_custom_scalars(LAYOUT)
                    for summary in hparams(self.hyperparameters, dict.fromkeys(RETURNS, 0)):
                        logger.experiment.file_writer.add_summary(summary)
