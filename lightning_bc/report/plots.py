"""Reward-over-time curves, drawn with matplotlib."""

import math
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import color_sequences, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from lightning_bc.report import statistics
from lightning_bc.report.chart import Chart, Method
from lightning_bc.report.evaluations import Evaluated, draw_over, with_greys

AXIS_LABELS = {
    "optimizer_steps": "optimizer steps",
    "environment_steps": "environment steps",
    "expert_queries": "expert queries",
    "seconds": "seconds of training and playing",
}

COLOURS = [to_hex(colour) for colour in color_sequences["petroff10"]]
"""Told apart by colour-blind readers (Petroff 2021, https://arxiv.org/abs/2107.02270)."""

DASHES = ("solid", "dashed", "dotted", "dashdot")
MARKERS = dict(zip(DASHES, ("o", "s", "^", "D"), strict=True))
"""In place of dashes, where a method is a point."""

WIDE = 8.0
"""Where the longest curve is so many times as long as the shortest, the axis is logarithmic: the short ones are read too."""

NAMES_PER_COLUMN = 20
"""Of the legend."""

STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "svg.hashsalt": "lightning_bc",                                 # the same curves give the same file
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


@dataclass(frozen=True)
class Scale:
    """How the horizontal axis of several curves is drawn.

    Attributes:
        logarithmic: whether their lengths ask for it.
        linear_part: up to where it is linear then, so that 0 can be shown: a tenth of the shortest curve.
    """

    logarithmic: bool
    linear_part: float


def scale(bands: Iterable[Band]) -> Scale:
    """The scale for ``bands``."""
    ends = [float(band.x[-1]) for band in bands if len(band.x) > 1] or [1.0]
    return Scale(max(ends) >= WIDE * min(ends), min(ends) / 10)


def line_styles(chart: Chart) -> dict[str, tuple[str, str]]:
    """Colour and dashes of each method, by label: the same in every picture, and whoever is best.

    A strategy has a colour and its variants differ by their dashes; where that is not enough, colours are dealt in turn.
    """
    variants: dict[str, list[str]] = defaultdict(list)
    for method in sorted(chart.methods, key=lambda method: method.label):
        variants[method.strategy].append(method.label)
    if len(variants) <= len(COLOURS) and max(map(len, variants.values())) <= len(DASHES):
        places = {
            label: (colour, dash)
            for colour, labels in enumerate(variants.values())
            for dash, label in enumerate(labels)
        }
    else:
        every = enumerate(label for labels in variants.values() for label in labels)
        places = {label: (number % len(COLOURS), number // len(COLOURS) % len(DASHES)) for number, label in every}
    return {label: (COLOURS[colour], DASHES[dash]) for label, (colour, dash) in places.items()}


def draw_curves(
    path: Path,
    chart: Chart,
    bands: dict[str, Band],
    methods: Sequence[Method],
    axis: str,
    played: Sequence[Evaluated] = (),
) -> None:
    """Draw the curves of ``methods`` into ``path``: raw return left, normalized right, the expert as a line.

    A method without extent along ``axis`` (no environment steps, no expert queries) is a point at its end. A picture of one
    method also shows its runs. ``played`` are policies that were trained elsewhere, drawn in grey.
    """
    alone, styles = len(methods) == 1, line_styles(chart)
    with rc_context(STYLE):
        columns = math.ceil(len(methods) / NAMES_PER_COLUMN)
        figure = Figure(figsize=(6.5 if alone else 6.5 + 2.5 * columns, 4.2), layout="constrained")
        axes = figure.subplots()
        for method in methods:
            if method.label in bands:
                _draw(axes, bands[method.label], *styles[method.label], method.label, alone)
        draw_over(axes, with_greys(played), along=axis.endswith("steps"))
        axes.set_xlabel(AXIS_LABELS[axis])
        axes.set_ylabel("return")
        horizontal = scale(bands[method.label] for method in methods if method.label in bands)
        if horizontal.logarithmic:
            axes.set_xscale("symlog", linthresh=horizontal.linear_part, linscale=0.3)
        for side in (axes.xaxis, axes.yaxis):
            side.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.margins(x=0.02)
        _draw_expert(axes, chart)
        title = f"{chart.name}: {methods[0].label}" if alone else chart.name
        axes.set_title("\n".join(textwrap.wrap(title, 80)), loc="left", fontsize=11)
        if not alone:
            figure.legend(loc="outside right upper", ncols=columns, frameon=False, fontsize=8.5, handlelength=2.4)
        figure.savefig(path, metadata={"Date": None})


def _draw(axes: Axes, curve: Band, colour: str, dashes: str, label: str, alone: bool) -> None:
    label = "\n".join(textwrap.wrap(label, 36))
    if len(curve.x) == 1:
        ends = None if curve.interval is None else np.abs(np.stack(curve.interval) - curve.center)
        marker = MARKERS[dashes]
        axes.errorbar(curve.x, curve.center, ends, color=colour, marker=marker, capsize=3, linestyle="none", label=label)
        return
    if alone:
        axes.plot(curve.x, curve.runs.T, color=colour, linewidth=0.7, alpha=0.4)
    if curve.interval is not None:
        axes.fill_between(curve.x, *curve.interval, color=colour, alpha=0.18, linewidth=0)
    axes.plot(curve.x, curve.center, color=colour, linestyle=dashes, linewidth=1.8, label=label)


def _draw_expert(axes: Axes, chart: Chart) -> None:
    """The expert's return as a line, and the normalized return on the right."""
    references = chart.references
    if not references.has_expert:
        return
    axes.axhline(references.expert_return, color="#222222", linewidth=1, linestyle=(0, (6, 3)), zorder=1.5)
    axes.annotate(
        f"expert return {chart.show_return(references.expert_return)}",
        (0.99, references.expert_return),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        horizontalalignment="right",
        fontsize=8.5,
        color="#222222",
    )
    right = axes.secondary_yaxis("right", functions=(references.normalized, references.unnormalized))
    right.set_ylabel("normalized return (random 0, expert 1)")


def draw_evaluations(path: Path, references: Sequence[Evaluated]) -> None:
    """Write a picture of returns over the steps of training, of one environment."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        draw_over(axes, [(one, COLOURS[number % len(COLOURS)]) for number, one in enumerate(references)])
        expert_return = next((one.expert_return for one in references if np.isfinite(one.expert_return)), None)
        if expert_return is not None:
            axes.axhline(expert_return, color="#222222", linewidth=1, linestyle=(0, (6, 3)), label="expert")
        axes.set_xlabel("steps of training")
        axes.set_ylabel("return")
        for side in (axes.xaxis, axes.yaxis):
            side.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.set_title(references[0].environment_id, loc="left", fontsize=11)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})
