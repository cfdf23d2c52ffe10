"""Runs on disk: their names, folders and configurations.

A run's name is fixed before anything is built: the one that --run gives it, else strategy-data-seed-UTC time-4 hexadecimal
digits. It names both of its folders: lightning_logs/<run>/ (config.yaml, curve.csv, results.json, TensorBoard events) and
checkpoints/<run>/ (last.ckpt, best.ckpt).
"""

import difflib
import secrets
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lightning_bc.aliases import Config, StateDict
from lightning_bc.demonstrations.readers import stem
from lightning_bc.errors import InputError
from lightning_bc.files import CHECKPOINTS, checkpoint_of_run, refuse_damaged
from lightning_bc.texts import checked_yaml_of

LOGS = Path("lightning_logs")
CONFIG_FILE = "config.yaml"
RESULTS_FILE = "results.json"
WHOLE = {
    **{"config": dict, "run": str, "strategy": str, "global_step": int, "state_dict": dict, "callbacks": dict},
    **{"loops": dict, "optimizer_states": list},
}
"""What a checkpoint holds, with its types."""


def new_name(strategy: str, data: Sequence[str], seed: int) -> str:
    """A fresh name, by the first of the ``data`` files and the number of the others; two runs never share one."""
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    others = f"+{len(data) - 1}" if len(data) > 1 else ""
    return f"{strategy}-{stem(data[0])}{others}-{seed}-{started}-{secrets.token_hex(2)}"


def check_name(run: str, source: str) -> str:
    """``run``, a name that leads to no other folder than its own.

    Args:
        source: the flag or file that it comes from.

    Raises:
        InputError: it is empty, begins with a dot, holds a path's separators, or what the terminal's encoding has broken.
    """
    if any(0xD800 <= ord(letter) < 0xE000 for letter in run):
        raise InputError(f"{source}: {run!r} is not of this terminal's encoding. Set LC_ALL=C.UTF-8, or use ASCII.")
    if not run or run.startswith(".") or {"/", "\\", "\0"} & set(run):
        raise InputError(
            f"{source}: {run!r} cannot name a run: wanted the name of one folder, without separators and without a dot in "
            "front."
        )
    return run


def last_checkpoint(run: str) -> Path:
    """Where a run's last checkpoint lies."""
    return CHECKPOINTS / run / "last.ckpt"


def nearest_runs(run: str) -> str:
    """Behind a name that no run with a checkpoint has: those that are spelt alike, in words; empty where there are none."""
    runs = [found.parent.name for found in CHECKPOINTS.glob("*/last.ckpt")]
    near = difflib.get_close_matches(run, runs, n=2)
    return f" Nearest: {', '.join(near)}." if near else ""


def results_path(run: str) -> Path:
    """Where a finished run's results lie."""
    return LOGS / run / RESULTS_FILE


def config_path(run: str) -> Path:
    """Where a run's configuration lies."""
    return LOGS / run / CONFIG_FILE


def checkpoint_file(path: str | Path, flag: str = "") -> Path:
    """The file that ``path`` means: itself, or the last checkpoint of the run that it names, by its name or a folder of it.

    Args:
        flag: by which it was named, if by any.

    Raises:
        InputError: there is no such file and no such run.
    """
    path = Path(path)
    if path.is_file():
        return path
    if (last := checkpoint_of_run(path)) is not None:
        return last
    may_be_run = path.is_dir() or len(path.parts) == 1
    what = "no such checkpoint, and no last.ckpt of that run" if may_be_run else "no such checkpoint"
    raise InputError(
        f"{flag} {path}: {what}. Wanted a file, the folder of a run, or the name of a run in "
        f"{CHECKPOINTS}/.{nearest_runs(path.name)}".lstrip()
    )


def open_checkpoint(path: Path, flag: str = "") -> StateDict:
    """What a checkpoint holds, on the CPU; nothing in the file is run.

    Args:
        path: of the file, which is there.
        flag: by which it was named, where that is neither --ckpt_path nor --run.

    Raises:
        InputError: it cannot be read, or ``fit`` has not saved it.
    """
    named = f"{flag} {path}".lstrip()
    others = [other.name for other in sorted(path.parent.glob("*.ckpt")) if other != path]
    way_out = f" Beside it lies {', '.join(others)}." if others else ""
    try:
        refuse_damaged(path)
    except InputError as error:
        raise InputError(f"{flag} {error}{way_out}".lstrip()) from error
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{named}: cannot be read ({type(error).__name__}). It is truncated, or not a checkpoint.{way_out}"
        ) from error
    if not isinstance(checkpoint, dict) or "config" not in checkpoint or "run" not in checkpoint:
        raise InputError(f"{named}: is not a checkpoint that lightning_bc fit has saved.")
    if missing := [key for key in WHOLE if key not in checkpoint or checkpoint[key] == []]:
        raise InputError(f"{named}: is not whole: {', '.join(missing)} missing. Use another checkpoint.")
    for key, kind in WHOLE.items():
        if not isinstance(checkpoint[key], kind):
            found = type(checkpoint[key]).__name__
            raise InputError(f"{named}: is not whole: its {key} is a {found}, wanted {kind.__name__}.")
    check_name(checkpoint["run"], named)
    return checkpoint


def read_config(run: str) -> Config | None:
    """The configuration of a run; None, and a warning, where the file cannot be used."""
    path = config_path(run)
    try:
        config = checked_yaml_of(path)
        if not isinstance(config, dict):
            raise InputError(f"{path}: is empty or torn")
    except InputError as error:
        warnings.warn(f"{error}, and the run is left out.", stacklevel=2)
        return None
    return config


def resumable() -> dict[str, Config]:
    """The configurations of all runs that have a last checkpoint, the one that was saved last first."""
    runs = [path.parent.name for path in LOGS.glob(f"*/{CONFIG_FILE}") if last_checkpoint(path.parent.name).is_file()]
    newest_first = sorted(runs, key=lambda run: last_checkpoint(run).stat().st_mtime_ns, reverse=True)
    return {run: config for run in newest_first if (config := read_config(run)) is not None}


def differences(before: Config, now: Config) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ between two nested configurations, dotted, with both values (None where absent)."""
    flat_before, flat_now = flatten(before), flatten(now)
    return {
        key: (flat_before.get(key), flat_now.get(key))
        for key in sorted(flat_before.keys() | flat_now.keys())
        if flat_before.get(key) != flat_now.get(key)
    }


def in_words(different: Mapping[str, tuple[Any, Any]]) -> str:
    """What :func:`differences` has found, on one line."""
    return "; ".join(f"{key} {before!r}, {now!r}" for key, (before, now) in different.items())


def flatten(config: Config, prefix: str = "") -> Config:
    """A nested configuration as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
