"""``python -m lightning_bc sweep``: search settings of ``fit``, choose, run the best anew, score it.

A trial is one setting. It is run once for each seed, and

    value = (1/S) sum_seeds (return at the last point of the run's curve)

that is, the mean return of the last checkpoint on the selection bank. The maximum over training is never looked at, nor is
the test bank: each fit ends by playing it and writes results.json as any fit does, but no trial reads that file, and since
it is marked as one of a search no report shows it. The setting with the highest value was in part lucky, so it is run anew
with seeds that the search has not used, and these runs alone are scored on the test bank.

Settings are asked of Optuna, here, which keeps them in lightning_logs/sweeps/NAME.log. What has run is known by the run
folders, so the same command goes on where it was stopped.

Akiba et al. 2019, Optuna, https://arxiv.org/abs/1907.10902; Bergstra et al. 2011, Algorithms for Hyper-Parameter
Optimization (TPE), https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization
"""

import itertools
import shlex
import sys
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from lightning_bc.arguments import found_configurations
from lightning_bc.errors import InputError
from lightning_bc.files import owning
from lightning_bc.report.labels import counted
from lightning_bc.report.study import study_table
from lightning_bc.report.tables import markdown_table
from lightning_bc.runs import folders
from lightning_bc.runs.curve import CURVE_FILE, RETURN, read_curve
from lightning_bc.runs.plan import Fit, Study
from lightning_bc.runs.results import Results
from lightning_bc.runs.store import measured
from lightning_bc.stopping import StoppedError
from lightning_bc.study.command import changed, make_engine, refuse, refuse_changed
from lightning_bc.study.engine import Engine, run_all
from lightning_bc.study.search import Search, Setting

SWEEPS = folders.LOGS / "sweeps"
FIGURES = ("seeds", "score", "normalized", "worst seed", "failed episodes")
BEGUN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


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
    again = f"this goes on where it stopped: python -m lightning_bc sweep {shlex.join(args)}"
    probes = {search.told(probe): in_words(probe) for probe in search.probes()}
    configs = refuse([Fit(flags, 0, words) for flags, words in probes.items()])
    for (one, config), (other, same) in itertools.combinations(zip(probes.values(), configs, strict=True), 2):
        if config == same:
            raise InputError(f"{one} and {other}: mean the same run. Leave one away, or what overrides both.")
    if not all(config["rollouts"]["episodes"] for config in configs):
        raise InputError("--rollouts.episodes 0: no returns to compare settings by. Set it to 1 or more.")
    if len(environments := sorted({config["env"] for config in configs})) > 1:
        raise InputError(
            f"{' and '.join(environments)} in one search: returns in different environments cannot be compared. Give each a "
            "sweep of its own."
        )
    try:
        with owning(SWEEPS / f"{search.name}.log"):                 # two would take each other's trials
            failed = _sweep(search, Trials(search), engine)
    except StoppedError as stopped:
        print(f"\nstopped; {again}", file=sys.stderr)
        return 128 + stopped.number
    for fit in failed:
        print(f"failed: {fit.place}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} fits failed; {again}", file=sys.stderr)
    return 1 if failed else 0


def _sweep(search: Search, trials: "Trials", engine: Engine) -> list[Fit]:
    """Search, then run the best anew; the fits that failed."""
    seeds = search.given.seeds
    size = f"{counted(search.trials, 'trial')} of {counted(seeds, 'seed')}"
    print(f"sweep {search.name}, in {trials.path}: {size}", flush=True)
    for fit, different in changed(trials.done()):
        raise InputError(
            f"sweep {search.name}: {fit.place} was run under another configuration, before and now: {different}. Put that "
            "back, or begin another search with --name."
        )
    failed = trials.run(engine)
    print(f"\nreturn of the last checkpoint on the selection bank, over {counted(seeds, 'seed')}")
    complete, rows = trials.of(TrialState.COMPLETE), []
    for trial in complete:
        values = [last_return(fit.name) for fit in trials.fits(trial)]
        figures = [f"{fmean(values):.5g}", f"{stdev(values):.5g}" if seeds > 1 else "", f"{min(values):.5g}"]
        rows.append([*map(str, trial.params.values()), *figures])
    print(markdown_table([*search.space, "mean", "standard deviation", "worst seed"], rows))
    pruned = ["diverged" in trial.user_attrs for trial in trials.of(TrialState.PRUNED)]
    for number, words in ((pruned.count(False), "were pruned"), (pruned.count(True), "diverged with a seed")):
        if number:
            print(f"{number} of {len(complete) + len(pruned)} settings {words}")
    if not complete and not failed:
        raise InputError(f"sweep {search.name}: every setting has diverged, so none can be chosen. Search other values.")
    if complete:
        best, fresh = complete[0].params, range(seeds, 2 * seeds)
        anew = f"seeds {fresh[0]} to {fresh[-1]}" if seeds > 1 else f"seed {fresh[0]}"
        print(f"chosen: {in_words(best)}; run anew with {anew}", flush=True)
        fits = tuple(Fit(search.told(best), seed, in_words(best)) for seed in fresh)
        refuse_changed(fit for fit in fits if fit.is_done())
        failed += run_all(engine, fits, len(fits))
        print("\nscore of the chosen setting: last checkpoint, 100 test-bank episodes, deterministic actions")
        print(study_table(Study(search.name, fits, {}, FIGURES), measured(fits, {})))
        print(f"python -m lightning_bc fit {shlex.join([*fits[0].flags, '--seed_everything', str(fresh[0])])}")
    return failed


