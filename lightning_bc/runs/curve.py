"""curve.csv: a run's reward-over-time curve, a row per point, written as the curve grows."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lightning_bc.episode_metrics import episode_metrics
from lightning_bc.errors import InputError
from lightning_bc.files import write_text
from lightning_bc.stopping import STOPPING
from lightning_bc.strategies.contract import Metric
from lightning_bc.texts import csv_rows, csv_text, parse_csv

CURVE_FILE = "curve.csv"
STEP = "step"
RETURN = "rollout/return_mean"
HELD_OUT_LOSS = "validation/loss"
"""In the curve of a run without a simulator."""
AXES = ("optimizer_steps", "environment_steps", "expert_queries", "seconds")
"""What curves are drawn over."""

Point = dict[str, float]
"""One point of the curve: a value by column, without ``step``."""


def columns(environment_id: str | None = None) -> dict[str, Metric]:
    """What curve.csv holds in an environment, or in any, by column, in order."""
    measured = {
        f"rollout/{name}": Metric(metric.unit, metric.meaning)
        for name, metric in episode_metrics().items()
        if environment_id is None or metric.is_of(environment_id)
    }
    return {
        STEP: Metric("steps", "Lightning's step: TensorBoard's horizontal axis"),
        "optimizer_steps": Metric("steps", "updates of the policy; of strategies that act while they learn, of the critics"),
        "environment_steps": Metric(
            "environment steps", "played to learn from, over all sub-environments; 0 where demonstrations are all"
        ),
        "expert_queries": Metric("pairs", "labels that an expert was asked for while learning (DAgger)"),
        "pairs": Metric("pairs", "training pairs behind the optimizer step, counted again in each pass"),
        "seconds": Metric("s", "wall-clock time of training and playing; a resumed run goes on from its last point"),
        "training_seconds": Metric("s", "the same without playing, validation and checkpoints included"),
        "rollout/seconds": Metric("s", "wall-clock time of playing this point"),
        **measured,
    }


class Curve:
    """The file of a run's curve, to which points are appended; each is on the disk when ``append`` returns.

    Args:
        path: lightning_logs/<run>/curve.csv.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []

    def resume(self, step: int) -> None:
        """Go on after ``step``, a checkpoint's: later points, which a killed session played, are dropped.

        Raises:
            InputError: the file is damaged.
        """
        if self.path.exists():
            try:
                names, rows, _ = _rows(self.path)
            except ValueError as error:
                raise InputError(
                    f"{self.path}: {error}. Move it away: the run then goes on, and its curve begins at its checkpoint."
                ) from error
            self._write(names, [row for row in rows if float(row[0]) <= step])

    def append(self, step: int, point: Point) -> None:
        """Add a point. A column that is new, of a metric that was added between two sessions, is empty further up."""
        new = [name for name in (STEP, *point) if name not in self._columns]
        if new:
            names, rows, _ = _rows(self.path) if self.path.exists() else ([], [], [])
            self._write([*names, *new], [[*row, *([""] * len(new))] for row in rows])
        values: Mapping[str, float] = {STEP: step, **point}
        with STOPPING.held_back(), self.path.open("a") as file:
            file.write(csv_rows(self._columns, [[_text(values[name]) if name in values else "" for name in self._columns]]))
            file.flush()
            os.fsync(file.fileno())                                 # the curve must not lag behind the next checkpoint

    def _write(self, names: list[str], rows: list[list[str]]) -> None:
        write_text(self.path, csv_text(names, rows) if names else "")
        self._columns = names


def read_curve(path: Path) -> dict[str, np.ndarray]:
    """Every column of a curve.csv, (points,) float64 each; NaN where a cell is empty.

    A last line that a kill has cut off is left out.

    Raises:
        ValueError: the file is damaged; it names the line.
        OSError: it cannot be read.
    """
    names, _, numbers = _rows(path)
    return dict(zip(names, np.array(numbers).reshape(len(numbers), len(names)).T, strict=True))


def _rows(path: Path) -> tuple[list[str], list[list[str]], list[list[float]]]:
    """The header and the rows, as text and as numbers, checked: their checksums, and rising steps."""
    names, rows = parse_csv(path.read_text())
    if names and (names[0] != STEP or len(set(names)) != len(names)):
        raise ValueError(f"is no curve: its first line is {','.join(names)[:60]!r}, not the names of columns from {STEP} on")
    last, found = -1.0, []
    for line, row in enumerate(rows, start=2):
        try:
            numbers = [float(cell or "nan") for cell in row]
        except ValueError as error:
            raise ValueError(f"is damaged in line {line}: {error}") from error
        if not numbers[0] > last:
            raise ValueError(f"is damaged in line {line}: step {row[0]} does not come after {last:.0f}")
        last = numbers[0]
        found.append(numbers)
    return names, rows, found


def _text(value: float) -> str:
    """A number such that reading it gives the same one; without .0 where it is whole."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
