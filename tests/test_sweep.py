"""The search of settings: what is searched, who does what, and what a trial is judged by.

Workers are processes of their own that run a function in place of a fit, except where the fit itself is what is tested.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
import yaml
from conftest import REPOSITORY, import_from, write_pendulum
from optuna.trial import TrialState

from lightning_bc.cli import main
from lightning_bc.errors import InputError
from lightning_bc.sweep import command, fits, workers
from lightning_bc.sweep.search import Search
from lightning_bc.sweep.study import claims, open_storage, open_study
from lightning_bc.sweep.workers import FitFailedError, Stage

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

BUDGET = "--trainer.max_steps 4 --rollouts.eval_freq 2 --rollouts.episodes 2"
GRID = ["--grid", "data.batch_size=8,16,32", "--grid", "model.optimizer.lr=1e-2,1e-3"]

# A worker whose runs take 0.2 s and leave a line each; the second of setting 8, 1e-2 never ends in the worker "mortal".
WORKER = """
import sys, time
from lightning_bc.sweep import study, workers
from lightning_bc.sweep.search import Search
study.HEARTBEAT_SECONDS, study.GRACE_SECONDS, workers.POLL_SECONDS = 1, 2, 0.2
name, storage, log, *args = sys.argv[1:]

def measure(trial, seed):
    with open(log, "a") as file:
        file.write(f"{name} {trial.params['data.batch_size']} {trial.params['model.optimizer.lr']} {seed}\\n")
    time.sleep(1000 if name == "mortal" and seed == 1 else 0.2)
    return float(trial.params["data.batch_size"])

search = Search.parse(args)
storage = study.open_storage(None if storage == "file" else storage, search.name)
made = study.open_study(storage, search.name, search.identity, search.optuna_sampler(), study.optuna.pruners.NopPruner())
workers.Stage(made, search.space, search.trials, lambda _: range(2), measure).work()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory, and short heartbeats."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightning_bc.sweep.workers.POLL_SECONDS", 0.2)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return tmp_path


def parse(*args):
    return Search.parse(list(args))


def stage(measure, *args, seeds=2, jobs=1):
    search = parse(*args)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=2) if search.prune else optuna.pruners.NopPruner()
    study = open_study(open_storage(None, search.name), search.name, search.identity, search.optuna_sampler(), pruner)
    return Stage(study, search.space, search.trials, lambda _: range(seeds), measure, jobs)


def settings(trials):
    return [tuple(trial.params.values()) for trial in trials]


# What is searched


def test_a_grid_is_the_product_of_its_values_and_keeps_brackets_whole():
    search = parse("--grid", "a=[256,256],[512]", "--grid", "b=1e-3,x")
    assert search.trials == 4
    assert [tuple(search.setting(k).values()) for k in range(4)] == [
        ("[256,256]", "1e-3"),
        ("[256,256]", "x"),
        ("[512]", "1e-3"),
        ("[512]", "x"),
    ]


def test_ranges_are_drawn_within_their_ends_and_the_same_by_every_worker():
    args = ["--sampler", "random", "--trials", "50", "--search", "lr=log:1e-5..1e-2", "--search", "batch=int:2..9"]
    first, second = parse(*args), parse(*args)
    drawn = [first.setting(k) for k in range(50)]
    assert drawn == [second.setting(k) for k in range(50)]
    assert {type(setting["batch"]) for setting in drawn} == {int}
    assert {setting["batch"] for setting in drawn} == set(range(2, 10))
    assert all(1e-5 <= setting["lr"] <= 1e-2 for setting in drawn)
    assert 5 < sum(setting["lr"] < 10**-3.5 for setting in drawn) < 45      # half of them, on a logarithmic scale


def test_the_same_command_has_the_same_name_and_another_has_another():
    name = parse("--grid", "a=1,2").name
    assert parse("--grid", "a=1,2", "--jobs", "3").name == name
    others = [["--grid", "a=1,3"], ["--grid", "a=1,2", "--seeds", "4"], ["--grid", "a=1,2", "--env", "Hopper-v5"]]
    assert len({name, *(parse(*other).name for other in others)}) == 4


