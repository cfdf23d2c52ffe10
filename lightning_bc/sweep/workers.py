"""Workers: each takes trials of a study until all settings are done, those of workers that die among them."""

import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from lightning_bc.sweep.study import Setting, SurplusError, claims, place, take_up_again

POLL_SECONDS = 2
"""Between two looks at what other workers do, when there is nothing left to begin."""


class FitFailedError(Exception):
    """A fit ended with an error; its last lines."""


def in_words(setting: Setting) -> str:
    """A setting on one line."""
    return ", ".join(f"{key} {_short(value)}" for key, value in setting.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass
class Stage:
    """A study and what its trials do.

    Attributes:
        space: the distribution of each key.
        total: how many settings there are.
        seeds: those of the ``index``-th setting.
        measure: runs a trial's setting with one seed and returns what it is judged by.
        jobs: threads, each of which runs one trial at a time.
    """

    study: optuna.Study
    space: Mapping[str, BaseDistribution]
    total: int
    seeds: Callable[[int], Sequence[int]]
    measure: Callable[[Trial, int], float]
    jobs: int = 1

    def outcomes(self) -> list[FrozenTrial]:
        """The newest trial of each setting that was begun."""
        newest = {index: trial for (index, _), trial in sorted(claims(self.study).items(), key=lambda entry: entry[0])}
        return [newest[index] for index in sorted(newest) if index < self.total]

    def work(self) -> None:
        """Run trials until all settings are done, those of workers that die among them; failed ones are tried again."""
        for trial in self.outcomes():
            if trial.state == TrialState.FAIL:
                take_up_again(self.study, trial)
        with ThreadPool(self.jobs) as threads:                      # of daemons: Ctrl-C does not wait for a fit's end
            for _ in threads.imap_unordered(self._work, range(self.jobs)):
                pass

    def _work(self, job: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, cores[job % len(cores) :: self.jobs])  # this thread's, and so its fits'
        while True:
            states = [trial.state for trial in self.outcomes()]
            if len(states) < self.total or TrialState.WAITING in states:
                self._run_one()
                self._show()
            elif TrialState.RUNNING in states:                      # another worker's, which may yet die
                fail_stale_trials(self.study)
                time.sleep(POLL_SECONDS)
            else:
                return

    def _run_one(self) -> None:
        try:
            with suppress(SurplusError):
                self.study.optimize(self._run, n_trials=1, catch=(FitFailedError, UpdateFinishedTrialError))
        except ValueError as error:
            if "Cannot tell" not in str(error):                     # else taken for dead meanwhile: another worker has it
                raise

    def _run(self, trial: Trial) -> float:
        index, _ = place(self.study, trial.number)
        if index >= self.total:
            raise SurplusError
        for key, distribution in self.space.items():
            _suggest(trial, key, distribution)
        trial.set_user_attr("host", socket.gethostname())
        values: list[float] = []
        for seed in self.seeds(index):
            if f"value {seed}" not in trial.user_attrs:             # else measured before a worker died
                try:
                    value = self.measure(trial, seed)
                except FitFailedError as error:
                    trial.set_user_attr("error", str(error))
                    print(f"trial {trial.number}, seed {seed}: failed\n{error}", file=sys.stderr, flush=True)
                    raise
                trial.set_user_attr(f"value {seed}", value)
                print(f"trial {trial.number}, seed {seed}: {value:.5g}   {in_words(trial.params)}", flush=True)
            values.append(trial.user_attrs[f"value {seed}"])
            trial.report(fmean(values), step=len(values))
            if trial.should_prune():
                raise optuna.TrialPruned
        return fmean(values)

    def _show(self) -> None:
        """Trials done, the best so far, time left."""
        outcomes = self.outcomes()
        done = [trial for trial in outcomes if trial.state.is_finished()]
        words = [f"{self.study.study_name}: {len(done)} of {self.total} trials done"]
        if failed := sum(trial.state == TrialState.FAIL for trial in done):
            words.append(f"{failed} failed")
        if complete := [trial for trial in done if trial.state == TrialState.COMPLETE]:
            best = max(complete, key=value_of)
            if not all(distribution.single() for distribution in self.space.values()):
                words.append(f"best {value_of(best):.5g} ({in_words(best.params)})")
            seconds = fmean(trial.duration.total_seconds() for trial in complete if trial.duration)
            side_by_side = max(self.jobs, sum(trial.state == TrialState.RUNNING for trial in outcomes))
            left = seconds * math.ceil((self.total - len(done)) / side_by_side)
            if left:
                words.append(f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left")
        print(", ".join(words), flush=True)


def value_of(trial: FrozenTrial) -> float:
    """What a complete trial is judged by."""
    assert trial.value is not None
    return trial.value


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(key, distribution.low, distribution.high, log=distribution.log)
    else:
        assert isinstance(distribution, FloatDistribution)
        trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
