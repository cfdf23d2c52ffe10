"""How probable it is that a run of one method scores above a run of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lightning_bc.report import statistics
from lightning_bc.report.chart import Method

MATRIX_SIZE = 12
"""Methods in a table of each against each; more of them cannot be read."""

LOWEST = -1e300
"""The score of a run that diverged: under every other, and equal to that of another which did."""


@dataclass(frozen=True)
class Improvement:
    """A comparison of two methods.

    Attributes:
        method: the label of one.
        over: the label of the other.
        probability: that a run of the one scores above a run of the other.
        low: lower end of its 95% interval.
        high: upper end.
    """

    method: str
    over: str
    probability: float
    low: float
    high: float


def improvements(methods: Sequence[Method]) -> list[Improvement]:
    """The comparison of each two methods, in both directions.

    Methods of a single seed are left out: of two runs one is always above the other, which says nothing.
    """
    found = []
    for one, other in combinations((method for method in methods if len(method.runs) > 1), 2):
        scores = [np.nan_to_num(method.over_runs("score"), nan=LOWEST) for method in (one, other)]
        probability = float(statistics.probability_of_improvement(*scores))
        low, high = statistics.probability_interval(probability, *map(len, scores))
        found += [
            Improvement(one.label, other.label, probability, low, high),
            Improvement(other.label, one.label, 1 - probability, 1 - high, 1 - low),
        ]
    return found


def matrix(compared: Sequence[Improvement]) -> list[tuple[str, list[Improvement | None]]]:
    """The best of the compared methods: label, and the comparison with each of them, None with itself."""
    entries = {(entry.method, entry.over): entry for entry in compared}
    labels = list(dict.fromkeys(entry.method for entry in compared))[:MATRIX_SIZE]  # best first, as methods are
    return [(label, [entries.get((label, other)) for other in labels]) for label in labels]
