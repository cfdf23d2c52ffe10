"""``fit`` as a person runs it again: under the same name, longer, from other weights; and Lightning's flags."""

import dataclasses
import functools
import json
import math
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
import yaml
from conftest import write_pairs
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_arguments import refused

import lightning_bc
from lightning_bc.callbacks import Checkpoints
from lightning_bc.cli import main
from lightning_bc.runs import resume
from lightning_bc.strategies import MSE
from lightning_bc.strategies.optimizers import Cosine, DefaultAdamW, take_a_step
from lightning_bc.trainer_flags import settle_scheduler

SMALL = (
    "--rollouts.eval_freq 4 --rollouts.episodes 1 --data.batch_size 10 --data.validation_fraction 0 "
    "--model.network.hidden_sizes [8]"
)
CONSTANT = "--model.schedule constant"
WATCH = "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor"
PAIRS = 120
"""Of pendulum.pt; a pass has twelve batches."""


def write_data():
    """Demonstrations of InvertedPendulum-v5 in the working directory."""
    return write_pairs(
        "pendulum.pt",
        lengths=(10,) * 12,
        observation_dim=4,
        action_dim=1,
        metadata={"environment_id": "InvertedPendulum-v5"},
    )


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working directory with demonstrations."""
    monkeypatch.chdir(tmp_path)
    return write_data()


@pytest.fixture(scope="module")
def four_steps(tmp_path_factory):
    """A folder with a finished run, "mine", of four steps."""
    folder = tmp_path_factory.mktemp("four_steps")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_data()
        fit("mine", "--trainer.max_steps 4")
    return folder


@pytest.fixture
def mine(data, four_steps):
    """A working directory with demonstrations, and the finished run of four steps."""
    shutil.copytree(four_steps, ".", dirs_exist_ok=True)
    return data


def fit(run, flags="", strategy="MSE", data="pendulum.pt"):
    main(["fit", "--run", run, "--model", strategy, "--data.path", str(data), *SMALL.split(), *flags.split()])
    return checkpoint(run)


def checkpoint(run):
    return torch.load(f"checkpoints/{run}/last.ckpt", weights_only=True)


def config(run):
    return yaml.safe_load(Path(f"lightning_logs/{run}/config.yaml").read_text())


def assert_equal_runs(first, second):
    assert first["global_step"] == second["global_step"]
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    assert torch.equal(first["random_state"]["cpu"], second["random_state"]["cpu"])


# --run


def test_a_finished_run_is_printed_and_nothing_is_done(mine, capsys):
    files = [Path("checkpoints/mine/last.ckpt"), Path("lightning_logs/mine/results.json")]
    before = [path.stat().st_mtime_ns for path in files]
    capsys.readouterr()
    fit("mine", "--trainer.max_steps 4 --trainer.enable_progress_bar false --rollouts.video true")
    results = json.loads(files[1].read_text())
    assert f"run mine is finished: score {results['score']:.0f}" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in files] == before


def test_a_run_without_results_goes_on_from_its_checkpoint(data, capsys):
    whole = fit("mine", "--trainer.max_steps 8")
    Path("lightning_logs/mine/results.json").unlink()
    capsys.readouterr()
    assert_equal_runs(fit("mine", "--trainer.max_steps 8"), whole)
    assert "run mine, resumed at optimizer step 8" in capsys.readouterr().out
    assert Path("lightning_logs/mine/results.json").is_file()


class BrokenOffError(Exception):
    """Ends a run here."""


@pytest.fixture
def broken_off(monkeypatch):
    """A function that runs ``fit`` and breaks it off once a step's checkpoint is saved."""

    def fit_until(step, *arguments):
        save = Checkpoints._save

        def saving(self, trainer):
            save(self, trainer)
            if trainer.global_step == step:
                raise BrokenOffError

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "_save", saving)
            with pytest.raises(BrokenOffError):
                fit(*arguments)

    return fit_until


def test_a_run_that_is_killed_while_it_is_lengthened_goes_on(data, broken_off):
    fit("mine", "--trainer.max_steps 4")
    shorter = Path("lightning_logs/mine/results.json").read_text()
    broken_off(8, "mine", "--trainer.max_steps 12")
    assert not Path("lightning_logs/mine/results.json").exists()
    assert Path("lightning_logs/mine/results-step-4.json").read_text() == shorter
    assert fit("mine", "--trainer.max_steps 12")["global_step"] == 12
    assert json.loads(Path("lightning_logs/mine/results.json").read_text())["optimizer_steps"] == 12


def test_a_test_of_a_run_that_has_not_ended_does_not_end_it(data, broken_off, capsys):
    broken_off(4, "mine", "--trainer.max_steps 8")
    main(["test", "--run", "mine"])
    assert "the run has not ended; its last checkpoint goes on with" in capsys.readouterr().out
    assert json.loads(Path("lightning_logs/mine/results-last.json").read_text())["optimizer_steps"] == 4
    assert not Path("lightning_logs/mine/results.json").exists()
    assert fit("mine", "--trainer.max_steps 8")["global_step"] == 8


