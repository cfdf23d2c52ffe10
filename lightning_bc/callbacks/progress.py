"""Progress on the terminal: loss, last return, pairs per second, time left."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from lightning_bc.callbacks.rollouts import Rollouts


class Progress(ProgressBar):
    """One bar over the whole run's optimizer steps, whatever its epochs and validations are.

    Args:
        rollouts: the callback that measures the return.
    """

    REFRESH_SECONDS = 0.25

    def __init__(self, rollouts: Rollouts) -> None:
        super().__init__()
        self.rollouts = rollouts
        self._bar: tqdm | None = None
        self._shown = self._first_step = 0
        self._due = self._started = 0.0

    def disable(self) -> None:
        """Lightning calls this on every process but the first; there is then no bar."""
        self._due = float("inf")

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar where the run stands."""
        if self._due == float("inf"):
            return
        self._first_step = self._shown = trainer.global_step
        self._started = time.perf_counter() - self.rollouts.seconds_playing
        total = trainer.datamodule.optimizer_steps  # type: ignore[attr-defined]
        self._bar = tqdm(total=total, initial=self._shown, unit=" steps", desc=type(module).__name__, dynamic_ncols=True)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Move the bar, a few times a second."""
        if time.perf_counter() >= self._due:
            self._show(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Show the end."""
        if self._bar is not None:
            self._show(trainer)
            self._bar.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        if self._bar is not None:
            self._bar.close()

    def _show(self, trainer: Trainer) -> None:
        if self._bar is None:
            return
        step, now = trainer.global_step, time.perf_counter()
        data = trainer.datamodule  # type: ignore[attr-defined]
        seconds = now - self._started - self.rollouts.seconds_playing
        rate = (data.pairs_seen(step) - data.pairs_seen(self._first_step)) / seconds
        shown = {"pairs/s": f"{rate:,.0f}"}
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None:
            shown["loss"] = f"{float(loss):.4g}"
        if self.rollouts.last_return is not None:
            shown["return"] = f"{self.rollouts.last_return:.0f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(step - self._shown)
        self._shown, self._due = step, now + self.REFRESH_SECONDS
