"""Points that worker processes play: the same as those played in between, and a run that ends where a worker does."""

import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, assert_equal_weights, build_strategy, flags_of, import_from, is_interactive, refused
from players import FAILING, HANGING, LEAVING

from lightning_bc import rollout_workers
from lightning_bc.callbacks import Checkpoints, background
from lightning_bc.cli import main
from lightning_bc.environments import make
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.errors import InputError
from lightning_bc.rollout_workers import Workers
from lightning_bc.runs.curve import columns, read_curve
from lightning_bc.strategies import MSE, strategies

ENVIRONMENT, SEEDS = "InvertedPendulum-v5", SELECTION_BANK.seeds(3)
TIMES = {"seconds", "training_seconds", "rollout/seconds"}
BUDGET = "--trainer.max_steps 6 --rollouts.eval_freq 1 --rollouts.episodes 2 --data.batch_size 16"


@pytest.fixture(scope="module")
def workers():
    pool = Workers(1, ENVIRONMENT, 2)
    yield pool
    pool.close()


def nothing():
    pass


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in strategies()), ("Diffusion", {"history": 3, "horizon": 4, "chunk": 2})],
)
def test_a_worker_plays_the_same_episodes_bit_by_bit(workers, name, options):
    strategy = build_strategy(strategies()[name], 4, [-3.0], [3.0], **options).eval()
    player = strategy.remembering(strategy.frozen())
    future = workers.submit(player, SEEDS, record=True)
    here = play(strategy.remembering(strategy.frozen()), make(ENVIRONMENT, 2), SEEDS, record=True)
    there = workers.result(future, nothing).episodes
    for column in ("returns", "lengths", "terminated", "observations", "actions"):
        np.testing.assert_array_equal(getattr(there, column), getattr(here, column))


def test_a_worker_that_fails_is_named_and_the_next_point_is_played(workers):
    with pytest.raises(InputError, match=r"a rollout worker failed: ZeroDivisionError: no idea.*--rollouts\.workers 0"):
        workers.result(workers.submit(FAILING, SEEDS, record=False), nothing)
    with pytest.raises(InputError, match="a rollout worker failed: SystemExit: 3"):
        workers.result(workers.submit(LEAVING, SEEDS, record=False), nothing)
    strategy = build_strategy(strategies()["MSE"], 4, [-3.0], [3.0]).eval()
    future = workers.submit(strategy.remembering(strategy.frozen()), SEEDS, record=False)
    assert len(workers.result(future, nothing).episodes.returns) == 3


def running():
    return {child.pid for child in multiprocessing.active_children()}


def test_one_that_hangs_or_is_killed_is_named_and_none_stays(monkeypatch):
    before = running()
    pool = Workers(1, ENVIRONMENT, 2)
    strategy = build_strategy(strategies()["MSE"], 4, [-3.0], [3.0]).eval()
    pool.result(pool.submit(strategy.remembering(strategy.frozen()), SEEDS, record=False), nothing)  # it has started
    monkeypatch.setattr(rollout_workers, "HANGS_AFTER", 0.5)
    future = pool.submit(HANGING, SEEDS, record=False)
    with pytest.raises(InputError, match="has not stepped for 0 s, so it hangs"):
        pool.result(future, nothing)
    (worker,) = running() - before
    os.kill(worker, 9)
    with pytest.raises(InputError, match="it was killed"):
        pool.result(future, nothing)
    pool.close()
    assert running() == before


@pytest.mark.slow
def test_close_ends_a_worker_that_plays():
    before = running()
    pool = Workers(1, ENVIRONMENT, 2)
    pool.submit(HANGING, SEEDS, record=False)
    started = time.monotonic()
    pool.close()
    assert running() == before
    assert time.monotonic() - started < 40                          # less than it hangs


def fit(data, *flags):
    """Train; the run's curve."""
    before = set(Path("lightning_logs").glob("*"))
    main(["fit", "--model", "MSE", "--data.path", data, *BUDGET.split(), *flags])
    (run,) = set(Path("lightning_logs").glob("*")) - before
    return run.name, read_curve(run / "curve.csv")


def assert_equal_runs(run, other):
    """That two runs have the same curve, last and best checkpoints."""
    curves = [read_curve(Path(f"lightning_logs/{one}/curve.csv")) for one in (run, other)]
    for name in columns("InvertedPendulum-v5").keys() - TIMES:
        np.testing.assert_array_equal(curves[0][name], curves[1][name])
    for file in ("last.ckpt", "best.ckpt"):
        mine, theirs = (torch.load(f"checkpoints/{one}/{file}") for one in (run, other))
        assert_equal_weights(mine, theirs)
        assert mine["point"].keys() == theirs["point"].keys()
        assert mine["global_step"] == theirs["global_step"] == mine["point"]["optimizer_steps"]
        assert mine["callbacks"] == theirs["callbacks"]
        assert torch.equal(mine["random_state"]["cpu"], theirs["random_state"]["cpu"])


