"""The command line: ``fit``, ``validate`` and ``test`` from LightningCLI; the other commands beside them."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_bc.arguments import HelpFormatter, Parser
from lightning_bc.callbacks import AtomicCheckpointIO, Checkpoints, DAgger, Progress, Rollouts, TensorBoardTabs
from lightning_bc.demonstrations import Demonstrations, collect, readers
from lightning_bc.demonstrations.collect import default_path
from lightning_bc.errors import InputError
from lightning_bc.runs import folders as runs
from lightning_bc.runs.curve import CURVE_FILE, Curve
from lightning_bc.runs.results import results_name
from lightning_bc.runs.score import in_words, score
from lightning_bc.strategies import Needs, Strategy, strategies, strategy_of_checkpoint
from lightning_bc.tools.export import export
from lightning_bc.tools.video import film, write_video

DEFAULT_ENVIRONMENT = "HalfCheetah-v5"

_RUN_VARIABLE = "LIGHTNING_BC_RUN"

DESCRIPTION = """Clone an expert in continuous control.

  python -m lightning_bc fit --config configs/gmm.yaml                      train, draw the curve, score
  python -m lightning_bc fit --config configs/gmm.yaml --ckpt_path last     go on where that was killed
  python -m lightning_bc test --config lightning_logs/RUN/config.yaml --ckpt_path checkpoints/RUN/last.ckpt
  python -m lightning_bc collect --env HalfCheetah-v5 --expert checkpoints/experts/HalfCheetah-v5.pt
  python -m lightning_bc play --ckpt_path checkpoints/RUN/last.ckpt --output cheetah.mp4
  python -m lightning_bc export --ckpt_path checkpoints/RUN/last.ckpt --output expert.pt
  python -m lightning_bc sweep --config configs/gmm.yaml --grid data.batch_size=500,1000,2000 --seeds 5
  python -m lightning_bc report lightning_logs --output docs/results

