"""Checkpoints that a killed run resumes from exactly."""

import copy
import shlex
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from lightning.pytorch.utilities import rank_zero_only

from lightning_bc.aliases import Config, StateDict
from lightning_bc.callbacks.rollouts import Rollouts
from lightning_bc.errors import DivergedError, InputError, takes_state
from lightning_bc.files import write
from lightning_bc.references import References
from lightning_bc.runs.folders import RESULTS_FILE
from lightning_bc.strategies import Strategy
from lightning_bc.texts import write_yaml

FAR = 0.1
"""Of the way from random actions to the expert: so far below the best point the last one is a reason to look."""


class Checkpoints(Checkpoint):
    """Keep ``last.ckpt`` and, by return on the selection bank (without a simulator by held-out loss), ``best.ckpt``.

    Both are written right after a point of the curve, at the end of a batch, where weights, optimizer, position in the
    data and random state belong together. Callbacks that watch a metric look at it in the validation that follows, so a run
    that goes on from there begins with it. Lightning's ModelCheckpoint is not used: it leaves ``last.ckpt`` at the last
    multiple instead of the end, and what it saves on an exception may stand between two halves of a step.

    Args:
        directory: where the two files go.
        rollouts: the callback that measures it.
        run: name of the run, kept in the checkpoint.
        config: the run's whole configuration, kept in the checkpoint and written to ``config_path``.
        config_path: a YAML file; the run is found by it.
    """

    def __init__(self, directory: Path, rollouts: Rollouts, run: str, config: Config, config_path: Path) -> None:
        self.directory, self.rollouts = directory, rollouts
        self.run, self.config, self.config_path = run, config, config_path
        self.saved_step = -1
        self.best_merit = float("-inf")
        self.run_length: int | None = None                          # as the strategy counts; None has no end
        self.has_stopped = False                                    # before its length, for good: by EarlyStopping
        self.unseen: dict[str, float] | None = None                 # what callbacks will look at behind this batch
        self._loader_state: StateDict | None = None
        self._waiting: dict[int, StateDict] = {}                    # checkpoints by step, whose points are being played

    @property
    def last_path(self) -> Path:
        """The file to resume from, and the one that final figures are for."""
        return self.directory / "last.ckpt"

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Say how a run that is resumed with another length goes on; refuse one that would become shorter.

        Raises:
            InputError: the run was to be longer.
        """
        assert isinstance(module, Strategy)
        before, now = self.run_length, module.run_length
        self.has_stopped = self.has_stopped and before == now       # what is lengthened is to go on
        trainer.should_stop = trainer.should_stop or self.has_stopped
        self.run_length = now
        if before == now or self.saved_step < 0:
            return
        unit = "environment steps" if module.learns_by_acting else "optimizer steps"
        if now is not None and (before is None or now < before):
            raise InputError(
                f"--run {self.run}: was to end after {before or 'no number of'} {unit}, and now it would after {now}. "
                "A run can be made longer, not shorter."
            )
        words = "from here on along the cosine over the new length" if module.schedule == "cosine" else "constant"
        rank_zero_only(print)(f"lengthened to {now or 'no end of'} {unit}, from {before}; learning rate: {words}\n")

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Bring the loader to its place, and write the configuration: by now the input has passed every check.

        Lightning leaves the loader at its beginning where a checkpoint stands at an epoch's end, as that of a finished run,
        and may count that epoch once less; the run's length in steps ends it all the same.
        """
        loader: Any = trainer.train_dataloader
        if self._loader_state is not None:
            loader.load_state_dict(self._loader_state)
            self._loader_state = None
        assert isinstance(module, Strategy)
        if trainer.is_global_zero:
            results = self.config_path.with_name(RESULTS_FILE)      # of the shorter run: they would say that it has ended
            if results.is_file() and (module.run_length is None or module.position < module.run_length):
                results.replace(results.with_name(f"results-step-{self.saved_step}.json"))
            write_yaml(self.config_path, self.config)
        if module.run_length is not None and not module.learns_by_acting:
            trainer.fit_loop.epoch_loop.max_steps = module.run_length
        if self.unseen is not None:
            self._validate_again(trainer, self.unseen)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Save after each point of the curve."""
        self._save_what_has_arrived(trainer)
        if trainer.global_step == self.rollouts.last_step:
            self.unseen = _watched(trainer)
            self._save(trainer)

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """From here on it is looked at."""
        self.unseen = None

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save the end."""
        assert isinstance(module, Strategy)
        self._save_what_has_arrived(trainer)
        is_short = self.run_length is None or module.position < self.run_length
        self.has_stopped = trainer.should_stop and is_short and not _is_out_of_time(trainer)
        if self.has_stopped:                                        # also where the last checkpoint is of this step
            self.saved_step = -1
        self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: StateDict) -> None:
        """Say in the checkpoint which run it is of, and how that was configured."""
        checkpoint["run"], checkpoint["config"] = self.run, self.config
        loader: Any = trainer.train_dataloader
        if hasattr(loader, "state_dict"):                           # who draws for itself has none
            checkpoint["loader"] = loader.state_dict()

    @takes_state
    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: StateDict) -> None:
        """Keep the loader's place until there is a loader; of a run that has a length no clock goes on, but begins anew."""
        self._loader_state = checkpoint.get("loader")
        states = checkpoint["callbacks"]
        if states[self.state_key]["run_length"] is not None:
            for clock in (one for one in trainer.callbacks if isinstance(one, Timer)):  # type: ignore[attr-defined]
                states.pop(clock.state_key, None)

    def state_dict(self) -> StateDict:
        """What was saved so far."""
        names = ("saved_step", "best_merit", "run_length", "has_stopped", "unseen")
        return {name: getattr(self, name) for name in names}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from there."""
        self.saved_step, self.best_merit = state["saved_step"], state["best_merit"]
        self.run_length = state["run_length"]
        self.has_stopped, self.unseen = state.get("has_stopped", False), state.get("unseen")  # not in earlier versions

    def _save(self, trainer: Trainer) -> None:
        """Save, if what would be saved is finite.

        Raises:
            DivergedError: it is not.
        """
        if trainer.global_step == self.saved_step:
            return
        _refuse_divergence(trainer)
        self.saved_step = trainer.global_step
        if self.rollouts.is_waiting_for(self.saved_step):
            self._waiting[self.saved_step] = self._snapshot(trainer)
            return
        if self._is_best(self.rollouts.merit):
            trainer.save_checkpoint(self.directory / "best.ckpt")
        trainer.save_checkpoint(self.last_path)

    def _validate_again(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """The validation behind the checkpoint's batch, for those who watch ``metrics``; it is not known to have been."""
        trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True

    def _is_best(self, merit: float | None) -> bool:
        """Whether there was none better; it is then the one to exceed."""
        if merit is None or not merit > self.best_merit:
            return False
        self.best_merit = merit
        return True

    def better(self, references: References) -> str | None:
        """In words, for people: an earlier point that is far above the last one; None where there is none."""
        last, best, path = self.rollouts.last_return, self.best_merit, self.directory / "best.ckpt"
        if last is None or not path.is_file():
            return None
        scale = abs(references.expert_return - references.random_return) if references.has_expert else abs(best)
        if best - last <= FAR * scale:
            return None
        decimals = references.decimals(best)
        return (
            f"best              {path} had {best:.{decimals}f} on the selection bank, the last point has "
            f"{last:.{decimals}f}; its score: python -m lightning_bc evaluate {shlex.quote(str(path))}"
        )

    def _snapshot(self, trainer: Trainer) -> StateDict:
        """What ``trainer.save_checkpoint`` would write now."""
        self.rollouts.waits_to_save = False
        try:
            return copy.deepcopy(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))
        finally:
            self.rollouts.waits_to_save = True

    def _save_what_has_arrived(self, trainer: Trainer) -> None:
        """Save, as of their steps, the checkpoints whose points workers have played; of last.ckpt the newest alone."""
        newest: StateDict | None = None
        while self.rollouts.arrivals:
            step, point = self.rollouts.arrivals.popleft()
            checkpoint = self._waiting.pop(step, None)
            if checkpoint is None:                                  # of the point before the first step
                continue
            newest, checkpoint["point"] = checkpoint, point
            is_best = self._is_best(self.rollouts.merit_of(point))
            checkpoint["callbacks"][self.state_key]["best_merit"] = self.best_merit
            if is_best:
                trainer.strategy.save_checkpoint(checkpoint, self.directory / "best.ckpt")
        if newest is not None:
            trainer.strategy.save_checkpoint(newest, self.last_path)


