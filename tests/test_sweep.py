"""The search of settings: what is searched, in which order, what a trial is judged by, and that it goes on.

Fits are run in this process, or a function stands in their place.
"""

import configparser
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import pytest
import yaml
from conftest import REPOSITORY, json_to_edit, refused, write_pairs, write_pendulum
from optuna.trial import TrialState
from test_report import BENCHMARK
from test_study import InThisProcess

from lightning_bc.cli import main
from lightning_bc.errors import InputError
from lightning_bc.files import owning
from lightning_bc.report.chart import make_charts
from lightning_bc.runs.plan import Fit
from lightning_bc.runs.records import read_records
from lightning_bc.runs.results import Results
from lightning_bc.stopping import StoppedError
from lightning_bc.study import sweep
from lightning_bc.study.search import Search
from lightning_bc.study.sweep import Trials, last_return

BUDGET = "--trainer.max_steps 4 --rollouts.eval_freq 2 --rollouts.episodes 2"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def parse(*args):
    return Search.parse(list(args))


class Here:
    """Runs fits at once, in this process; ``measure`` stands in place of the fit and answers the last return.

    ``diverged`` are the names of those whose results say that they diverged.
    """

    slots = 1

    def __init__(self, measure, diverged=()):
        self.measure, self.begun, self.diverged = measure, [], diverged
        self.results = BENCHMARK["write_run"](Path(mkdtemp(dir=".")) / "made", BENCHMARK["default_config"](), 0, 2, 0.5)

    def start(self, fit):
        values = dict(zip(fit.flags, fit.flags[1:], strict=False)) | {"seed": fit.seed}
        self.begun.append((fit.row.partition(": ")[2], fit.seed))
        error = None
        try:
            value = self.measure(values)
            Path(f"lightning_logs/{fit.name}").mkdir(parents=True, exist_ok=True)
            Path(f"lightning_logs/{fit.name}/curve.csv").write_text(f"step,rollout/return_mean\n0,99\n4,{value}\n")
            why = "the loss at step 3" if fit.name in self.diverged else None
            error = why and "exit status 1; its last lines:"
            replace(self.results, diverged=why).write(f"lightning_logs/{fit.name}/results.json")
        except OSError as failure:
            error = str(failure)
        return lambda: error

    def stop(self):
        pass


def tried(measure, *args, diverged=()):
    """The trials of a search that has been run, in the order of their numbers, and what was run."""
    trials, engine = Trials(parse(*args)), Here(measure, diverged)
    trials.run(engine)
    return [trial for trial in trials.study.trials if trial.state != TrialState.FAIL], engine.begun


def test_the_extra_brings_what_a_sweep_imports():
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    brought = setup["options.extras_require"]["sweep"] + setup["options"]["install_requires"]
    for name in ("optuna", "scipy"):                                # its tables need SciPy, as those of the extra report
        assert f"{name} >=" in brought


# What is searched


def test_a_grid_is_the_product_of_its_values_and_keeps_brackets_whole():
    search = parse("--grid", "a=[256,256],[512]", "--grid", "b=1e-3,x")
    assert search.trials == 4
    assert [tuple(setting.values()) for setting in search.settings()] == [
        ("[256,256]", "1e-3"),
        ("[256,256]", "x"),
        ("[512]", "1e-3"),
        ("[512]", "x"),
    ]


def test_ranges_are_drawn_within_their_ends_and_the_same_each_time():
    args = ["--sampler", "random", "--trials", "50", "--search", "lr=log:1e-5..1e-2", "--search", "batch=int:2..9"]
    drawn = parse(*args).settings()
    assert len(drawn) == 50
    assert drawn == parse(*args).settings()
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
    assert searches["wide_mse"].settings()[0]["model.network.hidden_sizes"] == "[512, 512, 512]"
    for search in searches.values():
        with pytest.raises(SystemExit) as exit_info:
            main(["fit", *search.told(search.settings()[0]), "--print_config"])
        assert exit_info.value.code == 0


def test_the_command_line_counts_more_than_a_file():
    Path("mine.yaml").write_text(yaml.safe_dump({"grid": {"a": [1, 2], "b": ["x"]}, "seeds": 7}))
    search = parse("--config", "mine.yaml", "--grid", "a=3", "--data.path", "x.pt")
    assert search.given.seeds == 7
    assert search.settings() == [{"a": "3", "b": "x"}]
    assert search.flags == ["--data.path", "x.pt"]


