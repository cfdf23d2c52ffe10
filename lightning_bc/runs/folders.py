"""Runs on disk: their names, folders and configurations.

A run's name, strategy-data-seed-UTC time-4 hexadecimal digits, is fixed before anything is built and names both of its
folders: lightning_logs/<run>/ (config.yaml, curve.csv, results.json, TensorBoard events) and checkpoints/<run>/ (last.ckpt,
best.ckpt).
"""

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_bc.demonstrations.readers import stem
from lightning_bc.errors import InputError

LOGS = Path("lightning_logs")
CHECKPOINTS = Path("checkpoints")
CONFIG_FILE = "config.yaml"


def new_name(strategy: str, data: str, seed: int) -> str:
    """A fresh name; two runs never share one."""
    started = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    return f"{strategy}-{stem(data)}-{seed}-{started}-{secrets.token_hex(2)}"


def started_at(run: str) -> str:
    """The UTC time in a run's name, which sorts."""
    return run.rsplit("-", 2)[-2] if run.count("-") >= 2 else ""


def last_checkpoint(run: str) -> Path:
    """Where a run's last checkpoint lies."""
    return CHECKPOINTS / run / "last.ckpt"


def config_path(run: str) -> Path:
    """Where a run's configuration lies."""
    return LOGS / run / CONFIG_FILE


def open_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU; nothing in the file is run.

    Raises:
        InputError: there is no such file, it cannot be read, or ``fit`` has not saved it.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--ckpt_path {path}: no such file. Checkpoints lie in {CHECKPOINTS}/RUN/last.ckpt.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"--ckpt_path {path}: cannot be read ({type(error).__name__}). It is truncated, or not a checkpoint."
        ) from error
    if not isinstance(checkpoint, dict) or "config" not in checkpoint or "run" not in checkpoint:
        raise InputError(f"--ckpt_path {path}: is not a checkpoint that lightning_bc fit has saved.")
    return checkpoint


def resumable() -> dict[str, dict[str, Any]]:
    """The configurations of all runs that have a last checkpoint, newest first."""
    runs = [path.parent.name for path in LOGS.glob(f"*/{CONFIG_FILE}") if last_checkpoint(path.parent.name).is_file()]
    newest_first = sorted(runs, key=started_at, reverse=True)
    return {run: yaml.safe_load(config_path(run).read_text()) for run in newest_first}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
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


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as one level of dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
