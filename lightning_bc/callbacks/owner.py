"""One process writes a run's folders."""

from contextlib import ExitStack
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_bc.files import owning, refuse_owned


class Owner(Callback):
    """Own a run from its first step on, until :meth:`close`.

    Args:
        folder: of the run, among the logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._owned = folder, ExitStack()

    @rank_zero_only
    def check(self, model: LightningModule, environment_id: str) -> None:
        """Refuse before Lightning makes the files of the loggers, which it does before callbacks are asked.

        Raises:
            InputError: another process owns it.
        """
        refuse_owned(self.folder)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Own it: by now the input has passed every check, and nothing has been written.

        Raises:
            InputError: another process does.
        """
        if trainer.is_global_zero:
            self._owned.enter_context(owning(self.folder))

    def close(self) -> None:
        """Let others write it."""
        self._owned.close()