def test_the_command_line_counts_more_than_a_range_of_a_file():
    Path("mine.yaml").write_text(yaml.safe_dump({"search": {"a": "1..2", "b": "1..2"}, "sampler": "tpe", "trials": 3}))
    space = parse("--config", "mine.yaml", "--grid", "a=3").space
    assert space["a"].choices == ("3",)
    assert space["b"].high == 2
    assert parse("--config", "mine.yaml", "--search", "a=1..5").space["a"].high == 5


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("", ["--grid KEY=VALUE"]),
        ("--grid a", ["--grid a", "KEY=VALUES"]),
        ("--grid a=1,1", ["--grid a=1,1", "no two"]),
        ("--grid a=1,2 --a 3", ["--a: is searched too", "--grid a=VALUE"]),
        ("--grid a=1,2 --a=3", ["--a: is searched too"]),
        ("--grid a=1 --trials 3", ["--trials 3", "grid"]),
        ("--grid a=1 --seeds 0", ["--seeds 0", "at least 1"]),
        ("--grid a=1 --jobs 0", ["--jobs 0", "at least 1"]),
        ("--search a=1..2", ["--sampler random"]),
        ("--sampler tpe --search a=1..2", ["--trials", "at least 1"]),
        ("--sampler tpe --trials 2 --search a=2..1", ["--search a=2..1", "LOW..HIGH"]),
        ("--sampler tpe --trials 2 --search a=log:0..1", ["log:0..1"]),
        ("--sampler tpe --trials 2 --search a=0..nan", ["0..nan", "not a finite range"]),
        ("--sampler tpe --trials 2 --search a=0..inf", ["0..inf", "not a finite range"]),
        ("--sampler best --grid a=1", ["best", "tpe"]),
        ("--grid seed_everything=1,2", ["seed_everything", "--seeds"]),
        ("--grid a=1 --ckpt_path last", ["--ckpt_path"]),
        ("--grid a=1 --name a/b", ["--name a/b"]),
        ("--config nowhere.yaml --grid a=1", ["nowhere.yaml", "configs/"]),
        ("--config typo.yaml", ["typo.yaml", "seed", "seeds"]),
        ("--model MSE --data.path pendulum.pt --grid data.batchsize=8", ["data.batchsize", "data.batch_size"]),
        ("--model MSE --data.path pendulum.pt --grid model.lr=8", ["model.lr", "model.optimizer.lr"]),
        ("--model MSE --data.path pendulum.pt --grid data.batch_size=8,x", ["data.batch_size x", "whole number"]),
        ("--model MSE --data.path pendulum.pt --grid data.batch_size=8,0", ["data.batch_size 0", "at least 1"]),
        (
            "--model MSE --data.path pendulum.pt --grid model.optimizer.lr=1e-3,0.001",
            ["model.optimizer.lr 1e-3 and model.optimizer.lr 0.001: mean the same run"],
        ),
        (
            "--model MSE --data.path pendulum.pt --grid model.optimizer.init_args.lr=1e-3,1e-4 --model.optimizer.lr 0.1",
            ["mean the same run", "what overrides both"],
        ),
        ("--model SAC --grid env=Hopper-v5,Walker2d-v5", ["Hopper-v5 and Walker2d-v5"]),
        ("--model MSE --data.path pendulum.pt --grid rollouts.episodes=2,0", ["--rollouts.episodes 0", "no returns"]),
        ("--model MSE --data.path nowhere.pt --grid data.batch_size=8", ["nowhere.pt", "no such"]),
    ],
)
def test_bad_input_is_refused_before_the_first_trial(args, words, capsys):
    write_pendulum("pendulum.pt")
    Path("typo.yaml").write_text("grid: {a: [1]}\nseed: 3\n")
    error = refused(capsys, "sweep", *args.split())
    for word in words:
        assert word in error
    assert not Path("lightning_logs").exists()


def test_another_search_under_the_same_name_is_refused():
    tried(lambda values: 1.0, "--grid", "a=1,2", "--name", "mine")
    with pytest.raises(InputError, match=r"mine: is another search.*choices"):
        Trials(parse("--grid", "a=1,3", "--name", "mine"))


def test_a_damaged_file_is_named():
    Trials(parse("--grid", "a=1", "--name", "mine"))
    with Path("lightning_logs/sweeps/mine.log").open("a") as file:
        file.write("{torn\n{}\n")
    with pytest.raises(InputError, match=r"sweeps/mine.log: is damaged"):
        Trials(parse("--grid", "a=1", "--name", "mine"))


# How it is searched


def test_the_value_is_the_mean_of_the_last_returns_over_seeds():
    trials, begun = tried(lambda values: float(values["--a"]) + values["seed"], "--grid", "a=10,30,20")
    assert [trial.value for trial in trials] == [11, 31, 21]
    assert len(begun) == 9


def stop(values):
    raise StoppedError(2)


