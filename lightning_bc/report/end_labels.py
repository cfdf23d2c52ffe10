"""Names at the right ends of curves: none lies over another, and a thin line leads to each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from lightning_bc.report.styles import GREY

LETTERS = 25
"""Of one line of a name."""

POINTS = 7.6
"""The size of its letters."""


@dataclass(frozen=True)
class End:
    """Where something that is drawn ends, in units of the data, and how it looks.

    Attributes:
        name: what is written.
        x: where it ends.
        y: where it ends.
        colour: its own.
        dashes: its own; empty for a solid line.
        marker: of a point; empty for a line.
    """

    name: str
    x: float
    y: float
    colour: str
    dashes: tuple[float, ...] = ()
    marker: str = ""


def save_labelled(figure: Figure, path: Path, named: Sequence[tuple[Axes, Sequence[End]]], place: float) -> None:
    """Lay out a figure, write the names, which need the final size of the axes, and the SVG file."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)                                      # drawing, which does that too, takes as long again
        figure.set_layout_engine("none")                            # else drawing lays out once more
    for axes, ends in named:
        label_ends(axes, ends, place)
    FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})    # savefig draws twice


def label_ends(axes: Axes, ends: Sequence[End], place: float) -> None:
    """Write the names from ``place`` on, a share of the width of ``axes``, whose size and limits must be final."""
    if not ends:
        return
    axes.autoscale(False)                                           # lines to the names must not change the limits
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = sorted(ends, key=lambda end: end.y)
    names = ["\n".join(wrap(end.name, LETTERS, max_lines=3, placeholder=" …")) for end in ends]
    points = to_axes.transform([(end.x, end.y) for end in ends])    # (ends, 2), shares of width and height
    line = POINTS * 1.3 / (axes.bbox.height * 72 / axes.figure.dpi)
    heights = line * np.array([name.count("\n") + 1.0 for name in names])
    for end, name, (x, y), level in zip(ends, names, points, spread(points[:, 1], heights), strict=True):
        shared: Any = {"color": end.colour, "transform": axes.transAxes, "clip_on": False}
        axes.plot([x, place + 0.01 * bool(end.marker)], [y, level], linewidth=0.6, alpha=0.5, **shared)
        if end.marker:
            axes.plot([place + 0.03], [level], marker=end.marker, linestyle="none", markersize=4.5, **shared)
        else:
            style: Any = (0, end.dashes) if end.dashes else "solid"
            axes.plot([place, place + 0.05], [level, level], linestyle=style, linewidth=1.8, **shared)
        centered: Any = {"verticalalignment": "center", "linespacing": 1.05, "transform": axes.transAxes}
        axes.text(place + 0.065, level, name, fontsize=POINTS, color=GREY, **centered)


def spread(wanted: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Places from 0 to 1 for things of some ``heights`` that are ``wanted`` at rising places, moved as little as it takes.

    The least sum of squared moves without overlaps is an isotonic regression of the places less the heights below them.
    More than fits from 0 to 1 goes over 1.
    """
    below = np.cumsum(heights) - heights / 2 - heights[0] / 2       # the distance of each from the first, if they touch
    free = isotonic_regression(wanted - below).x
    low, high = heights[0] / 2, 1 - heights[-1] / 2 - below[-1]
    return np.clip(free, low, max(low, high)) + below
