"""The report as one HTML page that opens offline: curves to hover over, the chart, and every run."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from matplotlib.colors import to_rgb

from lightning_bc.results.chart import COLUMNS, Chart, Method, Row, matrix
from lightning_bc.results.plots import AXIS_LABELS, Band, line_style

_DASHES = {"solid": "solid", "dashed": "dash", "dotted": "dot", "dashdot": "dashdot"}
"""matplotlib's names of dashes in plotly's words."""


@dataclass(frozen=True)
class Section:
    """What the page shows of one chart.

    Attributes:
        chart: its methods.
        bands: their curves, by label.
        improvements: the probabilities of improvement between them.
        best: the picture of the best method, an SVG file.
    """

    chart: Chart
    bands: dict[str, Band]
    improvements: Sequence[Row]
    best: Path


def write_page(path: Path, sections: Sequence[Section], axis: str, **shown: Any) -> None:
    """Write the page.

    Args:
        path: the file.
        sections: one for each chart, in their order.
        axis: what the curves are drawn over.
        shown: what page.html names besides.
    """
    template = Environment(loader=PackageLoader("lightning_bc", "results"), autoescape=True).get_template("page.html")
    contents = [_content(section, axis, first=number == 0) for number, section in enumerate(sections)]
    path.write_text(template.render(sections=contents, columns=COLUMNS, **shown))


def _content(section: Section, axis: str, first: bool) -> dict[str, Any]:
    chart = section.chart
    cells = matrix(chart.methods, section.improvements)
    return {
        "chart": chart,
        # the library is written into the page once
        "curves": _curves(section, axis).to_html(
            full_html=False, include_plotlyjs=first, div_id=f"curves-{chart.name}", config={"displaylogo": False}
        ),
        "rows": [(method, chart.cells(method)) for method in chart.methods],
        "colours": {method.label: line_style(chart, method)[0] for method in chart.methods},
        "matrix": cells,
        "left_out": len(chart.methods) - len(cells),
        "best": "data:image/svg+xml;base64," + base64.b64encode(section.best.read_bytes()).decode(),
    }


def _curves(section: Section, axis: str) -> go.Figure:
    chart, figure = section.chart, go.Figure()
    for method in chart.methods:
        if method.label in section.bands:
            for trace in _traces(chart, method, section.bands[method.label]):
                figure.add_trace(trace)
    figure.update_layout(
        template="plotly_white",
        height=520,
        margin={"l": 70, "r": 20, "t": 20, "b": 50},
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
            annotation={"text": f"expert {chart.show_return(references.expert_return)}", "yanchor": "bottom"},
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
                "tickvals": references.random_return + normalized * (references.expert_return - references.random_return),
                "ticktext": [f"{value:.1f}" for value in normalized],
            }
        )
    return figure


def _traces(chart: Chart, method: Method, band: Band) -> list[go.Scatter]:
    """The band, and over it the line; a method without extent along the axis is a point."""
    colour, dashes = line_style(chart, method)
    shared: dict[str, Any] = {"legendgroup": method.label, "name": method.label}
    lines = [f"<b>{method.label}</b>", "%{x:,.6~g}: return %{y:,.5~g}"]
    columns = []
    if chart.references.has_expert:
        lines.append("normalized %{customdata[0]:.3f}")
    columns.append(chart.references.normalized(band.center))
    if band.low is not None:
        lines.append("95% interval %{customdata[1]:,.5~g} to %{customdata[2]:,.5~g}")
        columns += [band.low, band.high]
    line = go.Scatter(
        x=band.x,
        y=band.center,
        mode="lines" if len(band.x) > 1 else "markers",
        line={"color": colour, "dash": _DASHES[dashes], "width": 2},
        marker={"color": colour, "size": 9},
        customdata=np.stack(columns, axis=-1),
        hovertemplate="<br>".join(lines) + "<extra></extra>",
        **shared,
    )
    if band.low is None or len(band.x) == 1:
        return [line]
    red, green, blue = (round(255 * part) for part in to_rgb(colour))
    area = go.Scatter(
        x=np.concatenate([band.x, band.x[::-1]]),
        y=np.concatenate([band.high, band.low[::-1]]),
        fill="toself",
        fillcolor=f"rgba({red}, {green}, {blue}, 0.18)",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        **shared,
    )
    return [area, line]
