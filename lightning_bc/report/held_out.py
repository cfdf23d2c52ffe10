"""Runs without a simulator: their errors on held-out episodes, in a table of its own, since they have no return."""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_bc.report.labels import counted, demonstrations_in_words, distinguishing, in_words, strategy_name
from lightning_bc.report.parameters import changed_parameters
from lightning_bc.report.tables import show_duration
from lightning_bc.runs.records import HeldOutRecord
from lightning_bc.strategies.offline.base import VALIDATION

TITLE = "Without a simulator"
"""Of the table."""

NOTE = (
    "These runs have no return, since nothing was played: they are in no chart, and an error on held-out episodes does not "
    "say how well the robot does. Errors are those of the deterministic action, in the actions' own units, mean over seeds; "
    "they compare rows of the same demonstrations and held-out episodes. The loss is each strategy's own and compares rows "
    "of one strategy alone."
)

COLUMNS = (
    "Method",
    "Parameters",
    "Demonstrations",
    "Held out",
    "Mean absolute error",
    "Root mean squared error",
    "Held-out loss",
    "Training time",
    "Action latency",
)


@dataclass(frozen=True)
class HeldOutRow:
    """A row of the table as numbers, and of held_out.csv: one strategy with one set of parameters, over seeds.

    Attributes:
        method: the strategy's name.
        parameters: those that differ from the defaults, in words.
        demonstrations: what was learnt from, in words.
        held_out_episodes: on which the errors were measured.
        seeds: how many runs.
        action_mean_absolute_error: in the actions' own units, mean over runs.
        action_root_mean_squared_error: likewise.
        loss: the strategy's own, on the held-out episodes, mean over runs.
        training_seconds: median over runs.
        action_latency_ms: of a single observation, likewise.
        distinguishing: of the parameters those that another row of the same strategy has not, or has otherwise.
        diverged: how many of the runs; there are then no figures, since a mean over the others would say too much.
    """

    method: str
    parameters: str
    demonstrations: str
    held_out_episodes: int
    seeds: int
    action_mean_absolute_error: float
    action_root_mean_squared_error: float
    loss: float
    training_seconds: float
    action_latency_ms: float
    distinguishing: str
    diverged: int = 0

    @property
    def cells(self) -> list[str]:
        """The row in words, under ``COLUMNS``."""
        seeds = counted(self.seeds, "seed")
        figures = [
            f"{self.action_mean_absolute_error:.4g} ({seeds})",
            f"{self.action_root_mean_squared_error:.4g}",
            f"{self.loss:.4g}",
        ]
        latency = f"{self.action_latency_ms:.2f} ms"
        if self.diverged:
            figures, latency = [f"{self.diverged} of {seeds} diverged", "diverged", "diverged"], ""
        return [
            self.method,
            self.distinguishing,
            self.demonstrations,
            counted(self.held_out_episodes, "episode"),
            *figures,
            show_duration(self.training_seconds),
            latency,
        ]


def held_out_rows(runs: Sequence[HeldOutRecord]) -> list[HeldOutRow]:
    """The rows: by demonstrations, and of those the least error first. Of a seed that ran twice the newest run counts."""
    groups: dict[str, dict[int, HeldOutRecord]] = defaultdict(dict)
    for run in runs:                                                # oldest first
        data = run.results.data
        pairs = [data.sha256, data.training_pairs, data.validation_episodes]
        settings = json.dumps([strategy_name(run.config), changed_parameters(run.config), pairs], sort_keys=True)
        groups[settings][run.results.seed] = run
    first = [next(iter(group.values())) for group in groups.values()]
    own = distinguishing([strategy_name(run.config) for run in first], [changed_parameters(run.config) for run in first])
    told = [", ".join(in_words(parameters).values()) for parameters in own]
    rows = [_row([*group.values()], words) for group, words in zip(groups.values(), told, strict=True)]
    return sorted(rows, key=lambda row: (row.demonstrations, row.diverged > 0, row.action_mean_absolute_error))


def _row(runs: Sequence[HeldOutRecord], distinguishing: str) -> HeldOutRow:
    config, results = runs[0].config, [run.results for run in runs]
    diverged = sum(one.diverged is not None for one in results)
    figures = dict.fromkeys(VALIDATION, math.nan)
    if not diverged:
        figures = {name: float(np.mean([one.held_out[name] for one in results])) for name in VALIDATION}
    return HeldOutRow(
        method=strategy_name(config),
        parameters=", ".join(in_words(changed_parameters(config)).values()),
        demonstrations=", ".join(demonstrations_in_words(results[0].data)),
        held_out_episodes=results[0].data.validation_episodes,
        seeds=len(runs),
        action_mean_absolute_error=figures["action_mean_absolute_error"],
        action_root_mean_squared_error=figures["action_root_mean_squared_error"],
        loss=figures["loss"],
        training_seconds=float(np.median([one.training_seconds for one in results])),
        action_latency_ms=float(np.median([one.action_latency_ms.get("1", math.nan) for one in results])),
        distinguishing=distinguishing,
        diverged=diverged,
    )
