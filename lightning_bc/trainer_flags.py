"""What of Lightning's Trainer is set here, what it may be told, and what is refused before anything is built."""

from typing import Any

from lightning_bc.errors import InputError
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
    "max_epochs": "passes over the pairs; default 1, where --trainer.max_steps is not given",
    "max_steps": "optimizer steps; a run can be lengthened later",
    "max_time": "stop after DD:HH:MM:SS",
    "accelerator": "cpu, gpu or auto",
    "devices": "how many, or which",
    "precision": "32-true, bf16-mixed, 64-true",
    "gradient_clip_val": "largest norm of the gradient of all parameters",
    "deterministic": "choose algorithms that repeat themselves, also on a GPU",
    "callbacks": "further callbacks, such as lightning_bc.callbacks.DAgger; see configs/dagger.yaml",
    "logger": "false writes no TensorBoard events",
    "enable_progress_bar": "false for a quiet terminal",
}
"""The flags that --help shows, in our words."""

_ALONE = "many batches share one training step"


def settle_length(config: Any, strategy: type[Strategy]) -> None:
    """One pass, unless a number of passes or of steps is given; strategies that act while they learn have their own.

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
    if trainer.max_epochs is None:
        trainer.max_epochs = -1 if trainer.max_steps > 0 else 1
    if trainer.max_epochs == -1 and trainer.max_steps <= 0 and config.model.init_args.get("schedule") == "cosine":
        raise InputError(
            "--trainer.max_epochs -1: the cosine schedule needs the run's length, and this run has no end. Set "
            "--model.schedule constant, or the length with --trainer.max_steps."
        )


def longer(config: Any, strategy: type[Strategy]) -> str:
    """The flag that lengthens a run, with twice its length."""
    trainer = config.trainer
    if strategy.learns_by_acting:
        return f"--model.total_environment_steps {2 * config.model.init_args.total_environment_steps}"
    if trainer.max_steps > 0:
        return f"--trainer.max_steps {2 * trainer.max_steps}"
    return f"--trainer.max_epochs {2 * trainer.max_epochs}"


def refuse_unsupported(trainer: Any, strategy: type[Strategy]) -> None:
    """Refuse the Trainer's settings that cannot be had.

    Raises:
        InputError: naming the flag and the way out.
    """
    shorter = "Train on less with --trainer.max_steps or --data.episodes."
    refusals = {
        "accumulate_grad_batches": (trainer.accumulate_grad_batches == 1, "Raise --data.batch_size instead."),
        # 1 would be one batch and 1.0 all of them, and where typing.Union is cached a 1 can be parsed as 1.0
        "limit_train_batches": (trainer.limit_train_batches is None, shorter),
        "overfit_batches": (trainer.overfit_batches == 0, shorter),
    }
    for name, (good, way_out) in refusals.items():
        if not good:
            raise InputError(f"--trainer.{name} {trainer[name]}: is not supported, since {_ALONE}. {way_out}")
    clip = trainer.gradient_clip_val
    if clip is None:
        return
    if strategy.learns_by_acting:
        raise InputError(f"--trainer.gradient_clip_val {clip}: {strategy.__name__} does not clip. Leave it away.")
    if clip <= 0:
        raise InputError(f"--trainer.gradient_clip_val {clip:g}: wanted above 0, or leave it away.")
    if trainer.gradient_clip_algorithm not in (None, "norm"):
        raise InputError(f"--trainer.gradient_clip_algorithm {trainer.gradient_clip_algorithm}: wanted norm.")
    if str(trainer.precision).startswith("16"):
        raise InputError(
            f"--trainer.gradient_clip_val {clip}: gradients of --trainer.precision {trainer.precision} are scaled. Use "
            "bf16-mixed or 32-true."
        )

