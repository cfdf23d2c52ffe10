"""Where a run's metrics go: TensorBoard unless another of Lightning's loggers is chosen, and how to look at them."""

import re
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from lightning_bc.runs import folders
from lightning_bc.runs.curve import CURVE_FILE
from lightning_bc.stopping import STOPPING

# These two alone demand a folder, and every run has one: so that their names are enough in flags and YAML.
for _cls in (CSVLogger, TensorBoardLogger):
    _constructor: Any = _cls.__init__
    _constructor.__defaults__ = (str(folders.LOGS), *_constructor.__defaults__)


def loggers_of(chosen: Any, run: str, step: int | None) -> list[Logger] | bool:
    """The loggers of a run; in its own folder, or under its own name, where nothing else is said.

    Args:
        chosen: what ``--trainer.logger`` says: None or true for TensorBoard, false, a logger, or several.
        run: the run's name.
        step: where the run is resumed; None for a new one.
    """
    if chosen is False:
        return False
    if chosen in (None, True):
        chosen = TensorBoardLogger(folders.LOGS, default_hp_metric=False)
    loggers = [chosen] if isinstance(chosen, Logger) else list(chosen)
    for logger in loggers:
        own: Any = logger                                           # its settings have no public names
        if isinstance(logger, CSVLogger | TensorBoardLogger) and Path(str(logger.save_dir)) == folders.LOGS:
            own._name, own._version = "", run
        if isinstance(logger, TensorBoardLogger):
            # events after the checkpoint are of a session that was killed
            is_there = (folders.LOGS / run).exists()
            own._kwargs.setdefault("purge_step", 0 if step is None and is_there else step if step is None else step + 1)
            # its queue, left by a signal between an item and the word to the thread that waits for one, keeps whoever closes
            # it for two minutes, until that thread looks by itself
            for name in ("log_metrics", "log_hyperparams", "save", "finalize"):
                setattr(logger, name, STOPPING.held_back()(getattr(logger, name)))
        if isinstance(logger, WandbLogger):
            own._wandb_init["name"] = own._wandb_init.get("name") or run
            own._wandb_init["id"] = own._wandb_init.get("id") or re.sub(r"[^\w-]", "-", run)[:128]
    if any(isinstance(logger, CSVLogger) for logger in loggers):
        warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
    return loggers


def views(loggers: Sequence[Logger], run: str) -> list[str]:
    """How to look at what each logger wrote, to be pasted; the file of the curve where there is no logger."""
    return [_view(logger) for logger in loggers] or [shlex.quote(str(folders.LOGS / run / CURVE_FILE))]


def _view(logger: Logger) -> str:
    if isinstance(logger, TensorBoardLogger):
        return f"tensorboard --logdir {shlex.quote(str(logger.save_dir))}"
    if isinstance(logger, CSVLogger):
        return shlex.quote(f"{logger.log_dir}/metrics.csv")
    if isinstance(logger, WandbLogger):
        own: Any = logger
        folder = Path(own.save_dir or ".", "wandb", "latest-run")
        return f"wandb sync {shlex.quote(str(folder))}" if own._offline else f"wandb, project {own._project}"
    return f"{type(logger).__name__} {logger.name or ''}".rstrip()