class Trials:
    """The trials of a search, which Optuna keeps in a file.

    Raises:
        InputError: the file is that of another search, or is damaged.
    """

    def __init__(self, search: Search) -> None:
        self.search, self.path = search, SWEEPS / f"{search.name}.log"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # a full path: a lock that a killed process has left would else not be recognised as old
            storage = JournalStorage(JournalFileBackend(str(self.path.absolute())))
            self.study = optuna.create_study(
                storage=storage, study_name=search.name, direction="maximize", load_if_exists=True
            )
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path}: is damaged ({error}). Move it away: what has run is not run again.") from error
        self.study.pruner = optuna.pruners.MedianPruner() if search.given.prune else optuna.pruners.NopPruner()
        # a search that goes on draws anew; settings that are running count as poor ones
        self.study.sampler = optuna.samplers.TPESampler(seed=len(self.study.trials), constant_liar=True)
        self._waiting, self._trials, self._over = list[Fit](), dict[Fit, tuple[Trial, list[float]]](), set[int]()
        self._running = set[str]()
        before = self.study.user_attrs.get("identity")
        if before is not None and (different := folders.differences(before, search.identity)):
            raise InputError(
                f"--name {search.name}: is another search; what differs (its, yours): {folders.in_words(different)}. "
                "Leave --name away, or choose another."
            )
        queued = [trial for trial in self.study.trials if trial.state != TrialState.FAIL]  # those were queued anew
        for setting in search.settings()[len(queued) :]:            # by one that was killed, or that wanted fewer trials
            self.study.enqueue_trial(dict(setting))
        if before is None:
            self.study.set_user_attr("identity", search.identity)
        for trial in self.of(TrialState.RUNNING):                   # broken off, or failed
            self.study.enqueue_trial(trial.params)
            self.study.tell(trial.number, state=TrialState.FAIL)

    def of(self, *states: TrialState) -> list[FrozenTrial]:
        """The trials in these states, the best first."""
        return sorted(self.study.get_trials(False, states), key=lambda trial: -(trial.value or 0))

    def fits(self, trial: Trial | FrozenTrial) -> list[Fit]:
        """The fits of a trial."""
        flags = (*self.search.told(trial.params), "--search", self.search.name)
        row = f"trial {trial.number}: {in_words(trial.params)}"
        return [Fit(flags, seed, row) for seed in range(self.search.given.seeds)]

    def done(self) -> list[Fit]:
        """What has run for trials that have ended, and for those that were broken off."""
        trials = self.of(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return [fit for trial in trials for fit in self.fits(trial) if fit.is_done()]

    def run(self, engine: Engine) -> list[Fit]:
        """Run trials until all settings are done; the fits that failed."""
        left = self.search.trials - len(self.of(TrialState.COMPLETE, TrialState.PRUNED))
        return run_all(engine, self._fits(), max(0, left) * self.search.given.seeds, self._ended)

    def _fits(self) -> Iterator[Fit | None]:
        while True:
            if not self._waiting and len(self.of(*BEGUN)) < self.search.trials:
                self._queue(self.study.ask(self.search.space), [])
            # of two trials of one setting the second waits for the first, whose runs are its own
            fit = next((fit for fit in self._waiting if fit.name not in self._running), None)
            if fit is not None:
                self._waiting.remove(fit)
                self._running.add(fit.name)
            yield fit

    def _queue(self, trial: Trial, values: list[float]) -> None:
        """Queue a trial's next seed, or all of them where none of them can be spared."""
        first = len(values)
        for fit in self.fits(trial)[first : first + 1 if self.search.given.prune else None]:
            self._trials[fit] = trial, values
            self._waiting.append(fit)

    def _ended(self, fit: Fit, error: str | None) -> None:
        """Add the value of a seed, and tell Optuna if that was the last, or the last that is worth it."""
        self._running.discard(fit.name)
        trial, values = self._trials[fit]
        if error is not None or trial.number in self._over:         # a trial with a failed fit is begun by the next command
            return
        state = None
        if Results.read(folders.results_path(fit.name)).diverged:   # the mean of its other seeds is no value
            state = TrialState.PRUNED
            trial.set_user_attr("diverged", True)
        else:
            values.append(last_return(fit.name))
            trial.report(fmean(values), step=len(values))
            if len(values) == self.search.given.seeds:
                state = TrialState.COMPLETE
            elif trial.should_prune():
                state = TrialState.PRUNED
            elif self.search.given.prune:
                self._queue(trial, values)
        if state is not None:
            self._over.add(trial.number)
            self.study.tell(trial, fmean(values) if state == TrialState.COMPLETE else None, state)
            words = state.name.lower() if "diverged" not in trial.user_attrs else "diverged"
            print(f"{fit.row}: {words}{f', {fmean(values):.5g}' if values else ''}", flush=True)


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
