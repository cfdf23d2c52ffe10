"""``fit``, ``validate`` and ``test``, from LightningCLI: with run folders, and resuming that never ignores a flag."""

import os
import re
import shlex
import signal
import traceback
from collections.abc import Sequence
from contextlib import closing, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from lightning_bc import trainer_flags
from lightning_bc.aliases import Config
from lightning_bc.arguments import (
    Parser,
    configured,
    found_configurations,
    leaves_method_open,
    ready_configurations,
    with_lists,
)
from lightning_bc.callbacks import (
    AtomicCheckpointIO,
    Checked,
    Checkpoints,
    InitFrom,
    Owner,
    Progress,
    Rollouts,
    TensorBoardTabs,
)
from lightning_bc.demonstrations import readers
from lightning_bc.demonstrations.advice import advised
from lightning_bc.demonstrations.collect import default_path
from lightning_bc.demonstrations.fitting import DEFAULT_ENVIRONMENT
from lightning_bc.demonstrations.module import Demonstrations
from lightning_bc.demonstrations.several import paths_of
from lightning_bc.errors import DivergedError, ExitedError, InputError, naming, needs_extra, raised_by
from lightning_bc.files import owning
from lightning_bc.fit_help import page
from lightning_bc.loggers import loggers_of, views
from lightning_bc.networks import Network, networks
from lightning_bc.ranks import STOP, ending_together
from lightning_bc.runs import folders as runs
from lightning_bc.runs import resume, settle
from lightning_bc.runs.curve import CURVE_FILE, Curve
from lightning_bc.runs.held_out import HeldOutResults, in_words, read_results
from lightning_bc.runs.results import Results, results_name
from lightning_bc.runs.score import diverged, score
from lightning_bc.runs.settle import Opened
from lightning_bc.runs.weights import check_weights, initial_weights
from lightning_bc.stopping import STOPPING, StoppedError
from lightning_bc.strategies import Needs, Strategy, strategies
from lightning_bc.tools.video import write_video

USED = {
    "fit": ("seed_everything", "trainer", "model", "data", "env", "rollouts", "init_from"),
    "validate": ("model", "env", "data"),
    "test": ("model", "env"),
}
"""The parts of a configuration that a command uses: a policy may be tested however it was trained."""

TOO_LARGE = re.compile("allocate memory|out of memory|Storage size calculation overflowed")
"""In torch's errors where a tensor is larger than the memory."""


class FinishedError(Exception):
    """The run that --run names is finished: there is nothing to do but to give the exit status."""


def run(command: str, args: list[str]) -> int:
    """Run ``fit``, ``validate`` or ``test``; the exit status."""
    trainer_flags.quiet_lightning()
    trainer_flags.settle_scheduler(os.environ)
    try:
        CommandLine(command, with_lists(found_configurations(args)))
    except FinishedError as finished:
        return int(finished.args[0])
    except MisconfigurationException as error:
        raise InputError(f"Lightning refuses these settings: {' '.join(str(error).split())}") from error
    except SystemExit as end:                                       # Lightning makes an exit of an interruption
        if STOPPING.number is None:
            raise
        raise StoppedError(STOPPING.number) from end
    return 0


def is_stopped(end: SystemExit) -> bool:
    """Whether a signal has come, or Lightning has made this exit of an interruption."""
    return STOPPING.number is not None or isinstance(end.__context__, KeyboardInterrupt)


def refused_by_constructor(error: BaseException) -> InputError | None:
    """What the constructor of a callback, strategy or network has raised, under its flag; None if none of them has."""
    if not isinstance(error, ValueError | TypeError | RuntimeError):
        return None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__) if frame.f_code.co_name == "__init__"]
    built = [made for frame in frames if isinstance(made := frame.f_locals.get("self"), Callback | Strategy | Network)]
    if not built:
        return None
    made = next((made for made in built if type(made) in networks()), built[0])
    flag = "trainer.callbacks" if isinstance(made, Callback) else "model.network" if isinstance(made, Network) else "model"
    named = f"--{flag} {type(made).__name__}"
    if TOO_LARGE.search(str(error)):
        return InputError(f"{named}: its weights do not fit the memory of this machine. Set fewer or smaller layers.")
    return InputError(f"{named}: making it {raised_by(error)}. With --debug all of it is shown.")


