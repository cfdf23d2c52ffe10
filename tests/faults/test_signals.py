"""SIGTERM and SIGINT at random instants: exit status, seconds, and a printed command that works."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from conftest import REPOSITORY, SMALL, actor_state

from faults.trials import (
    ACTING,
    SHORT,
    Trial,
    instants,
    leftovers,
    printed_command,
    run,
    sized,
    stopped_after,
    tell,
    working_folder,
)

pytestmark = pytest.mark.faults

FIT = f"{SMALL} {SHORT} --trainer.max_steps 200"
CASES = {
    "fit MSE": (f"fit --data.path pendulum.pt --model MSE {FIT}", 6),
    "fit Diffusion, large groups of steps": (
        f"fit --data.path pendulum.pt --model Diffusion {SMALL} {SHORT} --rollouts.eval_freq 5000 --trainer.max_steps 5000",
        3,
    ),
    "fit MSE with workers": (f"fit --data.path pendulum.pt --model MSE {FIT} --rollouts.workers 2", 3),
    "fit, its demonstrations collected first": (f"fit --env HalfCheetah-v5 --model MSE {FIT}", 3),
    "fit DAgger": (f"fit --config dagger.yaml --data.path pendulum.pt --model MSE {FIT} --model.schedule constant", 3),
    "fit SAC": (f"fit --env InvertedPendulum-v5 --model SAC {SMALL} {ACTING}", 3),
    "collect": ("collect --env InvertedPendulum-v5 --expert expert.pt --pairs 40000 --output NEW.pt", 4),
    "collect shards": ("collect --env InvertedPendulum-v5 --expert expert.pt --pairs 40000 --output NEW.shards", 2),
    "evaluate": ("evaluate expert.pt --env InvertedPendulum-v5 --episodes 3000 --output NEW.json", 4),
    "report": ("report lightning_logs --output NEW", 4),
}
assert sum(count for _, count in CASES.values()) == 35


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with everything in it that the commands need, and with two finished runs."""
    with working_folder(tmp_path_factory) as here:
        torch.save(actor_state(4, 1, scale=3.0), "expert.pt")
        options = {"expert": "expert.pt", "round_every": 40, "rounds": 3, "episodes": 3, "beta": 0.5}
        callback = {"class_path": "lightning_bc.callbacks.DAgger", "init_args": options}
        Path("dagger.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
        flags = f"{SMALL} {SHORT} --data.path pendulum.pt --trainer.max_steps 40"
        assert run(f"fit --model MSE {flags} --run a").status == 0
        assert run(f"fit --model Gaussian {flags} --run b").status == 0
        yield here


@pytest.mark.parametrize("case", CASES)
def test_a_signal_ends_a_command_soon_and_what_it_prints_works(case, folder, tmp_path, monkeypatch):
    words, count = CASES[case]
    shutil.copytree(folder, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    data = Path("data/HalfCheetah-v5-sampled-2400000.pt")
    expert = REPOSITORY / "checkpoints" / "experts"
    shutil.copytree(expert, "checkpoints/experts")
    if "collected first" in case:                                   # 2.4 million pairs take too long to be collected again
        whole = 20.0
    else:
        through = run(words.replace("NEW", "through"))
        assert through.status == 0, through.output
        whole = through.seconds
    longest, stopped, ended = 0.0, 0, 0
    for number, instant in enumerate(instants(sized(count), whole, 100 + list(CASES).index(case))):
        trial, seconds = stopped_after(words.replace("NEW", f"new{number}").split(), number, instant)
        if seconds is None:
            ended += 1
            continue
        longest, stopped = max(longest, seconds), stopped + 1
        if "collected first" in case:
            assert not data.exists()
            assert not list(Path("data").glob(".*.partial")) if data.parent.exists() else True
            continue
        again = Trial(printed_command(trial.output)).start().wait()
        assert again.status == 0, again.output
        assert not leftovers(), leftovers()
        if "collect" in case or "evaluate" in case or "report" in case:
            assert next(Path().glob(f"new{number}*")).exists()
    tell("SIGTERM and SIGINT", case=case, stopped=stopped, ended_before=ended, longest_seconds=round(longest, 2))
