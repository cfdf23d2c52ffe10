"""The report: curves, chart, sentence and page from the runs under a folder."""

import re
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from lightning_bc.errors import InputError
from lightning_bc.report.chart import COLUMNS, Chart, make_charts
from lightning_bc.report.comparison import improvements, matrix
from lightning_bc.report.page import Section, write_page
from lightning_bc.report.plots import band, draw_curves
from lightning_bc.report.study import fill_page, report_study
from lightning_bc.report.tables import csv_table, latex_table, markdown_table, show_interval
from lightning_bc.runs.records import FinishedRecord, Record, read_records

Axis = Literal["optimizer_steps", "environment_steps", "expert_queries", "seconds"]


def report(
    logs: str | None = None,
    output: str = "docs/results",
    x: Axis = "optimizer_steps",
    study: str | None = None,
    page: str | None = None,
) -> None:
    """Report on runs: reward-over-time curves, a chart, a sentence and an HTML page; see docs/report.md.

    Args:
        logs: folder of runs.
        output: folder to write to; files of an earlier report there are replaced.
        x: what the curves are drawn over.
        study: print the table of this file of studies/ instead.
        page: put the tables of all studies that this page has markers for into it instead.

    Raises:
        InputError: if there is no finished run, or the folders cannot be used.
    """
    if study is not None:
        print(report_study(study), end="")
    if page is not None:
        fill_page(page)
        print(f"filled            {page}")
    if study is not None or page is not None:
        return
    if logs is None:
        raise InputError("report: wanted the folder of runs, usually lightning_logs; or --study FILE, or --page FILE.")
    records, left_out = _read(Path(logs), Path(output))
    charts = make_charts(records)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path(output).parent, prefix=".report-") as folder:
        new = Path(folder)
        sections = [_write_chart(new / file_name(chart.name), chart, x) for chart in charts]
        (new / "report.md").write_text(_markdown(sections, left_out))
        counted = sum(len(method.runs) for chart in charts for method in chart.methods)
        write_page(new / "report.html", sections, x, Path(output), logs=logs, counted=counted, left_out=left_out)
        for path in sorted(path for path in new.rglob("*") if path.is_file()):
            target = Path(output) / path.relative_to(new)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)                                    # whole or not at all
    for name, reason in left_out.items():
        print(f"{name}: {reason}", file=sys.stderr)
    for chart in charts:
        print(f"{chart.name}: {len(chart.methods)} methods. {chart.sentence()}")
    print(f"\nreport            {output}/report.md\npage              {output}/report.html")


def _read(logs: Path, output: Path) -> tuple[list[Record], dict[str, str]]:
    """The runs, and what is not counted or not whole, with the reason."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; wanted a folder.")
    records, left_out = read_records(logs)
    unfinished = [run for run in records if not isinstance(run, FinishedRecord)]
    left_out |= {str(run.folder): "unfinished: no results.json, not counted" for run in unfinished}
    if len(unfinished) == len(records):
        found = "".join(f"\n  {path}: {reason}" for path, reason in left_out.items()) if logs.is_dir() else ""
        raise InputError(
            f"{logs}: {'holds no finished run' if logs.is_dir() else 'no such folder'}. A finished run is a folder with "
            "config.yaml and results.json, as fit writes it under lightning_logs. Name the folder of runs, or train one: "
            f"python -m lightning_bc fit --config configs/gmm.yaml{found}"
        )
    return records, left_out


def _write_chart(folder: Path, chart: Chart, axis: str) -> Section:
    """The pictures and tables of one chart."""
    folder.mkdir()
    bands = {method.label: curve for method in chart.methods if (curve := band(method, axis)) is not None}
    draw_curves(folder / "curves.svg", chart, bands, chart.methods, axis)
    for method in chart.methods:
        draw_curves(folder / _picture(method.label), chart, bands, [method], axis)
    rows = [chart.cells(method) for method in chart.methods]
    (folder / "chart.md").write_text(markdown_table(COLUMNS, rows))
    (folder / "chart.tex").write_text(latex_table(COLUMNS, rows))
    (folder / "chart.csv").write_text(csv_table([asdict(method.row) for method in chart.methods]))
    compared = improvements(chart.methods)
    if compared:
        (folder / "improvement.csv").write_text(csv_table([asdict(entry) for entry in compared]))
    return Section(chart, bands, compared, folder / _picture(chart.best.label))


def _markdown(sections: list[Section], left_out: dict[str, str]) -> str:
    parts = ["# Results\n"]
    for section in sections:
        chart, folder = section.chart, file_name(section.chart.name)
        parts += [
            f"## {chart.name}\n",
            f"![Return while learning, all methods]({folder}/curves.svg)\n",
            markdown_table(COLUMNS, [chart.cells(method) for method in chart.methods]),
            f"**{chart.sentence()}**\n",
            f"![Return while learning, the best method]({folder}/{_picture(chart.best.label)})\n",
        ]
        if section.improvements:
            cells = matrix(section.improvements)
            header = ["", *(label for label, _ in cells)]
            shown = [
                [label, *(show_interval(c.probability, c.low, c.high, 2) if c else "" for c in row)]
                for label, row in cells
            ]
            parts += [
                "Probability of improvement: that a run of the row's method scores above a run of the column's.\n",
                markdown_table(header, shown),
            ]
    if left_out:
        parts += ["## Not counted, or not whole\n", "".join(f"- `{path}`: {why}\n" for path, why in left_out.items())]
    return "\n".join(parts)


def file_name(words: str) -> str:
    """Words as the name of a file."""
    return re.sub(r"[^\w.=-]+", "-", words).strip("-")[:120]


def _picture(label: str) -> str:
    return f"curves-{file_name(label)}.svg"
