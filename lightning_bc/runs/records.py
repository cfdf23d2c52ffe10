"""What runs left on disk: configuration, results and curve, read from their folders and from nothing else."""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lightning_bc.aliases import Config
from lightning_bc.errors import InputError
from lightning_bc.runs.curve import AXES, CURVE_FILE, RETURN, read_curve
from lightning_bc.runs.folders import CONFIG_FILE, RESULTS_FILE
from lightning_bc.runs.held_out import HeldOutResults, read_results
from lightning_bc.runs.results import Results
from lightning_bc.texts import checked_yaml_of


@dataclass(frozen=True)
class Record:
    """One run.

    Attributes:
        folder: lightning_logs/<run>.
        config: its config.yaml.
        results: its results.json; None for a run that has not ended.
        curve: its curve.csv, each column (points,); empty where it could not be read.
    """

    folder: Path
    config: Config
    results: Results | None
    curve: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def seed(self) -> int:
        """The seed of training."""
        return self.config["seed_everything"]

    def over(self, axis: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The curve over one of ``AXES``: x, strictly rising, and mean return, (points,) each; None where there is none.

        Where several points have the same x the last counts: it is the return that had been reached for that much.
        """
        if not len(self.curve.get(RETURN, ())):
            return None
        x = self.curve[axis]
        last = np.append(np.diff(x) > 0, True)
        return x[last], self.curve[RETURN][last]


@dataclass(frozen=True)
class FinishedRecord(Record):
    """A run that has a score."""

    results: Results


@dataclass(frozen=True)
class HeldOutRecord:
    """A finished run without a simulator, which has no return to be compared by.

    Attributes:
        folder: lightning_logs/<run>.
        config: its config.yaml.
        results: its results.json.
    """

    folder: Path
    config: Config
    results: HeldOutResults


def read_records(logs: Path) -> tuple[list[Record], list[HeldOutRecord], dict[str, str]]:
    """Read every run under ``logs``, oldest first.

    Returns:
        The runs, those with a score as :class:`FinishedRecord`; those without a simulator; and for each file that cannot be
        used what is wrong with it. Left out are runs without a readable configuration and with a broken results.json; one
        whose curve.csv is broken has no curve.
    """
    folders = {path.parent for name in (CONFIG_FILE, RESULTS_FILE, CURVE_FILE) for path in logs.rglob(name)}
    records: list[Record] = []
    held_out: list[HeldOutRecord] = []
    broken: dict[str, str] = {}
    for folder in sorted(folders, key=lambda folder: (_started_at(folder), folder)):
        path = folder / CONFIG_FILE
        try:
            config = _read_config(path)
            path = folder / RESULTS_FILE
            results = read_results(path) if path.exists() else None
        except (OSError, ValueError) as error:
            broken[str(path)] = _in_a_line(path, error)
            continue
        if isinstance(results, HeldOutResults):
            held_out.append(HeldOutRecord(folder, config, results))
            continue
        curve: dict[str, np.ndarray] = {}
        path = folder / CURVE_FILE
        try:
            curve = _read_curve(path, results)
        except (OSError, ValueError) as error:
            broken[str(path)] = _in_a_line(path, error)
        if results is None:
            records.append(Record(folder, config, None, curve))
        else:
            records.append(FinishedRecord(folder, config, results, curve))
    return records, held_out, broken


def _started_at(folder: Path) -> float:
    """When a run began, in seconds since 1970: by its name, else by the last change of its files."""
    named = re.search(r"-(\d{8}T\d{6})-[0-9a-f]{4}$", folder.name)
    if named is not None:
        with suppress(ValueError):                                  # a name of one's own, with digits that are no time
            return datetime.strptime(named[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    return max(path.stat().st_mtime for name in (CONFIG_FILE, RESULTS_FILE, CURVE_FILE) if (path := folder / name).is_file())


def _read_config(path: Path) -> Config:
    config = checked_yaml_of(path)
    if not isinstance(config, dict) or not {"seed_everything", "model", "data", "trainer", "env"} <= config.keys():
        raise InputError("is not the configuration of a run")
    parts = {"data": config["data"], "trainer": config["trainer"], "model": config["model"]}
    if wrong := [name for name, part in parts.items() if not isinstance(part, dict)]:
        raise InputError(f"is not the configuration of a run: {wrong[0]} is {parts[wrong[0]]!r}, wanted settings below it")
    if not isinstance(config["model"].get("class_path"), str):
        raise InputError("is not the configuration of a run: model lacks its class_path")
    return config


def _read_curve(path: Path, results: Results | None) -> dict[str, np.ndarray]:
    """The curve.

    Raises:
        ValueError: it is damaged, lacks a column, or the run has ended and its curve has not; OSError: it cannot be read.
    """
    if results is None and not path.exists():
        return {}                                                   # it has just begun
    curve = read_curve(path)
    lacking = [name for name in (RETURN, *AXES) if name not in curve]
    if lacking and len(curve):
        raise InputError(f"lacks the columns {', '.join(lacking)}")
    if wrong := [name for name in (RETURN, *AXES) if not np.isfinite(curve.get(name, 0.0)).all()]:
        raise InputError(f"column {wrong[0]} holds cells that are empty or no finite numbers")
    if results is not None:
        last = curve["optimizer_steps"][-1] if len(curve.get(RETURN, ())) else 0
        if not math.isclose(last, results.optimizer_steps, rel_tol=1e-6):
            raise InputError(f"the curve ends at optimizer step {last:,.0f} of {results.optimizer_steps:,}")
    return curve


def _in_a_line(path: Path, error: Exception) -> str:
    message = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(message.removeprefix(f"{path}: ").split())
