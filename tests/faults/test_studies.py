"""SIGTERM and SIGINT to studies and sweeps, whose fits are processes of their own, and to processes that only begin."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SMALL, actor_state, assert_equal_weights, last_checkpoint

from faults.trials import (
    LONGEST,
    SHORT,
    Trial,
    cpu_seconds,
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

FLAGS = f"{SMALL} {SHORT} --data.path pendulum.pt --trainer.max_steps 600"
STUDY = {"flags": FLAGS, "rows": {"a": "--model MSE", "b": "--model Gaussian", "c": "--model VAE"}, "seeds": 1}
COMMANDS = {
    "study --jobs 2": "study study.yaml --jobs 2",
    "sweep --jobs 2": f"sweep --config base.yaml --seeds 1 --grid data.batch_size=16,32 --name mine --jobs 2 {FLAGS}",
}
BEGUN = [
    f"fit --model MSE {FLAGS}",
    "study study.yaml --jobs 2",
    f"fit --model GaussianMixture {FLAGS} --run mine",
    COMMANDS["sweep --jobs 2"],
    "evaluate expert.pt --env InvertedPendulum-v5 --episodes 100",
    "collect --env InvertedPendulum-v5 --expert expert.pt --pairs 400 --output mine.pt",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with working_folder(tmp_path_factory) as here:
        torch.save(actor_state(4, 1, scale=3.0), "expert.pt")
        Path("study.yaml").write_text(yaml.safe_dump(STUDY))
        Path("base.yaml").write_text(yaml.safe_dump({"model": "MSE", "data": {"path": "pendulum.pt"}}))
        yield here


def written():
    """When the results of each fit in the working folder were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in Path("lightning_logs").glob("*/results.json")}


def ends():
    """Returns and last checkpoint of each fit in the working folder."""
    found = {}
    for name in sorted(written()):
        results = json.loads(Path("lightning_logs", name, "results.json").read_text())
        found[name] = results["returns"], last_checkpoint(name)
    return found


@pytest.mark.parametrize("case", COMMANDS)
def test_a_signal_ends_a_study_and_its_fits_and_the_printed_command_ends_as_if_nothing_had_happened(
    case, folder, tmp_path, monkeypatch
):
    shutil.copytree(folder, tmp_path / "through")
    monkeypatch.chdir(tmp_path / "through")
    through = run(COMMANDS[case])
    assert through.status == 0, through.output
    wanted = ends()
    assert len(wanted) == 3
    stopped = ended = resumed = done_before = 0
    longest = 0.0
    for number, instant in enumerate(instants(sized(12), through.seconds, list(COMMANDS).index(case))):
        shutil.copytree(folder, tmp_path / str(number))
        monkeypatch.chdir(tmp_path / str(number))
        trial, seconds = stopped_after(COMMANDS[case].split(), number, instant, patience=2.0)  # its fits end before it
        if seconds is None:
            ended += 1
            continue
        longest, stopped = max(longest, seconds), stopped + 1
        before = written()
        again = Trial(printed_command(trial.output)).start().wait(900)
        assert again.status == 0, again.output
        assert before.items() <= written().items()                  # what was done is not run again
        found = ends()
        assert found.keys() == wanted.keys()
        for name, (returns, checkpoint) in found.items():
            assert returns == wanted[name][0]
            assert_equal_weights(checkpoint, wanted[name][1])
            printed = Path("lightning_logs", name, "output.txt").read_text()
            assert "Traceback" not in printed, printed
            resumed += "resumed at optimizer step" in printed
        done_before += len(before)
        assert not leftovers(), leftovers()
        shutil.rmtree(tmp_path / str(number))
    tell(
        "SIGTERM and SIGINT", case=case, stopped=stopped, ended_before=ended, longest_seconds=round(longest, 2),
        fits_done_before=done_before, fits_resumed=resumed,
    )  # fmt: skip


@pytest.mark.parametrize("number", range(sized(12)))
def test_a_signal_while_a_process_begins(number, folder, tmp_path, monkeypatch):
    """Python's start, the modules, and the first things that a command does."""
    shutil.copytree(folder, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    sent = (signal.SIGTERM, signal.SIGINT)[number % 2]
    instant = float(instants(sized(12), 6.0, 7)[number])
    trial = Trial(BEGUN[number // 2 % len(BEGUN)].split(), anew=True).start()
    while cpu_seconds(trial.process) < instant and not trial.has_ended():
        time.sleep(0.01)
    seconds = trial.stop(sent)
    assert seconds < LONGEST
    assert not trial.orphans(2.0)
    counts = {"stopped": 1, "ended_before": 0, "before_the_command": 0}
    if trial.status == 0:
        counts |= {"stopped": 0, "ended_before": 1}
    elif trial.status == -sent:                                     # of Python itself
        counts["before_the_command"] = 1
        assert not trial.output, trial.output
    else:
        assert trial.status == 128 + sent, trial.output
        assert "Traceback" not in trial.output, trial.output
        again = Trial(printed_command(trial.output)).start().wait(900)
        assert again.status == 0, again.output
        assert not leftovers()
    tell("SIGTERM and SIGINT", case="a process that begins", **counts, longest_seconds=round(seconds, 2))