@pytest.mark.parametrize("sampler", ["--grid a=1,2,3", "--search a=0..9 --sampler tpe --trials 3"])
def test_a_search_goes_on_where_it_was_stopped(sampler):
    args = ["--seeds", "2", *sampler.split()]

    def stopping(values):
        begun.append(values)
        if len(begun) == 4:
            raise StoppedError(2)
        return 1.0

    begun = []
    with pytest.raises(StoppedError):
        tried(stopping, *args)
    kept = [trial.params for trial in Trials(parse(*args)).of(TrialState.COMPLETE, TrialState.FAIL)]
    trials, again = tried(lambda values: 2.0, *args)
    assert sorted(trial.value for trial in trials) == [1, 1.5, 2]
    assert len(again) == 3                                                  # what is done is not run again
    assert [trial.params for trial in sorted(trials, key=lambda trial: trial.value)][:2] == kept


def test_what_fails_does_not_stop_the_others_and_is_tried_again_by_the_same_command(capsys):
    def measure(values):
        if broken and values["--a"] == "2" and values["seed"] == 1:
            raise OSError("no space left")
        return 1.0

    broken = True
    trials, _ = tried(measure, "--grid", "a=1,2,3", "--seeds", "2")
    assert [trial.state.name for trial in trials] == ["COMPLETE", "RUNNING", "COMPLETE"]
    assert "no space left" in capsys.readouterr().err
    broken = False
    trials, begun = tried(measure, "--grid", "a=1,2,3", "--seeds", "2")
    assert begun == [("a 2", 1)]
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3


def test_a_setting_that_diverges_with_a_seed_has_no_value(capsys):
    search = parse("--grid", "a=1,2")
    diverged = {Fit((*search.told({"a": "2"}), "--search", search.name), 1).name}
    trials, begun = tried(lambda values: 1.0, "--grid", "a=1,2", diverged=diverged)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "PRUNED"]
    assert len(begun) == 6
    assert "a 2: diverged" in capsys.readouterr().out


def test_where_every_setting_diverges_none_is_chosen(capsys):
    search = parse("--grid", "a=2", "--seeds", "1")
    diverged = {Fit((*search.told({"a": "2"}), "--search", search.name), 0).name}
    with pytest.raises(InputError, match="every setting has diverged, so none can be chosen"):
        sweep._sweep(search, Trials(search), Here(lambda values: 1.0, diverged))
    assert "1 of 1 settings diverged with a seed" in capsys.readouterr().out


def test_tpe_tries_as_many_settings_as_asked_and_nears_the_best():
    args = ["--sampler", "tpe", "--trials", "30", "--seeds", "1", "--search", "x=-1..1", "--grid", "side=left,right"]
    trials, _ = tried(lambda values: -abs(float(values["--x"]) - 0.5) - (values["--side"] == "left"), *args)
    assert len(trials) == 30
    assert max(trial.value for trial in trials) > -0.2


def test_two_trials_of_one_setting_are_run_once():
    """A run has one process; trials of whole numbers often come to the same one."""

    class Two(Here):
        slots, running = 2, set()

        def start(self, fit):
            assert fit.name not in self.running
            self.running.add(fit.name)

            def wait():
                time.sleep(0.02)
                Here.start(self, fit)
                self.running.remove(fit.name)

            return wait

    args = ["--sampler", "tpe", "--trials", "8", "--seeds", "2", "--search", "a=int:1..2"]
    trials, engine = Trials(parse(*args)), Two(lambda values: 1.0)
    assert trials.run(engine) == []
    assert len(trials.of(TrialState.COMPLETE)) == 8
    assert len(engine.begun) == len(set(engine.begun)) <= 4


def test_a_random_search_tries_what_was_drawn_also_where_a_setting_was_drawn_twice():
    args = ["--sampler", "random", "--trials", "8", "--seeds", "1", "--search", "a=int:1..3"]
    trials, _ = tried(lambda values: 1.0, *args)
    assert [trial.params for trial in trials] == parse(*args).settings()


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_is_lengthened_by_more_trials_and_keeps_those_it_has(sampler):
    def args(trials):
        return ["--sampler", sampler, "--trials", str(trials), "--seeds", "1", "--search", "a=0..9"]

    few, _ = tried(lambda values: float(values["--a"]), *args(3))
    with pytest.raises(StoppedError):
        tried(stop, *args(6))
    more, begun = tried(lambda values: float(values["--a"]), *args(6))
    assert [trial.params for trial in more[:3]] == [trial.params for trial in few]
    assert (len(more), len(begun)) == (6, 3)
    if sampler == "random":
        assert sorted(trial.params["a"] for trial in more) == sorted(drawn["a"] for drawn in parse(*args(6)).settings())
    again, begun = tried(lambda values: 0.0, *args(2))               # what it has stays, and nothing is run
    assert ([trial.value for trial in again], begun) == ([trial.value for trial in more], [])


