"""The evaluate command: what it prints and writes is what lightning_bc.evaluate says."""

import json
import shutil

import pytest
from conftest import actor_state, fit, refused, write_pendulum

import lightning_bc
from lightning_bc.cli import main
from lightning_bc.files import write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with a run, copies of its checkpoints under other names, and an expert."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = fit(write_pendulum(folder / "pendulum.pt"), flags="--trainer.max_steps 4 --rollouts.eval_freq 4 --run mine")
        fit(str(folder / "pendulum.pt"), flags="--trainer.max_steps 2 --rollouts.eval_freq 2 --run short")
    assert run == "mine"
    (folder / "several").mkdir()
    shutil.copy(folder / "checkpoints/mine/last.ckpt", folder / "several/a.ckpt")
    shutil.copy(folder / "checkpoints/short/last.ckpt", folder / "several/b.ckpt")
    write(folder / "actor.pt", actor_state(4, 1, scale=3.0))
    return folder


def test_table_and_file_hold_what_the_evaluator_says(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    output = ["--output", "out/results.json"]
    main(["evaluate", "mine", "several", "actor.pt", "--env", "InvertedPendulum-v5", "--episodes", "3", *output])
    table = capsys.readouterr().out.splitlines()
    references = lightning_bc.load("mine").references               # also those that the expert is measured against
    wanted = ["checkpoints/mine/last.ckpt", "several/b.ckpt", "several/a.ckpt", "actor.pt"]  # b has fewer steps than a
    assert [line.split()[0] for line in table[1:5]] == wanted
    assert table[5] == "3 test-bank episodes each of InvertedPendulum-v5, deterministic actions"
    written = json.loads((folder / "out/results.json").read_text())["evaluations"]
    assert [entry["policy"] for entry in written] == wanted
    assert [entry["step"] for entry in written] == [4, 2, 4, None]
    for name, entry, line in zip(wanted, written, table[1:], strict=False):
        result = lightning_bc.evaluate(lightning_bc.load(name), "InvertedPendulum-v5", 3, references=references)
        assert entry["returns"] == result.returns.tolist()
        assert entry["metrics"]["return_mean"] == result.mean
        assert f" {result.mean:.1f} " in line
        assert f" {result.normalized:.3f} " in line
        assert entry["metrics"]["normalized_return"] == pytest.approx(result.normalized)
        assert entry["references"] == references.as_dict()


def test_what_is_not_known_is_left_blank(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    main(["evaluate", "actor.pt", "--env", "InvertedPendulum-v5", "--episodes", "3", "--output", "alone.json"])
    assert len(capsys.readouterr().out.splitlines()[1].split()) == 4  # name, return, deviation, steps
    entry = json.loads((folder / "alone.json").read_text())["evaluations"][0]
    assert entry["references"] is entry["metrics"]["normalized_return"] is entry["metrics"]["failed_episodes"] is None


def test_the_other_bank_and_samples(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    main(["evaluate", "mine", "--episodes", "2", "--bank", "selection", "--deterministic", "false"])
    assert "2 selection-bank episodes each of InvertedPendulum-v5, sampled actions" in capsys.readouterr().out


def test_what_cannot_be_evaluated_is_refused_before_anything_is_played(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    error = refused(capsys, "evaluate", "mine", "actor.pt")
    assert "actor.pt: does not say of which environment it is. Give --env." in error
    assert "mine/last.ckpt: is an expert for 4-dim" in refused(capsys, "evaluate", "mine", "--env", "Hopper-v5")
    assert "min: no such checkpoint" in refused(capsys, "evaluate", "min")
    assert "exists and is not overwritten" in refused(capsys, "evaluate", "mine", "--output", "actor.pt")
    assert "policies" in refused(capsys, "evaluate")
    assert capsys.readouterr().out == ""
