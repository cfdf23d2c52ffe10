"""The chart: runs that differ by their seed alone make one method, methods of one environment make one chart."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from lightning_bc.episode_metrics import special_metrics
from lightning_bc.references import References
from lightning_bc.report import statistics
from lightning_bc.report.labels import (
    counted,
    demonstrations_in_words,
    distinguishing,
    in_words,
    strategy_name,
    unique_labels,
)
from lightning_bc.report.parameters import WHICH_PAIRS, Parameters, changed_parameters
from lightning_bc.report.tables import show_duration, show_interval
from lightning_bc.runs.records import FinishedRecord, Record

COLUMNS = (
    "Method",
    "Parameters",
    "Demonstrations",
    "Expert queries",
    "Environment steps",
    "Final return",
    "Normalized",
    "Worst seed",
    "Failed episodes",
    "Training time",
    "Action latency",
    "Notes",
)

SAME_SCALE = 0.01
"""Two experts' returns nearer than this share of the scale are one expert's, played on two machines."""


@dataclass(frozen=True)
class Row:
    """A row of the chart as numbers, which is a row of its CSV: units and meanings are in docs/report.md."""

    method: str
    parameters: str
    demonstrations: str
    seeds: int
    expert_queries: float
    environment_steps: float
    final_return_mean: float
    final_return_std: float | None
    normalized: float
    normalized_low: float | None
    normalized_high: float | None
    worst_seed: float
    failed_episodes: float
    training_seconds: float
    action_latency_ms: float
    notes: str


@dataclass(frozen=True)
class Method:
    """A row of the chart: one strategy with one set of parameters on the same demonstrations, over seeds.

    Attributes:
        strategy: its name, with those of callbacks that teach it.
        parameters: those that differ from the defaults.
        distinguishing: those of them that another method of the same strategy in the chart has not, or has otherwise.
        demonstrations: what was learnt from, in words: kind, episodes, pairs.
        runs: the finished runs, one per seed.
        notes: what a reader must know of the row.
        label: a name that no other row of the chart has.
    """

    strategy: str
    parameters: Parameters
    demonstrations: tuple[str, ...]
    runs: tuple[FinishedRecord, ...]
    notes: tuple[str, ...] = ()
    distinguishing: Parameters = field(default_factory=dict)
    label: str = ""

    @property
    def details(self) -> dict[str, str]:
        """What tells it from others of its strategy, in words, by what it is of: of the data first."""
        data = {f"demonstrations {number}": words for number, words in enumerate(self.demonstrations)}
        return data | in_words(self.parameters)

    def over_runs(self, key: str) -> np.ndarray:
        """One entry of results.json of every run, (runs,); NaN where it is null."""
        return np.array([getattr(run.results, key) for run in self.runs], dtype=float)

    @property
    def diverged(self) -> int:
        """How many of the runs came to a number that is not finite. Then there is no mean: that of others is no answer."""
        return sum(run.results.diverged is not None for run in self.runs)

    @cached_property
    def score(self) -> float:
        """Centre of the runs' scores: mean, from 10 runs on the interquartile mean; NaN where a run diverged."""
        return float(statistics.center(self.over_runs("score")))

    @property
    def rank(self) -> float:
        """What sorts methods, the best first and last those of which a run diverged."""
        return math.inf if self.diverged else -self.score

    @cached_property
    def score_interval(self) -> list[float] | None:
        """Its 95% interval; None for one run, and where a run diverged."""
        ends = None if self.diverged else statistics.interval(self.over_runs("score"))
        return None if ends is None else [float(end) for end in ends]

    @cached_property
    def special(self) -> dict[str, float]:
        """The metrics that only this environment has, with sampled actions, means over runs; NaN where not known."""
        measured = [run.results.sampled_metrics for run in self.runs]
        names = special_metrics(self.runs[0].results.environment_id)
        return {f"sampled_{name}": float(np.mean([run.get(name, math.nan) for run in measured])) for name in names}

    @cached_property
    def row(self) -> Row:
        """The row as numbers."""
        scores, normalized = self.over_runs("score"), self.over_runs("normalized")
        ends = None if self.diverged else statistics.interval(normalized)
        low, high = (None, None) if ends is None else map(float, ends)
        return Row(
            method=self.strategy,
            parameters=", ".join(in_words(self.parameters).values()),
            demonstrations=", ".join(self.demonstrations),
            seeds=len(self.runs),
            expert_queries=self.over_runs("expert_queries").mean(),
            environment_steps=self.over_runs("environment_steps").mean(),
            final_return_mean=scores.mean(),
            final_return_std=scores.std(ddof=1) if len(scores) > 1 and not self.diverged else None,
            normalized=float(statistics.center(normalized)),
            normalized_low=low,
            normalized_high=high,
            worst_seed=scores.min(),
            failed_episodes=self.over_runs("failed_episodes").mean(),
            training_seconds=np.median(self.over_runs("training_seconds")),
            action_latency_ms=np.median([run.results.action_latency_ms.get("1", math.nan) for run in self.runs]),
            notes="; ".join(self.notes),
        )


