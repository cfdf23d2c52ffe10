"""What of Lightning's Trainer is set here, what it may be told, and what is refused before anything is built."""

import logging
import math
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.strategies import DDPStrategy

from lightning_bc.errors import InputError
from lightning_bc.ranks import by_srun
from lightning_bc.strategies import Strategy

TRAINER_DEFAULTS = {
    "max_epochs": None,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,
    "val_check_interval": 1,
    "enable_model_summary": False,
}

SHOWN = {
    "max_epochs": "passes over the pairs, in place of steps",
    "max_steps": f"optimizer steps; default {Strategy.default_steps}, of some more, of few pairs less; --data.max_passes",
    "max_time": "stop after DD:HH:MM:SS",
    "accelerator": "cpu, gpu or auto",
    "devices": "how many, or which",
    "precision": "32-true, bf16-mixed, 16-mixed or 64-true",
    "gradient_clip_val": "largest norm of the gradient of all parameters",
    "callbacks": "further callbacks, such as lightning_bc.callbacks.DAgger; see configs/dagger.yaml",
}
"""The flags that --help shows, in our words."""

PRECISIONS = ("None", "32-true", "bf16-mixed", "16-mixed", "64-true", "32", "64", "16", "bf16")
"""Those under which weights have the precision of the observations, or cast them."""

_ALONE = "many batches share one training step"
_AVERAGES = f"{_ALONE}. Use --trainer.callbacks+=lightning_bc.callbacks.AveragedWeights."
_IS_THERE = "it is part of every run. Leave it away; its settings are those of --rollouts."

UNSUPPORTED = {
    "StochasticWeightAveraging": _AVERAGES,
    "WeightAveraging": _AVERAGES,
    "EMAWeightAveraging": _AVERAGES,
    "GradientAccumulationScheduler": f"{_ALONE}. Raise --data.batch_size instead.",
    "BatchSizeFinder": f"{_ALONE}. Set --data.batch_size.",
    "LearningRateFinder": f"{_ALONE}. Search --model.optimizer.lr with sweep.",
    "ModelPruning": "it prunes behind the last checkpoint. Prune that with torch.nn.utils.prune.",
    "BackboneFinetuning": "strategies have no backbone. Begin from a checkpoint with --model.init_from.",
    "SpikeDetection": f"{_ALONE}. Set --trainer.gradient_clip_val; a loss that is not finite ends the run anyhow.",
    "Rollouts": _IS_THERE,
    "Checkpoints": _IS_THERE,
}
"""Callbacks that would do nothing, or harm, with why and what to do in their place."""