def _watched(trainer: Trainer) -> dict[str, float] | None:
    """The metrics that there are, where a callback looks at one in a validation that comes next."""
    callbacks: Any = trainer.callbacks                              # type: ignore[attr-defined]
    loop = trainer.fit_loop
    if not any(getattr(one, "monitor", None) for one in callbacks) or loop._data_fetcher is None:
        return None
    if not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
        return None
    metrics = trainer.callback_metrics.items()
    return {name: float(value) for name, value in metrics if not name.startswith("validation/")}


def _is_out_of_time(trainer: Trainer) -> bool:
    """Whether a clock has ended training: the run may go on another time."""
    clocks = [one for one in trainer.callbacks if isinstance(one, Timer)]  # type: ignore[attr-defined]
    return any((left := clock.time_remaining()) is not None and left <= 0 for clock in clocks)


def _refuse_divergence(trainer: Trainer) -> None:
    """Look whether weights and what optimizers remember are finite; the gradients that made them may not have been.

    Raises:
        DivergedError: naming what is not.
    """
    assert isinstance(trainer.lightning_module, Strategy)
    module: Strategy = trainer.lightning_module
    remembered = [values for one in trainer.optimizers for state in one.state.values() for values in state.values()]
    for name, tensors in (
        ("a weight", list(module.parameters())),
        ("what the optimizer remembers of gradients", [x for x in remembered if torch.is_tensor(x) and x.ndim]),
    ):
        largest = torch.stack(torch._foreach_norm(tensors, torch.inf)) if tensors else torch.zeros(1)  # type: ignore[arg-type]
        if not largest.isfinite().all():
            raise DivergedError(module.steps_taken["optimizer_steps"], f"{name} is {float(largest[~largest.isfinite()][0])}")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints whole or not at all.

    Lightning writes to $TMPDIR and moves, which is a copy between file systems and can be torn by a kill. Here the
    temporary file lies beside its target, is synced, and takes its place in one move.
    """

    def save_checkpoint(self, checkpoint: StateDict, path: Any, storage_options: Any = None) -> None:
        """Save ``checkpoint`` at ``path``."""
        write(path, checkpoint)
