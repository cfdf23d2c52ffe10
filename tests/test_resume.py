"""A run that was stopped goes on as if it had not been: weights, optimizers, curve and score, bit by bit.

SIGKILL, which nothing can answer, is tried on one strategy that learns offline and, among the slow tests, on one that acts:
it proves something of the loop and of how checkpoints are written. What a strategy has to remember is proved for each of
them in this process, by an exception in the middle of an epoch.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import (
    REPOSITORY,
    actor_state,
    assert_equal_weights,
    curve,
    flags_of,
    import_from,
    is_interactive,
    last_checkpoint,
)

from lightning_bc.callbacks import Checkpoints
from lightning_bc.cli import main
from lightning_bc.strategies import strategies

GPU_MARKS = {
    "AIRL": pytest.mark.xfail(
        reason="on an H200 two runs in one process, neither of them stopped, differ by 1e-7; why is not known", strict=False
    )
}


class StoppedError(Exception):
    """Stops a run here."""


def assert_resumes(flags, stop):
    """Run through; then begin anew, ``stop``, and go on by the same command with ``--ckpt_path last``: the same comes out.

    Args:
        flags: of ``fit``.
        stop: runs ``fit`` with the flags and stops it between its first checkpoint and its end.

    Returns:
        The last checkpoints of the run that was stopped and of the other.
    """
    main(["fit", *flags])
    (through,) = (path.name for path in Path("checkpoints").iterdir())
    stop(flags)
    (stopped,) = {path.name for path in Path("checkpoints").iterdir()} - {through}
    assert 0 < last_checkpoint(stopped)["global_step"] < last_checkpoint(through)["global_step"]
    assert not Path(f"lightning_logs/{stopped}/results.json").exists()
    for path in Path(f"lightning_logs/{stopped}").glob("events.*"):  # TensorBoard orders files by the second in their names
        second = path.name.split(".")[3]
        path.rename(path.with_name(path.name.replace(second, f"{int(second) - 1}")))

    main(["fit", *flags, "--ckpt_path", "last"])

    assert {path.name for path in Path("checkpoints").iterdir()} == {through, stopped}
    assert {path.name for path in Path("lightning_logs").iterdir() if path.is_dir()} == {through, stopped}
    assert not list(Path(f"lightning_logs/{stopped}").glob("version_*"))
    first, second = last_checkpoint(stopped), last_checkpoint(through)
    assert_equal_weights(first, second)
    assert_equal_optimizers(first, second)
    assert curve(stopped) == curve(through)
    results = [json.loads(Path(f"lightning_logs/{run}/results.json").read_text()) for run in (stopped, through)]
    assert results[0]["returns"] == results[1]["returns"]
    return first, second


def assert_equal_optimizers(first, second):
    assert len(first["optimizer_states"]) == len(second["optimizer_states"]) > 0
    for one, other in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        assert one["state"].keys() == other["state"].keys()
        for parameter, moments in one["state"].items():
            for name, value in moments.items():
                assert torch.equal(value, other["state"][parameter][name]), name


def assert_equal_replays(first, second):
    """That two checkpoints of a strategy that acts hold the same transitions, also after the oldest gave way."""
    replays = [checkpoint["interaction"]["replay"] for checkpoint in (first, second)]
    assert replays[0]["added"] == replays[1]["added"] > len(replays[0]["rows"])
    assert torch.equal(replays[0]["rows"], replays[1]["rows"])


@pytest.fixture
def stop_here(monkeypatch):
    """Stops a run in this process, after its sixth point of the curve and before the checkpoint that belongs to it."""

    def stop(flags, points=5):
        seen, save = [], Checkpoints.on_train_batch_end

        def interrupted(self, trainer, *rest):
            if trainer.global_step == self.rollouts.last_step:
                seen.append(trainer.global_step)
            if len(seen) > points:
                raise StoppedError
            save(self, trainer, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(Checkpoints, "on_train_batch_end", interrupted)
            with pytest.raises(StoppedError):
                main(["fit", *flags])

    return stop


@pytest.mark.parametrize("strategy", strategies())
def test_a_stopped_run_resumes_bit_by_bit(strategy, data, stop_here):
    first, second = assert_resumes(flags_of(strategy, data, epochs=4, environment_steps=120), stop_here)
    if is_interactive(strategy):
        assert_equal_replays(first, second)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("strategy", [pytest.param(name, marks=GPU_MARKS.get(name, ())) for name in strategies()])
def test_a_stopped_run_resumes_bit_by_bit_on_a_gpu(strategy, data, stop_here):
    flags = flags_of(strategy, data, epochs=4, environment_steps=120)
    assert_resumes([*flags, "--trainer.accelerator", "gpu"], stop_here)


MEMORY = "--model.history 2 --model.horizon 4 --model.chunk 3"


@pytest.mark.parametrize("strategy", ["Diffusion", pytest.param("FlowMatching", marks=pytest.mark.slow)])
def test_a_stopped_run_of_a_policy_with_memory_resumes_bit_by_bit(strategy, data, stop_here):
    assert_resumes([*flags_of(strategy, data, epochs=4, environment_steps=0), *MEMORY.split()], stop_here)


@pytest.mark.parametrize(
    "strategy", ["MSE", pytest.param("Autoregressive", marks=pytest.mark.slow), f"FlowMatching {MEMORY}"]
)
def test_a_stopped_run_with_dagger_resumes_bit_by_bit(strategy, data, stop_here):
    strategy, *memory = strategy.split()
    torch.save(actor_state(4, 1, scale=3.0), "expert.pt")
    options = {"expert": "expert.pt", "round_every": 10, "rounds": 3, "episodes": 3, "beta": 0.5}
    callback = {"class_path": "lightning_bc.callbacks.DAgger", "init_args": options}
    Path("dagger.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    flags = ["--config", "dagger.yaml", *flags_of(strategy, data, epochs=4, environment_steps=0), *memory]
    first, second = assert_resumes(flags, stop_here)
    collected = [checkpoint["Demonstrations"]["collected"] for checkpoint in (first, second)]
    assert len(collected[0]) == len(collected[1]) > 1
    assert all(torch.equal(*columns) for columns in zip(*collected, strict=True))


def test_a_stopped_run_of_files_in_shares_resumes_bit_by_bit(data, stop_here):
    shutil.copy(data, "other.pt")
    flags = flags_of("MSE", f"[{data},other.pt]", epochs=4, environment_steps=0)
    assert_resumes([*flags, "--data.shares", "[0.3,0.7]"], stop_here)


def kill(flags):
    """Start ``fit`` as a process of its own and SIGKILL it soon after its first checkpoint."""
    before = set(Path("checkpoints").iterdir())
    process = subprocess.Popen(
        [sys.executable, "-m", "lightning_bc", "fit", *flags],
        env=os.environ | import_from(REPOSITORY),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not any((run / "last.ckpt").exists() for run in set(Path("checkpoints").iterdir()) - before):
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("strategy", ["MSE", pytest.param("GAIL", marks=pytest.mark.slow)])
def test_a_killed_run_resumes_bit_by_bit(strategy, data):
    first, second = assert_resumes(flags_of(strategy, data, epochs=10, environment_steps=400), kill)
    if is_interactive(strategy):
        assert_equal_replays(first, second)
