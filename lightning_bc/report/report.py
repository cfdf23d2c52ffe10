"""The report: curves, chart, sentence and page from the runs under a folder."""

import itertools
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from lightning_bc.errors import InputError
from lightning_bc.report.bands import band
from lightning_bc.report.chart import Chart, make_charts
from lightning_bc.report.comparison import improvements, matrix
from lightning_bc.report.evaluations import Evaluated, read_evaluations
from lightning_bc.report.held_out import COLUMNS as HELD_OUT_COLUMNS
from lightning_bc.report.held_out import NOTE, TITLE, HeldOutRow, held_out_rows
from lightning_bc.report.labels import counted
from lightning_bc.report.page import Section, Shown, write_page
from lightning_bc.report.panels import make_panels
from lightning_bc.report.plots import draw_method, draw_panels
from lightning_bc.report.scores import demonstrations_points, draw_scores, time_points
from lightning_bc.report.study import fill_page, report_study
from lightning_bc.report.tables import csv_table, latex_table, markdown_table, show_interval
from lightning_bc.runs.plan import Study
from lightning_bc.runs.records import FinishedRecord, Record, read_records

MOST = 20
"""So many methods, the best, have pictures of their own, and are compared with each other."""

Axis = Literal["optimizer_steps", "environment_steps", "expert_queries", "seconds"]


def report(
    logs: str | None = None,
    output: str = "docs/results",
    x: Axis = "optimizer_steps",
    references: list[str] | None = None,
    study: str | None = None,
    page: str | None = None,
) -> None:
    """Report on runs: reward-over-time curves, a chart, a sentence and an HTML page; see docs/report.md.

    Args:
        logs: folder of runs.
        output: folder to write to; files of an earlier report there are replaced.
        x: what the curves are drawn over.
        references: files of ``evaluate --output``, whose policies are drawn into the chart of their environment: over their
            own steps of training where ``x`` is steps, else as a line at the return of the last.
        study: a file of studies/, whose runs alone are reported on; without ``logs``, its table is printed instead.
        page: put the tables of all studies that this page has markers for into it instead.

    Raises:
        InputError: if there is no finished run, or the folders cannot be used.
    """
    if page is not None:
        fill_page(page)
        print(f"filled            {page}")
    if logs is None and study is not None:
        print(report_study(study), end="")
    if logs is None:
        if page is None and study is None:
            raise InputError("report: wanted the folder of runs, usually lightning_logs; or --study FILE, or --page FILE.")
        return
    wanted = {fit.name for fit in Study.read(study).fits} if study else None
    records, held_out, left_out = _read(Path(logs), Path(output), wanted)
    charts = make_charts(records)
    if not charts and not held_out:
        raise InputError(f"{logs}: holds runs of a search alone, by which sweep has chosen; no table shows these.")
    folders = file_names([chart.name for chart in charts])
    played = [one for path in references or () for one in read_evaluations(path)]
    drawn = {chart.name: [one for one in played if one.environment_id == chart.environment_id] for chart in charts}
    known = {chart.environment_id for chart in charts}
    for one in played:
        if one.environment_id not in known:
            print(f"--references {one.label}: is not drawn, for no run has played in {one.environment_id}", file=sys.stderr)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=Path(output).parent, prefix=".report-") as folder:
        new = Path(folder)
        sections = [_write_chart(new / folders[chart.name], chart, x, drawn[chart.name]) for chart in charts]
        (new / "report.md").write_text(_markdown(sections, folders, held_out, left_out))
        if held_out:
            (new / "held_out.csv").write_text(csv_table([asdict(row) for row in held_out]))
        runs = sum(len(method.runs) for chart in charts for method in chart.methods)
        shown: Shown = {"logs": logs, "counted": runs, "held_out": held_out, "left_out": left_out}
        write_page(new / "report.html", sections, x, Path(output), shown)
        for path in sorted(path for path in new.rglob("*") if path.is_file()):
            target = Path(output) / path.relative_to(new)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)                                    # whole or not at all
    for name, reason in left_out.items():
        print(f"{name}: {reason}", file=sys.stderr)
    for chart in charts:
        print(f"{chart.name}: {counted(len(chart.methods), 'method')}. {chart.sentence()}")
    if held_out:
        print(f"{TITLE.lower()}: {counted(len(held_out), 'method')} without a return: held_out.csv")
    print(f"\nreport            {output}/report.md\npage              {output}/report.html")


