"""results.csv: a line per run, what tables are made of, so that they can be made where the runs no longer lie."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from lightning_bc.errors import InputError
from lightning_bc.files import write_text
from lightning_bc.runs import folders
from lightning_bc.runs.held_out import HeldOutResults, read_results
from lightning_bc.runs.plan import Fit
from lightning_bc.runs.results import Results
from lightning_bc.texts import csv_text, parse_csv

STORE = Path("docs/results.csv")
WORDS = ("run", "flags", "environment_id", "strategy")
NUMBERS = (
    *("seed", "score", "score_std", "normalized", "failed_episodes", "episodes", "sampled_score", "sampled_normalized"),
    *("latency_ms_1", "latency_ms_10", "network_evaluations", "parameters", "optimizer_steps", "environment_steps"),
    *("expert_queries", "pairs", "seconds", "training_seconds"),
    *("success", "sampled_success", "sampled_choice_entropy", "sampled_choice_divergence"),
    *("held_out_loss", "held_out_absolute_error", "held_out_squared_error"),
)

_HELD_OUT = {
    "held_out_loss": "loss",
    "held_out_absolute_error": "action_mean_absolute_error",
    "held_out_squared_error": "action_root_mean_squared_error",
}

Line = Mapping[str, str | float]
"""WORDS and NUMBERS of one run; NaN where nothing is known."""


def read_store(path: Path = STORE) -> dict[str, Line]:
    """The lines, by run; none where there is no such file.

    Raises:
        InputError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        text = path.read_text()
        if not text.endswith("\n"):
            raise ValueError("its last line is cut off")
        names, rows = parse_csv(text)
        lines = [dict(zip(names, row, strict=True)) for row in rows]
        return {line["run"]: line | {name: float(line.get(name) or "nan") for name in NUMBERS} for line in lines}
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: is damaged ({error}). Take it from the repository again.") from error


def write_store(lines: Iterable[Line], path: Path = STORE) -> None:
    """Write the lines in the order of their runs."""
    by_run = sorted(lines, key=lambda line: str(line["run"]))
    rows = [[*(line[name] for name in WORDS), *(_text(float(line[name])) for name in NUMBERS)] for line in by_run]
    write_text(path, csv_text((*WORDS, *NUMBERS), rows))


def measured(fits: Iterable[Fit], store: Mapping[str, Line]) -> dict[str, Line]:
    """The line of each fit that is done: from its run's results on disk, else from the store."""
    found = {}
    for fit in fits:
        if fit.is_done():
            found[fit.name] = line_of(fit, read_results(folders.results_path(fit.name)))
        elif fit.name in store:
            found[fit.name] = store[fit.name]
    return found


def line_of(fit: Fit, results: Results | HeldOutResults) -> Line:
    """A run's line; one without a simulator has no score."""
    known = vars(results) | {f"latency_ms_{batch}": value for batch, value in results.action_latency_ms.items()}
    if isinstance(results, Results):
        known |= results.metrics | {f"sampled_{name}": value for name, value in results.sampled_metrics.items()}
        known |= vars(results) | {"episodes": results.episodes}
    else:
        known |= {entry: results.held_out.get(name, math.nan) for entry, name in _HELD_OUT.items()}
    known |= {"run": fit.name, "flags": " ".join(fit.flags), "seed": fit.seed}
    return {name: known.get(name, math.nan) for name in (*WORDS, *NUMBERS)}


def _text(number: float) -> str:
    """Empty for NaN, whole numbers without .0, nine figures of others."""
    return "" if math.isnan(number) else f"{number:.9g}"
