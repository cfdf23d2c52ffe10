"""The table of a study, from runs on disk and from docs/results.csv, printed or put between its markers in a page."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lightning_bc.errors import InputError
from lightning_bc.files import write_text
from lightning_bc.report import statistics
from lightning_bc.report.comparison import LOWEST
from lightning_bc.report.tables import markdown_table
from lightning_bc.runs.plan import Study
from lightning_bc.runs.store import STORE, Line, measured, read_store, write_store

MARKERS = re.compile(r"(<!-- study: (\S+) -->\n).*?(<!-- /study -->)", re.DOTALL)

ONE_SEED = " (1 seed)"
"""In place of an interval."""


def mean_and_interval(values: np.ndarray) -> str:
    """Centre and 95% interval, both to three decimals."""
    ends = statistics.interval(values)
    if ends is None:
        return f"{values[0]:.3f}{ONE_SEED}"
    return f"{statistics.center(values):.3f} ± {(ends[1] - ends[0]) / 2:.3f}"


FIGURES: dict[str, Callable[[Mapping[str, np.ndarray]], str]] = {
    "seeds": lambda runs: str(len(runs["score"])),
    "score": lambda runs: f"{runs['score'].mean():.0f}",
    "normalized": lambda runs: mean_and_interval(runs["normalized"]),
    "worst seed": lambda runs: f"{runs['normalized'].min():.3f}",
    "failed episodes": lambda runs: f"{runs['failed_episodes'] @ runs['episodes']:.0f} of {runs['episodes'].sum():.0f}",
    "success": lambda runs: f"{runs['success'].mean():.3f}",
    "success, sampled": lambda runs: f"{runs['sampled_success'].mean():.3f}",
    "score, sampled": lambda runs: f"{runs['sampled_score'].mean():.2f}",
    "choice entropy, bit": lambda runs: f"{runs['sampled_choice_entropy'].mean():.3f}",
    "choice divergence, bit": lambda runs: f"{runs['sampled_choice_divergence'].mean():.4f}",
    "with sampled actions": lambda runs: f"{runs['sampled_normalized'].mean():.3f}",
    "training, s": lambda runs: f"{np.median(runs['training_seconds']):.0f}",
    "latency at 1, ms": lambda runs: f"{np.median(runs['latency_ms_1']):.2f}",
    "at 10, ms": lambda runs: f"{np.median(runs['latency_ms_10']):.2f}",
    "network evaluations": lambda runs: f"{runs['network_evaluations'][0]:g}",
    "parameters": lambda runs: f"{runs['parameters'][0]:,.0f}",
    "held-out loss": lambda runs: f"{runs['held_out_loss'].mean():.4g}",
    "held-out error": lambda runs: f"{runs['held_out_squared_error'].mean():.4g}",
    "largest held-out error": lambda runs: f"{runs['held_out_squared_error'].max():.4g}",
    "held-out absolute error": lambda runs: f"{runs['held_out_absolute_error'].mean():.4g}",
    "expert queries": lambda runs: f"{runs['expert_queries'].mean():,.0f}",
    "environment steps": lambda runs: f"{runs['environment_steps'].mean():,.0f}",
}
"""What a cell's runs are summed up by, each entry of their lines as (runs,). The held-out error is the root mean squared one
of the deterministic action, in the actions' own units."""


def check_figures(study: Study) -> None:
    """Raise InputError if a figure is not known."""
    if unknown := [figure for figure in study.figures if str(figure) not in FIGURES]:
        raise InputError(f"{study.path}: figures: {unknown[0]}: wanted some of {'; '.join(FIGURES)}.")


def study_table(study: Study, lines: Mapping[str, Line]) -> str:
    """The table of a study.

    A grid of rows and columns shows normalized with its interval, then the worst seed; without a simulator the error of the
    deterministic action on held-out episodes, then the largest of a seed. Below it, where the study is
    aggregated, stand the rows over all columns, and each column with the row that is best on the others. Where the study
    names figures, each cell has a line of these. What is not whole says so.

    Args:
        lines: by run.

    Raises:
        InputError: a figure is not known.
    """
    check_figures(study)
    cells: dict[tuple[str, str], list[Line | None]] = {}
    for fit in study.fits:
        cells.setdefault((fit.row, fit.column), []).append(lines.get(fit.name))
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    if not study.figures:
        table = [[row, *(_in_one(cells.get((row, column), [])) for column in columns)] for row in rows]
        return markdown_table(["", *columns], table) + (_over_tasks(rows, columns, cells) if study.aggregated else "")
    places = [(row, column) for row in rows for column in columns if (row, column) in cells]
    names = ["", *([""] if len(columns) > 1 else [])]
    table = [[*place[: len(names)], *_shown(cells[place], study.figures)] for place in places]
    return markdown_table([*names, *study.figures], table)