def test_the_original_searches_are_what_they_were(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    files = {path.stem: path for path in Path("configs/sweeps").glob("*.yaml")}
    searches = {stem: parse("--config", str(path)) for stem, path in files.items()}
    assert {stem: search.trials for stem, search in searches.items()} == {"baseline": 8, "gmm": 12, "wide_mse": 1}
    assert searches["gmm"].flags == ["--config", "configs/gmm.yaml"]
    assert searches["wide_mse"].setting(0)["model.network.hidden_sizes"] == "[512, 512, 512]"
    for search in searches.values():
        flags = [word for key, value in search.setting(0).items() for word in (f"--{key}", value)]
        with pytest.raises(SystemExit) as exit_info:
            main(["fit", *search.flags, *flags, "--print_config"])
        assert exit_info.value.code == 0


def test_the_command_line_counts_more_than_a_file(folder):
    Path("mine.yaml").write_text(yaml.safe_dump({"grid": {"a": [1, 2], "b": ["x"]}, "seeds": 7}))
    search = parse("--config", "mine.yaml", "--grid", "a=3", "--data.path", "x.pt")
    assert search.seeds == 7
    assert search.setting(0) == {"a": "3", "b": "x"}
    assert search.flags == ["--data.path", "x.pt"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("", ["--grid KEY=VALUE"]),
        ("--grid a", ["--grid a", "KEY=VALUES"]),
        ("--grid a=1,1", ["--grid a=1,1", "no two"]),
        ("--grid a=1 --trials 3", ["--trials 3", "grid"]),
        ("--grid a=1 --seeds 0", ["--seeds 0", "at least 1"]),
        ("--search a=1..2", ["--sampler random"]),
        ("--sampler tpe --search a=1..2", ["--trials", "at least 1"]),
        ("--sampler tpe --trials 2 --search a=2..1", ["--search a=2..1", "LOW..HIGH"]),
        ("--sampler tpe --trials 2 --search a=log:0..1", ["log:0..1"]),
        ("--sampler best --grid a=1", ["best", "tpe"]),
        ("--grid seed_everything=1,2", ["seed_everything", "--seeds"]),
        ("--grid a=1 --ckpt_path last", ["--ckpt_path"]),
        ("--grid a=1 --name a/b", ["--name a/b"]),
        ("--config nowhere.yaml --grid a=1", ["nowhere.yaml", "configs/"]),
        ("--config typo.yaml", ["typo.yaml", "seed", "seeds"]),
        ("--model MSE --data.path pendulum.pt --grid data.batchsize=8", ["data.batchsize", "data.batch_size"]),
        ("--model MSE --data.path pendulum.pt --grid data.batch=8", ["data.batch.", "data.batch_size"]),
        ("--model MSE --data.path pendulum.pt --grid model.lr=8", ["model.lr", "model.optimizer.lr"]),
        ("--model MSE --data.path pendulum.pt --grid data.batch_size=8,x", ["data.batch_size=x", "whole number"]),
        ("--model MSE --data.path pendulum.pt --grid data.batch_size=8,0", ["data.batch_size=0", "at least 1"]),
        ("--model MSE --grid env=Hopper-v5,Walker2d-v5", ["Hopper-v5 and Walker2d-v5"]),
        ("--model MSE --data.path nowhere.pt --grid data.batch_size=8", ["nowhere.pt", "no such"]),
        ("--model MSE --data.path pendulum.pt --grid data.batch_size=8 --storage file.db", ["file.db", "URL"]),
        (
            "--model MSE --data.path pendulum.pt --grid data.batch_size=8 "
            "--storage postgresql+psycopg2://me:secret@localhost:1/x",
            ["localhost:1", "cannot be reached", "refused"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")             # jsonargparse's word on abbreviations
def test_bad_input_is_refused_before_the_first_trial(args, words, folder, capsys):
    write_pendulum("pendulum.pt")
    Path("typo.yaml").write_text("grid: {a: [1]}\nseed: 3\n")
    with pytest.raises(SystemExit) as exit_info:
        main(["sweep", *args.split()])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert "secret" not in error
    for word in words:
        assert word in error
    assert not Path("lightning_logs").exists()


def test_another_search_under_the_same_name_is_refused(folder):
    stage(None, "--grid", "a=1,2", "--name", "mine")
    with pytest.raises(InputError, match=r"mine: is another search.*choices"):
        stage(None, "--grid", "a=1,3", "--name", "mine")


# Who does what


def work_and_kill(folder, storage):
    """Two workers, one of them killed in the middle of a trial; the runs they began, and the search."""
    script, log = folder / "worker.py", folder / "log"
    script.write_text(WORKER)
    log.touch()
    start = {"env": os.environ | import_from(REPOSITORY), "cwd": folder}

    def worker(name):
        return subprocess.Popen([sys.executable, script, name, storage, log, *GRID], **start)

    mortal = worker("mortal")
    while len(log.read_text().splitlines()) < 2:                            # its second run, which never ends
        assert mortal.poll() is None
        time.sleep(0.05)
    other = worker("other")
    while "other" not in log.read_text():
        assert other.poll() is None
        time.sleep(0.05)
    mortal.send_signal(signal.SIGKILL)
    mortal.wait()
    assert other.wait(timeout=300) == 0
    search = parse(*GRID)
    again = worker("late")                                                  # the same command again: nothing is left
    assert again.wait(timeout=300) == 0
    return [line.split() for line in log.read_text().splitlines()], search


def assert_all_cells_once(begun, outcomes, search):
    cells = {tuple(search.setting(k).values()) for k in range(6)}
    assert len(outcomes) == 6
    assert set(settings(outcomes)) == cells
    assert {trial.state for trial in outcomes} == {TrialState.COMPLETE}
    runs = Counter((batch, lr, seed) for _, batch, lr, seed in begun)
    assert set(runs) == {(*cell, seed) for cell in cells for seed in "01"}
    interrupted = ("8", "1e-2", "1")
    assert runs.pop(interrupted) == 2                                       # killed, and taken up again
    assert set(runs.values()) == {1}                                        # its first seed is not run again
    assert [name for name, *run in begun if tuple(run) == interrupted] == ["mortal", "other"]


def test_two_workers_on_a_file_and_one_killed_do_every_cell_once(folder):
    begun, search = work_and_kill(folder, "file")
    assert_all_cells_once(begun, stage(None, *GRID).outcomes(), search)


@pytest.fixture
def postgresql(tmp_path):
    """URL of a PostgreSQL of the test's own, on a free port."""
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("no PostgreSQL on this machine: initdb and pg_ctl are not on the PATH (Debian: postgresql)")
    pytest.importorskip("psycopg2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    as_user = []
    database = tmp_path / "database"
    database.mkdir()
    if os.geteuid() == 0:                                                   # PostgreSQL refuses to run as root
        as_user = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
        shutil.chown(database, "nobody", "nogroup")
        for parent in (tmp_path, *tmp_path.parents):
            if parent.stat().st_uid == 0 and parent.is_relative_to("/tmp") and parent != Path("/tmp"):
                parent.chmod(parent.stat().st_mode | 0o011)
    control = [*as_user, "pg_ctl", "--pgdata", str(database / "data"), "--wait"]
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c fsync=off"
    quiet = {"check": True, "cwd": database, "stdout": subprocess.DEVNULL}
    subprocess.run([*control, "initdb", "--options", "--username=me --auth=trust --no-sync"], **quiet)
    subprocess.run([*control, "start", "--options", options, "--log", str(database / "log")], **quiet)
    yield f"postgresql+psycopg2://me@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "stop", "--mode", "immediate"], **quiet)


@pytest.mark.slow
def test_two_workers_on_postgresql_and_one_killed_do_every_cell_once(postgresql, folder):
    begun, search = work_and_kill(folder, postgresql)
    study = optuna.load_study(study_name=search.name, storage=postgresql)
    outcomes = Stage(study, search.space, search.trials, lambda _: range(2), None).outcomes()
    assert_all_cells_once(begun, outcomes, search)


def test_many_threads_take_every_cell_once(folder):
    begun = []

    def measure(trial, seed):
        begun.append((*trial.params.values(), seed))
        return 1.0

    many = stage(measure, "--grid", f"a={','.join(map(str, range(20)))}", seeds=1, jobs=8)
    many.work()
    assert sorted(begun, key=lambda run: int(run[0])) == [(str(value), 0) for value in range(20)]


def test_the_value_is_the_mean_over_seeds(folder):
    done = stage(lambda trial, seed: float(trial.params["a"]) + seed, "--grid", "a=10,30,20", seeds=3)
    done.work()
    assert [trial.value for trial in done.outcomes()] == [11, 31, 21]
    assert done.study.best_trial.params == {"a": "30"}


def test_a_failed_trial_does_not_stop_the_others_and_is_tried_again_by_the_same_command(folder, capsys):
    broken = True

    def measure(trial, seed):
        if broken and trial.params["a"] == "2" and seed == 1:
            raise FitFailedError("no space left")
        begun.append((trial.params["a"], seed))
        return 1.0

    begun = []
    first = stage(measure, "--grid", "a=1,2,3")
    first.work()
    assert [trial.state.name for trial in first.outcomes()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "no space left" in capsys.readouterr().err
    broken, begun = False, []
    second = stage(measure, "--grid", "a=1,2,3")
    second.work()
    assert begun == [("2", 1)]
    assert [trial.state.name for trial in second.outcomes()] == ["COMPLETE"] * 3
    assert settings(second.outcomes()) == [("1",), ("2",), ("3",)]


def test_a_trial_that_was_taken_for_dead_and_lives_counts_once(folder):
    """As after a machine's sleep: meanwhile the trial is another worker's."""

    def measure(trial, seed):
        if trial.params["a"] == "1" and trial.number == 0:
            frozen = trial.study.get_trials()[0]
            trial.study._storage.set_trial_state_values(frozen._trial_id, TrialState.FAIL)
            workers.take_up_again(trial.study, frozen)
        return float(trial.number)

    slept = stage(measure, "--grid", "a=1,2", seeds=1)
    slept.work()
    assert [trial.number for trial in slept.outcomes()] == [1, 2]
    assert [trial.state for trial in slept.outcomes()] == [TrialState.COMPLETE] * 2


def test_where_two_put_the_same_trial_back_one_repetition_counts(folder):
    begun = []
    study = stage(lambda trial, seed: begun.append(trial.number) or 1.0, "--grid", "a=1,2", seeds=1)
    study.study.optimize(lambda trial: (_ for _ in ()).throw(FitFailedError), n_trials=1, catch=(FitFailedError,))
    failed = study.study.get_trials()[0]
    workers.take_up_again(study.study, failed)
    workers.take_up_again(study.study, failed)
    study.work()
    assert len(begun) == 2
    assert set(claims(study.study)) == {(0, 0), (0, 1), (1, 0)}


def test_tpe_tries_as_many_settings_as_asked_and_nears_the_best(folder):
    args = ["--sampler", "tpe", "--trials", "30", "--search", "x=-1..1", "--grid", "side=left,right"]
    search = stage(lambda trial, seed: -abs(trial.params["x"] - 0.5) - (trial.params["side"] == "left"), *args, seeds=1)
    search.work()
    assert len(search.outcomes()) == 30
    assert search.study.best_value > -0.2


def test_pruning_gives_up_what_is_below_the_median(folder):
    begun = []

    def measure(trial, seed):
        begun.append((trial.params["a"], seed))
        return float(trial.params["a"])

    search = stage(measure, "--grid", "a=9,8,1,7", "--prune")
    search.work()
    assert [trial.state.name for trial in search.outcomes()] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    assert ("1", 1) not in begun


# What a trial is judged by


def test_a_trial_is_judged_by_the_last_point_of_the_curve_and_results_cannot_change_it(folder):
    Path("lightning_logs/run").mkdir(parents=True)
    Path("lightning_logs/run/curve.csv").write_text("step,rollout/return_mean\n0,1.0\n2,9.0\n4,5.0\n")
    Path("lightning_logs/run/results.json").write_text(json.dumps({"score": 1e9, "normalized": 1e9}))
    assert fits.last_return("run") == 5.0


@pytest.mark.slow
def test_a_fit_dies_with_its_worker_and_is_resumed_by_the_next(folder):
    flags = f"--model MSE --data.path {write_pendulum('pendulum.pt')} --rollouts.eval_freq 5 --rollouts.episodes 2"
    flags = [*flags.split(), "--data.batch_size", "10", "--trainer.max_epochs", "30"]
    lines = "from lightning_bc.sweep.fits import fit", f"fit('mine', {flags}, 3)"
    environment = os.environ | import_from(REPOSITORY, REPOSITORY / "tests")
    worker = subprocess.Popen([sys.executable, "-c", "\n".join(lines)], env=environment)
    checkpoint = Path("checkpoints/mine/last.ckpt")
    while not checkpoint.exists():
        assert worker.poll() is None
        time.sleep(0.02)
    worker.kill()
    worker.wait()
    time.sleep(1)
    stopped = checkpoint.stat().st_mtime_ns
    time.sleep(1)
    assert checkpoint.stat().st_mtime_ns == stopped                         # nobody writes to it any more
    assert not Path("lightning_logs/mine/results.json").exists()
    assert fits.fit("mine", flags, 3) == "mine"
    assert fits.test_results("mine")["optimizer_steps"] == 330
    assert [path.name for path in Path("checkpoints").iterdir()] == ["mine"]


def test_a_fit_that_fails_says_why(folder):
    with pytest.raises(FitFailedError, match=r"exit status 2(.|\n)*nowhere.pt: no such"):
        fits.fit("mine", ["--model", "MSE", "--data.path", "nowhere.pt"], 0)


def test_a_sweep_chooses_by_the_curve_runs_anew_with_fresh_seeds_and_scores_on_the_test_bank(folder, monkeypatch, capsys):
    """Real fits: two settings of one seed, and the better one anew; doctored results of the search change nothing."""
    write_pendulum("pendulum.pt")
    returns = {}

    def doctored(run, flags, seed, fit=fits.fit):
        fit(run, flags, seed)
        path = Path(f"lightning_logs/{run}/results.json")
        if seed == 0:
            returns[flags[-1]] = last = fits.last_return(run)
            path.write_text(json.dumps(json.loads(path.read_text()) | {"score": -last, "normalized": -last}))
        return run

    monkeypatch.setattr(command, "fit", doctored)
    args = ["sweep", "--model", "MSE", "--data.path", "pendulum.pt", *BUDGET.split(), "--grid", "data.batch_size=8,64"]
    main([*args, "--seeds", "1"])
    best = max(returns, key=returns.get)
    printed = capsys.readouterr().out
    assert f"chosen: data.batch_size {best}; run anew with seeds 1 to 1" in printed
    assert printed.rstrip().endswith(f"--data.batch_size {best} --seed_everything 1")
    assert "1 seed, no interval" in printed
    configs = {path.parent.name: yaml.safe_load(path.read_text()) for path in Path("lightning_logs").glob("*/config.yaml")}
    made = {run: (str(config["data"]["batch_size"]), config["seed_everything"]) for run, config in configs.items()}
    assert sorted(made.values()) == sorted([("8", 0), ("64", 0), (best, 1)])
    fresh = next(run for run, (_, seed) in made.items() if seed == 1)
    assert f"{fresh}  {fits.test_results(fresh)['score']:.5g}" in printed
