"""What flags leave open, settled before anything is built: checkpoint, environment, data file, and name of the run."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace
from torch.distributed import TCPStore

from lightning_bc.aliases import Config, StateDict
from lightning_bc.demonstrations import Demonstrations, readers
from lightning_bc.demonstrations.fitting import DEFAULT_ENVIRONMENT
from lightning_bc.demonstrations.several import paths_of
from lightning_bc.demonstrations.trajectories import Origin
from lightning_bc.environments import are_one, limit_episodes, resolved
from lightning_bc.errors import InputError
from lightning_bc.ranks import by_srun
from lightning_bc.runs import folders, resume
from lightning_bc.runs.held_out import HeldOutResults, read_results
from lightning_bc.runs.results import Results
from lightning_bc.strategies import Strategy, strategy_of_checkpoint
from lightning_bc.strategies.registry import programs

RUN_VARIABLE = "LIGHTNING_BC_RUN"
"""By it the processes that Lightning starts for further devices know the run's name."""


@dataclass(frozen=True)
class Opened:
    """A checkpoint that a command goes on from.

    Attributes:
        path: its file.
        content: what it holds, on the CPU.
    """

    path: Path
    content: StateDict

    @classmethod
    def at(cls, path: Path) -> "Opened":
        """Open the checkpoint of a run.

        Raises:
            InputError: it cannot be read, or is not one that ``fit`` has saved.
        """
        content = folders.open_checkpoint(path)
        data = content.get(Demonstrations.__qualname__)
        if not isinstance(data, dict) or not isinstance(data.get("environment_id"), str):
            raise InputError(f"--ckpt_path {path}: is not whole: its data state is missing. Use another checkpoint.")
        return cls(path, content)

    @property
    def run(self) -> str:
        """That of its folder in checkpoints/, which may be a copy; elsewhere the one that it names."""
        folder = self.path.absolute().parent
        return folder.name if folder.parent == folders.CHECKPOINTS.absolute() else self.content["run"]

    @property
    def step(self) -> int:
        """Lightning's step that it stands at."""
        return self.content["global_step"]

    @property
    def is_at_end(self) -> bool:
        """Whether the run was to go no further: it has its length, or a callback such as EarlyStopping has ended it."""
        curve, saved = (self.content["callbacks"].get(name, {}) for name in ("Rollouts", "Checkpoints"))
        length = saved.get("run_length")
        return saved.get("has_stopped", False) or (length is not None and curve.get("last_position", 0) >= length)

    @property
    def has_no_end(self) -> bool:
        """Whether the run has no length."""
        return self.content["callbacks"].get("Checkpoints", {}).get("run_length") is None

    @property
    def config(self) -> Config:
        """The configuration of that run."""
        return self.content["config"]

    @property
    def data(self) -> StateDict:
        """The state of the data module."""
        return self.content[Demonstrations.__qualname__]


def wanted_checkpoint(command: str, config: Namespace) -> tuple[str, str | None]:
    """The flag that names a checkpoint, and that checkpoint: a file, "last", or None."""
    if not config.run:
        path = config.ckpt_path
        is_file = path and path != "last"
        return f"--ckpt_path {path}", str(folders.checkpoint_file(path, "--ckpt_path")) if is_file else path
    if config.ckpt_path:
        raise InputError(
            f"--run {config.run} --ckpt_path {config.ckpt_path}: give one of them. --run goes on from the run's last "
            "checkpoint where there is one."
        )
    last = folders.last_checkpoint(folders.check_name(config.run, "--run"))
    is_there = last.is_file() or command != "fit"
    return f"--run {config.run}", str(last) if is_there else None


def needed(command: str, checkpoint: Opened | None) -> Opened:
    """The checkpoint without which a ``command`` cannot be.

    Raises:
        InputError: there is none.
    """
    if checkpoint is None:
        raise InputError(
            f"{command} needs --ckpt_path: the file of a checkpoint, or last for the newest run with this configuration; or "
            "the name of a run, --run."
        )
    return checkpoint


