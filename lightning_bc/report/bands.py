"""A method's curve with its interval over runs."""

from dataclasses import dataclass

import numpy as np

from lightning_bc.report import statistics
from lightning_bc.report.chart import Method

AXIS_LABELS = {
    "optimizer_steps": "optimizer steps",
    "environment_steps": "environment steps",
    "expert_queries": "expert queries",
    "seconds": "seconds of training and playing",
}


@dataclass(frozen=True)
class Band:
    """A method's curve.

    Attributes:
        x: what it is drawn over, (points,).
        center: the centre of the runs there, (points,).
        interval: its 95% interval, two arrays (points,); None for a single run.
        runs: the single runs, (runs, points).
    """

    x: np.ndarray
    center: np.ndarray
    interval: tuple[np.ndarray, np.ndarray] | None
    runs: np.ndarray


def band(method: Method, axis: str) -> Band | None:
    """The method's curve over ``axis``; None where no run's curve could be read."""
    curves = [curve for run in method.runs if (curve := run.over(axis)) is not None]
    if not curves:
        return None
    x, runs = statistics.on_common_grid(curves)
    return Band(x, statistics.center(runs), statistics.interval(runs), runs)
