"""Several processes that train one policy: the weights of one process, and one end for all of them.

They talk over gloo, on the CPU. What is quick here is one pair of processes; the rest is slow.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPOSITORY, actor_state, assert_equal_weights, import_from, last_checkpoint, refused

from lightning_bc import ranks
from lightning_bc.cli import main
from lightning_bc.errors import InputError
from lightning_bc.ranks import by_srun, on_rank_zero, seed_of_rank
from lightning_bc.strategies import strategies

TWO = "--trainer.accelerator cpu --trainer.devices 2 --trainer.strategy ddp"
QUIET = "--rollouts.eval_freq 10 --rollouts.episodes 2 --trainer.enable_progress_bar false"
UNEQUAL = f"{QUIET} --data.subsample 4 --trainer.max_epochs 3"       # 33 pairs: the last batch of a pass has 3 and 2
OFFLINE = [name for name, cls in strategies().items() if not cls.learns_by_acting]

CALLS = """
import sys
from lightning_bc.cli import main
for line in sys.stdin.read().splitlines():
    main(line.split())
"""


class OneProcess:
    """As much of a Trainer as is asked here."""

    world_size = 1


def start(rank, calls, port):
    """One of two ranks, which runs ``calls`` of the command line one after another."""
    ranks = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    environment = os.environ | import_from(REPOSITORY) | ranks | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", CALLS], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    process.stdin.write("\n".join(calls))
    process.stdin.close()
    return process


def on_two(*calls):
    """What each of two ranks prints that run ``calls``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(rank, [f"{call} {TWO}" for call in calls], port) for rank in range(2)]
    printed = [process.stdout.read() for process in processes]
    assert [process.wait(60) for process in processes] == [0, 0], "\n".join(printed)
    return printed


def difference(run, other):
    """The largest difference between the weights of two runs."""
    first, second = (last_checkpoint(name)["state_dict"] for name in (run, other))
    return max(float((value - second[name]).abs().max()) for name, value in first.items())


def test_two_processes_give_the_weights_of_one_with_the_joint_batch(data):
    """In float64, where sums in another order differ by less than any weight that was left out would."""
    flags = f"fit --model MSE --data.path {data} --trainer.precision 64-true {UNEQUAL}"
    zero, one = on_two(f"{flags} --data.batch_size 7 --run two")
    main(f"{flags} --data.batch_size 14 --run one".split())
    assert difference("two", "one") < 1e-12
    points = [last_checkpoint(run)["point"] for run in ("one", "two")]
    for name in ("optimizer_steps", "pairs", "rollout/return_mean"):
        assert points[0][name] == pytest.approx(points[1][name], abs=1.5 if "return" in name else 0)
    assert "score" in zero
    assert one == ""                                                # rank zero alone says anything
    assert "traceback" not in zero.lower()


def test_one_process_answers_for_itself():
    assert on_rank_zero(OneProcess(), lambda: 7) == 7
    assert len({seed_of_rank(seed, rank) for seed in range(3) for rank in range(4)}) == 12


def test_srun_is_known_by_its_variables():
    assert by_srun({"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0"})
    assert not by_srun({"SLURM_NTASKS": "2"})
    assert not by_srun({"SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--model SAC", "--trainer.devices: SAC acts in the environment while it learns, in one process"),
        ("--model GAIL", "--trainer.devices: GAIL acts in the environment while it learns, in one process"),
        ("--model MSE --trainer.strategy ddp_spawn", "is not supported. Several devices train with ddp"),
    ],
)
def test_what_cannot_be_on_several_devices_is_refused_in_one_line(flags, words, data, capsys):
    error = refused(capsys, "fit", "--data.path", data, *TWO.split(), *flags.split())
    assert words in error
    assert error.count("\n") == 1


class Rank:
    """As much of the Trainer of one of two ranks as is asked here, and the process of the other one."""

    world_size = 2

    def __init__(self, rank, *started):
        self.local_rank = self.global_rank = rank
        self.strategy, self.launcher, self.procs = self, self, started


def alone(trainer):
    return ranks.ending_together(trainer, lambda: "the checkpoint goes on")


@pytest.fixture
def killed():
    process = subprocess.Popen(["sleep", "60"])
    process.kill()
    return process


GOES_ON = "and the others cannot go on without it. Of this run, the checkpoint goes on"