def test_pruning_gives_up_what_is_below_the_median():
    # the first five are never given up
    grid = "a=" + ",".join(f"{value}.{place}" for place, value in enumerate([9, 8, 9, 8, 9, 1, 9]))
    trials, begun = tried(lambda values: float(values["--a"]), "--grid", grid, "--prune", "--seeds", "2")
    assert [trial.state.name for trial in trials] == [*["COMPLETE"] * 5, "PRUNED", "COMPLETE"]
    assert ("a 1.5", 1) not in begun


@pytest.mark.parametrize("change", ["demonstrations", "configuration"])
def test_runs_that_were_made_otherwise_are_not_shown_as_what_the_command_means_now(change, monkeypatch, capsys):
    """The search of a changed configuration is another one, whose chosen setting has the run of the former."""
    write_pendulum("pendulum.pt")
    monkeypatch.setattr(sweep, "make_engine", lambda given: InThisProcess())
    configuration = "model: {class_path: MSE, init_args: {optimizer: {init_args: {lr: 0.01}}}}\n"
    Path("mine.yaml").write_text(configuration)
    args = ["sweep", "--config", "mine.yaml", "--data.path", "pendulum.pt", *BUDGET.split(), "--grid", "data.batch_size=8"]
    main([*args, "--seeds", "1"])
    main([*args, "--seeds", "1"])                                   # as it is, it is done
    if change == "demonstrations":
        write_pairs("pendulum.pt", (11,) * 12, 4, 1, metadata={"environment_id": "InvertedPendulum-v5"})
        words = ["data.batch_size 8, seed 0 was run under another configuration", "data.path 'SHA-256", "with --name"]
    else:
        Path("mine.yaml").write_text(configuration.replace("0.01", "0.02"))
        words = ["data.batch_size 8, seed 1: its run mine-", "lr 0.01, 0.02", "remove lightning_logs/mine-"]
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        main([*args, "--seeds", "1"])
    error = capsys.readouterr().err
    for word in words:
        assert word in error


# What a trial is judged by


def test_a_trial_is_judged_by_the_last_point_of_the_curve_and_results_cannot_change_it():
    Path("lightning_logs/run").mkdir(parents=True)
    Path("lightning_logs/run/curve.csv").write_text("step,rollout/return_mean\n0,1.0\n2,9.0\n4,5.0\n")
    Path("lightning_logs/run/results.json").write_text(json.dumps({"score": 1e9, "normalized": 1e9}))
    assert last_return("run") == 5.0


def test_a_sweep_chooses_by_the_curve_runs_anew_with_fresh_seeds_and_scores_on_the_test_bank(monkeypatch, capsys):
    """Real fits: two settings of one seed, and the better one anew; doctored results of the search change nothing."""
    write_pendulum("pendulum.pt")
    returns = {}

    class Doctoring(InThisProcess):
        def start(self, fit):
            super().start(fit)
            if "--search" in fit.flags:
                returns[fit.flags[fit.flags.index("--data.batch_size") + 1]] = last = last_return(fit.name)
                path = Path(f"lightning_logs/{fit.name}/results.json")
                path.write_text(json.dumps(json_to_edit(path) | {"score": -last, "normalized": -last}))
            return lambda: None

    monkeypatch.setattr(sweep, "make_engine", lambda given: Doctoring())
    args = ["sweep", "--model", "MSE", "--data.path", "pendulum.pt", *BUDGET.split(), "--grid", "data.batch_size=8,64"]
    args += ["--name", "mine"]
    with owning("lightning_logs/sweeps/mine.log"):
        assert "sweeps/mine.log: process" in refused(capsys, *args)
    main([*args, "--seeds", "1"])
    best = max(returns, key=returns.get)
    printed = capsys.readouterr().out
    assert f"chosen: data.batch_size {best}; run anew with seed 1\n" in printed
    assert " trials of 1 seed\n" in printed
    assert "nan" not in printed
    assert printed.rstrip().endswith("--seed_everything 1")
    assert "(1 seed)" in printed
    assert "nan" not in printed
    configs = {path.parent.name: yaml.safe_load(path.read_text()) for path in Path("lightning_logs").glob("*/config.yaml")}
    made = {run: (str(config["data"]["batch_size"]), config["seed_everything"]) for run, config in configs.items()}
    assert sorted(made.values()) == sorted([("8", 0), ("64", 0), (best, 1)])
    fresh = next(run for run, (_, seed) in made.items() if seed == 1)
    score = Results.read(f"lightning_logs/{fresh}/results.json").score
    assert f"| 1 | {score:.0f} | " in printed
    charts = make_charts(read_records(Path("lightning_logs"))[0])
    assert [run.name for method in charts[0].methods for run in method.runs] == [fresh]   # those that chose are not shown
