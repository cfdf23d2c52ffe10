"""Studies: which fits a file asks for, how they are run side by side, and that nothing is run twice.

A fit is replaced by a shell command that leaves results, except where the real one is what is tested.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from conftest import refused, write_pairs, write_pendulum
from test_report import BENCHMARK

from lightning_bc.cli import main
from lightning_bc.errors import InputError
from lightning_bc.files import sha256
from lightning_bc.runs.plan import Fit, Study, canonical
from lightning_bc.runs.results import Results
from lightning_bc.stopping import StoppedError
from lightning_bc.study import command, process
from lightning_bc.study.command import estimate
from lightning_bc.study.engine import Local, run_all

MODELS = """
flags: --trainer.max_steps 4
seeds: 2
rows:
  MSE: --model MSE
  mixture: --model GaussianMixture --data.batch_size 16
columns:
  all: --data.path pendulum.pt
  few: --data.path pendulum.pt --data.episodes 2
"""


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fake(monkeypatch):
    """A function that makes the command of a fit: after some seconds it leaves results; a line per fit in the file log."""
    made = BENCHMARK["write_run"](Path("made"), BENCHMARK["default_config"](), 0, 2, 0.5)
    made.write("results.json")

    def fit(fit, seconds=0.0, status=0):
        folder = f"lightning_logs/{fit.name}"
        done = f"cp results.json {folder}/results.json" if status == 0 else f"echo no space left; exit {status}"
        return ["sh", "-c", f"echo {fit.name} >> log; sleep {seconds}; {done}"]

    monkeypatch.setattr(Fit, "command", fit)
    return fit


def read(text, name="study.yaml"):
    Path(name).write_text(text)
    return Study.read(name)


def begun():
    return Path("log").read_text().split() if Path("log").exists() else []


# What is asked for


def test_a_study_is_rows_by_columns_by_seeds_with_the_first_seed_first():
    fits = read(MODELS).fits
    assert [(fit.row, fit.column, fit.seed) for fit in fits] == [
        *(("MSE", "all", 0), ("MSE", "few", 0), ("mixture", "all", 0), ("mixture", "few", 0)),
        *(("MSE", "all", 1), ("MSE", "few", 1), ("mixture", "all", 1), ("mixture", "few", 1)),
    ]
    expected = "--data.episodes 2 --data.path pendulum.pt --model MSE --trainer.max_steps 4"
    assert fits[1].flags == tuple(expected.split())
    assert fits[1].arguments() == ["fit", *fits[1].flags, "--seed_everything", "0", "--run", fits[1].name]
    assert len({fit.name for fit in fits}) == 8


def test_a_row_may_have_flags_of_its_own_for_each_column_and_another_number_of_seeds():
    rows = "rows:\n  a: {x: --model MSE --seeds 3, y: --model VAE}\n  b: {y: --model VAE}\nseeds: 1\n"
    assert [(fit.row, fit.column, fit.seed) for fit in read(rows).fits] == [
        *(("a", "x", 0), ("a", "y", 0), ("b", "y", 0), ("a", "x", 1), ("a", "x", 2)),
    ]
    assert [fit.row for fit in read(rows).part(None)] == ["a", "a", "a", "a"]         # the same fit is run once


def test_one_fit_has_one_name_wherever_and_in_whatever_order_its_flags_stand():
    one = canonical(["--data.path", "x", "--config", "a.yaml", "--model.lr=3", "--config", "b.yaml"], "")
    assert one == canonical(["--config=a.yaml", "-c", "b.yaml", "--model.lr=1", "--model.lr", "3", "--data.path", "x"], "")
    assert one != canonical(["--config", "b.yaml", "--config", "a.yaml", "--model.lr", "3", "--data.path", "x"], "")
    callbacks = "--trainer.callbacks+=B --trainer.callbacks.z=1 --trainer.callbacks+=A --trainer.callbacks.y=1"
    assert canonical(callbacks.split(), "") == (
        *("--trainer.callbacks+=B", "--trainer.callbacks.z", "1", "--trainer.callbacks+=A", "--trainer.callbacks.y", "1"),
    )
    assert Fit(one, 3).name.startswith("b-")
    assert Fit(one, 3).name.endswith("-3")
    assert Fit(one, 3).name == Fit(one, 3, "elsewhere", "too").name


def test_the_parts_of_a_job_array_are_everything_once():
    study = read(MODELS)
    parts = [study.part(f"{part}/3") for part in (1, 2, 3)]
    assert sorted(fit.name for part in parts for fit in part) == sorted(fit.name for fit in study.fits)
    assert study.part("0/3") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "wanted rows"),
        ("rows: [a]", "wanted rows"),
        ("rows: {a: --model MSE}\ncolums: {}", "unknown: colums. Nearest known: columns"),
        ("rows: {a: MSE}", "rows: a: 'MSE' stands behind no flag"),
        ("rows: {a: 3}", "rows: a: 3: wanted flags"),
        ("rows: {a: --model 'MSE}", "rows: a: .*No closing quotation"),
        ("rows: {a: --model MSE --seed_everything 3}", "rows: a: --seed_everything is set by the study"),
        ("rows: {a: --model MSE --seeds}", "rows: a: seeds '': wanted a whole number of at least 1"),
        ("rows: {a: --model MSE --print_config}", "rows: a: --print_config prints and trains nothing"),
        ("rows: {a: --model MSE}\nflags: --help", "--help prints and trains nothing"),
        ("rows: {a: --model MSE}\nseeds: 0", "seeds '0': wanted a whole number of at least 1"),
        ("rows: {a: {z: --model MSE}}\ncolumns: {x: --env Hopper-v5}", "rows: a: z: is none of the columns, x"),
        ("rows: {a: --model MSE --data.path nowhere.pt}", "a, seed 0: .*nowhere.pt"),
        ("rows: {a: --model MSE --data.pth nowhere.pt}", "a, seed 0: unknown: --data.pth. Nearest known: --data.path"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_first_fit(text, words, capsys):
    Path("study.yaml").write_text(text)
    error = refused(capsys, "study", "study.yaml")
    with pytest.raises(InputError, match=words):
        raise InputError(error)
    assert not Path("lightning_logs").exists()


@pytest.mark.parametrize("flags", ["--jobs 0", "--only 5/4", "--only half", "--job 2"])
def test_what_the_command_line_says_wrongly_is_refused(flags, capsys):
    Path("study.yaml").write_text(MODELS)
    assert flags.split()[0] in refused(capsys, "study", "study.yaml", *flags.split())


# How they are run


def test_fits_are_run_once_and_what_fails_is_named_while_the_rest_goes_on(fake, monkeypatch, capsys):
    monkeypatch.setattr(command, "refuse", lambda fits: [])
    study = read(MODELS)
    broken = study.fits[2]
    monkeypatch.setattr(Fit, "command", lambda fit: fake(fit, status=4 * (fit == broken)))
    with pytest.raises(SystemExit) as exit_info:
        main(["study", "study.yaml", "--jobs", "2"])
    assert exit_info.value.code == 1
    assert sorted(begun()) == sorted(fit.name for fit in study.fits)
    printed = capsys.readouterr()
    assert "7 of 8 done, 1 failed" in printed.out
    assert f"failed: {broken.name} (mixture, all, seed 0)\nexit status 4; its last lines:\nno space left\n" in printed.err
    assert "study study.yaml --jobs 2" in printed.err

    monkeypatch.setattr(Fit, "command", fake)
    main(["study", "study.yaml"])                                           # only what failed is run again
    assert begun()[8:] == [broken.name]
    Path("study.yaml").write_text(MODELS.replace("seeds: 2", "seeds: 3"))
    main(["study", "study.yaml", "--only", "1/2"])                          # the study was extended
    main(["study", "study.yaml", "--only", "2/2"])
    assert sorted(begun()[9:]) == sorted(fit.name for fit in read(Path("study.yaml").read_text()).fits[8:])


def test_a_fit_that_another_study_has_done_by_then_has_not_failed(fake, monkeypatch, capsys):
    monkeypatch.setattr(command, "refuse", lambda fits: [])
    done = "mkdir -p lightning_logs/{0}; cp results.json lightning_logs/{0}/results.json; exit 2"
    monkeypatch.setattr(Fit, "command", lambda fit: ["sh", "-c", done.format(fit.name)])
    read("rows: {a: --model MSE}\nseeds: 1")
    main(["study", "study.yaml"])
    assert "failed" not in capsys.readouterr().err                  # when it was refused: another process had the run


def test_a_fit_that_a_time_limit_has_cut_off_is_not_done(monkeypatch, capsys):
    monkeypatch.setattr(command, "refuse", lambda fits: [])
    monkeypatch.setattr(Fit, "command", lambda fit: ["true"])
    fit = read("rows: {a: --model MSE}\nseeds: 1").fits[0]
    with pytest.raises(SystemExit, match="1"):
        main(["study", "study.yaml"])
    printed = capsys.readouterr()
    assert "0 of 1 done, 1 failed" in printed.out
    assert f"ended without lightning_logs/{fit.name}/results.json, as --trainer.max_time has it" in printed.err
    assert "this goes on where it stopped" in printed.err


def test_a_dry_run_prints_every_command_and_how_long_the_missing_ones_take(fake, capsys):
    study = read(MODELS)
    run_all(Local(1), study.fits[:1], 1)
    capsys.readouterr()
    main(["study", "study.yaml", "--dry-run", "--jobs", "2"])
    printed = capsys.readouterr().out
    assert printed.count("missing  ") == 7
    for fit in study.fits:
        assert " ".join(fit.arguments()) in printed
    seconds = Results.read("results.json").seconds
    assert printed.endswith(f"8 fits, 7 missing, about {7 * seconds / 2:.0f} s, 2 at the same time\n")
    assert estimate(study.fits, {}, 1) == ""


@pytest.mark.parametrize(
    ("row", "words"), [("--config mze", "mze: no such file"), ("--model MSE --model.optimizer.lrr 10", "lrr")]
)
def test_a_dry_run_refuses_what_fit_would(row, words, capsys):
    read(f"rows: {{a: {row}}}\nseeds: 1")
    error = refused(capsys, "study", "study.yaml", "--dry-run")
    assert "a, seed 0: " in error
    assert words in error


def test_demonstrations_that_are_missing_are_collected_first(fake, monkeypatch, capsys):
    monkeypatch.setattr(command, "refuse", lambda fits: [])
    collected = []

    def start(command):
        collected.append(command[command.index("lightning_bc") + 1 :])
        Path(command[-1]).touch()
        return MagicMock(wait=lambda: 0)

    monkeypatch.setattr(subprocess, "Popen", start)
    Path("there.pt").touch()
    text = "demonstrations: {there.pt: --env Hopper-v5, new.pt: --env Hopper-v5 --pairs 10}\nrows: {a: --model MSE}\n"
    read(text)
    main(["study", "study.yaml", "--only", "0/2"])
    assert collected == [["collect", "--env", "Hopper-v5", "--pairs", "10", "--output", "new.pt"]]
    assert begun() == []


def test_each_fit_has_cores_and_devices_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    cores = sorted(os.sched_getaffinity(0))
    told = "import os, time; print(sorted(os.sched_getaffinity(0)), os.environ['CUDA_VISIBLE_DEVICES'], flush=True); "
    fits = [Fit(("--model", "MSE"), seed) for seed in range(2)]
    script = told + "time.sleep(0.3)"                                       # so that each takes a slot
    run_all(Local(2, lambda fit: [sys.executable, "-c", script]), fits, 2)
    printed = {Path(f"lightning_logs/{fit.name}/output.txt").read_text().strip() for fit in fits}
    assert printed == {f"{cores[0 % len(cores) :: 2]} 4", f"{cores[1 % len(cores) :: 2]} 7"}
    assert sorted(os.sched_getaffinity(0)) == cores


def test_whatever_goes_wrong_with_a_fit_the_rest_goes_on(capsys):
    class Broken:
        slots = 1

        def start(self, fit):
            if fit.seed == 0:
                raise OSError("no space left")
            return lambda: 1 / 0

    fits = [Fit(("--model", "MSE"), seed) for seed in range(2)]
    assert run_all(Broken(), fits, 2) == fits
    assert re.findall("no space left|ZeroDivisionError", capsys.readouterr().err) == ["no space left", "ZeroDivisionError"]


def test_a_signal_that_comes_behind_the_last_fit_is_not_lost(capsys):
    class Done:
        slots = 1

        def start(self, fit):
            return lambda: None

    with pytest.raises(StoppedError):
        run_all(Done(), [Fit(("--model", "MSE"), 0)], 1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


@pytest.mark.parametrize("number", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_queued_fits_cost_little_each(number, fake, capsys):
    fits = [Fit(("--model", "MSE"), seed) for seed in range(number)]
    started = time.monotonic()
    assert run_all(Local(20, lambda fit: fake(fit, 0.1)), fits, number) == []
    assert (time.monotonic() - started) / number < 0.1 / 20 + 0.05
    assert len(begun()) == number
    assert f"{number - 1} of {number} done, 1 running" in capsys.readouterr().out
    started = time.monotonic()
    run_all(Local(1), fits, number)                             # all are done
    assert (time.monotonic() - started) / number < 0.005


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_fits_which_save_and_says_what_goes_on(number, monkeypatch, capsys):
    saving = "trap 'echo saved > saved; exit 0' TERM; echo > began; while true; do sleep 0.05; done"
    monkeypatch.setattr(command, "refuse", lambda fits: [])
    monkeypatch.setattr(Fit, "command", lambda fit: ["sh", "-c", saving])
    read("rows: {a: --model MSE}\nseeds: 2")

    def send():
        while not Path("began").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=send).start()
    with pytest.raises(SystemExit) as exit_info:
        main(["study", "study.yaml"])
    assert exit_info.value.code == 128 + number
    assert Path("saved").exists()
    assert "stopped; this goes on where it stopped: python -m lightning_bc study study.yaml" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_a_fit_has_no_more_threads_than_the_environment_says(monkeypatch):
    monkeypatch.setattr("lightning_bc.study.engine.TASKSET", "taskset")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {*range(4)})
    monkeypatch.setattr("lightning_bc.study.engine.start", lambda command, logs, environment: environment["OMP_NUM_THREADS"])
    for stated, wanted in (("3", "3"), ("9", "4"), ("", "4"), ("2,1", "4")):
        monkeypatch.setenv("OMP_NUM_THREADS", stated)
        local = Local(slots=1)
        local.start(read("rows: {a: --model MSE}\nseeds: 1").fits[0])
        assert local._children[0] == wanted


@pytest.mark.parametrize(("patience", "signals"), [(0.2, 1), (60, 2)], ids=["for a while", "until a second signal"])
def test_a_fit_that_does_not_answer_a_signal_is_waited_for(patience, signals, monkeypatch, capsys):
    deaf = "trap '' TERM; echo $$ > began.partial; mv began.partial began; while true; do sleep 0.05; done"
    monkeypatch.setattr(process, "PATIENCE", patience)
    monkeypatch.setattr(command, "refuse", lambda fits: [])
    monkeypatch.setattr(Fit, "command", lambda fit: ["sh", "-c", deaf])
    read("rows: {a: --model MSE}\nseeds: 1")
    end, is_ending = process.end, threading.Event()
    monkeypatch.setattr("lightning_bc.study.engine.end", lambda children: (is_ending.set(), end(children)))

    def send():
        while not Path("began").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)
        if signals > 1:
            is_ending.wait()
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send).start()
    started = time.monotonic()
    with pytest.raises(SystemExit) as exit_info:
        main(["study", "study.yaml"])
    assert exit_info.value.code == 128 + signal.SIGTERM
    assert time.monotonic() - started < 30
    assert not Path(f"/proc/{Path('began').read_text().strip()}").exists()
    assert "stopped; this goes on where it stopped" in capsys.readouterr().err


class InThisProcess:
    """Runs real fits at once, without a process of their own."""

    slots = 1

    def start(self, fit):
        main(fit.arguments())
        return lambda: None

    def stop(self):
        pass


def test_a_real_fit_is_shared_by_two_studies(monkeypatch):
    """Two studies with one cell in common: it is trained once."""
    write_pendulum("pendulum.pt")
    monkeypatch.setattr(command, "make_engine", lambda given: InThisProcess())
    shared = "flags: --data.path pendulum.pt --trainer.max_steps 4 --rollouts.eval_freq 2 --rollouts.episodes 2\nseeds: 1\n"
    fit = read(shared + "rows: {MSE: --model MSE}", "first.yaml").fits[0]
    second = shared.replace("max_steps 4", "max_steps 2") + "rows: {other: --model MSE --trainer.max_steps 4}"
    assert read(second, "second.yaml").fits[0].name == fit.name
    main(["study", "first.yaml"])
    path = Path(f"lightning_logs/{fit.name}/results.json")
    written = path.stat().st_mtime_ns
    main(["study", "second.yaml"])
    assert path.stat().st_mtime_ns == written
    assert Results.read(path).search is None


def test_a_fit_whose_configuration_was_changed_since_is_refused(monkeypatch, capsys):
    write_pendulum("pendulum.pt")
    monkeypatch.setattr(command, "make_engine", lambda given: InThisProcess())
    Path("mine.yaml").write_text("model: {class_path: MSE, init_args: {optimizer: {init_args: {lr: 0.01}}}}\n")
    flags = "--config mine.yaml --data.path pendulum.pt --trainer.max_steps 4 --rollouts.eval_freq 2 --rollouts.episodes 2"
    fit = read(f"seeds: 1\nrows: {{mine: {flags}}}").fits[0]
    main(["study", "study.yaml"])
    results = Path(f"lightning_logs/{fit.name}/results.json").read_bytes()
    main(["study", "study.yaml"])                                   # as it is, it is done
    config = Path(f"lightning_logs/{fit.name}/config.yaml")
    lines = config.read_text().splitlines(True)                     # the first is of its own digest
    config.write_text("".join(line for line in lines[1:] if "history" not in line))
    main(["study", "study.yaml"])                                   # a setting that was not there yet
    Path("mine.yaml").write_text("model: {class_path: MSE, init_args: {optimizer: {init_args: {lr: 0.02}}}}\n")
    assert f"mine, seed 0: its run {fit.name} was made under another" in refused(capsys, "study", "study.yaml")
    assert Path(f"lightning_logs/{fit.name}/results.json").read_bytes() == results


def test_a_fit_whose_demonstrations_were_changed_since_is_refused(monkeypatch, capsys):
    write_pendulum("pendulum.pt")
    monkeypatch.setattr(command, "make_engine", lambda given: InThisProcess())
    flags = "--model MSE --data.path pendulum.pt --trainer.max_steps 4 --rollouts.eval_freq 2 --rollouts.episodes 2"
    fit = read(f"seeds: 1\nrows: {{mine: {flags}}}").fits[0]
    main(["study", "study.yaml"])
    before = sha256("pendulum.pt")
    write_pairs("pendulum.pt", (11,) * 12, 4, 1, metadata={"environment_id": "InvertedPendulum-v5"})
    error = refused(capsys, "study", "study.yaml")
    assert f"mine, seed 0: its run {fit.name} was made under another" in error
    assert f"data.path 'SHA-256 {before[:12]} of pendulum.pt', '{sha256('pendulum.pt')[:12]} of pendulum.pt'" in error


def test_a_fit_that_has_diverged_is_named_each_time(fake, capsys):
    study = read("seeds: 1\nrows: {good: --model MSE, bad: --model MSE --model.optimizer.lr 1e6}")
    for fit, changes in zip(study.fits, ({}, {"score": float("nan"), "diverged": "made up"}), strict=True):
        BENCHMARK["write_run"](Path("lightning_logs") / fit.name, BENCHMARK["default_config"](), 0, 2, 0.5, **changes)
        Path(f"lightning_logs/{fit.name}/config.yaml").unlink()
    with pytest.raises(SystemExit, match="1"):
        main(["study", "study.yaml"])
    assert capsys.readouterr().err == f"diverged: bad, seed 0: lightning_logs/{study.fits[1].name}\n"
