"""``python -m lightning_bc sweep``: search settings of ``fit``, choose, run the best anew, score it.

A trial is one setting. It is run once for each seed, and

    value = (1/S) sum_seeds (return at the last point of the run's curve)

that is, the mean return of the last checkpoint on the selection bank. The maximum over training is never looked at, nor is
the test bank: each fit ends by playing it and writes results.json as any fit does, but no trial reads that file, and since
it is marked as one of a search no report shows it. The setting with the highest value was in part lucky, so it is run anew
with seeds that the search has not used, and these runs alone are scored on the test bank.

Settings are asked of Optuna, here, and kept in lightning_logs/sweeps/NAME.jsonl, a line per trial when it begins and another
one when it ends. The same command asks for them in the same order again, so it goes on where it was stopped.

Akiba et al. 2019, Optuna, https://arxiv.org/abs/1907.10902; Bergstra et al. 2011, Algorithms for Hyper-Parameter
Optimization (TPE), https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization
"""

import json
import math
import shlex
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from lightning_bc.arguments import found_configurations
from lightning_bc.errors import InputError
from lightning_bc.runs import folders
from lightning_bc.runs.curve import CURVE_FILE, RETURN, read_curve
from lightning_bc.runs.plan import Fit
from lightning_bc.runs.results import Results
from lightning_bc.study.command import make_engine, one_by_one, refuse, run_all
from lightning_bc.study.engine import Engine, StoppedError
from lightning_bc.study.search import Search, Setting

SWEEPS = folders.LOGS / "sweeps"


@dataclass
class Tried:
    """A trial: its setting, and the value of each seed that is done."""

    number: int
    trial: Trial
    values: list[float] = field(default_factory=list)
    state: str = "running"
    error: str = ""

    @property
    def setting(self) -> Setting:
        """Values by the flag of fit."""
        return self.trial.params


def sweep(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        The exit status: 0, 1 if a fit has failed, 128 + N after signal N.

    Raises:
        InputError: before the first trial, for what cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)              # of trials, it is told here
    search = Search.parse(found_configurations(list(args)))
    engine = make_engine(search.given)
    trials = Trials(search)
    configs = refuse([Fit(search.told(probe), 0, in_words(probe)) for probe in search.probes()])
    if len(environments := sorted({config["env"] for config in configs})) > 1:
        raise InputError(
            f"{' and '.join(environments)} in one search: returns in different environments cannot be compared. Give each a "
            "sweep of its own."
        )
    try:
        return _sweep(search, trials, engine)
    except StoppedError as stopped:
        print("\nstopped; the same command goes on where this one stopped", file=sys.stderr)
        return 128 + int(stopped.args[0])


def _sweep(search: Search, trials: "Trials", engine: Engine) -> int:
    print(f"sweep {search.name}, in {trials.path}: {search.trials} trials of {search.seeds} seeds", flush=True)
    trials.run(engine)
    complete = sorted((tried for tried in trials.tried if tried.state == "complete"), key=lambda tried: -fmean(tried.values))
    _print_search(complete, search.seeds)
    if pruned := sum(tried.state == "pruned" for tried in trials.tried):
        print(f"{pruned} of {search.trials} settings were pruned")
    if diverged := sum(tried.state == "diverged" for tried in trials.tried):
        print(f"{diverged} of {search.trials} settings diverged with a seed")
    failed = [f"{in_words(tried.setting)}: {tried.error}" for tried in trials.tried if tried.state == "failed"]
    if complete:
        best, fresh = complete[0].setting, range(search.seeds, 2 * search.seeds)
        print(f"\nchosen: {in_words(best)}; run anew with seeds {fresh[0]} to {fresh[-1]}", flush=True)
        fits = [Fit(search.told(best), seed) for seed in fresh]
        failed += [f"{in_words(best)}: {fit.place}" for fit in run_all(engine, one_by_one(fits), len(fits))]
        _print_scores([Results.read(folders.results_path(fit.name)) for fit in fits if fit.is_done()])
        print(f"\npython -m lightning_bc fit {shlex.join([*fits[0].flags, '--seed_everything', str(fresh[0])])}")
    for words in failed:
        print(f"failed: {words}", file=sys.stderr)
    if failed:
        print("the same command tries these again", file=sys.stderr)
    return 1 if failed else 0


