"""Which run a command means, and whether that run may go on under the present configuration.

A run goes on as it began. Three kinds of differences do not count: what is for the display alone, the path of the same data
file or files, and a greater length.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_bc.aliases import Config
from lightning_bc.demonstrations.experts.callables import is_name
from lightning_bc.demonstrations.several import paths_of
from lightning_bc.demonstrations.shards import is_shards, sha256
from lightning_bc.errors import InputError
from lightning_bc.files import sha256_of_all
from lightning_bc.runs import folders
from lightning_bc.strategies.registry import programs

RETIRED = {"cuda_graphs"}
"""Settings of earlier versions, which their runs may still name."""

DISPLAY = {
    *RETIRED,
    *(f"trainer.enable_{what}" for what in ("progress_bar", "model_summary", "autolog_hparams", "checkpointing")),
    *("trainer.logger", "trainer.default_root_dir", "trainer.log_every_n_steps", "trainer.model_registry"),
    *("trainer.profiler", "trainer.barebones", "trainer.detect_anomaly", "trainer.max_time", "rollouts.video"),
    *("rollouts.workers", "rollouts.validation_freq", "data.validation_pairs", "data.memory", "record_updates"),
}
"""Settings, and those below them, that change nothing of what is learnt."""

LENGTHS = ("trainer.max_steps", "trainer.max_epochs", "data.max_passes", "model.init_args.total_environment_steps")
"""Settings that may grow."""

PATH = "data.path"

Differences = dict[str, tuple[Any, Any]]
"""Values (before, now) by dotted key."""


def with_own_configuration(command: str, args: Sequence[str]) -> list[str]:
    """``args`` with, where they name a checkpoint or run and no model, the checkpoint's own configuration in front.

    Raises:
        InputError: there is no such checkpoint, or something would be imported that only the checkpoint names.
    """
    given = {name: value for name, value in _flags(args) if name in ("-c", "--config", "--model", "--ckpt_path", "--run")}
    path = given.get("--ckpt_path")
    if path is None and "--run" in given:
        path = str(folders.last_checkpoint(folders.check_name(given["--run"], "--run")))
        if not Path(path).is_file():
            described_by = {"-c", "--config", "--model", "--data.path", "--data.path+"}
            is_described = bool(described_by & {name for name, _ in _flags(args)})
            if (command == "fit" and is_described) or {"-h", "--help"} & set(args):
                return list(args)
            way_out = " To start one, add --config, --model or --data.path." if command == "fit" else ""
            if (results := folders.results_path(given["--run"])).is_file():
                way_out = f" It ended without one; how, says {results}."
            raise InputError(
                f"--run {given['--run']}: no run of this name has a checkpoint, {path}."
                f"{folders.nearest_runs(given['--run'])}{way_out}"
            )
    if path in (None, "last") or given.keys() & {"-c", "--config", "--model"}:
        return list(args)
    content = folders.open_checkpoint(folders.checkpoint_file(path, "--ckpt_path"))
    named = programs(content["config"]) | (_functions(content["config"]) if command == "fit" else set())
    if named and (named := named - programs(own := folders.read_config(content["run"])) - _functions(own)):
        raise InputError(
            f"{path}: its configuration names {', '.join(sorted(named))}, which would be imported and run; "
            f"{folders.config_path(content['run'])} does not. A checkpoint is no program: if this is yours, give the "
            "configuration with --config."
        )
    known = {key: value for key, value in content["config"].items() if key not in RETIRED}
    has_length = content["callbacks"].get("Checkpoints", {}).get("run_length") is not None
    if has_length and isinstance(known.get("trainer"), dict):       # the time that one session had says nothing of the next
        known["trainer"] = known["trainer"] | {"max_time": None}
    is_given = {name for name, _ in _flags(args)} & {"--trainer.max_steps", "--trainer.max_epochs"}
    if is_given and isinstance(known.get("data"), dict):            # by a length that is given the passes do not count
        known["data"] = known["data"] | {"max_passes": None}
    return ["--config", yaml.safe_dump(known, sort_keys=False), *args]


def _functions(config: Any, key: str = "") -> set[str]:
    """The functions that a configuration, or a part of it under ``key``, names as experts, however it is nested."""
    if isinstance(config, Mapping):
        return set().union(*(_functions(value, str(name)) for name, value in config.items()))
    if isinstance(config, list | tuple):
        return set().union(*(_functions(value, key) for value in config))
    return {config} if key.rpartition(".")[2] == "expert" and is_name(str(config)) else set()


def _flags(args: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values of what is given as --name value or --name=value."""
    parts = [arg.partition("=") for arg in args]
    return [(name, value if equals else after) for (name, equals, value), after in zip(parts, [*args[1:], ""], strict=False)]


