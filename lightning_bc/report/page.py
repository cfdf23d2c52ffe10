"""The report as one HTML page that opens offline: curves to hover over, the chart, and every run."""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from matplotlib.colors import to_rgb

from lightning_bc.references import References
from lightning_bc.report.chart import COLUMNS, Chart
from lightning_bc.report.comparison import Improvement, matrix
from lightning_bc.report.evaluations import Evaluated, with_greys
from lightning_bc.report.plots import AXIS_LABELS, MARKERS, Band, Scale, line_styles, scale
from lightning_bc.runs.folders import CONFIG_FILE

_WHOLE = ("Method", "Final return", "Normalized", "Failed episodes", "Training time", "Action latency")
"""Columns whose cells are not broken into lines."""

_DASHES = {"solid": "solid", "dashed": "dash", "dotted": "dot", "dashdot": "dashdot"}
_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond"}
"""matplotlib's names of dashes and markers in plotly's words."""


@dataclass(frozen=True)
class Section:
    """What the page shows of one chart.

    Attributes:
        chart: its methods.
        bands: their curves, by label.
        improvements: the probabilities of improvement between them.
        best: the picture of the best method, an SVG file.
        played: policies that were trained elsewhere.
    """

    chart: Chart
    bands: dict[str, Band]
    improvements: Sequence[Improvement]
    best: Path
    played: Sequence[Evaluated] = ()


def write_page(
    path: Path, sections: Sequence[Section], axis: str, output: Path, *, logs: str, counted: int, left_out: Mapping[str, str]
) -> None:
    """Write the page.

    Args:
        path: the file.
        sections: one for each chart, in their order.
        axis: what the curves are drawn over.
        output: the folder where the page will lie, from which it links to the runs' configurations.
        logs: the folder of runs.
        counted: how many runs were.
        left_out: what is not counted or not whole, with the reason.
    """
    template = Environment(loader=PackageLoader("lightning_bc.report", "."), autoescape=True).get_template("page.html")
    contents = [_content(section, axis, output, first=number == 0) for number, section in enumerate(sections)]
    shown = {"sections": contents, "columns": COLUMNS, "whole": _WHOLE, "logs": logs, "counted": counted}
    path.write_text(template.render(shown, left_out=left_out))


def _content(section: Section, axis: str, output: Path, first: bool) -> dict[str, object]:
    chart = section.chart
    cells = matrix(section.improvements)
    return {
        "chart": chart,
        # the library is written into the page once
        "curves": _curves(section, axis).to_html(
            full_html=False, include_plotlyjs=first, div_id=f"curves-{chart.name}", config={"displaylogo": False}
        ),
        "rows": [(method, chart.cells(method)) for method in chart.methods],
        "colours": {label: colour for label, (colour, _) in line_styles(chart).items()},
        "runs": [
            (method.label, run, config := run.folder / CONFIG_FILE, quote(Path(os.path.relpath(config, output)).as_posix()))
            for method in chart.methods
            for run in method.runs
        ],
        "matrix": cells,
        "compared": len({entry.method for entry in section.improvements}),
        "best": "data:image/svg+xml;base64," + base64.b64encode(section.best.read_bytes()).decode(),
    }


