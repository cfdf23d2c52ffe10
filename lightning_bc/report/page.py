"""The report as one HTML page that opens offline: curves to hover over, the chart, and every run."""

import base64
import os
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from plotly.offline import get_plotlyjs

from lightning_bc.report import held_out
from lightning_bc.report.bands import Band
from lightning_bc.report.chart import Chart
from lightning_bc.report.comparison import Improvement, matrix
from lightning_bc.report.evaluations import Evaluated
from lightning_bc.report.held_out import HeldOutRow
from lightning_bc.report.page_curves import Legend, panel_figure, vertical_range
from lightning_bc.report.panels import Panel
from lightning_bc.report.styles import colour_of
from lightning_bc.runs.folders import CONFIG_FILE

_WHOLE = ("Method", "Final return", "Normalized", "Failed episodes", "Training time", "Action latency")
"""Columns whose cells are not broken into lines."""


@dataclass(frozen=True)
class Section:
    """What the page shows of one chart.

    Attributes:
        chart: its methods.
        panels: these by question.
        bands: their curves, by label.
        improvements: the probabilities of improvement between them.
        pictures: further pictures, SVG files by what they show.
        played: policies that were trained elsewhere.
    """

    chart: Chart
    panels: Sequence[Panel]
    bands: Mapping[str, Band]
    improvements: Sequence[Improvement]
    pictures: Mapping[str, Path]
    played: Sequence[Evaluated] = ()


class Shown(TypedDict):
    """What the page shows beside the charts.

    Attributes:
        logs: the folder of runs.
        counted: how many runs are in charts.
        held_out: the rows of those without a simulator.
        left_out: what is not counted or not whole, with the reason.
    """

    logs: str
    counted: int
    held_out: Sequence[HeldOutRow]
    left_out: Mapping[str, str]


def write_page(path: Path, sections: Sequence[Section], axis: str, output: Path, shown: Shown) -> None:
    """Write the page.

    Args:
        path: the file.
        sections: one for each chart, in their order.
        axis: what the curves are drawn over.
        output: the folder where the page will lie, from which it links to the runs' configurations.
        shown: what is beside the charts.
    """
    template = Environment(loader=PackageLoader("lightning_bc.report", "."), autoescape=True).get_template("page.html")
    nonce = secrets.token_urlsafe(16)                               # the browser runs the scripts that bear it alone
    contents = [_content(section, axis, output, number, nonce) for number, section in enumerate(sections)]
    fixed = {"whole": _WHOLE, "held_out_table": held_out, "library": get_plotlyjs(), "nonce": nonce}
    path.write_text(template.render(shown, sections=contents, **fixed))


def _content(section: Section, axis: str, output: Path, number: int, nonce: str) -> dict[str, object]:
    chart = section.chart
    vertical = vertical_range(section.bands.values(), chart.references, section.played)
    return {
        "chart": chart,
        "panels": [
            _panel(
                panel, nonce, f"{number}-{place}",
                *panel_figure(chart, panel, section.bands, axis, section.played, vertical),
            )
            for place, panel in enumerate(section.panels)
        ],
        "rows": [(method, chart.cells(method)) for method in chart.methods],
        "colours": {method.label: colour_of(method.strategy) for method in chart.methods},
        "runs": [
            (method, run, shlex.quote(str(config)), quote(Path(os.path.relpath(config, output)).as_posix()))
            for method in chart.methods
            for run in method.runs
            for config in [run.folder / CONFIG_FILE]
        ],
        "matrix": matrix(section.improvements),
        "compared": len({entry.method for entry in section.improvements}),
        "pictures": {
            words: "data:image/svg+xml;base64," + base64.b64encode(picture.read_bytes()).decode()
            for words, picture in section.pictures.items()
        },
    }


def _panel(panel: Panel, nonce: str, name: str, figure: go.Figure, legend: Sequence[Legend]) -> dict[str, Any]:
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=False,                                     # written into the page once
        div_id=f"curves-{name}",
        config={"displaylogo": False, "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]]},
    )
    drawn = re.sub(r"<script\b[^>]*>(?=\s*window\.PLOTLYENV)", f'<script nonce="{nonce}">', drawn)
    return {"id": f"curves-{name}", "title": panel.title, "drawn": drawn, "legend": legend}
