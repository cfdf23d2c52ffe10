"""The tables of docs/metrics.md, made of what the code says of each metric.

    python -m lightning_bc.report.documentation docs/metrics.md

puts them into the page. A new strategy, episode metric or entry of results.json brings its row with it.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from lightning_bc.report.tables import markdown_table, with_tables
from lightning_bc.runs.curve import columns
from lightning_bc.runs.results import entries
from lightning_bc.strategies import Strategy, strategies
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import VALIDATION

HEADER = ("name", "unit", "meaning")
LOSS = "loss"


def tables() -> dict[str, str]:
    """Every table of the page, by the name of its markers."""
    ours = [cls for cls in strategies().values() if cls.__module__.startswith("lightning_bc.")]
    losses = [(cls.__name__, cls.logs[LOSS].meaning, cls.logs[LOSS].unit) for cls in ours if LOSS in cls.logs]
    return {
        "curve": markdown_table(HEADER, _rows(columns().items())),
        "training": markdown_table((*HEADER, "strategies"), _training(ours)),
        "validation": markdown_table(HEADER, _rows((f"validation/{name}", metric) for name, metric in VALIDATION.items())),
        "losses": markdown_table(("strategy", "`train/loss`", "unit"), losses),
        "results": markdown_table(HEADER, _rows(entries())),
    }


def _rows(metrics: Iterable[tuple[str, Metric]]) -> list[tuple[str, str, str]]:
    return [(f"`{name}`", metric.unit, metric.meaning) for name, metric in metrics]


def _training(classes: Iterable[type[Strategy]]) -> list[tuple[str, str, str, str]]:
    """A row per metric; strategies that log the same share it."""
    known: dict[tuple[str, Metric], list[str]] = {(LOSS, Metric("see below", "what is minimised")): []}
    for cls in classes:
        for name, metric in cls.logs.items():
            same = next(iter(known)) if name == LOSS else (name, metric)
            known.setdefault(same, []).append(cls.__name__)
    return [(f"`train/{name}`", unit, meaning, ", ".join(who)) for (name, (unit, meaning)), who in known.items()]


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(with_tables(page.read_text(), tables()))
