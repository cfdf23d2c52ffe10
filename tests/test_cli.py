"""The command line as its users meet it, on InvertedPendulum-v5, whose episodes are short."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import (
    BUDGET,
    INTERACTIVE_BUDGET,
    REPOSITORY,
    USUAL_STEPS,
    actor_state,
    assert_equal_weights,
    curve,
    fit,
    import_from,
    is_interactive,
    refused,
    write_pairs,
)
from lightning.pytorch import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_bc.callbacks.checkpoints import Checkpoints
from lightning_bc.cli import main
from lightning_bc.episodes import TEST_EPISODES
from lightning_bc.files import write
from lightning_bc.runs import score
from lightning_bc.strategies import load_strategy

CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


def strategy_in(config):
    model = yaml.safe_load(config.read_text())["model"]
    return model["class_path"] if isinstance(model, dict) else model


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_every_config_parses_trains_and_scores(config, data):
    interactive = is_interactive(strategy_in(config))
    budget = INTERACTIVE_BUDGET if interactive else BUDGET
    arguments = ["--config", str(config), "--data.path", data, *budget.split()]
    if config.stem == "dagger":
        torch.save(actor_state(4, 1, scale=3.0), "expert.pt")
        arguments += ["--trainer.callbacks.expert", "expert.pt", "--data.episodes", "12"]
    main(["fit", *arguments])
    run = next(Path("lightning_logs").iterdir()).name
    results = json.loads(Path(f"lightning_logs/{run}/results.json").read_text())
    assert results["environment_id"] == "InvertedPendulum-v5"
    assert len(results["returns"]) == score.TEST_EPISODES
    assert results["score"] == pytest.approx(np.mean(results["returns"]))
    assert results["normalized"] == pytest.approx((results["score"] - 5) / 995)
    assert results["failed_episodes"] == np.mean(np.array(results["returns"]) < 500)
    assert {"last.ckpt", "best.ckpt"} == {path.name for path in Path(f"checkpoints/{run}").iterdir()}
    if interactive:
        assert results["environment_steps"] == 40
        assert [value for _, value in curve(run, "time/environment_steps")] == [10, 20, 30, 40]
        return
    assert results["optimizer_steps"] == 4
    assert results["pairs"] == 64
    assert [step for step, _ in curve(run)] == [0, 2, 4]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_every_config_is_short_and_draws_at_least_100_points(config, capsys):
    assert len(config.read_text().splitlines()) <= 15
    with pytest.raises(SystemExit):
        main(["fit", "--config", str(config), "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)
    if is_interactive(strategy_in(config)):
        length = settings["model"]["init_args"]["total_environment_steps"]
        assert length / settings["rollouts"]["eval_freq"] >= 100
        return
    length = settings["trainer"]["max_steps"]
    usual = USUAL_STEPS[strategy_in(config)]
    assert (length if length > 0 else usual) / settings["rollouts"]["eval_freq"] >= 100


class WasBetter(Callback):
    """At the end an earlier point was so many returns above the last one."""

    def __init__(self, by: float) -> None:
        self.by = by

    def on_fit_end(self, trainer, module):
        (kept,) = (one for one in trainer.callbacks if isinstance(one, Checkpoints))
        kept.best_merit = kept.rollouts.last_return + self.by


@pytest.mark.parametrize(("by", "tells"), [(0, False), (20, False), (400, True)])
def test_a_run_that_ends_far_below_its_best_point_says_which_checkpoint_has_that(by, tells, data, capsys):
    run = fit(data, flags=f"{BUDGET} --trainer.callbacks test_cli.WasBetter --trainer.callbacks.by {by}")
    printed = capsys.readouterr().out
    assert (f"python -m lightning_bc evaluate checkpoints/{run}/best.ckpt" in printed) == tells


def test_test_needs_no_demonstrations_and_repeats_the_score_on_100_episodes(data, monkeypatch):
    monkeypatch.setattr(score, "TEST_EPISODES", TEST_EPISODES)
    run = fit(data)
    path = Path(f"lightning_logs/{run}/results.json")
    first = json.loads(path.read_text())
    assert len(first["returns"]) == len(first["sampled_returns"]) == 100
    path.unlink()
    Path(data).unlink()
    main(["test", "--config", f"lightning_logs/{run}/config.yaml", "--ckpt_path", f"checkpoints/{run}/last.ckpt"])
    again = json.loads(path.read_text())
    assert again["returns"] == first["returns"]
    assert again["sampled_returns"] == first["sampled_returns"]
    assert again["data"]["sha256"] == first["data"]["sha256"]
    assert [path.name for path in Path("lightning_logs").iterdir()] == [run]


def test_the_score_of_another_checkpoint_does_not_replace_the_last_ones(data):
    run = fit(data)
    before = Path(f"lightning_logs/{run}/results.json").read_text()
    main(["test", "--config", f"lightning_logs/{run}/config.yaml", "--ckpt_path", f"checkpoints/{run}/best.ckpt"])
    assert Path(f"lightning_logs/{run}/results.json").read_text() == before
    assert Path(f"lightning_logs/{run}/results-best.json").is_file()


@pytest.mark.parametrize("named", ["--run", "--ckpt_path"])
def test_validate_reports_held_out_metrics(named, data, capsys):
    run = fit(data)
    main(["validate", named, run])
    printed = capsys.readouterr().out
    for name in ("validation/loss", "validation/action_mean_squared_error", "validation/explained_variance"):
        assert name in printed


def test_validation_is_logged_at_the_curves_steps(data):
    run = fit(data, flags=f"{BUDGET} --rollouts.validation_freq 2")
    assert [step for step, _ in curve(run, "validation/loss")] == [2, 4]
    assert [step for step, _ in curve(run, "train/loss")] == [2, 4]


def test_two_runs_never_share_a_folder(data):
    assert fit(data) != fit(data)
    assert len(list(Path("lightning_logs").iterdir())) == len(list(Path("checkpoints").iterdir())) == 2


def test_a_trained_strategy_is_an_expert(data):
    run = fit(data, "Gaussian")
    expert = f"checkpoints/{run}/last.ckpt"
    main(["collect", "--env", "InvertedPendulum-v5", "--expert", expert, "--pairs", "50", "--output", "again.pt"])
    content = torch.load("again.pt", weights_only=True)
    assert content["observations"].shape == (50, 4)
    fit("again.pt", flags=BUDGET + " --data.validation_fraction 0")


def test_checkpoints_hold_plain_values_and_no_demonstrations(data):
    run = fit(data)
    path = Path(f"checkpoints/{run}/last.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["run"] == run
    assert checkpoint["config"]["model"]["class_path"] == "lightning_bc.strategies.MSE"
    parameters = sum(value.numel() for value in checkpoint["state_dict"].values())
    assert path.stat().st_size < 13 * parameters + 100_000          # weights and Adam's two moments, 4 bytes each
    assert type(load_strategy(path)).__name__ == "MSE"


@pytest.mark.parametrize("flags", ["--trainer.max_epochs 3", "--trainer.max_epochs 3 --trainer.max_steps 10"])
def test_epochs_are_passes(data, flags):
    run = fit(data, flags=f"{flags} --rollouts.eval_freq 3 --rollouts.episodes 1 --data.batch_size 20")
    steps = 10 if "max_steps" in flags else 3 * 6  # 110 training pairs in batches of 20
    assert torch.load(f"checkpoints/{run}/last.ckpt", weights_only=True)["global_step"] == steps
    assert curve(run)[0][0] == 0
    assert curve(run)[-1][0] == steps


def test_rollouts_do_not_disturb_training(data):
    """The weights are the same however often episodes are played in between."""
    often = fit(data, "Gaussian", BUDGET)
    once = fit(data, "Gaussian", BUDGET.replace("--rollouts.episodes 2", "--rollouts.episodes 1"))
    assert_equal_weights(*(torch.load(f"checkpoints/{run}/last.ckpt", weights_only=True) for run in (often, once)))


# Refusals: each names what is wrong and what to do, before the first step


def test_last_without_a_matching_run_lists_what_differs(data, capsys):
    run = fit(data)
    flags = f"{BUDGET} --seed_everything 1 --ckpt_path last"
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", data, *flags.split())
    assert run in error
    assert "seed_everything 0, 1" in error


def test_flags_that_contradict_a_checkpoint_are_refused(data, capsys):
    run = fit(data)
    path = f"checkpoints/{run}/last.ckpt"
    config = f"lightning_logs/{run}/config.yaml"
    error = refused(capsys, "fit", "--config", config, "--model.optimizer.lr", "0.5", "--ckpt_path", path)
    assert "model.init_args.optimizer.init_args.lr 0.003, 0.5" in error
    error = refused(capsys, "test", "--config", config, "--model.network.hidden_sizes", "[8]", "--ckpt_path", path)
    assert "hidden_sizes" in error
    error = refused(capsys, "test", "--model", "Gaussian", "--ckpt_path", path)
    assert "checkpoint of MSE" in error
    assert config in error
    error = refused(capsys, "test", "--config", config, "--env", "Hopper-v5", "--ckpt_path", path)
    assert "--env says Hopper-v5" in error
    assert "says InvertedPendulum-v5" in error


def test_other_data_than_the_checkpoints_is_refused(data, capsys):
    run = fit(data)
    write_pairs(data, lengths=(10,) * 13, observation_dim=4, action_dim=1)
    error = refused(
        capsys, "fit", "--config", f"lightning_logs/{run}/config.yaml", "--ckpt_path", f"checkpoints/{run}/last.ckpt"
    )
    assert "not the file that this run began with" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fit", "--model", "MSE", "--data.path", "nowhere.pt"], ["nowhere.pt", "collect"]),
        (["fit", "--model", "MSE", "--env", "Swimmer-v5"], ["Swimmer-v5-sampled-2400000.pt", "--expert", "--data.path"]),
        (["fit", "--model", "MSE", "--env", "HalfCheeta-v5"], ["HalfCheeta-v5", "HalfCheetah-v5"]),
        (["fit", "--model", "MSE", "--env", "CartPole-v1"], ["CartPole-v1", "Discrete"]),
        (["fit", "--model", "MSE", "--data.batchsize", "5"], ["data.batchsize", "data.batch_size"]),
        (["fit", "--model", "MSE", "--model.optimizer.weightdecay", "5"], ["weightdecay", "weight_decay"]),
        (["fit", "--model", "GausianMixture"], ["GausianMixture", "GaussianMixture"]),
        (["fit", "--model", "mse"], ["unknown: mse. Nearest known: MSE."]),
        (["fit", "--model", "GMM"], ["unknown: GMM. Known: ACT, AIRL, Autoregressive", "GaussianMixture"]),
        (["fit", "--model", "MSE", "--model.network", "CNN"], ["unknown: CNN. Known: MLP, ResidualMLP, LSTM, Transformer."]),
        (["fit", "--run", "mine"], ["--run mine: no run of this name has a checkpoint", "--model or --data.path"]),
        (["test", "--run", "mine"], ["--run mine: no run of this name has a checkpoint, checkpoints/mine/last.ckpt"]),
        (["validate", "--model", "MSE", "--run", "mine"], ["--run mine: no run of this name"]),
        (["fit", "--model", "MSE", "--data.path", "chetah.npz"], ["chetah.npz: no such", "Nearest there: cheetah.npz"]),
        (["fit", "--model", "MSE", "--data.batch_size", "0"], ["--data.batch_size 0", "at least 1"]),
        (["fit", "--model", "MSE", "--rollouts.eval_freq", "0"], ["--rollouts.eval_freq 0", "at least 1"]),
        (["test", "--model", "MSE"], ["--ckpt_path"]),
        (["test", "--model", "MSE", "--ckpt_path", "nowhere.ckpt"], ["nowhere.ckpt", "checkpoints/"]),
        (["fit", "--model", "MSE", "--ckpt_path", "last"], ["--ckpt_path last", "new run"]),
        (["collect", "--env", "HalfCheetah-v5", "--expert", "nowhere.pt"], ["nowhere.pt", "no such expert"]),
        (["collect", "--env", "InvertedPendulum-v5", "--expert", "cheetah.pt"], ["cheetah.pt", "17", "4"]),
    ],
    ids=lambda value: " ".join(value) if value[0] in ("fit", "test", "validate", "collect") else "",
)
def test_bad_input_is_refused_with_its_remedy(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("cheetah.pt", actor_state(17, 6))
    Path("cheetah.npz").touch()
    error = refused(capsys, *arguments)
    for word in words:
        assert word in error
    assert not Path("lightning_logs").exists()


def test_a_file_that_does_not_say_its_environment_is_never_taken_for_the_defaults(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write_pairs("mine.pt")                                   # of HalfCheetah-v5's dimensions
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", path)
    assert "mine.pt: does not say of which environment it is. Say it with --env; or," in error


def test_an_environment_that_contradicts_the_data_is_refused(data, capsys):
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", data, "--env", "HalfCheetah-v5")
    assert "--env says HalfCheetah-v5" in error
    assert "says InvertedPendulum-v5" in error


def test_a_torn_checkpoint_is_refused(data, capsys):
    run = fit(data)
    path = Path(f"checkpoints/{run}/last.ckpt")
    for size in (1000, 0):
        path.write_bytes(path.read_bytes()[:size])
        for named in (["--config", f"lightning_logs/{run}/config.yaml", "--ckpt_path", str(path)], ["--run", run]):
            error = refused(capsys, "test", *named)
            assert error.startswith(f"error: {path}: cannot be read")
            assert "Beside it lies best.ckpt." in error


class Leaving(Callback):
    """Ends the process after the first step."""

    def on_train_batch_end(self, *_):
        sys.exit(0)


def test_a_program_that_ends_the_process_is_no_interruption(data, capsys):
    with pytest.raises(SystemExit) as end:
        fit(data, flags=f"{BUDGET} --trainer.callbacks test_cli.Leaving")
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert re.search(r"error: training called sys.exit\(0\) \(.*test_cli.py, line \d+\). Of this run, ", error)


class Told(Callback):
    """Ends the run as a rank does that SIGTERM has reached."""

    def on_train_batch_end(self, *_):
        raise SIGTERMException


def test_a_rank_that_sigterm_has_ended_was_stopped(data, capsys):
    with pytest.raises(SystemExit) as end:
        fit(data, flags=f"{BUDGET} --trainer.callbacks test_cli.Told")
    assert end.value.code == 143
    assert "stopped; there is no checkpoint yet" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_a_run_that_a_signal_stopped_does_not_end_as_if_it_had_succeeded(command, monkeypatch):
    monkeypatch.setattr("lightning_bc.training.run", lambda name, args: 143)
    with pytest.raises(SystemExit) as stopped:
        main([command])
    assert stopped.value.code == 143


@pytest.mark.parametrize("debug", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_warning_for_a_person_names_no_line_of_code(debug, tmp_path):
    path = write_pairs(tmp_path / "mine.pt", lengths=(4, 0, 4))
    program = [sys.executable, "-m", "lightning_bc", *["--debug"] * debug, "inspect", str(path)]
    done = subprocess.run(program, capture_output=True, text=True, env=os.environ | import_from(REPOSITORY), check=True)
    assert done.stderr.startswith("warning: ") != debug
    assert done.stderr.endswith(f"{path}: 1 episodes have no steps and are left out (the first is episode 1).\n")