def _curves(section: Section, axis: str) -> go.Figure:
    chart, traces = section.chart, []
    for label, style in ((method.label, line_styles(chart)[method.label]) for method in chart.methods):
        if label in section.bands:
            traces += _traces(chart.references, section.bands[label], label, *style)
    traces += [_reference(one, colour, axis) for one, colour in with_greys(section.played)]
    figure = go.Figure(traces)
    figure.update_layout(
        template="plotly_white",
        height=520,
        margin={"l": 70, "r": 20, "t": 60, "b": 50},
        xaxis={"title": AXIS_LABELS[axis], "tickformat": ","},
        yaxis={"title": "return", "tickformat": ","},
        legend={"x": 1.08, "y": 1},
        hoverlabel={"align": "left"},
    )
    references = chart.references
    if references.has_expert:
        figure.add_hline(
            references.expert_return,
            line={"dash": "dash", "width": 1, "color": "#222222"},
            annotation={"text": f"expert return {chart.show_return(references.expert_return)}", "yanchor": "bottom"},
            annotation_position="top right",
        )
        # the same axis in other words, so that both stay together whatever is zoomed into
        normalized = np.arange(-20, 21) / 10
        figure.add_trace(go.Scatter(x=[None], y=[None], yaxis="y2", showlegend=False, hoverinfo="skip"))
        figure.update_layout(
            yaxis2={
                "title": "normalized return (random 0, expert 1)",
                "overlaying": "y",
                "matches": "y",
                "side": "right",
                "showgrid": False,
                "zeroline": False,
                "tickvals": references.unnormalized(normalized),
                "ticktext": [f"{value:.1f}" for value in normalized],
            }
        )
    _add_scales(figure, scale(section.bands.values()))
    return figure


def _reference(one: Evaluated, grey: str, axis: str) -> go.Scatter:
    """A policy that was trained elsewhere."""
    along = one.is_curve and axis.endswith("steps")
    return go.Scatter(
        x=one.steps if along else [0],
        y=one.means if along else one.means[-1:],
        mode="lines+markers",
        line={"color": grey, "width": 1.6},
        name=escape(one.label),
        hovertemplate=f"<b>{escape(one.label)}</b><br>%{{x:,.6~g}}: return %{{y:,.5~g}}<extra></extra>",
    )


def _add_scales(figure: go.Figure, horizontal: Scale) -> None:
    """Buttons for a linear and a logarithmic axis, which begins where the other kind of picture ends to be linear."""
    kinds = {"linear": [trace.x for trace in figure.data]}
    kinds["log"] = [np.maximum(np.asarray(x, dtype=float), horizontal.linear_part) for x in kinds["linear"]]
    chosen = "log" if horizontal.logarithmic else "linear"
    for trace, x in zip(figure.data, kinds[chosen], strict=True):
        trace.x = x
    ticks = {"linear": None, "log": "D2"}                           # 1, 2, 5, 10, ...
    buttons = [
        {"label": kind, "method": "update", "args": [{"x": x}, {"xaxis.type": kind, "xaxis.dtick": ticks[kind]}]}
        for kind, x in kinds.items()
    ]
    place = {"x": 1, "xanchor": "right", "y": 1.03, "yanchor": "bottom"}  # above the curves
    menu = {"type": "buttons", "direction": "right", "buttons": buttons, "active": list(kinds).index(chosen), **place}
    figure.update_layout(updatemenus=[menu], xaxis={"type": chosen, "dtick": ticks[chosen]})


def _traces(references: References, band: Band, label: str, colour: str, dashes: str) -> list[go.Scatter]:
    """The band, and over it the line; a method without extent along the axis is a point."""
    shared = {"legendgroup": label, "name": label}
    lines, columns = [f"<b>{label}</b>", "%{x:,.6~g}: return %{y:,.5~g}"], [references.normalized(band.center)]
    if references.has_expert:
        lines.append("normalized %{customdata[0]:.3f}")
    if band.interval is not None:
        lines.append("95% interval %{customdata[1]:,.5~g} to %{customdata[2]:,.5~g}")
        columns += band.interval
    line = go.Scatter(
        x=band.x,
        y=band.center,
        mode="lines" if len(band.x) > 1 else "markers",
        line={"color": colour, "dash": _DASHES[dashes], "width": 2},
        marker={"size": 9, "symbol": _SYMBOLS[MARKERS[dashes]]},
        customdata=np.stack(columns, axis=-1),
        hovertemplate="<br>".join(lines) + "<extra></extra>",
        **shared,
    )
    if band.interval is None:
        return [line]
    low, high = band.interval
    area = go.Scatter(
        x=np.concatenate([band.x, band.x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=f"rgba{(*(round(255 * part) for part in to_rgb(colour)), 0.18)}",
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        **shared,
    )
    return [area, line]