@dataclass(frozen=True)
class Chart:
    """The methods of one environment, measured against one expert, best first.

    Attributes:
        name: the environment, and the expert's return where several were measured against.
        references: what 0 and 1 of the normalized return are.
    """

    name: str
    references: References
    methods: tuple[Method, ...]

    @property
    def environment_id(self) -> str:
        """Where the runs were scored."""
        return self.best.runs[0].results.environment_id

    @property
    def best(self) -> Method:
        """The method of the highest score."""
        return self.methods[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the cells."""
        return *COLUMNS, *(name.replace("_", " ").capitalize() for name in self.best.special)

    @property
    def decimals(self) -> int:
        """Decimals of a return: four figures of the distance between random and expert."""
        return self.references.decimals(self.best.score)

    def show_return(self, value: float) -> str:
        """A return in words."""
        return "diverged" if math.isnan(value) else f"{value:,.{self.decimals}f}"

    def cells(self, method: Method) -> list[str]:
        """The row in words, under ``columns``."""
        row = method.row
        spread = "" if row.final_return_std is None else f" ± {self.show_return(row.final_return_std)}"
        episodes = sum(run.results.episodes for run in method.runs)
        known = self.references.has_expert
        normalized = show_interval(row.normalized, row.normalized_low, row.normalized_high)
        if method.diverged:
            normalized = "diverged"
        return [
            method.strategy,
            ", ".join(in_words(method.distinguishing).values()),
            row.demonstrations,
            f"{row.expert_queries:,.0f}",
            f"{row.environment_steps:,.0f}",
            f"{self.show_return(row.final_return_mean)}{spread} ({_seeds(method)})",
            normalized if known else "no expert",
            self.show_return(row.worst_seed),
            f"{round(row.failed_episodes * episodes)} of {episodes}" if known else "no expert",
            show_duration(row.training_seconds),
            "" if math.isnan(row.action_latency_ms) else f"{row.action_latency_ms:.2f} ms",
            row.notes,
            *("" if math.isnan(value) else f"{value:.3f}" for value in method.special.values()),
        ]

    def sentence(self) -> str:
        """What was reached, and with what: parameters that distinguish, data, and what was asked for while learning."""
        best, known = self.best, self.references.has_expert
        if best.diverged:
            return "Of every method a seed diverged."
        row = best.row
        details = [
            ", ".join(in_words(best.distinguishing).values()) or "default parameters" * (not best.parameters),
            f"demonstrations: {row.demonstrations}",
            f"{row.expert_queries:,.0f} expert queries" * bool(row.expert_queries),
            f"{row.environment_steps:,.0f} environment steps" * bool(row.environment_steps),
        ]
        ends = best.score_interval
        interval = "1 seed, no interval"
        if ends is not None:
            interval = f"95% interval {self.show_return(ends[0])} to {self.show_return(ends[1])} over {_seeds(best)}"
        normalized = f"; normalized {row.normalized:.3f}" if known else ""
        told = f"{best.strategy} ({'; '.join(filter(None, details))})"
        return f"With {told} a return of {self.show_return(best.score)} was reached ({interval}{normalized})."


def make_charts(records: Iterable[Record]) -> list[Chart]:
    """Sort runs into charts: one for each environment and expert, in the order of their names.

    Runs of a search are left out: the best of them is the best of many, so part of its score is chance.
    """
    records = [record for record in records if not record.config.get("search")]
    scales: dict[tuple[str, References], list[FinishedRecord]] = {}
    for record in records:
        if isinstance(record, FinishedRecord):
            environment_id, references = record.results.environment_id, record.results.references
            known = (key for key in scales if key[0] == environment_id and _same_scale(key[1], references))
            scales.setdefault(next(known, (environment_id, references)), []).append(record)
    unfinished = [record for record in records if not isinstance(record, FinishedRecord)]
    several = Counter(environment_id for environment_id, _ in scales)
    charts = []
    for (environment_id, references), runs in scales.items():
        name = environment_id
        if several[environment_id] > 1:
            expert = references.expert_return
            digits = ".0f" if abs(expert) >= 100 else ".3g"
            name += f", expert return {expert:{digits}}" if references.has_expert else " without expert"
        methods = sorted(_methods(runs, unfinished), key=lambda method: method.rank)
        charts.append(Chart(name, references, tuple(methods)))
    charts.sort(key=lambda chart: chart.name)
    names = unique_labels([chart.name for chart in charts], [{}] * len(charts))  # random returns alone may differ
    return [replace(chart, name=name) for chart, name in zip(charts, names, strict=True)]


def _same_scale(one: References, other: References) -> bool:
    if not (one.has_expert and other.has_expert):
        return one.has_expert == other.has_expert
    allowed = SAME_SCALE * abs(one.expert_return - one.random_return)
    return (
        abs(one.expert_return - other.expert_return) <= allowed and abs(one.random_return - other.random_return) <= allowed
    )


def _methods(runs: Sequence[FinishedRecord], unfinished: Sequence[Record]) -> list[Method]:
    groups: dict[str, list[FinishedRecord]] = defaultdict(list)
    for run in runs:
        data = run.results.data
        pairs = None if data is None else (data.sha256, data.training_pairs)
        groups[json.dumps([_settings(run), pairs])].append(run)
    waiting = Counter(_settings(run, path=True) for run in unfinished)
    methods = []
    for group in groups.values():
        newest = {run.seed: run for run in group}                   # records are read oldest first
        repeated = len(group) - len(newest)
        lost = sum(run.over("seconds") is None for run in newest.values())
        diverged = sum(run.results.diverged is not None for run in newest.values())
        missing = sum(waiting[settings] for settings in {_settings(run, path=True) for run in group}) if waiting else 0
        notes = (
            "interquartile mean" * (len(newest) >= statistics.FEWEST_FOR_INTERQUARTILE_MEAN),
            f"{missing} unfinished, not counted" if missing else "",
            f"{repeated} repeated with the same seed, the newest counts" if repeated else "",
            f"{lost} without a readable curve" if lost else "",
            f"{diverged} of {counted(len(newest), 'seed')} diverged" if diverged else "",
        )
        methods.append(
            Method(
                strategy=strategy_name(group[0].config),
                parameters=changed_parameters(group[0].config),
                demonstrations=demonstrations_in_words(group[0].results.data),
                runs=tuple(newest[seed] for seed in sorted(newest)),
                notes=tuple(filter(None, notes)),
            )
        )
    strategies = [method.strategy for method in methods]
    labels = unique_labels(strategies, [method.details for method in methods])
    own = distinguishing(strategies, [method.parameters for method in methods])
    named = zip(methods, labels, own, strict=True)
    return [replace(method, label=label, distinguishing=parameters) for method, label, parameters in named]


def _settings(run: Record, path: bool = False) -> str:
    """What two seeds of one method have in common; with ``path``, also where the data lay."""
    pairs = {name: run.config["data"].get(name) for name in WHICH_PAIRS if path or name != "path"}
    return json.dumps([strategy_name(run.config), run.config["env"], changed_parameters(run.config), pairs], sort_keys=True)


def _seeds(method: Method) -> str:
    return counted(len(method.runs), "seed")
