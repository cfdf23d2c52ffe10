"""Progress on the terminal: loss, last return, pairs or environment steps per second, time left."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from lightning_bc.callbacks.rollouts import Rollouts
from lightning_bc.strategies import Strategy, data_of


class Progress(ProgressBar):
    """One bar over the whole run's optimizer steps (environment steps, for strategies that act while they learn).

    Args:
        rollouts: the callback that measures the return.
    """

    REFRESH_SECONDS = 0.25

    def __init__(self, rollouts: Rollouts) -> None:
        super().__init__()
        self.rollouts = rollouts
        self._bar: tqdm | None = None
        self._shown = self._first_pairs = 0
        self._due = self._started = 0.0

    def disable(self) -> None:
        """Lightning calls this on every process but the first; there is then no bar."""
        self._due = float("inf")

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Open the bar where the run stands."""
        assert isinstance(module, Strategy)
        if self._due == float("inf"):
            return
        self._first_pairs = data_of(trainer).pairs_seen(trainer.global_step)
        self._shown = module.position
        self._started = time.perf_counter() - self.rollouts.seconds_playing
        total, name = module.run_length, type(module).__name__
        self._bar = tqdm(total=total, initial=self._shown, unit=" steps", desc=name, dynamic_ncols=True)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Move the bar, a few times a second."""
        if time.perf_counter() >= self._due:
            self._show(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Show the end."""
        if self._bar is not None:
            self._show(trainer, module)
            self._bar.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        if self._bar is not None:
            self._bar.close()

    def _show(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Strategy)
        if self._bar is None:
            return
        position, now = module.position, time.perf_counter()
        data = data_of(trainer)
        seconds = now - self._started - self.rollouts.seconds_playing
        pairs = data.pairs_seen(trainer.global_step) - self._first_pairs
        shown = {"pairs/s": f"{pairs / seconds:,.0f}"} if pairs else {}
        for name in module.shown:
            if (value := trainer.callback_metrics.get(f"train/{name}")) is not None:
                shown[name.replace("_", " ")] = f"{float(value):.4g}"
        if self.rollouts.last_return is not None:
            decimals = data.references.decimals(self.rollouts.last_return)
            shown["return"] = f"{self.rollouts.last_return:.{decimals}f}"
        elif self.rollouts.merit is not None:
            shown["held-out loss"] = f"{-self.rollouts.merit:.4g}"
        if data.expert_queries:
            shown["expert queries"] = f"{data.expert_queries:,}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(position - self._shown)
        self._shown, self._due = position, now + self.REFRESH_SECONDS