@pytest.mark.parametrize("by_name", [True, False], ids=["--run", "--ckpt_path"])
def test_a_copy_of_a_run_goes_on_in_its_own_folders(mine, by_name):
    for folder in ("checkpoints", "lightning_logs"):
        shutil.copytree(f"{folder}/mine", f"{folder}/copy")
    before = {path: path.read_bytes() for path in Path().glob("*/mine/*")}
    if by_name:
        fit("copy", "--trainer.max_steps 8")
    else:
        main(["fit", "--ckpt_path", "checkpoints/copy/last.ckpt", "--trainer.max_steps", "8"])
    assert {path: path.read_bytes() for path in Path().glob("*/mine/*")} == before
    assert checkpoint("copy")["global_step"] == 8
    assert checkpoint("copy")["run"] == json.loads(Path("lightning_logs/copy/results.json").read_text())["run"] == "copy"
    assert {path.name for path in Path("checkpoints").iterdir()} == {"mine", "copy"}


def test_a_run_that_left_no_checkpoint_starts_again(mine):
    Path("checkpoints/mine/last.ckpt").unlink()
    Path("lightning_logs/mine/results.json").unlink()
    assert fit("mine", "--trainer.max_steps 4")["global_step"] == 4


@pytest.mark.parametrize("kept", [("checkpoints/mine/last.ckpt",), ("lightning_logs/mine/results.json",), ()])
def test_another_configuration_under_the_same_name_is_refused(kept, mine, capsys):
    for path in ("checkpoints/mine/last.ckpt", "lightning_logs/mine/results.json"):
        if path not in kept:
            Path(path).unlink()
    flags = ["--run", "mine", "--model", "MSE", "--data.path", mine, *SMALL.split(), "--trainer.max_steps", "4"]
    error = refused(capsys, "fit", *flags, "--model.optimizer.lr", "0.5")
    assert "--run mine" in error
    assert "model.init_args.optimizer.init_args.lr 0.003, 0.5" in error


