"""Scores against what they cost, as pictures: demonstrations, or time of training."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from lightning_bc.report.chart import Chart, Method
from lightning_bc.report.end_labels import End, save_labelled
from lightning_bc.report.labels import unique_labels
from lightning_bc.report.styles import DASHES, GREY, MARKERS, STYLE, colour_of, root, unroot, variants

LENGTHS = ("max_epochs", "max_steps", "total_environment_steps")
"""Parameters that may differ along a line: one pass over four episodes is another length than one over thousands."""

NAMES_FROM = 0.7


@dataclass(frozen=True)
class Point:
    """A point of a picture of scores.

    Attributes:
        name: of its line; points of one name are joined.
        strategy: what has the colour.
        x: what it cost.
        y: the score.
        low: lower end of its 95% interval; None for one run.
        high: the upper end.
    """

    name: str
    strategy: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


def demonstrations_points(chart: Chart) -> list[Point]:
    """Normalized score against training pairs: a line for each strategy, kind of actions and set of parameters.

    The length of training may differ along a line. A method that no line joins is a point, if it was given fewer pairs than
    the most of the chart; those of the most are in the picture of curves.
    """
    lines: dict[tuple[str, str, str], list[Method]] = defaultdict(list)
    for method in chart.methods:
        data = method.runs[0].results.data
        if data is not None:
            parameters = {name: value for name, value in method.parameters.items() if name not in LENGTHS}
            lines[method.strategy, data.actions or "", repr(sorted(parameters.items()))].append(method)
    found = []
    most = max((_pairs(method) for line in lines.values() for method in line), default=0)
    kept = [line for line in lines.values() if len({_pairs(method) for method in line}) > 1 or _pairs(line[0]) < most]
    details: list[dict[str, str]] = []
    for line in kept:
        shared = set.intersection(*(set(method.details.items()) for method in line))
        details.append({name: words for name, words in line[0].details.items() if (name, words) in shared})
    names = unique_labels([line[0].strategy for line in kept], details)
    for name, line in zip(names, kept, strict=True):
        found += [_point(method, name, float(_pairs(method))) for method in line]
    return found


def time_points(chart: Chart) -> list[Point]:
    """Normalized score against seconds of training, each method a point."""
    names = [method.label for method in chart.methods]
    return [_point(m, name, m.row.training_seconds) for m, name in zip(chart.methods, names, strict=True)]


def _pairs(method: Method) -> int:
    data = method.runs[0].results.data
    return 0 if data is None else data.training_pairs


def _point(method: Method, name: str, x: float) -> Point:
    if np.isnan(method.row.normalized):                             # no expert: raw returns
        low, high = method.score_interval or (None, None)
        return Point(name, method.strategy, x, method.score, low, high)
    return Point(name, method.strategy, x, method.row.normalized, method.row.normalized_low, method.row.normalized_high)


def draw_scores(
    path: Path, points: Sequence[Point], title: str, horizontal: str, vertical: str, expert: float | None
) -> bool:
    """Draw scores over a logarithmic axis into ``path``, points of one name joined, each name at its last point.

    Towards the best score, where most methods lie, the vertical axis is stretched: it is the square root of the distance
    from it.

    Args:
        path: an SVG file.
        points: what is drawn; those without a positive finite x are left out.
        title: of the picture.
        horizontal: name of the horizontal axis, with its unit.
        vertical: name of the vertical axis.
        expert: the expert's score; None where it is not known.

    Returns:
        Whether it was drawn: it is not where fewer than two points are left, or all have one x.
    """
    points = [point for point in points if np.isfinite(point.x) and point.x > 0 and np.isfinite(point.y)]
    if len({point.x for point in points}) < 2:
        return False
    lines: dict[str, list[Point]] = defaultdict(list)
    for point in sorted(points, key=lambda point: point.x):
        lines[point.name].append(point)
    with rc_context(STYLE):
        figure = Figure(figsize=(8, max(3.6, 0.2 * len(lines) + 0.9)), layout="tight")
        axes = figure.subplots()
        ends = []
        numbers = variants([line[0].strategy for line in lines.values()])
        for (name, line), variant in zip(lines.items(), numbers, strict=True):
            style: Any = (0, DASHES[variant]) if variant else "solid"
            colour = colour_of(line[0].strategy)
            x, y = [point.x for point in line], [point.y for point in line]
            low = [point.y if point.low is None else point.low for point in line]
            high = [point.y if point.high is None else point.high for point in line]
            if len(line) > 1:
                axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
            axes.vlines(x, low, high, color=colour, linewidth=1)
            axes.plot(x, y, color=colour, marker=MARKERS[variant], markersize=5, linewidth=1.6, linestyle=style)
            ends.append(End(name, x[-1], y[-1], colour, DASHES[variant], "" if len(line) > 1 else MARKERS[variant]))
        first, last = min(point.x for point in points), max(point.x for point in points)
        if expert is not None:
            axes.plot([first, last], [expert, expert], color=GREY, linewidth=1, linestyle=(0, (4, 2)), zorder=1.5)
            ends.append(End("expert", last, expert, GREY, (4.0, 2.0)))
        axes.set_xscale("log")
        width = np.log(last / first) / (NAMES_FROM - 0.05)
        axes.set_xlim(first / np.exp(0.02 * width), first * np.exp(0.98 * width))
        decades = [10.0**power for power in range(-3, 13)]
        inside = [tick for tick in decades if first <= tick <= last]
        ticks = inside if len(inside) > 2 else [c * tick for tick in decades for c in (1, 2, 5) if first <= c * tick <= last]
        axes.set_xticks(ticks)
        axes.set_xticks([], minor=True)
        top = max(point.y for point in points)
        axes.set_yscale("function", functions=(lambda y: -root(top - y), lambda place: top - unroot(-place)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.10g}"))
        axes.set_xlabel(horizontal, loc="left")
        axes.set_ylabel(f"{vertical},\nstretched towards the best")
        axes.set_title(title)
        save_labelled(figure, path, [(axes, ends)], NAMES_FROM)
    return True