def differences(before: Config, now: Config, data_sha256: str | None = None) -> Differences:
    """What counts as different between a run's saved configuration and the present one; lengths do.

    Args:
        data_sha256: of the file, or the list of files, that the run learns from.
    """
    different = folders.differences(before, now)
    if PATH in different and data_sha256 is not None and sha256_of_files(different[PATH][1]) == data_sha256:
        del different[PATH]
    return {key: values for key, values in different.items() if not _is_display(key)}


def sha256_of_files(given: str | Sequence[str] | None) -> str | None:
    """SHA-256 of what ``--data.path`` names now, as a run's results have it; None unless it names files that are there."""
    paths = paths_of(given)
    are_there = paths and all(Path(path).is_file() or is_shards(path) for path in paths)
    return sha256_of_all([*map(sha256, paths)]) if are_there else None


def _is_display(key: str) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in DISPLAY)


def without_longer(different: Differences) -> Differences:
    """Without the lengths that may be: passes may give way to steps, and only the data tell whether that is longer.

    Steps never give way to passes: the Trainer has counted all of them as one.
    """
    to_passes = different.get("trainer.max_epochs", (None, None))
    if "data.max_passes" in different:                              # by which it may have been shorter than max_steps
        different = {key: values for key, values in different.items() if key != "trainer.max_steps"}
    kept = {key: values for key, values in different.items() if key not in LENGTHS or _is_shorter(*values)}
    return kept | ({"trainer.max_epochs": to_passes} if to_passes[0] == -1 else {})


def _is_shorter(before: int | None, now: int | None) -> bool:
    return before is not None and now is not None and 0 < now < before


def newest_run_like(now: Config, used: Sequence[str]) -> str:
    """The newest run with a checkpoint that may go on as ``now``; one of the same length before those that are shorter.

    Args:
        used: which parts of a configuration the command uses.

    Raises:
        InputError: there is none; the nearest two are listed.
    """
    now = {key: now.get(key) for key in used}
    compared: dict[str, Differences] = {}
    for run, config in folders.resumable().items():
        saved = {key: config.get(key) for key in used}
        compared[run] = differences(saved, now)
        if without_longer(compared[run]).keys() == {PATH}:          # the file may be the same one
            compared[run] = differences(saved, now, data_sha256(folders.open_checkpoint(folders.last_checkpoint(run))))
    for fits in (lambda different: not different, lambda different: not without_longer(different)):
        for run, different in compared.items():
            if fits(different):
                return run
    nearest = sorted(compared, key=lambda run: len(without_longer(compared[run])))[:2]
    listed = "".join(f"\n  {run}: {folders.in_words(without_longer(compared[run]))}" for run in nearest)
    words = f"; the nearest, with what differs (theirs, yours):{listed}\n" if listed else "; there is none at all. "
    raise InputError(
        f"--ckpt_path last: no run under {folders.LOGS} has this configuration and a checkpoint{words}"
        "Leave --ckpt_path away to start a new run."
    )


def data_sha256(checkpoint: Config) -> str | None:
    """SHA-256 of the file that a checkpoint's run learns from."""
    part: Any = checkpoint
    for key in ("Demonstrations", "source", "sha256"):
        part = part.get(key) if isinstance(part, Mapping) else None
    return part


def begun_otherwise(run: str, now: Config) -> Differences:
    """What differs from the configuration that lies in the folder of a ``run`` without a checkpoint."""
    before = folders.read_config(run) if folders.config_path(run).exists() else None
    return {} if before is None else differences(before, now)


def refuse(source: str, run: str, different: Differences) -> None:
    """Raise InputError if anything is ``different`` that may not be.

    Args:
        source: the flag that names the run, with its value.
    """
    if not different:
        return
    lengths = any(key in LENGTHS for key in different)
    way_out = " A run can be made longer, not shorter, and one that counts steps in steps." if lengths else ""
    if lengths and not (last := folders.last_checkpoint(run)).is_file():
        way_out = f" It cannot be made longer: {last}, from which it would go on, is not there."
    raise InputError(
        f"{source}: was made with another configuration; what differs (its, yours): {folders.in_words(different)}.{way_out} "
        f"Use the run's own, --config {shlex.quote(str(folders.config_path(run)))}, or start a new run under another name."
    )