@pytest.mark.parametrize("name", ["../mine", "a/b", "..", ".hidden", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(name, data, capsys):
    assert "cannot name a run" in refused(capsys, "fit", "--run", name, "--model", "MSE", "--data.path", data)
    assert not Path("lightning_logs").exists()


def test_a_checkpoint_cannot_choose_another_folder(mine, capsys):
    torch.save(checkpoint("mine") | {"run": "../../elsewhere"}, "moved.ckpt")
    assert "'../../elsewhere' cannot name a run" in refused(capsys, "test", "--ckpt_path", "moved.ckpt")


def test_a_checkpoint_that_is_not_whole_names_what_is_missing(mine, capsys):
    whole = checkpoint("mine")
    for missing in ("callbacks", "Demonstrations", "layers"):
        state = {key: value for key, value in whole["state_dict"].items() if not (missing == "layers" and "0.bias" in key)}
        content = {key: value for key, value in whole.items() if key != missing} | {"state_dict": state}
        torch.save(content, "part.ckpt")
        error = refused(capsys, "test", "--ckpt_path", "part.ckpt")
        words = {"callbacks": "callbacks missing", "Demonstrations": "data state", "layers": "layers.0.bias"}
        assert words[missing] in error


def test_run_and_ckpt_path_are_not_given_together(data, capsys):
    assert "give one of them" in refused(capsys, "fit", "--model", "MSE", "--run", "mine", "--ckpt_path", "last")


def test_a_name_of_which_the_shell_would_make_two_words_is_quoted(data, capsys):
    fit("exp 1=(a)", "--trainer.max_steps 4")
    assert "test              python -m lightning_bc test --run 'exp 1=(a)'" in capsys.readouterr().out


def test_processes_that_a_scheduler_started_need_a_name(data, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.delenv("LIGHTNING_BC_RUN", raising=False)
    assert "Give it with --run NAME" in refused(capsys, "fit", "--model", "MSE", "--data.path", data)


def test_a_run_whose_last_checkpoint_is_gone_cannot_be_lengthened(mine, capsys):
    Path("checkpoints/mine/last.ckpt").unlink()
    command = ["fit", "--run", "mine", "--model", "MSE", "--data.path", "pendulum.pt", *SMALL.split()]
    error = refused(capsys, *command, "--trainer.max_steps", "8")
    assert "It cannot be made longer: checkpoints/mine/last.ckpt, from which it would go on, is not there." in error


def test_an_earlier_checkpoint_does_not_go_on_in_the_place_of_what_came_after_it(mine, capsys):
    early = shutil.copy("checkpoints/mine/last.ckpt", "checkpoints/mine/early.ckpt")
    fit("mine", "--trainer.max_steps 8")
    before = {path: path.read_bytes() for path in Path().glob("*/mine/*")}
    command = ["fit", "--ckpt_path", str(early), "--trainer.max_steps", "12"]
    error = refused(capsys, *command)
    assert "is of step 4, and its run has gone on to step 8, which would be written over" in error
    assert "--run mine, or begin another run from these weights: --model.init_from checkpoints/mine/early.ckpt" in error
    assert {path: path.read_bytes() for path in Path().glob("*/mine/*")} == before
    Path("checkpoints/mine/last.ckpt").write_bytes(b"torn")         # then there is nothing to lose
    main(command)
    assert checkpoint("mine")["global_step"] == 12


# A checkpoint brings its configuration


@pytest.mark.parametrize("named", [["--run", "mine"], ["--ckpt_path", "checkpoints/mine/last.ckpt"]])
def test_test_and_validate_need_no_configuration(named, data, capsys):
    fit("mine", "--trainer.max_steps 4 --data.validation_fraction 0.1")
    path = Path("lightning_logs/mine/results.json")
    before = json.loads(path.read_text())
    path.unlink()
    main(["test", *named])
    assert json.loads(path.read_text())["returns"] == before["returns"]
    main(["validate", *named])
    assert "validation/loss" in capsys.readouterr().out


# Which run is meant, and what does not count as different


def test_display_settings_and_the_place_of_the_same_file_do_not_count(data):
    fit("mine", "--trainer.max_steps 8")
    Path("elsewhere.pt").write_bytes(Path(data).read_bytes())
    moved = ["fit", "--model", "MSE", "--data.path", "elsewhere.pt", *SMALL.split(), "--trainer.max_steps", "8"]
    moved[-1] = "12"
    display = ["--trainer.enable_progress_bar", "false", "--trainer.default_root_dir", "x", "--rollouts.video", "false"]
    main([*moved, *display, "--ckpt_path", "last"])
    assert [path.name for path in Path("checkpoints").iterdir()] == ["mine"]
    assert config("mine")["data"]["path"] == "elsewhere.pt"


def test_another_file_counts_as_different(data, capsys):
    fit("mine", "--trainer.max_steps 8")
    write_pairs("other.pt", lengths=(10,) * 13, observation_dim=4, action_dim=1)
    command = ["fit", "--model", "MSE", "--data.path", "other.pt", "--env", "InvertedPendulum-v5", *SMALL.split()]
    error = refused(capsys, *command, "--trainer.max_steps", "8", "--ckpt_path", "last")
    assert "data.path 'pendulum.pt', 'other.pt'" in error


def test_last_lists_the_nearest_two_runs(data, capsys):
    for seed in range(4):
        fit(f"run{seed}", f"--trainer.max_steps 4 --seed_everything {seed} --rollouts.eval_freq {4 if seed < 2 else 2}")
    command = ["fit", "--model", "MSE", "--data.path", data, *SMALL.split(), "--trainer.max_steps", "4"]
    error = refused(capsys, *command, "--seed_everything", "9", "--ckpt_path", "last")
    assert "run1: seed_everything 1, 9" in error
    assert "run0" in error
    assert "run2" not in error
    assert "run3" not in error


@pytest.mark.parametrize("content", ["", "model: [", "- 1"])
def test_a_torn_configuration_hides_no_other_run(content, mine, capsys):
    fit("torn", "--trainer.max_steps 4 --seed_everything 1")
    Path("lightning_logs/torn/config.yaml").write_text(content)
    command = ["fit", "--model", "MSE", "--data.path", mine, *SMALL.split(), "--trainer.max_steps", "4"]
    with pytest.warns(UserWarning, match=r"torn/config.yaml: (is empty or torn|cannot be read).* the run is left out"):
        main([*command, "--ckpt_path", "last"])
    assert "run mine, resumed" in capsys.readouterr().out


# A longer run


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The last checkpoint and the configuration of a run with these flags."""

    @functools.cache
    def run(flags):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("uninterrupted"))
            write_data()
            return fit("through", flags, "Gaussian"), config("through")

    return run


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("--trainer.max_steps 8", "--trainer.max_steps 22"),
        ("--trainer.max_steps 7", "--trainer.max_steps 22"),        # no multiple of a point's four steps
        ("--trainer.max_steps 15", "--trainer.max_steps 27"),       # in the second pass
        ("--trainer.max_epochs 1", "--trainer.max_epochs 3"),
        ("--trainer.max_epochs 1", "--trainer.max_steps 31"),       # of a pass, more steps
        ("", "--trainer.max_steps 31"),
    ],
)
@pytest.mark.parametrize("batch_size", [9])                         # 14 batches a pass: no multiple of four
def test_a_lengthened_run_equals_the_longer_one(before, after, batch_size, data, uninterrupted, capsys):
    flags = f"{CONSTANT} --data.batch_size {batch_size}"
    through, its_config = uninterrupted(f"{flags} {after}")
    fit("mine", f"{flags} {before}", "Gaussian")
    capsys.readouterr()
    assert_equal_runs(fit("mine", f"{flags} {after}", "Gaussian"), through)
    assert f"lengthened to {through['global_step']} optimizer steps, from" in capsys.readouterr().out
    assert json.loads(Path("lightning_logs/mine/results.json").read_text())["optimizer_steps"] == through["global_step"]
    assert config("mine") == its_config == checkpoint("mine")["config"]


def test_a_run_is_lengthened_twice(data):
    through = fit("through", f"{CONSTANT} --trainer.max_steps 21")
    for steps in (5, 13, 21):
        last = fit("mine", f"{CONSTANT} --trainer.max_steps {steps}")
    assert_equal_runs(last, through)
    steps = [event.step for event in curve("mine")]
    assert steps == sorted({0, *range(4, 21, 4), 5, 13, 21})


def curve(run):
    events = EventAccumulator(f"lightning_logs/{run}")
    events.Reload()
    return events.Scalars("rollout/return_mean")


ONLINE = (
    "--model.num_envs 2 --model.learning_starts 8 --model.batch_size 8 --model.replay_capacity 100 --rollouts.eval_freq 10 "
    "--model.total_environment_steps"
)


def test_an_online_run_is_lengthened(data, capsys):
    through = fit("through", f"{ONLINE} 60", "SAC")
    fit("mine", f"{ONLINE} 34", "SAC")
    capsys.readouterr()
    longer = fit("mine", f"{ONLINE} 60", "SAC")
    assert_equal_runs(longer, through)
    assert longer["hyper_parameters"]["total_environment_steps"] == 60
    assert "lengthened to 60 environment steps, from 34; learning rate: constant" in capsys.readouterr().out
    error = refused(capsys, "fit", "--run", "mine", "--model.total_environment_steps", "40")
    assert "total_environment_steps 60, 40" in error
    assert "longer, not shorter" in error


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("--trainer.max_steps 12", "--trainer.max_steps 4"),
        ("--trainer.max_epochs 1", "--trainer.max_steps 4"),        # only the data tell how long a pass is
        ("--trainer.max_steps 12", "--trainer.max_epochs 4"),       # the Trainer has counted the steps as one pass
    ],
)
def test_a_run_is_not_shortened(before, now, data, capsys):
    fit("mine", before)
    command = ["fit", "--run", "mine", "--model", "MSE", "--data.path", data, *SMALL.split(), *now.split()]
    assert "longer, not shorter" in refused(capsys, *command)
    assert checkpoint("mine")["global_step"] == 12


def test_the_cosine_is_that_of_the_new_length(data, capsys):
    fit("mine", "--trainer.max_steps 8")
    capsys.readouterr()
    last = fit("mine", "--trainer.max_steps 16 --rollouts.eval_freq 4")
    assert "learning rate: from here on along the cosine over the new length" in capsys.readouterr().out
    assert last["lr_schedulers"][0]["T_max"] == 16
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-9)


def test_a_cosine_that_goes_on_with_another_length_is_where_an_uninterrupted_one_is():
    def rates(length, steps, state=None):
        optimizer = DefaultAdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        if state is not None:
            optimizer.load_state_dict(state[0])
        schedule = Cosine(optimizer, length)
        if state is not None:
            schedule.load_state_dict(state[1])
        found = []
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            found.append(optimizer.param_groups[0]["lr"])
        return found, (optimizer.state_dict(), schedule.state_dict())

    through, _ = rates(30, 30)
    assert through == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 30)) for step in range(1, 31)], abs=1e-12)
    for stopped in (4, 10):
        _, state = rates(10, stopped)
        assert rates(30, 30 - stopped, state)[0] == through[stopped:]
        assert rates(10, 10 - stopped, state)[0] == rates(10, 10)[0][stopped:]


# Other weights to start from


@pytest.mark.parametrize("named", ["checkpoints/first/last.ckpt", "first", "lightning_logs/first"])
def test_a_new_run_starts_from_a_checkpoints_weights(named, data, capsys):
    before = fit("first", "--trainer.max_steps 8", "Autoregressive")
    environment = {"environment_id": "InvertedPendulum-v5"}
    write_pairs("other.pt", lengths=(7,) * 12, observation_dim=4, action_dim=1, metadata=environment)
    flags = "--trainer.max_steps 4 --model.optimizer.lr 1e-12 --model.optimizer.weight_decay 0"
    capsys.readouterr()
    after = fit("second", f"{flags} --model.init_from {named}", "Autoregressive", "other.pt")
    assert f"weights, with the scales of observations and actions, from {named}" in capsys.readouterr().out
    assert after["global_step"] == 4
    assert config("second")["init_from"] == named
    for name, value in before["state_dict"].items():
        torch.testing.assert_close(after["state_dict"][name], value, atol=1e-8, rtol=0)


def test_a_run_that_started_from_weights_is_resumed_without_them(data):
    fit("first", "--trainer.max_steps 8")
    flags = f"{CONSTANT} --model.init_from first.ckpt --trainer.max_steps"
    Path("checkpoints/first/last.ckpt").rename("first.ckpt")
    through = fit("through", f"{flags} 16")
    fit("mine", f"{flags} 8")
    Path("first.ckpt").unlink()
    assert_equal_runs(fit("mine", f"{flags} 16"), through)


def test_an_online_run_starts_from_weights_with_its_counters_at_zero(data):
    before = fit("first", f"{ONLINE} 30", "GAIL")
    rates = "--model.optimizer.lr 1e-12"
    after = fit("second", f"{ONLINE} 20 {rates} --model.init_from checkpoints/first/last.ckpt", "GAIL")
    assert after["steps_taken"]["environment_steps"] == 20
    assert torch.equal(after["state_dict"]["border.mean"], before["state_dict"]["border.mean"])
    name = next(name for name in before["state_dict"] if name.startswith("agent.network.") and name.endswith("weight"))
    torch.testing.assert_close(after["state_dict"][name], before["state_dict"][name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--model Gaussian", "is a checkpoint of MSE, and this run is of Gaussian"),
        ("--model MSE --model.network.hidden_sizes [9]", "network.layers.0.weight (8, 4), and this MSE has it (9, 4)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(flags, words, mine, capsys):
    command = ["fit", "--data.path", mine, "--run", "second", "--model.init_from", "checkpoints/mine/last.ckpt"]
    assert words in refused(capsys, *command, *flags.split())
    assert not Path("lightning_logs/second").exists()


# What a policy is not to see


def test_what_is_hidden_changes_no_action(data, capsys):
    fit("mine", "--trainer.max_steps 4 --data.hidden_dimensions [3,0,1]")
    assert "hidden from the policy: 0 to 1, 3 of the 4 entries" in capsys.readouterr().out
    policy, observations = lightning_bc.load("mine"), np.random.default_rng(0).normal(size=(5, 4))
    assert np.array_equal(policy(observations + np.array([50, 100, 0, -100])), policy(observations))
    assert (policy(observations + np.array([0, 0, 1, 0])) != policy(observations)).all()


def test_what_is_hidden_is_said_in_float64_too(data, capsys):
    fit("mine", "--trainer.max_steps 4 --trainer.precision 64-true --data.hidden_dimensions [3]")
    assert "hidden from the policy: 3 of the 4 entries" in capsys.readouterr().out


def test_other_weights_hide_what_they_were_learnt_with(data, capsys):
    flags = "--model.init_from checkpoints/first/last.ckpt --data.hidden_dimensions"
    fit("first", "--trainer.max_steps 4 --model.squash true --data.hidden_dimensions [3,1]")
    fit("second", f"--trainer.max_steps 4 --model.squash true {flags} [1,3]")
    for other in ("[]", "[1]"):
        words = refused(capsys, "fit", "--run", "third", "--model", "MSE", "--data.path", data, *SMALL.split(),
                        "--model.squash", "true", *flags.split(), other)
        assert f"--data.hidden_dimensions {other}: the weights of --model.init_from checkpoints/first/last.ckpt" in words
        assert "were learnt with [1, 3] hidden" in words
    assert not Path("lightning_logs/third").exists()
    fit("fourth", f"{ONLINE} 20 --env InvertedPendulum-v5 {flags.split(' --')[0]}", "SAC", data="null")
    assert "hidden from the policy: 1, 3 of the 4 entries" in capsys.readouterr().out


@pytest.mark.parametrize(("model", "path"), [("GAIL", "pendulum.pt"), ("SAC", "null")])
def test_who_acts_while_it_learns_can_be_hidden_from_too(model, path, data):
    flags = "--env InvertedPendulum-v5 --rollouts.eval_freq 120 --rollouts.episodes 2 --data.hidden_dimensions [1,3]"
    small = "hidden_sizes [8] --model.total_environment_steps 120 --model.learning_starts 40 --model.batch_size 16"
    flags += f" --data.path {path} --model {model} --model.network.{small}"
    main(["fit", "--run", "mine", *flags.split()])
    policy, observations = lightning_bc.load("mine"), np.random.default_rng(0).normal(size=(5, 4))
    assert np.array_equal(policy(observations + np.array([0, 100, 0, -100])), policy(observations))
    assert (policy(observations + np.array([1, 0, 0, 0])) != policy(observations)).all()


@pytest.fixture
def ant(data, monkeypatch):
    """A file of an Ant-v5 with short episodes, whose entries 27 to 104 are forces of contacts."""
    spec = dataclasses.replace(gymnasium.spec("Ant-v5"), id="BriefAnt-v0", max_episode_steps=3)
    monkeypatch.setitem(gymnasium.registry, "BriefAnt-v0", spec)
    return write_pairs("ant.pt", (3,) * 9, observation_dim=105, action_dim=8, metadata={"environment_id": "BriefAnt-v0"})


def what_it_sees(run):
    """The entries of an observation that the policy of a run answers to."""
    policy, zeros = lightning_bc.load(run), np.zeros((105, 105), np.float32)
    shifted = zeros + 3 * np.eye(105, dtype=np.float32)
    return np.flatnonzero(abs(policy(shifted) - policy(zeros)).max(axis=1) > 1e-6).tolist()  # rows round by their place


def test_forces_of_contacts_are_hidden_and_shown_where_that_is_asked_for(ant, capsys):
    said = "hidden from the policy: 27 to 104 of the 105 entries of an observation"
    flags = "--rollouts.workers 0 --trainer.max_steps"
    fit("mine", f"{flags} 4", data=ant)
    assert said in capsys.readouterr().out
    assert what_it_sees("mine") == [*range(27)]
    fit("mine", f"{flags} 8", data=ant)
    assert said in capsys.readouterr().out
    fit("other", f"{flags} 4 --data.hidden_dimensions []", data=ant)
    assert said not in capsys.readouterr().out
    assert what_it_sees("other") == [*range(105)]
    fit("third", f"{flags} 4 --model.init_from checkpoints/other/last.ckpt", data=ant)
    assert said not in capsys.readouterr().out
    assert what_it_sees("third") == [*range(105)]                   # as its weights have learnt it


def test_who_acts_while_it_learns_sees_forces_of_contacts(ant):
    fit("mine", f"--rollouts.workers 0 {ONLINE} 20", "GAIL", data=ant)
    assert what_it_sees("mine") == [*range(105)]


# Lightning's own flags


def test_gradients_are_clipped(data, monkeypatch):
    norms = []

    def clip(parameters, largest, clip=torch.nn.utils.clip_grad_norm_):
        parameters = list(parameters)
        clip(parameters, largest)
        norms.append(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm().item())

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    fit("mine", "--trainer.max_steps 4 --trainer.gradient_clip_val 0.01")
    assert norms == [pytest.approx(0.01, rel=1e-3)] * 4
    fit("other", "--trainer.max_steps 4")
    assert len(norms) == 4


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--trainer.accumulate_grad_batches 2", "--trainer.accumulate_grad_batches 2: is not supported"),
        ("--trainer.limit_train_batches 1", "--trainer.limit_train_batches 1"),
        ("--trainer.limit_train_batches 0.5", "--trainer.limit_train_batches 0.5: is not supported"),
        ("--trainer.overfit_batches 1", "--trainer.overfit_batches 1: is not supported"),
        ("--trainer.max_epochs -1", "--model.schedule constant"),
        ("--trainer.max_steps -5", "--trainer.max_steps -5: wanted at least 1, or -1 for no end"),
        ("--trainer.max_epochs -1 --trainer.max_time 00:00:00:01", "--model.schedule constant"),
        ("--trainer.gradient_clip_val -1", "--trainer.gradient_clip_val -1: wanted a finite number above 0"),
        ("--trainer.gradient_clip_val 1 --trainer.gradient_clip_algorithm value", "wanted norm"),
        ("--model SAC --trainer.gradient_clip_val 1", "SAC does not clip"),
        ("--model SAC --trainer.precision 16-mixed", "--trainer.precision 16-mixed: SAC has several optimizers"),
        ("--trainer.accelerator cpu --trainer.devices 0", "Lightning refuses"),
        ("--trainer.precision bf16-true", "--trainer.precision bf16-true: is not supported"),
        ("--trainer.val_check_interval 0.5", "Set --rollouts.validation_freq"),
        ("--trainer.check_val_every_n_epoch 2", "Set --rollouts.validation_freq"),
        ("--trainer.fast_dev_run true", "--trainer.max_steps 4"),
        ("--trainer.barebones true", "--trainer.barebones true"),
        ("--trainer.max_steps 0", "--trainer.max_steps 0: wanted at least 1"),
        ("--seed_everything -1", "--seed_everything -1: wanted a whole number, 0 to 4294967295"),
        ("--seed_everything true", "--seed_everything true: wanted a whole number"),
        ("--trainer.limit_val_batches 0", "Set --data.validation_pairs"),
        ("--trainer.max_time 00:00:00:00", "--trainer.max_time 00:00:00:00: wanted more than no time"),
        ("--data.hidden_dimensions [0,1,2,3]", "hides all 4 entries"),
        (f"{WATCH} train/loss --trainer.callbacks.check_on_train_epoch_end true", "a run of steps has none"),
        (f"{WATCH} train/loss {WATCH} train/loss", "EarlyStopping: is given twice"),
        ("--trainer.callbacks+=ModelPruning --trainer.callbacks.pruning_fn l1_unstructured", "torch.nn.utils.prune"),
        ("--trainer.callbacks+=lightning_bc.callbacks.Rollouts", "it is part of every run"),
        (
            "--trainer.callbacks+=StochasticWeightAveraging --trainer.callbacks.swa_lrs=1e-2",
            "--trainer.callbacks StochasticWeightAveraging: is not supported",
        ),
        ("--trainer.callbacks+=EMAWeightAveraging", "Use --trainer.callbacks+=lightning_bc.callbacks.AveragedWeights."),
        ("--data.hidden_dimensions [0,4]", "--data.hidden_dimensions 4: an observation has 4 entries, 0 to 3."),
        ("--rollouts.max_episode_steps 9", "InvertedPendulum-v5 has a time limit of its own, 1000 steps"),
    ],
)
def test_what_the_trainer_cannot_be_told_is_refused_in_one_line(flags, words, data, capsys):
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", data, *SMALL.split(), *flags.split())
    assert words in error
    assert "\n" not in error


def test_more_processes_than_the_trainer_knows_of_are_refused(data, monkeypatch, capsys):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", data, "--run", "new", *SMALL.split())
    assert "torchrun has started 2 processes of one command, and --trainer.devices" in error
    assert not Path("lightning_logs/new").exists()


def test_a_plain_command_in_an_allocation_of_several_tasks_is_one_process():
    environment = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "mine", "SLURM_PROCID": "0"}
    settle_scheduler(environment)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        assert not SLURMEnvironment.detect()
    settle_scheduler({})


class Odd(Callback):
    """Refuses a number in its constructor."""

    def __init__(self, number: int = 0) -> None:
        raise ValueError(f"number {number}: wanted an even one")


MODE = "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=rollout/return_mean --trainer.callbacks.mode=sideways"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (MODE, "Lightning refuses these settings: `mode` can be min, max, got sideways"),
        (
            "--trainer.callbacks+=test_training.Odd --trainer.callbacks.number=3",
            "--trainer.callbacks Odd: making it raised ValueError: number 3: wanted an even one",
        ),
        ("--model.network.hidden_sizes [-3]", "--model.network MLP: making it raised RuntimeError: Trying to create"),
        (
            "--model.network.hidden_sizes [1000000,10000000000000]",
            "--model.network MLP: its weights do not fit the memory of this machine.",
        ),
    ],
)
def test_what_a_constructor_refuses_is_one_line(flags, words, data, capsys):
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", data, *flags.split())
    assert error.startswith(words)
    assert "\n" not in error


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (f"{WATCH} validation/loss", "watches validation/loss, which this run does not measure. Nothing is held out"),
        (f"{WATCH} rollout/nothing", "watches rollout/nothing, which this run does not measure"),
        (f"--model SAC --data.path null --env InvertedPendulum-v5 {WATCH} rollout/return_mean", "have none"),
    ],
)
def test_a_callback_that_would_never_see_its_metric_is_refused(flags, words, data, capsys):
    command = ["fit", "--model", "MSE", "--data.path", data, "--data.validation_fraction", "0"]
    assert words in refused(capsys, *command, *flags.split())


def test_the_curves_return_can_end_a_run_and_choose_checkpoints_with_nothing_held_out(data):
    flags = f"{WATCH} rollout/return_mean --trainer.callbacks.patience 2 --model.optimizer.lr 1e-12 --trainer.max_steps 40"
    chosen = "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.monitor rollout/return_mean"
    last = fit("mine", f"{flags} {chosen} --trainer.callbacks.dirpath chosen")
    assert last["global_step"] == 12                                # the first point and two that were no better
    assert len(list(Path("chosen").iterdir())) == 1


class StoppedError(Exception):
    """Stops a run here."""


def stopped_behind(step, run, flags):
    """Fit with these ``flags``, and stop without a word once the checkpoint of a ``step`` is there."""
    save = Checkpoints._save

    def save_and_stop(self, trainer):
        save(self, trainer)
        if trainer.global_step == step:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "_save", save_and_stop)
        with pytest.raises(StoppedError):
            fit(run, flags)


@pytest.mark.parametrize("steps", [(24, 48), (24, 36, 60)])         # a pass has twelve
def test_passes_are_counted_through_stops_at_their_ends(steps, data):
    flags = "--rollouts.eval_freq 12 --trainer.max_epochs 7"
    for step in steps:
        stopped_behind(step, "stopped", flags)
    assert_equal_runs(fit("stopped", flags), fit("through", flags))
    assert checkpoint("stopped")["global_step"] == 84


@pytest.mark.parametrize(
    ("watched", "steps"), [("rollout/return_mean", (4,)), ("train/loss --trainer.callbacks.min_delta 9", (4, 8))]
)
def test_early_stopping_sees_each_point_once_whenever_a_run_is_stopped(watched, steps, data):
    flags = f"{WATCH} {watched} --trainer.callbacks.patience 2 --model.optimizer.lr 1e-12 --trainer.max_steps 40"
    for step in steps:
        stopped_behind(step, "stopped", flags)
    assert_equal_runs(fit("stopped", flags), fit("through", flags))
    assert checkpoint("through")["global_step"] == 12


def test_early_stopping_has_ended_a_run_for_good(data, capsys):
    """Also where it was killed before its score was written; what is scored is no unfinished run."""
    flags = f"{WATCH} rollout/return_mean --trainer.callbacks.patience 2 --model.optimizer.lr 1e-12 --trainer.max_steps 40"
    last = fit("mine", flags)
    results = Path("lightning_logs/mine/results.json")
    results.unlink()
    assert_equal_runs(fit("mine", flags), last)
    assert json.loads(results.read_text())["optimizer_steps"] == 12
    capsys.readouterr()
    fit("mine", flags)
    assert "run mine is finished" in capsys.readouterr().out
    assert fit("mine", flags.replace("max_steps 40", "max_steps 44"))["global_step"] > 12  # it was lengthened


def test_a_run_whose_time_is_up_has_not_ended(data, capsys):
    flags = "--trainer.max_steps 100000"
    fit("mine", f"{flags} --trainer.max_time 00:00:00:01")
    reached = checkpoint("mine")["global_step"]
    assert 0 < reached < 100_000
    assert "goes on with python -m lightning_bc fit --run mine" in capsys.readouterr().out
    assert not Path("lightning_logs/mine/results.json").exists()
    assert json.loads(Path("lightning_logs/mine/results-last.json").read_text())["optimizer_steps"] == reached
    fit("mine", f"{flags} --trainer.max_time 00:00:00:01")          # the time of one session is not that of the next
    further = checkpoint("mine")["global_step"]
    assert further > reached
    stopped_behind(further + 4 - further % 4, "mine", flags)


def test_ones_own_checkpoints_are_as_often_as_they_are_to_be(data):
    own = "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.dirpath own --trainer.callbacks.save_top_k=-1"
    fit("mine", f"{own} --trainer.callbacks.every_n_train_steps 6 --trainer.max_steps 20")
    steps = sorted(torch.load(path, weights_only=True)["global_step"] for path in Path("own").iterdir())
    assert steps == [6, 12, 18]


class Rollouts(Callback):
    """A callback of one's own, named as one of the package."""

    def __init__(self, what: str = "") -> None:
        self.what = what


def test_callbacks_of_ones_own_may_have_any_name_and_come_twice(data):
    several = " ".join(f"--trainer.callbacks+=test_training.Rollouts --trainer.callbacks.what={what}" for what in "ab")
    often = "--trainer.callbacks+=ModelCheckpoint --trainer.callbacks.every_n_train_steps"
    assert fit("mine", f"{several} {often} 4 {often} 8 --trainer.max_steps 4")["global_step"] == 4


def test_an_optimizer_of_a_part_of_the_weights_is_left_to_its_maker():
    strategy = MSE(4, [-3.0], [3.0], optimizer=lambda parameters: torch.optim.AdamW([*parameters][2:]))
    take_a_step(strategy.optimizer, strategy.parameters())
    before = [weight.clone() for weight in strategy.parameters()]
    take_a_step(torch.optim.SGD, strategy.parameters())
    assert all(torch.equal(*pair) for pair in zip(before, strategy.parameters(), strict=True))


@pytest.mark.parametrize("part", ["loops", "optimizer_states"])
def test_a_checkpoint_without_its_progress_is_refused(part, mine, capsys):
    path = Path("checkpoints/mine/last.ckpt")
    torch.save({name: value for name, value in checkpoint("mine").items() if name != part}, path)
    assert f"{part} missing" in refused(capsys, "fit", "--run", "mine", "--trainer.max_steps", "8")


@pytest.mark.parametrize(
    ("optimizer", "words"), [("torch.optim.LBFGS", "closure"), ("torch.optim.SparseAdam", "dense gradients")]
)
def test_an_optimizer_that_cannot_take_a_step_is_refused(optimizer, words, data, capsys):
    error = refused(capsys, "fit", "--model", "MSE", "--data.path", data, "--model.optimizer", optimizer)
    assert "--model.optimizer: no step can be taken" in error
    assert words in error


def test_a_run_without_an_end_stops_when_its_time_is_up(data):
    fit("mine", f"{CONSTANT} --trainer.max_epochs -1 --trainer.max_time 00:00:00:01")
    assert checkpoint("mine")["global_step"] > 12


def test_lengths_may_grow_and_display_may_change():
    before = {"trainer": {"max_steps": 10, "enable_progress_bar": None, "logger": None}, "seed_everything": 0}
    now = {"trainer": {"max_steps": 20, "enable_progress_bar": False, "logger": {"class_path": "X"}}, "seed_everything": 1}
    different = resume.differences(before, now)
    assert different == {"trainer.max_steps": (10, 20), "seed_everything": (0, 1)}
    assert resume.without_longer(different) == {"seed_everything": (0, 1)}
    assert resume.without_longer(resume.differences(now, before)).keys() == {"trainer.max_steps", "seed_everything"}


def test_a_run_of_few_pairs_ends_after_passes_unless_its_length_is_given(data, capsys, monkeypatch):
    """110 pairs in batches of 50 are three steps a pass."""
    monkeypatch.setattr("lightning_bc.demonstrations.module.FEWEST_STEPS", 4)
    flags = ["--model", "MSE", "--data.path", data, "--data.batch_size", "50", "--rollouts.episodes", "2"]
    for run, length, steps in (
        ("usual", [], 11),                                          # MSE has no limit
        ("two", ["--data.max_passes", "2"], 6),
        ("fewest", ["--data.max_passes", "1"], 4),
        ("both", ["--data.max_passes", "2", "--trainer.max_steps", "5"], 5),
        ("given", ["--trainer.max_steps", "8"], 8),
    ):
        main(["fit", *flags, *length, "--run", run])
        assert torch.load(f"checkpoints/{run}/last.ckpt")["global_step"] == steps
        said = "optimizer steps, since more than" in capsys.readouterr().out
        assert said == (run in ("two", "fewest"))


def test_a_run_that_ended_after_passes_is_finished_and_is_lengthened_by_steps(data, capsys, monkeypatch):
    monkeypatch.setattr("lightning_bc.demonstrations.module.FEWEST_STEPS", 4)
    flags = ["--model", "MSE", "--data.path", data, "--data.batch_size", "50", "--rollouts.episodes", "2", "--run", "mine"]
    flags += ["--data.max_passes", "2"]
    main(["fit", *flags])
    assert "fit --run mine --trainer.max_steps 12" in capsys.readouterr().out
    main(["fit", *flags])
    assert "run mine is finished" in capsys.readouterr().out
    for steps in (8, 10):                                           # fewer than the default's 11, which it never had
        main(["fit", "--run", "mine", "--trainer.max_steps", f"{steps}"])
        assert f"lengthened to {steps} optimizer steps" in capsys.readouterr().out
        assert torch.load("checkpoints/mine/last.ckpt")["global_step"] == steps
