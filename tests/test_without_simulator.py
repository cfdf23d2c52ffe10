"""Training from a file alone: no environment stands for the robot, or nobody has installed it."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import json_to_edit, last_checkpoint, refused, write_pairs

import lightning_bc
from lightning_bc.cli import main
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.errors import InputError
from lightning_bc.runs.curve import read_curve
from lightning_bc.runs.held_out import read_results

FLAGS = (
    "--rollouts.episodes 0 --rollouts.eval_freq 2 --data.batch_size 16 --model.network.hidden_sizes [8] "
    "--trainer.enable_progress_bar false"
)


def write_robot(path="robot.pt", **changes):
    """Four episodes of a robot with three sensors and two joints, whose second joint stands still."""
    observations = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    actions = changes.pop("actions", torch.stack([100 + 20 * observations[:, 0].tanh(), torch.full((40,), 7.0)], dim=1))
    none = dict.fromkeys(("mean_reward", "std_reward", "random_returns", "expert_returns"))
    return write_pairs(path, (10,) * 4, 3, 2, observations=observations, actions=actions, **none, **changes)


def fit(data, run, flags="--trainer.max_steps 6", strategy="MSE"):
    main(["fit", "--run", run, "--model", strategy, "--data.path", data, *FLAGS.split(), *flags.split()])
    return last_checkpoint(run)


@pytest.fixture(scope="module")
def robot(tmp_path_factory):
    """A working directory with a finished run, "robot"."""
    folder = tmp_path_factory.mktemp("robot")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fit(write_robot(), "robot")
        yield folder


def test_the_curve_is_what_is_measured_on_held_out_episodes_in_the_actions_units(robot):
    curve = read_curve(Path("lightning_logs/robot/curve.csv"))
    assert curve["step"].tolist() == [0, 2, 4, 6]
    data, policy = torch.load("robot.pt"), lightning_bc.load("robot")
    errors = policy(data["observations"][30:]) - data["actions"][30:]   # the last of four episodes
    last = {name.removeprefix("validation/"): values[-1] for name, values in curve.items()}
    assert last["action_mean_absolute_error"] == pytest.approx(errors.abs().mean().item(), rel=1e-4)
    assert last["action_root_mean_squared_error"] == pytest.approx(errors.square().mean().sqrt().item(), rel=1e-4)
    assert not any(name.startswith("rollout/return") for name in curve)
    results = json.loads(Path("lightning_logs/robot/results.json").read_text())
    assert results["held_out"]["loss"] == last["loss"]
    assert results["data"]["validation_episodes"] == 1


def test_bounds_are_those_of_the_file_and_what_stands_still_stands_still(robot):
    demonstrations = Demonstrations(path="robot.pt", simulator=False)
    actions = torch.load("robot.pt")["actions"]
    assert demonstrations.action_low == pytest.approx([actions[:, 0].min().item(), 7 - 7e-3])
    assert demonstrations.action_high == pytest.approx([actions[:, 0].max().item(), 7 + 7e-3])
    answer = lightning_bc.load("robot")(np.zeros(3))
    assert 80 < answer[0] < 120
    assert answer[1] == pytest.approx(7, abs=8e-3)


def test_the_best_checkpoint_is_that_of_the_least_held_out_loss(robot):
    losses = read_curve(Path("lightning_logs/robot/curve.csv"))["validation/loss"]
    best = torch.load("checkpoints/robot/best.ckpt")["point"]
    assert best["validation/loss"] == losses[1:].min()              # nothing is saved before the first step


def test_test_and_fit_say_the_figures_and_what_cannot_be_had(robot, capsys):
    for command in (["test", "--run", "robot"], ["fit", "--run", "robot"]):
        main(command)
        out = capsys.readouterr().out
        assert "held-out loss" in out
        assert "no return: without a simulator nothing was played" in out


def test_the_report_has_a_table_of_such_runs_and_no_chart(robot, tmp_path, capsys):
    pytest.importorskip("plotly", reason="the optional extra report is not installed")
    copied = tmp_path / "logs" / "of-other-seed"
    shutil.copytree("lightning_logs/robot", tmp_path / "logs" / "robot")
    shutil.copytree("lightning_logs/robot", copied)
    results = json_to_edit(copied / "results.json")
    results["seed"], results["held_out"]["action_mean_absolute_error"] = 1, 3.0
    (copied / "results.json").write_text(json.dumps(results))
    capsys.readouterr()
    main(["report", str(tmp_path / "logs"), "--output", str(tmp_path / "report")])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "without a simulator: 1 method without a return" in printed.out
    with (tmp_path / "report/held_out.csv").open() as file:
        (row,) = csv.DictReader(file)
    first = json.loads(Path("lightning_logs/robot/results.json").read_text())["held_out"]
    assert float(row["action_mean_absolute_error"]) == pytest.approx((first["action_mean_absolute_error"] + 3) / 2)
    assert float(row["loss"]) == pytest.approx(first["loss"])
    assert [row[name] for name in ("method", "seeds", "held_out_episodes")] == ["MSE", "2", "1"]
    assert row["demonstrations"] == "robot.pt, 3 episodes, 30 pairs"
    for name in ("report.md", "report.html"):
        words = (tmp_path / "report" / name).read_text()
        assert "These runs have no return" in words
        assert "robot.pt, 3 episodes, 30 pairs" in words
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["held_out.csv", "report.html", "report.md"]


def test_where_no_action_varies_there_is_no_variance_to_explain_and_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(write_robot(actions=torch.tensor([3.0, 7.0]).expand(40, 2)), "still")
    curve = read_curve(Path("lightning_logs/still/curve.csv"))
    assert curve["step"].tolist() == [0, 2, 4, 6]
    assert np.isnan(curve["validation/explained_variance"]).all()
    results = read_results(Path("lightning_logs/still/results.json"))
    assert np.isnan(results.held_out["explained_variance"])
    assert results.diverged is None


def test_what_plays_asks_for_an_environment(robot, capsys):
    assert "does not say of which environment it is. Give --env." in refused(capsys, "evaluate", "robot")
    error = refused(capsys, "play", "--ckpt_path", "checkpoints/robot/last.ckpt", "--output", "film.mp4")
    assert "does not say of which environment it is. Give --env." in error
    assert "3-dimensional observations" in refused(capsys, "evaluate", "robot", "--env", "InvertedPendulum-v5")


def test_a_policy_is_exported_and_acts_as_the_run(robot, tmp_path):
    main(["export", "--ckpt_path", "robot", "--output", str(tmp_path / "policy")])
    observations = torch.load("robot.pt")["observations"]
    exported, trained = lightning_bc.load(str(tmp_path / "policy")), lightning_bc.load("robot")
    torch.testing.assert_close(exported(observations), trained(observations))


def test_a_run_goes_on_where_it_was(robot):
    through = fit("robot.pt", "through", "--trainer.max_steps 8 --model.schedule constant")
    fit("robot.pt", "mine", "--trainer.max_steps 4 --model.schedule constant")
    longer = fit("robot.pt", "mine", "--trainer.max_steps 8 --model.schedule constant")
    assert all(torch.equal(value, longer["state_dict"][name]) for name, value in through["state_dict"].items())
    assert longer["point"]["validation/loss"] == through["point"]["validation/loss"]


def test_windows_and_given_bounds_and_an_environment_that_nobody_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_robot(metadata={"environment_id": "Robot-v0"})
    flags = "--data.action_low [0,0] --data.action_high [200,9] --model.history 2 --model.horizon 3 --trainer.max_steps 2"
    content = fit(data, "mine", flags, "Diffusion")
    assert content["Demonstrations"]["environment_id"] == "Robot-v0"
    assert content["hyper_parameters"]["action_high"] == [200, 9]
    assert content["point"]["validation/action_mean_absolute_error"] > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--data.validation_fraction 0", "judged by its loss on held-out episodes, and none are held out. Set it above 0."),
        ("--data.episodes 1", "Two episodes at least are needed"),
        ("--model SAC", "SAC acts in the environment while it learns"),
        ("--trainer.callbacks+=lightning_bc.callbacks.DAgger --trainer.callbacks.expert x.pt", "DAgger acts in the env"),
        ("--data.action_low [0]", "--data.action_low [0.0]: wanted 2 finite numbers"),
        ("--data.action_low [0,8]", "action bounds 8 to 7 in dimension 1"),
        ("--data.scale_actions true", "Give --data.action_low and --data.action_high"),
        ("--rollouts.episodes 3 --env InvertedPendulum-v5 --data.action_low [0]", "the bounds of InvertedPendulum-v5 count"),
        ("--rollouts.episodes 3", "train without one, --rollouts.episodes 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(flags, words, robot, capsys):
    command = ["fit", "--model", "MSE", "--data.path", "robot.pt", "--rollouts.episodes", "0"]
    assert words in refused(capsys, *command, *flags.split())


def test_episodes_of_unknown_length_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = write_robot(episode_lengths=None)
    assert "--data.episode_length N" in refused(capsys, "fit", "--model", "MSE", "--data.path", data, *FLAGS.split())
    with pytest.raises(InputError, match="does not say of which environment"):
        Demonstrations(path=data)


def test_without_a_simulator_a_file_is_needed():
    with pytest.raises(InputError, match=r"--data\.path null"):
        Demonstrations(None, simulator=False)
