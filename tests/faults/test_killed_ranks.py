"""SIGKILL of one of two processes that train one policy: the other ends by itself, and the same command goes on."""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import SMALL, assert_equal_weights, last_checkpoint, write_pendulum

from faults.trials import SHORT, Trial, command_of, cpu_seconds, instants, leftovers, marked, sized, tell
from lightning_bc.runs.folders import open_checkpoint

pytestmark = pytest.mark.faults

LONGEST = 120.0
"""Seconds until the other one has ended; while it imports modules it does not look, which takes long on a busy core."""

TWO = "--trainer.accelerator cpu --trainer.devices 2 --trainer.strategy ddp"
LENGTH = "--trainer.max_steps 1000 --rollouts.eval_freq 100"
FIT = f"fit --data.path pendulum.pt --model MSE {SMALL} {SHORT} {LENGTH} {TWO}"
COUNT = 12


def rank_one(trial):
    """The process that a trial's first process has started for the second rank."""
    while not trial.has_ended():
        for process in marked(trial.mark):
            if process != trial.process and b"lightning_bc" in command_of(process):
                return process
        time.sleep(0.02)
    raise AssertionError(trial.output)


def begin(run):
    """A trial of two ranks, and the process of the second one; which the instants are counted from."""
    trial = Trial(f"{FIT} --run {run}".split(), anew=True).start()
    return trial, rank_one(trial)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A working folder with a run of two ranks, its last checkpoint, how much of a core the second one used up to the first
    checkpoint, and how many seconds there were from then on.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("ranks"))
        write_pendulum("pendulum.pt")
        trial, second = begin("through")
        used, last = 0.0, Path("checkpoints/through/last.ckpt")
        while not (last.exists() or trial.has_ended()):
            used = max(used, cpu_seconds(second))
            time.sleep(0.02)
        since = time.monotonic()
        trial.wait()
        assert trial.status == 0, trial.output
        yield Path.cwd(), last_checkpoint("through"), used, time.monotonic() - since


@pytest.mark.parametrize("number", range(sized(COUNT)))
def test_a_killed_rank_ends_the_other_and_the_same_command_goes_on_bit_by_bit(number, undisturbed, monkeypatch):
    folder, whole, used, late = undisturbed
    monkeypatch.chdir(folder)
    run, killed = f"killed{number}", number % 2
    trial, second = begin(run)
    last = Path("checkpoints", run, "last.ckpt")
    place, from_then_on = number // 2, number // 2 % 2              # early, from the first checkpoint on; each rank at each
    if from_then_on:
        while not (last.exists() or trial.has_ended()):
            time.sleep(0.01)
        time.sleep(instants(COUNT // 4, late, 12 + killed)[place // 2 % (COUNT // 4)])
    else:
        instant = instants(COUNT // 4, used, 10 + killed)[place // 2 % (COUNT // 4)]
        while cpu_seconds(second) < instant and not trial.has_ended():
            time.sleep(0.01)
    waits = second in marked(trial.mark)
    with contextlib.suppress(ProcessLookupError):
        os.kill((trial.process, second)[killed], signal.SIGKILL)
    told = time.monotonic()
    left, seconds = trial.orphans(LONGEST), time.monotonic() - told
    printed = trial.has_printed()
    assert not left, printed
    trial.wait()
    assert "Traceback" not in printed, printed
    if ended := trial.status == 0:
        assert from_then_on
    elif killed == 1:
        assert trial.status == 2, printed
        assert "rank 1" in printed
        assert "SIGKILL" in printed
    else:
        assert trial.status == -signal.SIGKILL
        assert "rank 0" in printed or not waits, printed
    if last.exists():
        open_checkpoint(last)
    again = Trial(f"{FIT} --run {run}".split(), anew=True).start().wait()
    assert again.status == 0, again.output
    assert_equal_weights(last_checkpoint(run), whole)
    assert not again.orphans()
    assert not leftovers()
    resumed = "resumed at optimizer step" in again.output
    tell(
        "a rank killed", killed=killed, late=from_then_on, ended_before=int(ended), went_on_from_a_checkpoint=int(resumed),
        seconds=round(seconds, 2),
    )  # fmt: skip