def _over_tasks(rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], list[Line | None]]) -> str:
    """The rows over all columns: the interquartile mean of normalized, and how probable it is that one is above another.

    A run that diverged is under every other. A row whose runs are not all there, or have no normalized score since no expert
    is known, is left out.
    """
    scores: dict[str, list[np.ndarray]] = {}
    for row in rows:
        wanted = [cells.get((row, column), [None]) for column in columns]
        if all(None not in runs for runs in wanted):
            tasks = [np.array([_comparable(line) for line in runs if line]) for runs in wanted]
            if not np.isnan(np.concatenate(tasks)).any():
                scores[row] = tasks
    table = []
    for row, tasks in scores.items():
        mean, ends = statistics.over_tasks(tasks)
        shown = _or_diverged(mean) + (f" ({_or_diverged(ends[0])} to {_or_diverged(ends[1])})" if ends else "")
        above = {other: statistics.improvement_over_tasks(tasks, theirs) for other, theirs in scores.items()}
        table.append([row, shown, *("" if row == other else f"{share:.2f}" for other, share in above.items())])
    names = ["over all columns", "interquartile mean", *(f"above {other}" for other in scores)]
    return "\n" + markdown_table(names, table) + (_left_out(columns, scores) if len(columns) > 2 and len(scores) > 1 else "")


def _left_out(columns: Sequence[str], scores: Mapping[str, Sequence[np.ndarray]]) -> str:
    """Leave one column out: what the row reaches there that has the highest mean over the others, and the best row there.

    So a choice that was made on some tasks is tried on one that it was not made on.
    """
    means = {row: np.array([runs.mean() for runs in tasks]) for row, tasks in scores.items()}
    table = []
    for number, column in enumerate(columns):
        chosen = max(means, key=lambda row: np.delete(means[row], number).mean())
        best = max(means, key=lambda row: means[row][number])
        table.append([column, chosen, _or_diverged(means[chosen][number]), _or_diverged(means[best][number]), best])
    return "\n" + markdown_table(["left out", "best on the others", "reaches here", "highest here", "of"], table)


def _or_diverged(normalized: float) -> str:
    """A mean over runs, of which one that diverged makes a number that says nothing."""
    return f"{normalized:.3f}" if normalized > LOWEST / 1e6 else "diverged"


def _in_one(found: Sequence[Line | None]) -> str:
    """Normalized return and worst seed of a cell; without a simulator the error on held-out episodes, and the largest."""
    played = all(np.isnan(line["held_out_loss"]) for line in found if line is not None)
    texts = _shown(found, ("normalized", "worst seed") if played else ("held-out error", "largest held-out error"))
    return "no scale" if texts and not any(texts) else "; ".join(texts)


def _comparable(line: Line) -> float:
    """Normalized return, the lowest of all where a run diverged."""
    return LOWEST if _diverged(line) else float(line["normalized"])


def _diverged(line: Line) -> bool:
    """Whether a run has neither a score nor, without a simulator, a loss on held-out episodes."""
    return bool(np.isnan(line["score"]) and np.isnan(line["held_out_loss"]))


def _shown(found: Sequence[Line | None], figures: Sequence[str]) -> list[str]:
    """The figures of a cell."""
    lines = [line for line in found if line is not None]
    if not lines:
        return ["not run" if found else "", *[""] * (len(figures) - 1)] if len(figures) > 2 else ["not run"] * bool(found)
    runs = {name: np.array([line[name] for line in lines]) for name in lines[0]}
    diverged = sum(map(_diverged, lines))                           # no mean then: that of the others is no answer
    unknown = f"{diverged} of {len(lines)} seeds diverged" if diverged else ""
    texts = [unknown if "nan" in (text := FIGURES[figure](runs)) else text for figure in figures]
    if len(lines) == len(found):
        return texts
    texts = [text.removesuffix(ONE_SEED) for text in texts]         # so much is said now
    return [*texts[:-1], f"{texts[-1]} ({len(lines)} of {len(found)} seeds)"]


def report_study(path: str) -> str:
    """The table of the study in the file ``path``."""
    study = Study.read(path)
    return study_table(study, measured(study.fits, read_store()))


def fill_page(page: str) -> None:
    """Put every study's table between its markers in a page, and the runs that it is made of into docs/results.csv.

        <!-- study: studies/models.yaml -->
        <!-- /study -->

    Raises:
        InputError: the page cannot be read or has no such markers.
    """
    try:
        text = Path(page).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--page {page}: cannot be read ({error}).") from error
    if not MARKERS.search(text):
        raise InputError(f"--page {page}: has no place for a table; wanted <!-- study: FILE --> and <!-- /study -->.")
    store = read_store()
    for _, path, _ in MARKERS.findall(text):
        store |= measured(Study.read(path).fits, store)
    write_store(store.values(), STORE)
    write_text(Path(page), filled(text, store))


def filled(text: str, lines: Mapping[str, Line]) -> str:
    """A page with each study's table between its markers, and the commands that make it below."""

    def table(found: re.Match[str]) -> str:
        path = found[2]
        made_by = f"\nMade by `python -m lightning_bc study {path}` and `python -m lightning_bc report --study {path}`.\n"
        return f"{found[1]}{study_table(Study.read(path), lines)}{made_by}{found[3]}"

    return MARKERS.sub(table, text)