def settle_environment(config: Namespace, checkpoint: Opened | None) -> None:
    """Set ``config.env``, an id with its version, the data file that belongs to it, and a time limit that is given.

    The environment is what the flag says, else the checkpoint or the data file, else the default.

    Raises:
        InputError: two of them contradict, or a data file says none and no flag does.
    """
    said_by = {"--env": config.env}
    paths = paths_of(config.data.path)
    given = dict[str, Origin]()
    if checkpoint is not None:
        limit = checkpoint.config.get("rollouts", {}).get("max_episode_steps")
        config.rollouts.max_episode_steps = config.rollouts.max_episode_steps or limit
        said_by[f"--ckpt_path {checkpoint.path}"] = checkpoint.data["environment_id"]
    else:
        given = {path: readers.peek(path) for path in paths if "{env}" not in path and readers.exists(path)}
        said_by |= {f"--data.path {path}": origin.environment_id for path, origin in given.items()}
    said = {source: env for source, env in said_by.items() if env}
    if not are_one(said.values()):
        words = " and ".join(f"{source} says {env}" for source, env in said.items())
        raise InputError(f"one run has one environment, but {words}. Leave --env away, or choose what goes with it.")
    plays, is_default = config.rollouts.episodes > 0, "{env}" in "".join(paths) or not paths
    if plays and not said and not is_default and all(map(readers.exists, paths)):
        raise InputError(
            f"--data.path {', '.join(paths)}: does not say of which environment it is. Say it with --env; or, for a robot "
            "that no environment stands for, train without one, --rollouts.episodes 0."
        )
    default = DEFAULT_ENVIRONMENT if plays or is_default else ""
    found = next((env for env in said.values() if ":" in env), next(iter(said.values()), default))
    config.data.environment_id = resolved(found) if plays else found
    config.env = config.data.environment_id or None
    if paths:
        paths = [path.replace("{env}", config.data.environment_id) for path in paths]
        config.data.path = paths if isinstance(config.data.path, list) else paths[0]
    if checkpoint is None:
        given |= {path: readers.peek(path) for path in paths if path not in given and readers.exists(path)}
        limits = {f"--data.path {path}": origin.max_episode_steps for path, origin in given.items()}
        limits = {"--rollouts.max_episode_steps": config.rollouts.max_episode_steps, **limits}
        config.rollouts.max_episode_steps = _one_limit({source: limit for source, limit in limits.items() if limit})
    if plays and config.rollouts.max_episode_steps is not None:     # before anything is played
        limit_episodes(config.env, config.rollouts.max_episode_steps)


def _one_limit(limits: Mapping[str, int]) -> int | None:
    """The time limit, by who says it, of an environment that has none itself; None where nobody says one.

    Raises:
        InputError: two of them contradict: returns of longer episodes are measured by those of shorter ones.
    """
    if len(set(limits.values())) > 1:
        words = " and ".join(f"{source} says {limit}" for source, limit in limits.items())
        raise InputError(
            f"episodes are cut off after so many steps wherever they are played, but {words}. Leave "
            "--rollouts.max_episode_steps away, or collect again with the one that is wanted."
        )
    return next(iter(limits.values()), None)


def settle_network(config: Namespace, checkpoint: Opened | None, strategy: type[Strategy]) -> None:
    """Set the network to that of the clone which ``--model.init_from`` names, since the clone's weights fit no other.

    A run that goes on has its network already, and the clone may be gone.

    Raises:
        InputError: the clone cannot be read, or its network would have to be imported.
    """
    source = config.init_from
    if checkpoint is not None:
        begun = checkpoint.config if checkpoint.config.get("init_from") == source else {}
    else:
        path = folders.checkpoint_file(source, "--model.init_from")
        clone = folders.open_checkpoint(path, "--model.init_from")
        begun = {} if strategy_of_checkpoint(path, clone) is strategy else clone["config"]
    network = begun.get("model", {}).get("init_args", {}).get("network")
    if network is None or "network" not in config.model.init_args:
        return
    if checkpoint is None and (named := programs({"network": network})):
        raise InputError(
            f"--model.init_from {source}: its network is {', '.join(sorted(named))}, which would be imported. A checkpoint "
            "is no program: if this is yours, name it with --model.network."
        )
    arguments = Namespace(network.get("init_args", {}))
    config.model.init_args.network = Namespace(class_path=network["class_path"], init_args=arguments)


