"""``python -m lightning_bc sweep``: search, choose, run anew, score."""

import shlex
import sys
import warnings
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lightning_bc.arguments import found_configurations
from lightning_bc.errors import InputError
from lightning_bc.sweep.fits import fit, last_return, run_name, test_results
from lightning_bc.sweep.search import Search, as_flags, check
from lightning_bc.sweep.study import Numbered, open_storage, open_study, storage_in_words
from lightning_bc.sweep.workers import Stage, in_words, value_of


def sweep(args: Sequence[str]) -> int:
    """Run the command.

    Returns:
        The exit status: 0, or 1 if a trial has failed.

    Raises:
        InputError: before the first trial, for what cannot be used; later, if the storage is lost.
    """
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # heartbeats
    optuna.logging.set_verbosity(optuna.logging.ERROR)              # of trials, it is told here
    search = Search.parse(found_configurations(list(args)))
    check(search)
    try:
        return _sweep(search)
    except (SQLAlchemyError, StorageInternalError) as error:
        raise InputError(f"--storage: was lost ({error}). The same command goes on where this one stopped.") from error
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one stopped", file=sys.stderr)
        return 130


def _sweep(search: Search) -> int:
    pruner = optuna.pruners.MedianPruner() if search.prune else optuna.pruners.NopPruner()
    storage = open_storage(search.storage, search.name)
    study = open_study(storage, search.name, search.identity, search.optuna_sampler(), pruner)

    def selection_return(trial: Trial, seed: int) -> float:
        return last_return(fit(run_name(trial, seed), [*search.flags, *as_flags(trial.params)], seed))

    searching = Stage(study, search.space, search.trials, lambda _: range(search.seeds), selection_return, search.jobs)
    place = storage_in_words(search.storage, search.name)
    print(f"study {search.name}, in {place}: {search.trials} trials of {search.seeds} seeds", flush=True)
    searching.work()
    tried = searching.outcomes()
    failed = [trial for trial in tried if trial.state == TrialState.FAIL]
    complete = sorted((trial for trial in tried if trial.state == TrialState.COMPLETE), key=value_of, reverse=True)
    _print_search(complete, search.seeds)
    if pruned := sum(trial.state == TrialState.PRUNED for trial in tried):
        print(f"{pruned} of {search.trials} settings were pruned")
    if complete:
        failed += _run_anew(search, storage, complete[0])
    for trial in failed:
        error = trial.user_attrs.get("error", "no reason was recorded").rstrip().split("\n")[-1]
        print(f"failed: {in_words(trial.params)}: {error}", file=sys.stderr)
    if failed:
        print("the same command tries these again", file=sys.stderr)
    return 1 if failed else 0


def _run_anew(search: Search, storage: optuna.storages.BaseStorage, best: FrozenTrial) -> list[FrozenTrial]:
    """Run the best setting with fresh seeds, print its scores on the test bank, and return the runs that failed."""
    fresh = range(search.seeds, 2 * search.seeds)
    flags = [*search.flags, *as_flags(best.params)]
    identity = {"chosen_from": search.name, "trial": best.number, "flags": flags, "seeds": list(fresh)}

    def test_score(trial: Trial, seed: int) -> float:
        results = test_results(fit(run_name(trial, seed), flags, seed))
        shown = {key: results[key] for key in ("run", "score", "normalized", "failed_episodes")}
        trial.set_user_attr("results", shown)
        return results["score"]

    space = {key: CategoricalDistribution([value]) for key, value in best.params.items()}
    name = f"{search.name}-test-{best.number}"
    study = open_study(storage, name, identity, Numbered(lambda _: best.params), optuna.pruners.NopPruner())
    scoring = Stage(study, space, len(fresh), lambda index: [fresh[index]], test_score, search.jobs)
    print(f"\nchosen: {in_words(best.params)}; run anew with seeds {fresh[0]} to {fresh[-1]}", flush=True)
    scoring.work()
    outcomes = scoring.outcomes()
    results = [trial.user_attrs["results"] for trial in outcomes if trial.state == TrialState.COMPLETE]
    _print_scores(results)
    print(f"\npython -m lightning_bc fit {shlex.join([*flags, '--seed_everything', str(fresh[0])])}")
    return [trial for trial in outcomes if trial.state == TrialState.FAIL]


def _print_search(trials: Sequence[FrozenTrial], seeds: int) -> None:
    """All settings by their value, the best first."""
    print(f"\nreturn of the last checkpoint on the selection bank, over {seeds} seed{'s' * (seeds > 1)}")
    keys = list(trials[0].params) if trials else []
    rows = []
    for trial in trials:
        values = [trial.user_attrs[f"value {seed}"] for seed in range(seeds)]
        rows.append([*trial.params.values(), fmean(values), stdev(values) if seeds > 1 else "", min(values)])
    _print_table([*keys, "mean", "standard deviation", "worst seed"], rows)


def _print_scores(results: Sequence[Mapping[str, Any]]) -> None:
    """The scores of the chosen setting, a line a run, and their mean."""
    print("\nscore of the chosen setting: last checkpoint, 100 test-bank episodes, deterministic actions")
    keys = ("score", "normalized", "failed_episodes")
    rows = [[result["run"], *(result[key] for key in keys)] for result in results]
    for name, statistic in (("mean", fmean), ("standard deviation", stdev)) if len(rows) > 1 else ():
        columns = [[result[key] for result in results if result[key] is not None] for key in keys]
        rows.append([name, *(statistic(column) if len(column) > 1 else "" for column in columns)])
    _print_table(["run", "score", "normalized", "failed episodes"], rows)
    if len(results) == 1:
        print("1 seed, no interval")


def _print_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    texts = [list(header), *([f"{cell:.5g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for text in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(text, widths, strict=True)).rstrip())