class CommandLine(LightningCLI):
    """LightningCLI with one --env flag, run folders, and resuming that never ignores a flag."""

    def __init__(self, command: str, args: list[str]) -> None:
        self.run = ""
        self.command = command
        self.checkpoint: Opened | None = None
        self.has_ended = False                                      # in this process
        self.args = args
        strategies()                                                # the parser knows the classes that are imported
        super().__init__(
            Strategy,
            Demonstrations,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=trainer_flags.TRAINER_DEFAULTS,
            parser_class=Parser,
            parser_kwargs={"prog": "python -m lightning_bc"},
            args=[command, *resume.with_own_configuration(command, args)],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The Trainer's method that is the command, and its arguments that are not flags; a parser of each takes 0.2 s."""
        fixed = {"model", "datamodule", "weights_only"}
        arguments = {
            "fit": fixed | {"train_dataloaders", "val_dataloaders"},
            "validate": fixed | {"dataloaders", "verbose"},
            "test": fixed | {"dataloaders", "verbose"},
        }
        return {self.command: arguments[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add --env, --run, --search, --model.init_from and the rollouts, and tie together what must agree."""
        assert isinstance(parser, Parser)                           # as parser_class says
        parser.page = partial(page, parser, self.command, self.args)
        parser.strategy = configured(self.args) or ""
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="name of the run: what has begun under it goes on, what is finished is printed; default: a new name",
        )
        parser.add_argument(
            "--search",
            type=str | None,
            default=None,
            help="of sweep itself, and not in the help: a run that chooses a setting is in no table of report",
        )
        parser.add_argument(
            "--model.init_from",
            dest="init_from",
            type=str | None,
            default=None,
            help="begin a new run from a checkpoint's, or a run's, weights and normalisation; SAC from a clone's too",
        )
        parser.add_argument(
            "--record_updates",
            type=bool,
            default=True,
            help="record an update's kernels once and replay them; false goes through Python and autograd at each update",
        )
        parser.add_argument(
            "--env",
            type=str | None,
            default=None,
            help="Gymnasium environment id; default: the data file's, or the checkpoint's, else " + DEFAULT_ENVIRONMENT,
        )
        parser.add_class_arguments(Rollouts, "rollouts")
        parser.link_arguments("env", "data.environment_id", compute_fn=lambda env: env or DEFAULT_ENVIRONMENT)
        parser.link_arguments("rollouts.episodes", "data.simulator", compute_fn=lambda episodes: int(episodes) > 0)
        # one that is no seed is refused once everything is parsed, under its own name
        parser.link_arguments("seed_everything", "data.seed", compute_fn=lambda seed: max(0, int(seed)))
        parser.link_arguments("rollouts.eval_freq", "data.group_size")
        for name in ("observation_dim", "action_low", "action_high"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then settle everything that the rest is built from: checkpoint, environment, data file, run."""
        if self.command == "fit" and leaves_method_open(args):
            args = [*args[:1], *found_configurations(["--config", self._suitable(parser, args)]), *args[1:]]
        self.config = parser.parse_args(args)
        config = self.config[self.command]
        source, wanted = settle.wanted_checkpoint(self.command, config)
        # Lightning would let a checkpoint's hyper-parameters silently replace flags; here it is kept out of its sight.
        config.ckpt_path = None
        if wanted and wanted != "last":
            self.checkpoint = Opened.at(Path(wanted))
        strategy = strategies()[config.model.class_path.rpartition(".")[2]]
        if strategy.needs is Needs.NOTHING and config.data.path == default_path("{env}"):
            config.data.path = None
        settle.settle_environment(config, self.checkpoint)
        trainer_flags.settle_callbacks(config)
        trainer_flags.settle_length(config, strategy)
        trainer_flags.refuse_unsupported(config, strategy, begins=self.command == "fit" and not wanted)
        if config.init_from and not any(arg.startswith("--model.network") for arg in self.args):
            settle.settle_network(config, self.checkpoint, strategy)
        self.saved_config = self._dump(config)
        used = USED[self.command]
        if wanted == "last":
            self.checkpoint = Opened.at(runs.last_checkpoint(resume.newest_run_like(self.saved_config, used)))
        if self.checkpoint is not None:
            settle.refuse_contradictions(source, self.checkpoint, strategy.__name__, self.saved_config, used)
            if self.command == "fit":
                settle.refuse_earlier(source, self.checkpoint)
        elif self.command != "fit":
            settle.needed(self.command, self.checkpoint)
        elif config.run:
            resume.refuse(source, config.run, resume.begun_otherwise(config.run, self.saved_config))
        if self.command == "fit" and config.run:
            results = settle.finished_results(config.run, self.checkpoint, self.saved_config)
            if results is not None:
                found = f"results           {runs.results_path(config.run)}"
                rank_zero_only(print)(f"run {config.run} is finished: {in_words(results)}\n{found}")
                with suppress(InputError), owning(runs.LOGS / config.run):
                    pass                                            # what a process that was killed then has left goes
                raise FinishedError(1 if results.diverged else 0)
        if self.checkpoint is not None:
            self.run = self.checkpoint.run
        else:
            paths = paths_of(config.data.path) or [config.env]
            self.run = config.run or settle.new_name(strategy.__name__, paths, config.seed_everything)

    def _suitable(self, parser: LightningArgumentParser, args: Sequence[str]) -> str:
        """The ready configuration that suits the pairs, where the flags name no method; it is said."""
        settings = [arg for arg in args if not arg.startswith("--print_config")]  # which would print this, and end
        config = parser.parse_args([*settings, "--model", "MSE"])[self.command]  # any that learns from pairs
        settle.settle_environment(config, None)
        path, default = config.data.path, default_path(config.data.environment_id)
        if path is None or (path == default and not readers.exists(path)):  # which is collected for a method that is named
            raise InputError(ready_configurations())
        with redirect_stdout(StringIO()):                           # all of this is said when the run reads them
            material = Demonstrations(**config.data).material
            advice = advised(material.pairs + material.pairs_held_out, material.noise)
        if len(settings) == len(args):
            say = f"method: {advice.config}, since {advice.why}; --config names another: docs/which-method.md"
            rank_zero_only(print)(say)
        return advice.config

    def instantiate_classes(self) -> None:
        """As LightningCLI does; what a constructor refuses comes out alone, not among what jsonargparse tried."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            refusal: InputError | None = None
            while cause is not None and not isinstance(cause, InputError | MisconfigurationException):
                if isinstance(cause, ModuleNotFoundError) and "wandb" in str(cause):
                    raise needs_extra("WandbLogger", "wandb") from error
                refusal = refusal or refused_by_constructor(cause)
                cause = cause.__cause__
            if cause is not None:
                raise cause from None
            if refusal is None:
                raise
            raise refusal from error
        settle.refuse_other_processes(os.environ, self.trainer.num_devices * self.trainer.num_nodes)
        if self.command == "fit":
            trainer_flags.refuse_devices(self.trainer, type(self.model))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer with the run's logger, checkpoints and progress; nothing on disk for validate and test."""
        trainer = self._get(self.config_init, "trainer")
        # Lightning refuses to clip where steps are taken by hand; the strategy does it
        self.model.gradient_clip_val, trainer.gradient_clip_val = trainer.gradient_clip_val, None
        self.model.record_updates = self._get(self.config_init, "record_updates")
        if self.command != "fit":
            return super().instantiate_trainer(logger=False, enable_checkpointing=False, **kwargs)
        rollouts: Rollouts = self._get(self.config_init, "rollouts")
        rollouts.may_spawn = True
        learnt_with = {key: self.saved_config[key] for key in ("seed_everything", "env", "model", "data")}
        if trainer.logger is not False or trainer.enable_checkpointing is not False:
            rollouts.curve = Curve(runs.LOGS / self.run / CURVE_FILE)
        self.owner = Owner(runs.LOGS / self.run)
        callbacks: list[Callback] = [self.owner, *(trainer.callbacks or [])]
        callbacks += [TensorBoardTabs(runs.flatten(learnt_with)), rollouts]
        if trainer.enable_checkpointing is not False:
            directory, config_path = runs.last_checkpoint(self.run).parent, runs.config_path(self.run)
            callbacks.append(Checkpoints(directory, rollouts, self.run, self.saved_config, config_path))
        if trainer.enable_progress_bar is not False:
            callbacks.append(Progress(rollouts))
        if (source := self.config[self.command].init_from) and self.checkpoint is None:
            hidden = self.config[self.command].data.hidden_dimensions
            callbacks.insert(0, InitFrom(source, *initial_weights(source, self.model, hidden)))
        kwargs["logger"] = loggers_of(trainer.logger, self.run, self.checkpoint.step if self.checkpoint else None)
        plugins = [*(trainer.plugins or []), AtomicCheckpointIO(), *trainer_flags.scheduler_plugins(os.environ)]
        return super().instantiate_trainer(callbacks=callbacks, plugins=plugins, **kwargs)

    # The commands

    def fit(self, model: Strategy, datamodule: Demonstrations, **_: Any) -> None:
        """Train, and score the last checkpoint on the test bank."""
        for path in datamodule.paths:
            if path != default_path(datamodule.environment_id) and not readers.exists(path):
                readers.peek(path)                                  # refuses it, before anything else is said
        parameters = sum(parameter.numel() for parameter in model.parameters())
        where = f"on {datamodule.environment_id}" if datamodule.has_simulator else "without a simulator"
        rank_zero_only(print)(
            f"{type(model).__name__}, {parameters:,} parameters, {where}, from {datamodule.path or 'its own play'}\n"
            f"run {self.run}{self._resumed()}\n"
            f"curve: {'; '.join(views(self.trainer.loggers, self.run))}\n"
        )
        trainer: Any = self.trainer                                 # Lightning sets its callbacks undeclared
        for callback in trainer.callbacks:
            if not datamodule.has_simulator and getattr(callback, "teaches", False):
                raise InputError(f"--rollouts.episodes 0: {type(callback).__name__} acts in the environment. Leave it away.")
            if isinstance(callback, Checked):
                callback.check(model, datamodule.environment_id)    # before any folder is made
        try:
            with closing(self.owner):
                self._train_and_score(model, datamodule)
        except (KeyboardInterrupt, SystemExit, SIGTERMException) as stopped:  # Lightning makes an exit of an interruption
            if not isinstance(stopped, KeyboardInterrupt | SIGTERMException) and not is_stopped(stopped):
                raise ExitedError(f"training {raised_by(stopped)}. Of this run, {self._way_on()}") from stopped
            rank_zero_only(print)(f"\nstopped; {self._way_on()}")
            usual = signal.SIGTERM if isinstance(stopped, SIGTERMException) else signal.SIGINT
            raise StoppedError(STOPPING.number or usual, is_told=True) from stopped

    def _train_and_score(self, model: Strategy, datamodule: Demonstrations) -> None:
        source = self._resume_from()
        try:
            together = ending_together(self.trainer, self._way_on)
            with naming(f"--ckpt_path {source}"), together, STOP.listening(self.trainer):
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=source, weights_only=True)
        except DivergedError as error:
            self._tell_divergence(error, model, datamodule)
            raise
        path = runs.last_checkpoint(self.run)
        if not self.trainer.is_global_zero or not path.is_file():   # no file under --trainer.enable_checkpointing false
            return
        self.checkpoint = Opened.at(path)
        self.has_ended = self.checkpoint.is_at_end or self.checkpoint.has_no_end
        self.test(model, datamodule)
        if not self.has_ended:                                      # --trainer.max_time is over
            return
        rollouts: Rollouts = self._get(self.config_init, "rollouts")
        if rollouts.video and datamodule.has_simulator:
            self._write_video(model, datamodule.environment_id)
        for kept in self.trainer.callbacks if datamodule.has_simulator else ():  # type: ignore[attr-defined]
            if isinstance(kept, Checkpoints) and (better := kept.better(datamodule.references)):
                print(better)
        name, more = shlex.quote(self.run), trainer_flags.longer(self.config[self.command], model)
        print(
            f"\nview the curve    {'; '.join(views(self.trainer.loggers, self.run))}\n"
            f"lengthen          python -m lightning_bc fit --run {name} {more}\n"
            f"test              python -m lightning_bc test --run {name}"
        )

    def _way_on(self) -> str:
        """After a signal: what lies there, and the command that goes on."""
        command = "python -m lightning_bc fit"
        if runs.last_checkpoint(self.run).is_file():
            return f"its last checkpoint goes on with {command} --run {shlex.quote(self.run)}"
        name = [] if self.config[self.command].run else ["--run", self.run]
        return f"there is no checkpoint yet; it begins again with {command} {shlex.join([*self.args, *name])}"

    @rank_zero_only
    def _tell_divergence(self, error: DivergedError, model: Strategy, datamodule: Demonstrations) -> None:
        """Write results that say it, and print what to try. The last checkpoint is of a step at which all was finite."""
        last, target = runs.last_checkpoint(self.run), runs.results_path(self.run)
        advice = "" if model.learns_by_acting else " or --trainer.gradient_clip_val 1"
        if datamodule.path:
            advice += f"; python -m lightning_bc inspect {' '.join(paths_of(datamodule.path))} says what the data hold"
        print(
            f"\n{type(model).__name__} has come to a number that is not finite. Try a lower --model.optimizer.lr{advice}.\n"
            f"last checkpoint   {last if last.is_file() else 'none'}"
        )
        if self.trainer.loggers:
            environment_id, source = datamodule.environment_id, datamodule.source
            point = self._get(self.config_init, "rollouts").point
            run, what = {"run": self.run, "config": self.saved_config, "point": point}, str(error)
            if datamodule.has_simulator:
                diverged(model, environment_id, datamodule.references, source, last, run, what).write(target)
            else:
                HeldOutResults.of(model, environment_id, source, last, run, what).write(target)
            print(f"results           {target}")

    def validate(self, model: Strategy, datamodule: Demonstrations, **_: Any) -> None:
        """Loss, squared error and explained variance on held-out episodes."""
        with naming(f"--ckpt_path {(path := self._resume_from())}"):
            self.trainer.validate(model, datamodule=datamodule, ckpt_path=path, weights_only=True, verbose=False)
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
        checkpoint = settle.needed(self.command, self.checkpoint)
        check_weights(f"--ckpt_path {checkpoint.path}", model, checkpoint.content["state_dict"])
        model.load_state_dict(checkpoint.content["state_dict"])
        with naming(f"--ckpt_path {checkpoint.path}"):
            datamodule.load_state_dict(checkpoint.data)
        model.to(self.trainer.strategy.root_device)
        environment_id, origin = datamodule.environment_id, (datamodule.source, checkpoint.path, checkpoint.content)
        if datamodule.has_simulator:
            results: Results | HeldOutResults = score(model, environment_id, datamodule.references, *origin)
        else:
            results = HeldOutResults.of(model, environment_id, *origin)
        target = runs.LOGS / self.run / results_name(checkpoint.path)
        print(f"\n{in_words(results)}")
        before = read_results(target) if target.is_file() else None
        if before is not None and before.diverged:
            print(f"{target} stays as it is: training {before.diverged} This was its last checkpoint before.")
            return
        is_again = before is not None and before.optimizer_steps == results.optimizer_steps
        if target.name == runs.RESULTS_FILE and not (self.has_ended or is_again or checkpoint.is_at_end):
            target = target.with_name("results-last.json")          # the other one would say that the run has ended
            print(f"the run has not ended; {self._way_on()}")
        results.write(target)
        print(f"results           {target}")

    def _write_video(self, model: Strategy, environment_id: str) -> None:
        """A video of the last checkpoint beside the logs; where none can be made, the run is as good without."""
        path = runs.LOGS / self.run / "rollout.mp4"
        try:
            write_video(path, environment_id, {"learner": model}, device=model.device)
        except InputError as error:
            print(f"no video: {error}")
        else:
            print(f"video             {path}")

    def _dump(self, config: Namespace) -> Config:
        dumped = yaml.safe_load(self._parser(self.command).dump(config, skip_unset=False))
        return {key: value for key, value in dumped.items() if key not in ("config", "ckpt_path", "run")}

    def _resume_from(self) -> Path | None:
        return None if self.checkpoint is None else self.checkpoint.path

    def _resumed(self) -> str:
        return "" if self.checkpoint is None else f", resumed at optimizer step {self.checkpoint.step}"
