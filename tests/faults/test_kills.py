"""SIGKILL at random instants: the same command goes on, and ends as if nothing had happened."""

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SMALL, actor_state, assert_equal_weights, last_checkpoint, write_pendulum

from faults.trials import ACTING, QUIET, SHORT, Trial, command_of, group, instants, leftovers, run, sized, tell
from lightning_bc.runs.folders import open_checkpoint

pytestmark = pytest.mark.faults

STEPS = "--trainer.max_steps 200"
MEMORY = "--model.history 2 --model.horizon 4 --model.chunk 3"
AVERAGED = "--trainer.callbacks+=lightning_bc.callbacks.AveragedWeights"
CASES = {
    "MSE": f"--model MSE {SMALL} {SHORT} {STEPS}",
    "GaussianMixture, validation": f"--model GaussianMixture {SMALL} {SHORT} {STEPS} --rollouts.validation_freq 20",
    "Diffusion with memory": f"--model Diffusion {SMALL} {MEMORY} {SHORT} {STEPS}",
    "ACT": f"--model ACT --model.width 16 --model.layers 1 {SHORT} {STEPS}",
    "VAE, averaged weights": f"--model VAE {SMALL} {SHORT} {STEPS} {AVERAGED}",
    "MSE with workers": f"--model MSE {SMALL} {SHORT} {STEPS} --rollouts.workers 1",
    "FlowMatching with workers": f"--model FlowMatching {SMALL} {SHORT} {STEPS} --rollouts.workers 1",
    "MSE without a simulator": f"--model MSE {SMALL} {SHORT} {STEPS} --rollouts.episodes 0",
    "DAgger": f"--config dagger.yaml --model MSE {SMALL} {SHORT} {STEPS} --model.schedule constant",
    "SAC": f"--model SAC {SMALL} {ACTING}",
    "TD3": f"--model TD3 {SMALL} {ACTING}",
    "GAIL": f"--model GAIL {SMALL} {ACTING}",
}


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_goes_on_bit_by_bit(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pendulum("pendulum.pt")
    torch.save(actor_state(4, 1, scale=3.0), "expert.pt")
    options = {"expert": "expert.pt", "round_every": 40, "rounds": 3, "episodes": 3, "beta": 0.5}
    callback = {"class_path": "lightning_bc.callbacks.DAgger", "init_args": options}
    Path("dagger.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    flags, elsewhere = f"fit --data.path pendulum.pt {CASES[case]}", {"TMPDIR": "/dev/shm"}
    if case == "SAC" or case == "TD3":
        flags = f"fit --env InvertedPendulum-v5 {CASES[case]}"
    through = run(flags, "--run through", **elsewhere)
    assert through.status == 0, through.output
    whole, results = last_checkpoint("through"), json.loads(Path("lightning_logs/through/results.json").read_text())
    killed = resumed = ended = 0
    seed, count = list(CASES).index(case), sized(5)
    early = instants(count // 2, 0.98 * through.seconds, seed)      # of the whole command
    late = instants(count - count // 2, 0.2 * through.seconds, seed)  # from the first checkpoint on
    for number, instant in enumerate([*early, *late]):
        name = f"killed{number}"
        trial = Trial([*flags.split(), "--run", name], elsewhere).start()
        while number >= len(early) and not (Path("checkpoints", name, "last.ckpt").exists() or trial.has_ended()):
            time.sleep(0.005)
        time.sleep(instant)
        trial.send(signal.SIGKILL)
        trial.wait()
        assert trial.status in (0, -9), trial.output
        killed, ended = killed + (trial.status == -9), ended + (trial.status == 0)
        assert not trial.orphans()
        last = Path("checkpoints", name, "last.ckpt")
        if last.exists():
            open_checkpoint(last)
        again = run(flags, f"--run {name}", **elsewhere)
        assert again.status == 0, again.output
        resumed += "resumed at optimizer step" in again.output
        assert_equal_weights(last_checkpoint(name), whole)
        found = json.loads(Path(f"lightning_logs/{name}/results.json").read_text())
        assert found.get("returns") == results.get("returns")
        assert found.get("held_out") == results.get("held_out")
        assert not leftovers()
        assert not [path for path in Path("/dev/shm").glob("*") if path.name.startswith("tmp")]
    tell("SIGKILL", case=case, killed=killed, went_on_from_a_checkpoint=resumed, ended_before=ended)


@pytest.mark.parametrize("number", range(sized(10)))
def test_a_killed_rollout_worker_ends_the_run_in_one_line_and_the_same_command_goes_on(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pendulum("pendulum.pt")
    flags = f"fit --data.path pendulum.pt --model MSE {SMALL} {SHORT} --trainer.max_steps 400 --rollouts.workers 2"
    flags += " --run mine"
    trial = Trial(flags.split()).start()
    while len(workers := [one for one in group(trial.process) if b"spawn_main" in command_of(one)]) < 2:
        time.sleep(0.02)
        assert not trial.has_ended(), trial.output
    time.sleep(float(instants(10, 4.0, 1)[number]))
    with contextlib.suppress(ProcessLookupError):
        os.kill(workers[number % 2], signal.SIGKILL)
    trial.wait()
    assert not trial.orphans()
    assert "Traceback" not in trial.output
    assert trial.status in (0, 2), trial.output
    if trial.status == 2:
        assert "a rollout worker ended by itself" in trial.output
        assert "--rollouts.workers 0" in trial.output
    again = run(flags)
    assert again.status == 0, again.output
    through = run(flags.replace("mine", "through").replace("workers 2", "workers 0"), QUIET)
    assert through.status == 0, through.output
    assert_equal_weights(last_checkpoint("mine"), last_checkpoint("through"))
    assert not leftovers()
    tell("a rollout worker killed", ended_in_one_line=int(trial.status == 2), ended_before=int(trial.status == 0))

