"""The curves of one panel as an interactive figure, for the page."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_rgb

from lightning_bc.references import References
from lightning_bc.report.bands import AXIS_LABELS, Band
from lightning_bc.report.chart import Chart
from lightning_bc.report.evaluations import Evaluated, within
from lightning_bc.report.panels import Panel
from lightning_bc.report.styles import DASHES, GREY, GREYS, colour_of, root, root_ticks, variants

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x")
"""plotly's names of styles.MARKERS."""

GRID = "rgba(122, 122, 122, 0.25)"


@dataclass(frozen=True)
class Legend:
    """A line of a panel's legend.

    Attributes:
        name: what is drawn.
        colour: its own.
        dashes: as an SVG has them; empty for a solid line.
        traces: the numbers of its traces in the figure.
    """

    name: str
    colour: str
    dashes: str
    traces: tuple[int, ...]


def panel_figure(
    chart: Chart,
    panel: Panel,
    bands: Mapping[str, Band],
    axis: str,
    played: Sequence[Evaluated],
    vertical: tuple[float, float],
) -> tuple[go.Figure, list[Legend]]:
    """The figure, which has no legend of its own, and what a legend says.

    plotly knows no square-root axis: x is transformed, and ticks and hovering show the values behind it. It reads tags in
    names, so that those are escaped.
    """
    limit = max((float(bands[method.label].x[-1]) for method in panel.methods if method.label in bands), default=0.0) or 1.0
    traces: list[go.Scatter] = []
    legend = []
    numbers = variants([method.strategy for method in panel.methods])
    for method, name, variant in zip(panel.methods, panel.names, numbers, strict=True):
        if method.label in bands:
            colour = colour_of(method.strategy)
            own = _traces(chart.references, bands[method.label], name, colour, variant)
            legend.append(_legend(name, colour, DASHES[variant], len(traces), len(own)))
            traces += own
    for number, one in enumerate(played):
        colour, dashes = GREYS[number % len(GREYS)], DASHES[(number + 1) % len(DASHES)]
        legend.append(_legend(one.label, colour, dashes, len(traces), 1))
        x, means, _ = within(one, axis.endswith("steps"), limit)
        traces.append(_line(x, means, one.label, colour, dashes, ["%{customdata[0]:,.6~g}: return %{y:,.5~g}"], [x]))
    if chart.references.has_expert:
        expert = chart.references.expert_return
        name = f"expert return {chart.show_return(expert)}"
        legend.append(_legend(name, GREY, (4, 2), len(traces), 1))
        x = np.array([0.0, limit])
        traces.append(_line(x, np.full(2, expert), name, GREY, (4, 2), [], [x]))
    figure = go.Figure(traces)
    ticks = root_ticks(limit)
    shared: dict[str, Any] = {"gridcolor": GRID, "zeroline": False, "linecolor": GREY, "automargin": True}
    figure.update_layout(
        template="none",
        height=380,
        margin={"l": 62, "r": 56, "t": 30, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 11},
        showlegend=False,
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY},
        xaxis={
            "title": AXIS_LABELS[axis],
            "range": [-0.02 * root(limit), 1.02 * root(limit)],
            "tickvals": [float(root(tick)) for tick in ticks],
            "ticktext": [f"{tick:,.10g}" for tick in ticks],
            "tickangle": 0,
            **shared,
        },
        yaxis={"title": "return", "tickformat": ",", "range": vertical, **shared},
    )
    if chart.references.has_expert:
        _add_normalized(figure, chart.references, vertical)
    return figure, legend


def vertical_range(bands: Iterable[Band], references: References, played: Sequence[Evaluated]) -> tuple[float, float]:
    """The returns that all panels of a chart show."""
    bands = list(bands)
    values = [value for band in bands for part in (band.center, *(band.interval or ())) for value in part]
    values += [value for one in played for value in one.means] + [references.expert_return] * references.has_expert
    low, high = (float(np.min(values)), float(np.max(values))) if values else (0.0, 1.0)
    room = 0.04 * (high - low or 1.0)
    return low - room, high + room


def _add_normalized(figure: go.Figure, references: References, vertical: tuple[float, float]) -> None:
    """The same axis in other words, so that both stay together whatever is zoomed into."""
    low, high = sorted(references.normalized(np.array(vertical)))
    step = next(unit for unit in (c * 10.0**p for p in range(-3, 12) for c in (1, 2, 5)) if (high - low) / unit <= 7)
    values = step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)
    figure.add_trace(go.Scatter(x=[None], y=[None], yaxis="y2", hoverinfo="skip"))
    figure.update_layout(
        yaxis2={
            "title": "normalized (random 0, expert 1)",
            "overlaying": "y",
            "matches": "y",
            "side": "right",
            "showgrid": False,
            "zeroline": False,
            "automargin": True,
            "tickvals": references.unnormalized(values),
            "ticktext": [f"{value:.10g}" for value in np.round(values, 6) + 0.0],
        }
    )


def _legend(name: str, colour: str, dashes: Sequence[float], first: int, number: int) -> Legend:
    return Legend(name, colour, " ".join(f"{2 * part:g}" for part in dashes), tuple(range(first, first + number)))


def _traces(references: References, band: Band, name: str, colour: str, variant: int) -> list[go.Scatter]:
    """The band, and over it the line; a method without extent along the axis is a point."""
    words, columns = ["%{customdata[0]:,.6~g}: return %{y:,.5~g}"], [band.x]
    if references.has_expert:
        words.append(f"normalized %{{customdata[{len(columns)}]:.3f}}")
        columns.append(references.normalized(band.center))
    if band.interval is not None:
        first = len(columns)
        words.append(f"95% interval %{{customdata[{first}]:,.5~g}} to %{{customdata[{first + 1}]:,.5~g}}")
        columns += band.interval
    line = _line(band.x, band.center, name, colour, DASHES[variant], words, columns)
    if len(band.x) == 1:
        line.update(mode="markers", marker={"size": 9, "symbol": SYMBOLS[variant], "color": colour})
    if band.interval is None:
        return [line]
    low, high = band.interval
    x = root(band.x)
    area = go.Scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=f"rgba{(*(round(255 * part) for part in to_rgb(colour)), 0.14)}",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )
    return [area, line]


def _line(
    x: np.ndarray,
    y: np.ndarray,
    name: str,
    colour: str,
    dashes: Sequence[float],
    words: Sequence[str],
    columns: Sequence[np.ndarray],
) -> go.Scatter:
    """A line whose hovering says its name and ``words``, which refer to ``columns``."""
    return go.Scatter(
        x=root(x),
        y=y,
        mode="lines",
        line={"color": colour, "dash": ",".join(f"{2 * part:g}px" for part in dashes) or "solid", "width": 2},
        name=escape(name),
        customdata=np.stack(columns, axis=-1),
        hovertemplate="<br>".join([f"<b>{_hovered(name)}</b>", *words]) + "<extra></extra>",
    )


def _hovered(name: str) -> str:
    """A name in a template: neither tags nor %{...} in it are read."""
    return escape(name).replace("%{", "%&#123;")