def test_a_killed_run_with_workers_goes_on_as_one_without(data, monkeypatch, capsys):
    run, _ = fit(data)

    class KilledError(Exception):
        pass

    def die(self, trainer):
        if trainer.global_step == 4:
            self.rollouts._take(trainer, 1)                         # some points are in, one is still being played
            raise KilledError
        save(self, trainer)

    save = Checkpoints._save_what_has_arrived
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_save_what_has_arrived", die)
        with pytest.raises(KilledError):
            fit(data, "--rollouts.workers", "1")
    (killed,) = (folder.name for folder in Path("lightning_logs").iterdir() if folder.name != run)
    if not Path(f"checkpoints/{killed}/last.ckpt").is_file():       # it was killed before a point was in
        main(["fit", "--config", f"lightning_logs/{killed}/config.yaml", "--run", killed])
    else:
        main(["fit", "--run", killed])
    assert "1 worker process played; training waited" in capsys.readouterr().out
    assert_equal_runs(run, killed)


@pytest.mark.parametrize(
    ("model", "flags", "reason"),
    [
        ("SAC", "", "SAC acts while it learns"),
        ("MSE", "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor rollout/return_mean", "needs each point"),
    ],
)
def test_points_are_played_in_between_where_they_must_be(data, capsys, monkeypatch, model, flags, reason):
    monkeypatch.setattr(background, "Workers", lambda *_: pytest.fail("workers were started"))
    main(["fit", *flags_of(model, data, 1, 200), *flags.split(), "--rollouts.workers", "2"])
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cores", "eval_freq", "workers", "threads"), [(2, 1, 0, 1), (2, 1000, 0, 2), (2, 1000, 1, 2), (4, 1000, 0, 2)]
)
def test_training_takes_all_of_few_cores_where_playing_is_short(data, monkeypatch, cores, eval_freq, workers, threads):
    step, found = MSE.training_step, []
    monkeypatch.setattr(MSE, "training_step", lambda *given: found.append(torch.get_num_threads()) or step(*given))
    monkeypatch.setattr(background, "cores_of_run", lambda: cores)
    flags = f"--rollouts.eval_freq {eval_freq} --rollouts.episodes 2 --rollouts.workers {workers} --trainer.max_steps 4"
    main(["fit", "--model", "MSE", "--data.path", data, *flags.split()])
    assert set(found) == {threads}
    assert torch.get_num_threads() == 1                             # as conftest.py sets


def test_short_runs_start_none_unasked_and_long_ones_do(data, capsys, monkeypatch):
    step, threads = MSE.training_step, []
    monkeypatch.setattr(MSE, "training_step", lambda *given: threads.append(torch.get_num_threads()) or step(*given))
    monkeypatch.setattr(background, "usable_cores", lambda: 2)
    torch.set_num_threads(2)                                        # as on two cores; conftest.py sets one
    fit(data)
    assert torch.get_num_threads() == 2
    assert "worker" not in capsys.readouterr().out
    monkeypatch.setattr(background, "Workers", lambda number, *_: pytest.fail(f"{number} workers"))
    monkeypatch.setattr(background, "PAYS_AFTER", 0.0)
    with pytest.raises(pytest.fail.Exception, match="2 workers"):
        fit(data)
    assert set(threads) == {1}                                      # of two cores, also before workers start
    monkeypatch.setattr(background, "usable_cores", lambda: 1)
    fit(data)
    torch.set_num_threads(1)


def test_a_worker_that_ends_ends_the_run_in_one_line(data, capsys, monkeypatch):
    def submit(self, *_):
        raise BrokenProcessPool

    monkeypatch.setattr(rollout_workers.ProcessPoolExecutor, "submit", submit)
    flags = "--rollouts.workers 1 --trainer.enable_progress_bar false"
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", data, *BUDGET.split(), *flags.split())
    assert error.startswith("error: a rollout worker ended by itself: it was killed")
    assert 'if __name__ == "__main__":' in error


ORPHANS = """
import os, sys, time
from multiprocessing import active_children
from players import HANGING
from lightning_bc.rollout_workers import Workers
if __name__ == "__main__":
    pool = Workers(2, "InvertedPendulum-v5", 1)
    pool.submit(HANGING, [1], False)
    pool.submit(HANGING, [2], False)                                # each starts one
    print(*(child.pid for child in active_children()), flush=True)
    time.sleep(float(sys.argv[1]))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 15], ids=["while they start", "while they play"])
def test_workers_end_with_a_process_that_is_killed(tmp_path, seconds):
    (tmp_path / "script.py").write_text(ORPHANS)
    environment = os.environ | import_from(REPOSITORY, REPOSITORY / "tests")
    ended = subprocess.run([sys.executable, "script.py", str(seconds)], cwd=tmp_path, env=environment, capture_output=True)
    workers = [int(pid) for pid in ended.stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 45
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in strategies() if not is_interactive(name)])
def test_runs_with_workers_equal_those_without(data, name):
    runs = []
    for number in ("0", "2"):
        main(["fit", *flags_of(name, data, 2, 0), "--run", f"workers{number}", "--rollouts.workers", number])
        runs.append(f"workers{number}")
    assert_equal_runs(*runs)
