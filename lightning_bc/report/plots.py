"""Reward-over-time curves, drawn with matplotlib."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from lightning_bc.references import References
from lightning_bc.report.bands import AXIS_LABELS, Band
from lightning_bc.report.chart import Chart, Method
from lightning_bc.report.end_labels import End, save_labelled
from lightning_bc.report.evaluations import Evaluated, within
from lightning_bc.report.panels import Panel
from lightning_bc.report.styles import (
    COLOURS,
    DASHES,
    GREY,
    GREYS,
    MARKERS,
    STYLE,
    colour_of,
    root,
    root_ticks,
    unroot,
    variants,
)

NAMES_FROM = 0.64
"""Where names begin, as a share of a panel's width; curves end before it."""

EXPERT_DASHES = (4.0, 2.0)


def draw_panels(
    path: Path,
    chart: Chart,
    panels: Sequence[Panel],
    bands: Mapping[str, Band],
    axis: str,
    played: Sequence[Evaluated] = (),
) -> None:
    """Draw all curves of a chart into ``path``, a panel beside the other: raw return left, normalized right.

    All panels share the vertical axis. A method without extent along ``axis`` (no environment steps, no expert queries) is a
    point at its end. ``played`` are policies that were trained elsewhere, drawn in grey into every panel.
    """
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(5.6 * columns if columns > 1 else 7, 3.1 * rows + 0.3), layout="tight")
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for unused in grid[len(panels) :]:
            unused.remove()
        named = []
        for number, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
            styles = zip(panel.methods, panel.names, variants([method.strategy for method in panel.methods]), strict=True)
            drawn = [
                (bands[method.label], name, colour_of(method.strategy), variant)
                for method, name, variant in styles
                if method.label in bands
            ]
            named.append((axes, _draw(axes, chart, drawn, axis, played)))
            axes.set_title("\n".join(textwrap.wrap(panel.title, 70)))
            at_right = number % columns == columns - 1 or number == len(panels) - 1
            _finish(axes, chart.references, left=number % columns == 0, right=at_right)
        top = 1 - 0.08 / figure.get_figheight()                     # 0.08 inches are left above it
        figure.suptitle(f"{chart.name}: return while learning", x=0.01, y=top, horizontalalignment="left", fontsize=11)
        save_labelled(figure, path, named, NAMES_FROM)


def draw_method(path: Path, chart: Chart, method: Method, curve: Band, axis: str) -> None:
    """Draw the curve of one method with its single runs into ``path``."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 3.6), layout="tight")
        axes = figure.subplots()
        colour = colour_of(method.strategy)
        if len(curve.x) > 1:
            axes.plot(curve.x, curve.runs.T, color=colour, linewidth=0.7, alpha=0.5)
        named = [(axes, _draw(axes, chart, [(curve, method.strategy, colour, 0)], axis, ()))]
        axes.set_title("\n".join(textwrap.wrap(f"{chart.name}: {method.label}", 80)))
        _finish(axes, chart.references, left=True, right=True)
        save_labelled(figure, path, named, NAMES_FROM)


def _draw(
    axes: Axes, chart: Chart, drawn: Sequence[tuple[Band, str, str, int]], axis: str, played: Sequence[Evaluated]
) -> list[End]:
    """Draw curves (each with name, colour and number of variant), policies trained elsewhere, and the expert's return."""
    limit = max([float(curve.x[-1]) for curve, *_ in drawn], default=0.0) or 1.0
    ends = [_draw_band(axes, *each) for each in drawn]
    for number, one in enumerate(played):
        x, means, errors = within(one, axis.endswith("steps"), limit)
        colour, dashes = GREYS[number % len(GREYS)], DASHES[(number + 1) % len(DASHES)]
        axes.plot(x, means, color=colour, linestyle=(0, dashes), linewidth=1.4, zorder=1.8)
        axes.fill_between(x, means - 2 * errors, means + 2 * errors, color=colour, alpha=0.12, linewidth=0)
        ends.append(End(one.label, x[-1], means[-1], colour, dashes))
    if chart.references.has_expert:
        expert = chart.references.expert_return
        axes.plot([0, limit], [expert, expert], color=GREY, linewidth=1, linestyle=(0, EXPERT_DASHES), zorder=1.5)
        ends.append(End(f"expert return {chart.show_return(expert)}", limit, expert, GREY, EXPERT_DASHES))
    axes.set_xscale("function", functions=(root, unroot))
    end = root(limit) / (NAMES_FROM - 0.05)                         # of the axis, names included
    axes.set_xlim(unroot(-0.015 * end), unroot(0.985 * end))
    axes.set_xticks(root_ticks(limit))
    axes.set_xlabel(AXIS_LABELS[axis], loc="left")
    return ends


def _draw_band(axes: Axes, curve: Band, name: str, colour: str, variant: int) -> End:
    x, y = float(curve.x[-1]), float(curve.center[-1])
    if len(curve.x) == 1:
        lengths = None if curve.interval is None else np.abs(np.stack(curve.interval) - curve.center)
        axes.errorbar(curve.x, curve.center, lengths, color=colour, marker=MARKERS[variant], capsize=3, linestyle="none")
        return End(name, x, y, colour, marker=MARKERS[variant])
    if curve.interval is not None:
        axes.fill_between(curve.x, *curve.interval, color=colour, alpha=0.13, linewidth=0)
    dashes = DASHES[variant]
    axes.plot(curve.x, curve.center, color=colour, linestyle=(0, dashes) if dashes else "solid", linewidth=1.7)
    return End(name, x, y, colour, dashes)


def _finish(axes: Axes, references: References, left: bool, right: bool) -> None:
    """Thousands apart, the return's name at the left, the normalized return at the right."""
    for side in (axes.xaxis, axes.yaxis):
        side.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
    if left:
        axes.set_ylabel("return")
    if right and references.has_expert:
        beside = axes.secondary_yaxis("right", functions=(references.normalized, references.unnormalized))
        beside.set_ylabel("normalized (random 0, expert 1)")


def draw_evaluations(path: Path, references: Sequence[Evaluated]) -> None:
    """Write a picture of returns over the steps of training, of one environment."""
    with rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")  # which makes room for the legend outside
        axes = figure.subplots()
        limit = max((float(one.steps[-1]) for one in references if one.is_curve), default=1.0)
        for number, one in enumerate(references):
            x, means, errors = within(one, one.is_curve, limit)
            style: Any = {"color": list(COLOURS.values())[number % len(COLOURS)]}
            axes.plot(x, means, label=one.label, marker="." if one.is_curve else "", linewidth=1.6, **style)
            axes.fill_between(x, means - 2 * errors, means + 2 * errors, alpha=0.15, linewidth=0, **style)
        expert_return = next((one.expert_return for one in references if np.isfinite(one.expert_return)), None)
        if expert_return is not None:
            axes.axhline(expert_return, color=GREY, linewidth=1, linestyle=(0, EXPERT_DASHES), label="expert")
        axes.set_xlabel("steps of training")
        axes.set_ylabel("return")
        for side in (axes.xaxis, axes.yaxis):
            side.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.set_title(references[0].environment_id)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8.5)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {})