def new_name(strategy: str, data: Sequence[str], seed: int) -> str:
    """A new run's name, of which all processes of one command have the same.

    Those that Lightning starts for further devices take over the first one's, and those of torchrun find it in its store.

    Raises:
        InputError: a scheduler has started several, which cannot agree.
    """
    if "LOCAL_RANK" in os.environ and RUN_VARIABLE in os.environ:
        return os.environ[RUN_VARIABLE]
    name = folders.new_name(strategy, data, seed)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return _name_in_store(name)
    if "LOCAL_RANK" in os.environ or by_srun(os.environ):
        raise InputError("processes that a scheduler starts cannot agree on a new run's name. Give it with --run NAME.")
    os.environ[RUN_VARIABLE] = name
    return name


def _name_in_store(name: str) -> str:
    """The ``name`` of the first of torchrun's processes."""
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"{RUN_VARIABLE}-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    if os.environ["RANK"] == "0":
        store.set(key, name)
    return store.get(key).decode()


def refuse_other_processes(environment: Mapping[str, str], expected: int) -> None:
    """Refuse more or fewer processes than the Trainer knows of: each would train by itself, all in one run's folders.

    Args:
        environment: the variables of the process, among them torchrun's or srun's.
        expected: how many processes the Trainer trains on.

    Raises:
        InputError: another number was started.
    """
    for source, variable, is_there in (
        ("torchrun", "WORLD_SIZE", "TORCHELASTIC_RUN_ID" in environment),
        ("srun", "SLURM_NTASKS", by_srun(environment)),
    ):
        if is_there and (started := int(environment[variable])) != expected:
            raise InputError(
                f"{source} has started {started} processes of one command, and --trainer.devices, times "
                f"--trainer.num_nodes, says {expected}. Let it be {started}, or start one without "
                f"{source}: it uses several devices."
            )


def finished_results(
    run: str, checkpoint: Opened | None, config: Config
) -> Results | HeldOutResults | None:
    """The results of a ``run`` that is finished under the present ``config``; None where there is something left to do."""
    path = folders.results_path(run)
    if not path.is_file():
        return None
    before = folders.read_config(run) if checkpoint is None else checkpoint.config
    data_sha256 = None if checkpoint is None else resume.data_sha256(checkpoint.content)
    if before is None or resume.differences(before, config, data_sha256):
        return None
    return read_results(path)


def refuse_earlier(source: str, checkpoint: Opened) -> None:
    """Raise InputError where the run of a checkpoint has gone on since, unless its last checkpoint is damaged."""
    last = folders.last_checkpoint(checkpoint.run)
    if not last.is_file() or last.resolve() == checkpoint.path.resolve():
        return
    try:
        step = Opened.at(last).step
    except InputError:
        return
    if step > checkpoint.step:
        run = shlex.quote(checkpoint.run)
        raise InputError(
            f"{source}: is of step {checkpoint.step}, and its run has gone on to step {step}, which would be written over "
            f"from here. Go on with --run {run}, or begin another run from these weights: --model.init_from "
            f"{shlex.quote(str(checkpoint.path))}"
        )


def refuse_contradictions(source: str, checkpoint: Opened, strategy: str, config: Config, used: Sequence[str]) -> None:
    """A checkpoint goes on as it began: refuse another strategy, and every flag that says otherwise.

    Args:
        source: the flag that names the checkpoint, with its value.
        strategy: the class name of the present one.
        config: the present configuration.
        used: which parts of a configuration the command uses.
    """
    theirs = strategy_of_checkpoint(checkpoint.path, checkpoint.content).__name__
    if theirs != strategy:
        raise InputError(
            f"{source}: is a checkpoint of {theirs}, and the configuration says {strategy}. Use the run's own: --config "
            f"{shlex.quote(str(folders.config_path(checkpoint.run)))}"
        )
    before, now = ({key: one.get(key) for key in used} for one in (checkpoint.config, config))
    different = resume.differences(before, now, resume.data_sha256(checkpoint.content))
    resume.refuse(source, checkpoint.run, resume.without_longer(different))