@pytest.mark.parametrize(("rank", "words"), [(0, "rank 1 has ended by itself, by SIGKILL, perhaps"), (1, "rank 0 has")])
def test_a_rank_that_waits_for_one_that_was_killed_ends_and_says_why(rank, words, killed, monkeypatch, capsys):
    ended = threading.Event()
    monkeypatch.setattr(ranks, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(ranks, "PATIENCE", 0.01)
    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    monkeypatch.setenv(ranks.LAUNCHER, str(killed.pid))
    with alone(Rank(rank, *[killed] * (rank == 0))):
        assert ended.wait(5)
    error = capsys.readouterr().err
    assert error.startswith(f"error: {words}")
    assert error.endswith(f"{GOES_ON}\n")
    assert os.environ[ranks.LAUNCHER] == str(killed.pid)


def test_a_connection_that_breaks_with_a_rank_is_one_line_and_other_errors_stay(killed):
    with pytest.raises(InputError, match=f"^rank 1 has ended by itself, by SIGKILL, .*{GOES_ON}"), alone(Rank(0, killed)):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer")
    with pytest.raises(InputError, match=f"^the connection to another rank was lost, {GOES_ON}"), alone(Rank(0)):
        raise torch.distributed.DistNetworkError("no answer")
    with pytest.raises(ZeroDivisionError), alone(Rank(1)):
        raise ZeroDivisionError


# What takes long


@pytest.mark.slow
def test_each_strategy_trains_on_two_and_resumes_bit_by_bit(data):
    windows = [f"{name} --model.history 2 --model.horizon 3" for name in ("Diffusion", "FlowMatching")]
    shared = f"{QUIET} --data.path {data} --data.batch_size 7"
    calls, runs = [], []
    for number, model in enumerate([*OFFLINE, *windows]):
        calls.append(f"fit --model {model} {shared} --run through-{number} --trainer.max_steps 20")
        calls.append(f"fit --model {model} {shared} --run stopped-{number} --trainer.max_steps 10 --model.schedule constant")
        calls.append(f"fit --model {model} {shared} --run stopped-{number} --trainer.max_steps 20 --model.schedule constant")
        calls[-3] += " --model.schedule constant"
        runs.append((f"through-{number}", f"stopped-{number}"))
    on_two(*calls)
    for through, stopped in runs:
        assert_equal_weights(last_checkpoint(through), last_checkpoint(stopped))
        states = last_checkpoint(through)["random_state"]
        assert not torch.equal(states["cpu"], states["others"][0]["cpu"])


@pytest.mark.slow
def test_two_processes_that_stream_give_the_weights_of_one(data):
    main(["convert", data, "--output", "data.shards"])
    shared = f"fit --model MSE --data.path data.shards --env InvertedPendulum-v5 --data.memory 0 {UNEQUAL}"
    on_two(f"{shared} --data.batch_size 7 --run two")
    main(f"{shared} --data.batch_size 14 --run one".split())
    assert difference("two", "one") < 2e-6


def configured_dagger():
    torch.save(actor_state(4, 1, scale=3.0), "expert.pt")
    options = {"expert": "expert.pt", "round_every": 5, "rounds": 3, "episodes": 3, "beta": 0.5}
    callback = {"class_path": "lightning_bc.callbacks.DAgger", "init_args": options}
    Path("dagger.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))


@pytest.mark.slow
def test_dagger_on_two_learns_from_the_same_answers_on_both(data):
    configured_dagger()
    shared = f"fit --config dagger.yaml --model MSE {QUIET} --data.path {data} --data.batch_size 7 --model.schedule constant"
    on_two(
        f"{shared} --run through --trainer.max_steps 20",
        f"{shared} --run stopped --trainer.max_steps 12",
        f"{shared} --run stopped --trainer.max_steps 20",
    )
    assert_equal_weights(last_checkpoint("through"), last_checkpoint("stopped"))
    assert last_checkpoint("through")["point"]["expert_queries"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("told", ["launcher", "other rank"])
def test_sigterm_to_one_ends_all(told, data):
    flags = f"fit --model MSE --data.path {data} --run mine --trainer.max_steps 10000000 {QUIET} {TWO}".split()
    command = [sys.executable, "-m", "lightning_bc", *flags]
    process = subprocess.Popen(
        command, env=os.environ | import_from(REPOSITORY), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    started = time.perf_counter()
    while not Path("checkpoints/mine/last.ckpt").exists():
        assert time.perf_counter() - started < 120
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (child,) = [int(one) for one in children if "lightning_bc" in Path(f"/proc/{one}/cmdline").read_text()]
    os.kill(process.pid if told == "launcher" else child, signal.SIGTERM)
    told_at = time.perf_counter()
    printed, _ = process.communicate(timeout=60)
    while Path(f"/proc/{child}").exists() and time.perf_counter() - told_at < 10:
        time.sleep(0.1)                                             # no rank waits for the others once all have saved
    assert time.perf_counter() - told_at < 10
    assert process.returncode == 143, printed
    assert "Traceback" not in printed
    assert "its last checkpoint goes on with" in printed
    assert last_checkpoint("mine")["global_step"] > 0


@pytest.mark.slow
def test_an_error_of_rank_zero_leaves_nobody_waiting(data):
    flags = f"fit --model MSE --data.path {data} --run mine --data.episodes 50 {QUIET} {TWO}".split()
    process = subprocess.run(
        [sys.executable, "-m", "lightning_bc", *flags], env=os.environ | import_from(REPOSITORY), capture_output=True,
        text=True, timeout=100,
    )  # fmt: skip
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert process.stderr.count("holds 12 episodes") == 1


@pytest.mark.slow
def test_torchrun_needs_no_name_of_a_run(data):
    flags = f"-m lightning_bc fit --model MSE --data.path {data} --trainer.max_steps 10 {QUIET} {TWO}".split()
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *flags],
        env=os.environ | import_from(REPOSITORY), check=True, timeout=200, capture_output=True,
    )  # fmt: skip
    (run,) = Path("checkpoints").iterdir()
    assert len(last_checkpoint(run.name)["random_state"]["others"]) == 1