Ready configurations lie in configs/. Each command has its own --help."""

FUNCTIONS: dict[str, Callable[..., Any]] = {"collect": collect, "export": export, "play": film}
"""The commands that need no Trainer."""

TRAINER_DEFAULTS = {
    "max_epochs": None,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,
    "val_check_interval": 1,
    "enable_model_summary": False,
}


class CommandLine(LightningCLI):
    """LightningCLI with one --env flag, run folders, and resuming that never ignores a flag."""

    def __init__(self, args: list[str]) -> None:
        self.run = ""
        self.checkpoint_path: Path | None = None
        self.checkpoint: dict[str, Any] = {}
        strategies()                                                # the parser knows the classes that are imported
        super().__init__(
            Strategy,
            Demonstrations,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_class=Parser,
            parser_kwargs={"description": DESCRIPTION, "prog": "python -m lightning_bc", "formatter_class": HelpFormatter},
            args=args,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Trainer's methods that are commands, and their arguments that are not flags."""
        fixed = {"model", "datamodule", "weights_only"}
        return {
            "fit": fixed | {"train_dataloaders", "val_dataloaders"},
            "validate": fixed | {"dataloaders", "verbose"},
            "test": fixed | {"dataloaders", "verbose"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add --env and the rollouts, and tie together what must agree."""
        parser.add_argument(
            "--env",
            type=str | None,
            default=None,
            help="Gymnasium environment id; default: the data file's, or the checkpoint's, else " + DEFAULT_ENVIRONMENT,
        )
        parser.add_class_arguments(Rollouts, "rollouts")
        parser.link_arguments("env", "data.environment_id", compute_fn=lambda env: env or DEFAULT_ENVIRONMENT)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.link_arguments("rollouts.eval_freq", "data.group_size")
        for name in ("observation_dim", "action_low", "action_high"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then settle everything that the rest is built from: checkpoint, environment, data file, run."""
        self.config = parser.parse_args(args)
        self.command: str = self.config.subcommand
        config = self.config[self.command]
        # Lightning would let a checkpoint's hyper-parameters silently replace flags; here it is kept out of its sight.
        wanted, config.ckpt_path = config.ckpt_path, None
        if wanted and wanted != "last":
            self._open_checkpoint(Path(wanted))
        strategy = strategies()[config.model.class_path.rpartition(".")[2]]
        if strategy.needs is Needs.NOTHING and config.data.path == default_path("{env}"):
            config.data.path = None
        self._settle_environment(config)
        self._settle_length(config, strategy)
        self.saved_config = self._dump(config)
        if wanted == "last":
            self._open_checkpoint(runs.last_checkpoint(self._newest_run_like_this()))
        if self.checkpoint:
            self._refuse_contradictions()
        elif self.command != "fit":
            raise InputError(
                f"{self.command} needs --ckpt_path: the file of a checkpoint, or last for the newest run with this "
                "configuration."
            )
        self.run = self.checkpoint.get("run") or self._name(
            strategy.__name__, config.data.path or config.env, config.seed_everything
        )

    def instantiate_classes(self) -> None:
        """As LightningCLI does; what a constructor refuses comes out alone, not among what jsonargparse tried."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError):
                cause = cause.__cause__
            if cause is None:
                raise
            raise cause from None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with the run's logger, checkpoints and progress; nothing on disk for validate and test."""
        trainer = self._get(self.config_init, "trainer")
        if self.command != "fit":
            return super().instantiate_trainer(logger=False, enable_checkpointing=False, **kwargs)
        rollouts: Rollouts = self._get(self.config_init, "rollouts")
        learnt_with = {key: self.saved_config[key] for key in ("seed_everything", "env", "model", "data")}
        if trainer.logger is not False or trainer.enable_checkpointing is not False:
            rollouts.curve = Curve(runs.LOGS / self.run / CURVE_FILE)
        callbacks = [*(trainer.callbacks or []), TensorBoardTabs(runs.flatten(learnt_with)), rollouts]
        if trainer.enable_checkpointing is not False:
            directory, config_path = runs.last_checkpoint(self.run).parent, runs.config_path(self.run)
            callbacks.append(Checkpoints(directory, rollouts, self.run, self.saved_config, config_path))
        if trainer.enable_progress_bar is not False:
            callbacks.append(Progress(rollouts))
        if trainer.logger in (None, True):
            kwargs["logger"] = TensorBoardLogger(
                save_dir=runs.LOGS,
                name="",
                version=self.run,
                default_hp_metric=False,
                # events after the checkpoint are of the killed session: TensorBoard drops them
                purge_step=self.checkpoint["global_step"] + 1 if self.checkpoint else None,
            )
        plugins = [*(trainer.plugins or []), AtomicCheckpointIO()]
        return super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)

    # The commands

    def fit(self, model: Strategy, datamodule: Demonstrations, **_: Any) -> None:
        """Train, and score the last checkpoint on the test bank."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        learns_from = datamodule.path or "its own play"
        rank_zero_only(print)(
            f"{type(model).__name__}, {parameters:,} parameters, on {datamodule.environment_id}, from {learns_from}\n"
            f"run {self.run}{self._resumed()}\n"
            f"curve: tensorboard --logdir {runs.LOGS}\n"
        )
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, DAgger):
                callback.check(model, datamodule.environment_id)    # before any folder is made
        try:
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=self.checkpoint_path, weights_only=True)
        except (SystemExit, SIGTERMException):                      # Ctrl-C, which Lightning turns into an exit; SIGTERM
            print("\nstopped; the same command with --ckpt_path last goes on from the last point of the curve")
            raise
        path = runs.last_checkpoint(self.run)
        if not self.trainer.is_global_zero or not path.is_file():   # no file under --trainer.enable_checkpointing false
            return
        self._open_checkpoint(path)
        self.test(model, datamodule)
        rollouts: Rollouts = self._get(self.config_init, "rollouts")
        if rollouts.video:
            self._write_video(model, datamodule.environment_id)
        command = f"--config {runs.config_path(self.run)} --ckpt_path {path}"
        print(
            f"\nview the curve    tensorboard --logdir {runs.LOGS}\n"
            f"resume            python -m lightning_bc fit {command}\n"
            f"test              python -m lightning_bc test {command}"
        )

    def validate(self, model: Strategy, datamodule: Demonstrations, **_: Any) -> None:
        """Loss, squared error and explained variance on held-out episodes."""
        self.trainer.validate(
            model, datamodule=datamodule, ckpt_path=self.checkpoint_path, weights_only=True, verbose=False
        )
        metrics = {name: value for name, value in self.trainer.callback_metrics.items() if name.startswith("validation/")}
        for name, value in metrics.items():
            print(f"{name:40} {float(value):.5g}")
        if not metrics:
            raise InputError(
                f"{datamodule.path}: no episodes are held out to validate on. Set --data.validation_fraction above 0; "
                "below 10 episodes there is no validation set."
            )

    def test(self, model: Strategy, datamodule: Demonstrations, **_: Any) -> None:
        """Play the test bank with a checkpoint's policy, without demonstrations, and write results.json."""
        assert self.checkpoint_path is not None
        checkpoint, path = self.checkpoint, self.checkpoint_path
        model.load_state_dict(checkpoint["state_dict"])
        datamodule.load_state_dict(checkpoint[type(datamodule).__qualname__])
        model.to(self.trainer.strategy.root_device)
        environment_id, references = datamodule.environment_id, datamodule.references
        results = score(model, environment_id, references, datamodule.source, path, checkpoint)
        target = runs.LOGS / self.run / results_name(path)
        results.write(target)
        print(f"\n{in_words(results)}\nresults           {target}")

    def _write_video(self, model: Strategy, environment_id: str) -> None:
        """A video of the last checkpoint beside the logs; where none can be made, the run is as good without."""
        path = runs.LOGS / self.run / "rollout.mp4"
        try:
            write_video(path, environment_id, {"learner": model}, device=model.device)
        except InputError as error:
            print(f"no video: {error}")
        else:
            print(f"video             {path}")

    # Settling

    def _open_checkpoint(self, path: Path) -> None:
        self.checkpoint_path, self.checkpoint = path, runs.open_checkpoint(path)

    def _settle_environment(self, config: Namespace) -> None:
        """The flag, else the checkpoint's or the data file's word, else the default; no two may contradict."""
        said_by = {"--env": config.env}
        path = "{env}" if config.data.path is None else str(config.data.path)
        if self.checkpoint:
            said_by[f"--ckpt_path {self.checkpoint_path}"] = self.checkpoint[Demonstrations.__qualname__]["environment_id"]
        elif "{env}" not in path and readers.exists(path):
            said_by[f"--data.path {path}"] = readers.peek(path).environment_id
        said = {source: env for source, env in said_by.items() if env}
        if len(set(said.values())) > 1:
            words = " and ".join(f"{source} says {env}" for source, env in said.items())
            raise InputError(f"one run has one environment, but {words}. Leave --env away, or choose what goes with it.")
        config.env = config.data.environment_id = next(iter(said.values()), DEFAULT_ENVIRONMENT)
        if config.data.path is not None:
            config.data.path = path.replace("{env}", config.env)

    @staticmethod
    def _settle_length(config: Namespace, strategy: type[Strategy]) -> None:
        """One pass, unless a number of passes or of steps is given; strategies that act while they learn have their own."""
        trainer = config.trainer
        if strategy.learns_by_acting:
            for name, unset in (("max_epochs", None), ("max_steps", -1)):
                if trainer[name] not in (unset, -1):
                    raise InputError(
                        f"--trainer.{name} {trainer[name]}: a run of {strategy.__name__} ends after "
                        "--model.total_environment_steps; set that."
                    )
            trainer.max_epochs = -1
        elif trainer.max_epochs is None:
            trainer.max_epochs = -1 if trainer.max_steps > 0 else 1

    @staticmethod
    def _name(strategy: str, data: str, seed: int) -> str:
        """A new run's name; the processes that Lightning starts for further devices take over the first one's."""
        if "LOCAL_RANK" not in os.environ:
            os.environ[_RUN_VARIABLE] = runs.new_name(strategy, data, seed)
        return os.environ[_RUN_VARIABLE]

    def _dump(self, config: Namespace) -> dict[str, Any]:
        dumped = yaml.safe_load(self._parser(self.command).dump(config, skip_unset=False))
        return {key: value for key, value in dumped.items() if key not in ("config", "ckpt_path")}

    def _newest_run_like_this(self) -> str:
        """The newest run whose saved configuration equals the present one."""
        known = runs.resumable()
        compared = {run: self._differences(config) for run, config in known.items()}
        for run, different in compared.items():
            if not different:
                return run
        listed = [f"  {run}: {runs.in_words(different)}" for run, different in list(compared.items())[:10]]
        raise InputError(
            f"--ckpt_path last: no run under {runs.LOGS} has this configuration and a checkpoint"
            + (". Runs, newest first, with what differs (theirs, yours):\n" if listed else "; there is none at all.")
            + "\n".join(listed)
            + "\nLeave --ckpt_path away to start a new run."
        )

    def _differences(self, saved: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        """What differs from a run's saved configuration, as far as this command uses it."""
        now = self.saved_config
        if self.command != "fit":  # what a policy is and where it acts, not how it was trained
            used = ("model", "env") if self.command == "test" else ("model", "env", "data")
            saved, now = ({key: config.get(key) for key in used} for config in (saved, now))
        return runs.differences(saved, now)

    def _refuse_contradictions(self) -> None:
        """A checkpoint goes on as it began: refuse another strategy, and every flag that says otherwise."""
        assert self.checkpoint_path is not None
        theirs = strategy_of_checkpoint(self.checkpoint_path, self.checkpoint).__name__
        ours = self.config[self.command].model.class_path.rpartition(".")[2]
        if theirs != ours:
            raise InputError(
                f"--ckpt_path {self.checkpoint_path}: is a checkpoint of {theirs}, and the configuration says {ours}. "
                f"Use the run's own: --config {runs.config_path(self.checkpoint['run'])}"
            )
        different = self._differences(self.checkpoint["config"])
        if different:
            raise InputError(
                f"--ckpt_path {self.checkpoint_path}: was made with another configuration; what differs (its, yours): "
                f"{runs.in_words(different)}. Use the run's own, --config {runs.config_path(self.checkpoint['run'])}, or "
                "start a new run without --ckpt_path."
            )

    def _resumed(self) -> str:
        return f", resumed at optimizer step {self.checkpoint['global_step']}" if self.checkpoint else ""


def _call(name: str, args: list[str]) -> None:
    """Run one of FUNCTIONS, whose arguments are flags."""
    function = FUNCTIONS[name]
    parser = Parser(prog=f"python -m lightning_bc {name}", description=(function.__doc__ or "").split("\n")[0])
    parser.add_function_arguments(function, as_group=False)
    function(**parser.parse_args(args).as_dict())


class _Settled(CommandLine):
    """A command parsed, settled and built, but not run: refused as it would be; ``saved_config`` is what it means."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def prepare_data(self) -> None:
        """Read, and where it is missing collect, the demonstrations, as the first thing that ``fit`` does."""
        self.trainer.strategy.connect(self.model)
        self.trainer.state.fn = TrainerFn.FITTING
        self.datamodule.trainer = self.trainer
        self.datamodule.prepare_data()


def _sweep(args: list[str]) -> int:
    try:
        from lightning_bc.sweep import sweep
    except ModuleNotFoundError as error:
        raise InputError(f"sweep needs the optional extra ({error}): pip install -e '.[sweep]'") from error
    return sweep(args, settle=lambda flags: _Settled(["fit", *flags]))


def _report(args: list[str]) -> None:
    try:
        from lightning_bc.report.report import report
    except ModuleNotFoundError as error:
        raise InputError(f"report needs {error.name}, an optional extra: pip install -e '.[report]'") from error
    parser = Parser(prog="python -m lightning_bc report", description=(report.__doc__ or "").split("\n")[0])
    parser.add_argument("logs", type=str, help="folder of runs, usually lightning_logs")
    parser.add_function_arguments(report, as_group=False, skip={"logs"})
    report(**parser.parse_args(args).as_dict())


def main(args: list[str] | None = None) -> None:
    """Run a command; errors that are meant for a person are printed alone."""
    args = sys.argv[1:] if args is None else args
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    # Lightning's own use of a function that torch has deprecated
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")
    # no validation set, and a validation without rollouts, are as intended
    warnings.filterwarnings("ignore", message="Total length of `list` across ranks is zero")
    warnings.filterwarnings("ignore", message="You passed in a `val_dataloader` but have no `validation_step`")
    warnings.filterwarnings("ignore", message="Be aware that when using `ckpt_path`, callbacks")
    try:
        if args and args[0] in FUNCTIONS:
            _call(args[0], args[1:])
        elif args[:1] == ["sweep"]:
            sys.exit(_sweep(args[1:]))
        elif args[:1] == ["report"]:
            _report(args[1:])
        else:
            CommandLine(args)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except SIGTERMException:
        sys.exit(143)
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        sys.exit(130)