def _read(logs: Path, output: Path, wanted: set[str] | None) -> tuple[list[Record], list[HeldOutRow], dict[str, str]]:
    """The runs, ``wanted`` or all, the table of those without a simulator, and what is not counted or whole, and why."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output}: is a file; wanted a folder.")
    records, held_out, left_out = read_records(logs)
    if wanted is not None:
        records = [run for run in records if run.folder.name in wanted]
        held_out = [run for run in held_out if run.folder.name in wanted]
        left_out = {path: reason for path, reason in left_out.items() if Path(path).parent.name in wanted}
    unfinished = [run for run in records if not isinstance(run, FinishedRecord)]
    left_out |= {str(run.folder): "unfinished: no results.json, not counted" for run in unfinished}
    if len(unfinished) == len(records) and not held_out:
        found = "".join(f"\n  {path}: {reason}" for path, reason in left_out.items()) if logs.is_dir() else ""
        raise InputError(
            f"{logs}: {'holds no finished run' if logs.is_dir() else 'no such folder'}. A finished run is a folder with "
            "config.yaml and results.json, as fit writes it under lightning_logs. Name the folder of runs, or train one: "
            f"python -m lightning_bc fit --config configs/gmm.yaml{found}"
        )
    return records, held_out_rows(held_out), left_out


def _write_chart(folder: Path, chart: Chart, axis: str, played: list[Evaluated]) -> Section:
    """The pictures and tables of one chart."""
    folder.mkdir()
    bands = {method.label: curve for method in chart.methods if (curve := band(method, axis)) is not None}
    panels = make_panels(chart)
    draw_panels(folder / "curves.svg", chart, panels, bands, axis, played)
    names = file_names([method.label for method in chart.methods])
    for method in chart.methods[:MOST]:
        if method.label in bands:
            draw_method(folder / f"curves-{names[method.label]}.svg", chart, method, bands[method.label], axis)
    pictures = _draw_costs(folder, chart)
    best = folder / f"curves-{names[chart.best.label]}.svg"
    if best.exists():
        pictures["The best method"] = best
    rows = [chart.cells(method) for method in chart.methods]
    (folder / "chart.md").write_text(markdown_table(chart.columns, rows))
    (folder / "chart.tex").write_text(latex_table(chart.columns, rows))
    (folder / "chart.csv").write_text(csv_table([asdict(method.row) | method.special for method in chart.methods]))
    compared = improvements(chart.methods[:MOST])
    if compared:
        (folder / "improvement.csv").write_text(csv_table([asdict(entry) for entry in compared]))
    return Section(chart, panels, bands, compared, pictures, played)


def _draw_costs(folder: Path, chart: Chart) -> dict[str, Path]:
    """The pictures of scores against what they cost, by what they show; which cannot be drawn is said."""
    known = chart.references.has_expert
    vertical = "normalized score (random 0, expert 1)" if known else "score"
    drawn = {}
    for name, points, words, horizontal in (
        ("demonstrations", demonstrations_points(chart), "Score against demonstrations", "training pairs"),
        ("time", time_points(chart), "Score against training time", "seconds of training, median over seeds"),
    ):
        path = folder / f"scores-{name}.svg"
        if draw_scores(path, points, f"{chart.name}: {words.lower()}", horizontal, vertical, 1.0 if known else None):
            drawn[words] = path
        else:
            print(f"{chart.name}: no picture of the {words.lower()}, which needs two points apart", file=sys.stderr)
    return drawn


def _markdown(
    sections: list[Section], folders: Mapping[str, str], held_out: list[HeldOutRow], left_out: dict[str, str]
) -> str:
    parts = ["# Results\n"]
    for section in sections:
        chart, folder = section.chart, folders[section.chart.name]
        parts += [
            f"## {chart.name}\n",
            f"![Return while learning, all methods]({folder}/curves.svg)\n",
            *(f"![{words}]({folder}/{path.name})\n" for words, path in section.pictures.items()),
            markdown_table(chart.columns, [chart.cells(method) for method in chart.methods]),
            f"**{chart.sentence()}**\n",
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
    if held_out:
        parts += [f"## {TITLE}\n", f"{NOTE}\n", markdown_table(HELD_OUT_COLUMNS, [row.cells for row in held_out])]
    if left_out:
        parts += ["## Not counted, or not whole\n", "".join(f"- `{path}`: {why}\n" for path, why in left_out.items())]
    return "\n".join(parts)


def file_names(words: Sequence[str]) -> dict[str, str]:
    """Words as names of files, of which no two are one file, also where upper and lower case are the same."""
    found: dict[str, str] = {}
    for text in dict.fromkeys(words):
        name = re.sub(r"[^\w.=-]+", "-", text).strip("-")[:120]
        taken = {other.lower() for other in found.values()}
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        found[text] = next(one for one in itertools.chain([name], numbered) if one.lower() not in taken)
    return found