def quiet_lightning() -> None:
    """Leave out what Lightning says of settings that are as intended."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # Lightning's own use of a function that torch has deprecated
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    # no validation set, and a validation without rollouts, are as intended
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    warnings.filterwarnings("ignore", message="You passed in a `val_dataloader` but have no `validation_step`")
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")


def settle_scheduler(environment: MutableMapping[str, str]) -> None:
    """Train on one process where a scheduler's variables stand around.

    In a SLURM allocation of several tasks, a command that srun has not started is one process; Lightning would wait for the
    others. It takes a job of this name for a session at a terminal.

    Args:
        environment: the variables of the process; the job's name is changed in it.
    """
    if "SLURM_NTASKS" in environment and not by_srun(environment):
        environment["SLURM_JOB_NAME"] = "interactive"


def scheduler_plugins(environment: Mapping[str, str]) -> list[SLURMEnvironment]:
    """What tells the Trainer of the processes that srun has started; a run goes on by its name, so none is queued again."""
    return [SLURMEnvironment(auto_requeue=False)] if by_srun(environment) else []


def settle_callbacks(config: Any) -> None:
    """A list of them, where one is given by itself, as Lightning allows."""
    given = config.trainer.callbacks
    config.trainer.callbacks = given if given is None or isinstance(given, list) else [given]


def settle_length(config: Any, strategy: type[Strategy]) -> None:
    """The default number of steps and passes, unless one of them is given; strategies that act have their own length.

    Raises:
        InputError: the length does not fit the strategy or its schedule.
    """
    trainer = config.trainer
    if strategy.learns_by_acting:
        for name, unset in (("max_epochs", None), ("max_steps", -1)):
            if trainer[name] not in (unset, -1):
                raise InputError(
                    f"--trainer.{name} {trainer[name]}: a run of {strategy.__name__} ends after "
                    "--model.total_environment_steps; set that."
                )
        trainer.max_epochs = -1
        return
    for name in ("max_epochs", "max_steps"):
        if trainer[name] is not None and (trainer[name] == 0 or trainer[name] < -1):
            raise InputError(f"--trainer.{name} {trainer[name]}: wanted at least 1, or -1 for no end.")
    if trainer.max_epochs is None:
        trainer.max_epochs = -1
        if trainer.max_steps <= 0:
            trainer.max_steps = strategy.default_steps
            config.data.max_passes = config.data.max_passes or strategy.default_passes
    if trainer.max_epochs == -1 and trainer.max_steps <= 0 and config.model.init_args.get("schedule") == "cosine":
        raise InputError(
            "--trainer.max_epochs -1: the cosine schedule needs the run's length, and this run has no end. Set "
            "--model.schedule constant, or the length with --trainer.max_steps."
        )


def longer(config: Any, strategy: Strategy) -> str:
    """The flag that lengthens a run, with twice its length."""
    trainer = config.trainer
    if strategy.learns_by_acting:
        return f"--model.total_environment_steps {2 * config.model.init_args.total_environment_steps}"
    if trainer.max_steps > 0:
        return f"--trainer.max_steps {2 * (strategy.run_length or trainer.max_steps)}"
    return f"--trainer.max_epochs {2 * trainer.max_epochs}"


def refuse_unsupported(config: Any, strategy: type[Strategy], begins: bool) -> None:
    """Refuse the settings of a whole ``config``, above all the Trainer's, that cannot be had.

    Args:
        begins: whether it is of a new run; one that an earlier version has begun goes on with what does no harm.

    Raises:
        InputError: naming the flag and the way out.
    """
    trainer = config.trainer
    shorter = "Train on less with --trainer.max_steps or --data.episodes."
    spacing = "Set --rollouts.validation_freq."
    refusals = {
        "accumulate_grad_batches": (trainer.accumulate_grad_batches == 1, f"{_ALONE}. Raise --data.batch_size instead."),
        # 1 would be one batch and 1.0 all of them, and where typing.Union is cached a 1 can be parsed as 1.0
        "limit_train_batches": (trainer.limit_train_batches is None, f"{_ALONE}. {shorter}"),
        "overfit_batches": (trainer.overfit_batches == 0, f"{_ALONE}. {shorter}"),
        "limit_val_batches": (
            trainer.limit_val_batches is None or not begins,
            "held-out pairs are a sample already. Set --data.validation_pairs, or --data.validation_fraction 0 for none.",
        ),
        "val_check_interval": (trainer.val_check_interval == 1, f"{_ALONE}. {spacing}"),
        "check_val_every_n_epoch": (trainer.check_val_every_n_epoch is None, f"{_ALONE}. {spacing}"),
        "fast_dev_run": (not trainer.fast_dev_run, f"{_ALONE}. Try a run with --trainer.max_steps 4 --rollouts.episodes 1."),
        "barebones": (not trainer.barebones, "a run has a curve and checkpoints. Leave it away."),
        "precision": (
            str(trainer.precision) in PRECISIONS,
            "observations stay 32-bit. Use bf16-mixed, 16-mixed, 32-true or 64-true.",
        ),
    }
    for name, (good, why) in refusals.items():
        if not good:
            raise InputError(f"--trainer.{name} {_plain(trainer[name])}: is not supported, since {why}")
    if isinstance(config.seed_everything, bool) or not 0 <= int(config.seed_everything or 0) < 2**32:
        raise InputError(
            f"--seed_everything {_plain(config.seed_everything)}: wanted a whole number, 0 to {2**32 - 1}; a run is known "
            "by its seed."
        )
    if config.rollouts.episodes == 0 and strategy.learns_by_acting:
        raise InputError(
            f"--rollouts.episodes 0: {strategy.__name__} acts in the environment while it learns, so it cannot do without a "
            "simulator. Choose a strategy that learns from demonstrations alone, such as configs/mse.yaml."
        )
    if begins:
        _refuse_callbacks(trainer.callbacks or [])
    if trainer.max_time is not None and (left := Timer(trainer.max_time).time_remaining()) is not None and left <= 0:
        raise InputError(f"--trainer.max_time {trainer.max_time}: wanted more than no time, DD:HH:MM:SS.")
    if strategy.learns_by_acting and str(trainer.precision).startswith("16"):
        raise InputError(
            f"--trainer.precision {trainer.precision}: {strategy.__name__} has several optimizers, whose gradients would "
            "have to be scaled one by one. Use bf16-mixed or 32-true."
        )
    _refuse_clipping(trainer, strategy)


def refuse_devices(trainer: Trainer, strategy: type[Strategy]) -> None:
    """Refuse several processes where they cannot be had.

    Raises:
        InputError: the strategy acts while it learns, or Lightning's strategy is another one than DDP.
    """
    if trainer.world_size == 1:
        return
    if strategy.learns_by_acting:
        raise InputError(
            f"--trainer.devices: {strategy.__name__} acts in the environment while it learns, in one process, and the "
            f"Trainer would start {trainer.world_size}. Set --trainer.devices 1 --trainer.num_nodes 1."
        )
    distributed = trainer.strategy
    if type(distributed) is not DDPStrategy or distributed._start_method != "popen":
        raise InputError(
            f"--trainer.strategy: {type(distributed).__name__} as it is set there is not supported. Several devices train "
            "with ddp."
        )


def _plain(value: Any) -> str:
    """A value as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_callbacks(chosen: Sequence[Any]) -> None:
    """Refuse callbacks that would not work, or not together."""
    seen = set()
    for one in chosen:
        name, settings = one.class_path.rpartition(".")[2], one.get("init_args", {})
        if name in UNSUPPORTED and one.class_path.startswith(("lightning.", "lightning_bc.")):
            raise InputError(f"--trainer.callbacks {name}: is not supported, since {UNSUPPORTED[name]}")
        if settings.get("check_on_train_epoch_end"):
            raise InputError(
                f"--trainer.callbacks {name}: check_on_train_epoch_end true looks at the end of passes, and a run of steps "
                "has none. Leave it away: it looks at each point of the curve."
            )
        told_by = [settings.get("monitor"), settings.get("mode")] if name == "EarlyStopping" else settings
        known_by = (one.class_path, None if one.class_path.startswith("lightning_bc.") else repr(told_by))
        if known_by in seen:
            raise InputError(f"--trainer.callbacks {name}: is given twice. Leave one away.")
        seen.add(known_by)


def _refuse_clipping(trainer: Any, strategy: type[Strategy]) -> None:
    clip = trainer.gradient_clip_val
    if clip is None:
        return
    if strategy.learns_by_acting:
        raise InputError(f"--trainer.gradient_clip_val {clip}: {strategy.__name__} does not clip. Leave it away.")
    if not 0 < clip < math.inf:
        raise InputError(f"--trainer.gradient_clip_val {clip:g}: wanted a finite number above 0, or leave it away.")
    if trainer.gradient_clip_algorithm not in (None, "norm"):
        raise InputError(f"--trainer.gradient_clip_algorithm {trainer.gradient_clip_algorithm}: wanted norm.")
    if str(trainer.precision).startswith("16"):
        raise InputError(
            f"--trainer.gradient_clip_val {clip}: gradients of --trainer.precision {trainer.precision} are scaled. Use "
            "bf16-mixed or 32-true."
        )