class Trials:
    """The trials of a search, and the file of their settings.

    Raises:
        InputError: the file is that of another search, or is damaged.
    """

    def __init__(self, search: Search) -> None:
        self.search, self.path = search, SWEEPS / f"{search.name}.jsonl"
        self.tried: list[Tried] = []
        self._waiting: deque[Fit] = deque()
        self._begun: dict[str, Tried] = {}
        self._known = self._read()                                  # settings that are to be tried again in their order
        pruner = optuna.pruners.MedianPruner() if search.prune else optuna.pruners.NopPruner()
        # a search that goes on draws anew; settings that are running count as poor ones
        sampler = optuna.samplers.TPESampler(seed=len(self._known), constant_liar=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)

    def _read(self) -> list[Setting]:
        if not self.path.exists():
            return []
        text = self.path.read_text()
        try:
            identity, *lines = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # the rest is torn
            settings = {line["trial"]: line["setting"] for line in lines}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path}: is damaged ({error}). Move it away: what has run is not run again.") from error
        if different := folders.differences(identity, self.search.identity):
            raise InputError(
                f"--name {self.search.name}: is another search; what differs (its, yours): {folders.in_words(different)}. "
                "Leave --name away, or choose another."
            )
        return [settings[number] for number in sorted(settings)]

    def _write(self, line: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def _begin(self) -> None:
        """Begin the next trial."""
        number = len(self.tried)
        known = number < len(self._known)
        if setting := self._known[number] if known else self.search.setting(number):
            self._study.enqueue_trial(dict(setting))
        tried = Tried(number, self._study.ask(self.search.space))
        self.tried.append(tried)
        if not known:
            self._write({"trial": number, "setting": tried.setting})
        self._queue(tried)

    def _queue(self, tried: Tried) -> None:
        """Queue a trial's next seed, or all of them where none of them can be spared."""
        first = len(tried.values)
        for seed in range(first, first + 1 if self.search.prune else self.search.seeds):
            fit = Fit((*self.search.told(tried.setting), "--search", self.search.name), seed, in_words(tried.setting))
            self._begun[fit.name] = tried
            self._waiting.append(fit)

    def run(self, engine: Engine) -> None:
        """Run trials until all settings are done."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            self._write(self.search.identity)
        run_all(engine, self._next, self.search.trials * self.search.seeds, self._ended)

    def _next(self) -> Fit | None:
        if not self._waiting and len(self.tried) < self.search.trials:
            self._begin()
        return self._waiting.popleft() if self._waiting else None

    def _ended(self, fit: Fit, error: str | None) -> None:
        """Add the value of a seed, and tell Optuna if that was the last, or the last that is worth it."""
        tried = self._begun[fit.name]
        if fit.is_done() and Results.read(folders.results_path(fit.name)).diverged:
            if tried.state == "running":                            # the mean of its other seeds is no value
                tried.state = "diverged"
                self._study.tell(tried.trial, state=TrialState.PRUNED)
                print(f"trial {tried.number} diverged   {fit.row}", flush=True)
            return
        try:
            value = math.nan if error else last_return(fit.name)
        except InputError as no_curve:
            error = str(no_curve)
        if error is not None:
            tried.state, tried.error = "failed", error.splitlines()[-1]
        if tried.state != "running":
            return
        tried.values.append(value)
        tried.trial.report(fmean(tried.values), step=len(tried.values))
        if len(tried.values) == self.search.seeds:
            tried.state = "complete"
            self._study.tell(tried.trial, fmean(tried.values))
        elif tried.trial.should_prune():
            tried.state = "pruned"
            self._study.tell(tried.trial, state=TrialState.PRUNED)
        elif self.search.prune:
            self._queue(tried)
        if tried.state != "running":
            self._write({"trial": tried.number, "setting": tried.setting, "state": tried.state, "values": tried.values})
            print(f"trial {tried.number} {tried.state}: {fmean(tried.values):.5g}   {fit.row}", flush=True)


def last_return(run: str) -> float:
    """Mean return at the last point of a run's curve: of its last checkpoint, on the selection bank."""
    path = folders.LOGS / run / CURVE_FILE
    try:
        return float(read_curve(path)[RETURN][-1])
    except (OSError, ValueError, LookupError) as error:
        raise InputError(f"{path}: no curve to judge the run by ({error}); leave checkpoints on.") from error


def in_words(setting: Setting) -> str:
    """A setting on one line."""
    return ", ".join(f"{key} {f'{value:.4g}' if isinstance(value, float) else value}" for key, value in setting.items())


def _print_search(trials: Sequence[Tried], seeds: int) -> None:
    """All settings by their value, the best first."""
    print(f"\nreturn of the last checkpoint on the selection bank, over {seeds} seed{'s' * (seeds > 1)}")
    keys = list(trials[0].setting) if trials else []
    rows = [
        [*tried.setting.values(), fmean(tried.values), stdev(tried.values) if seeds > 1 else "", min(tried.values)]
        for tried in trials
    ]
    _print_table([*keys, "mean", "standard deviation", "worst seed"], rows)


def _print_scores(results: Sequence[Results]) -> None:
    """The scores of the chosen setting, a line a run, and their mean."""
    print("\nscore of the chosen setting: last checkpoint, 100 test-bank episodes, deterministic actions")
    keys = ("score", "normalized", "failed_episodes")
    rows: list[list[Any]] = [[result.run, *(getattr(result, key) for key in keys)] for result in results]
    diverged = sum(result.diverged is not None for result in results)
    if diverged:
        print(f"{diverged} of {len(results)} seeds diverged, so there is no mean")
    for name, statistic in (("mean", fmean), ("standard deviation", stdev)) if len(rows) > 1 and not diverged else ():
        rows.append([name, *(statistic(row[place] for row in rows[: len(results)]) for place in range(1, 1 + len(keys)))])
    _print_table(["run", "score", "normalized", "failed episodes"], rows)
    if len(results) == 1:
        print("1 seed, no interval")


def _print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    texts = [list(header), *([f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)).rstrip())
