"""What the command line says: its help, and one line for each thing that it refuses."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from lightning.pytorch import Trainer

import lightning_bc
from lightning_bc import cli, trainer_flags
from lightning_bc.arguments import found_configurations
from lightning_bc.cli import main

COMMANDS = (
    *("fit", "validate", "test", "evaluate", "collect", "inspect", "convert", "play", "export", "study", "sweep", "report"),
)


def refused(capsys, *arguments):
    """Run a command that must be refused, and return what it printed."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main(list(arguments))
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    return error.removeprefix("error: ").strip()


def help_of(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main([*arguments, "--help"])
    assert exit_info.value.code == 0
    return capsys.readouterr().out


# Help


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_command_with_one_line_each(arguments, capsys):
    main(arguments)
    printed = capsys.readouterr().out
    assert tuple(cli.COMMANDS) == COMMANDS
    for name, command in cli.COMMANDS.items():
        assert f"  {name:10}{command.words}\n" in printed
        assert f"python -m lightning_bc {command.example}\n" in printed


def test_help_and_version_import_nothing_heavy():
    """What takes seconds to import is not imported, whatever the machine's load."""
    script = (
        "import sys; from lightning_bc.cli import main; main(['--help']); main(['--version']);"
        "heavy = {'torch', 'lightning', 'gymnasium', 'numpy', 'jsonargparse', 'yaml'}; print(sorted(heavy & {*sys.modules}))"
    )
    call = [sys.executable, "-c", script]
    printed = subprocess.run(call, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines()[-2:] == [f"lightning_bc {lightning_bc.__version__}", "[]"]


def test_the_help_of_fit_has_a_line_for_each_of_our_options_and_no_wall_of_others(capsys):
    text = help_of(capsys, "fit")
    for flag in ("--config", "--env", "--run", "--ckpt_path", "--model.init_from", "--data.path", "--data.batch_size",
                 "--rollouts.eval_freq", "--trainer.max_steps", "--trainer.gradient_clip_val",
                 "--model.network.hidden_sizes", "--model.network.width", "--model.optimizer.lr",
                 "--model.schedule"):  # fmt: skip
        assert len(re.findall(rf"^  {re.escape(flag)} ", text, re.MULTILINE)) >= 1, flag
    for hidden in ("SUPPRESS", "--trainer.barebones", "--trainer.plugins", "--data.seed", "lightning.pytorch"):
        assert hidden not in text
    order = [text.index(f"\n  {flag} ") for flag in ("--config", "--data.path", "--trainer.max_steps", "--model.schedule")]
    assert order == sorted(order)
    assert max(map(len, text.splitlines())) <= 125
    assert len(text.splitlines()) < 100


def test_the_help_of_fit_shows_the_options_of_the_chosen_strategy(capsys, tmp_path):
    assert "--model.squash" in help_of(capsys, "fit", "--model", "MSE")
    assert "--model.components" in help_of(capsys, "fit", "--config", str(REPOSITORY / "configs/gmm.yaml"))


def test_the_trainers_flags_that_help_shows_are_the_trainers():
    assert trainer_flags.SHOWN.keys() <= inspect.signature(Trainer).parameters.keys()


@pytest.mark.parametrize("command", ["collect", "play", "export", "study", "sweep", "report", "test", "validate"])
def test_each_command_has_its_own_help(command, capsys):
    assert f"python -m lightning_bc {command}" in help_of(capsys, command)


@pytest.mark.parametrize("name", ["AdamW", "Adam", "SGD"])
def test_torchs_optimizers_are_known_by_their_last_name(name, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model", "MSE", "--model.optimizer", name, "--model.optimizer.lr", "0.25", "--print_config"])
    chosen = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["optimizer"]
    assert chosen["class_path"] == f"torch.optim.{name}"
    assert chosen["init_args"]["lr"] == 0.25


# Refusals


def test_an_option_before_its_strategy_is_told_so(capsys):
    error = refused(capsys, "fit", "--model.schedule", "constant", "--model", "MSE")
    assert error.startswith("--model.schedule: comes before")


def test_an_unknown_command_is_told_the_nearest_and_all(capsys):
    error = refused(capsys, "fitt")
    assert "unknown command: fitt. Nearest known: fit." in error
    assert all(name in error for name in COMMANDS)


@pytest.mark.parametrize("args", [["--config", "gmm"], ["-c", "configs/gmm.yaml"], ["--config=gmm"]])
def test_ready_configurations_are_found_from_any_folder(args, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = found_configurations([*args, "--run", "gmm"])
    assert found[-2:] == ["--run", "gmm"]
    assert Path(found[-3].removeprefix("--config=")).samefile(REPOSITORY / "configs/gmm.yaml")
    Path("gmm").write_text("model: MSE")                            # the user's own file comes first
    assert found_configurations(["--config", "gmm"]) == ["--config", "gmm"]


def test_flags_override_the_configuration_wherever_they_stand():
    given = ["--trainer.max_steps", "3", "--config", "a.yaml", "--run", "it", "--config=b.yaml", "-c", "c.yaml"]
    wanted = "--config a.yaml --config=b.yaml -c c.yaml --trainer.max_steps 3 --run it"
    assert found_configurations(given) == wanted.split()


def test_fit_alone_names_the_ready_configurations(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    error = refused(capsys, "fit")
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        assert re.search(f"--config {path.stem} +{re.escape(path.read_text().splitlines()[0][2:])}", error)
    assert "--model NAME: ACT, AIRL, Autoregressive" in refused(capsys, "fit")
    for command in ("test", "validate"):
        assert refused(capsys, command).startswith("--ckpt_path is needed")
    assert "nowhere.yaml: no such file" in refused(capsys, "fit", "--config", "nowhere.yaml")


STOP_EARLY = "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor=rollout/return_mean"
DAGGER = "--trainer.callbacks+=lightning_bc.callbacks.DAgger --trainer.callbacks.expert=test_callables:expert"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("--model.optimizer.lr -1", "--model.optimizer.lr -1: wanted above 0."),
        ("--model.optimizer.lr x", "--model.optimizer.lr x: wanted above 0."),
        ("--model.network nosuch.Net", "--model.network nosuch.Net: nosuch cannot be imported (ModuleNotFoundError"),
        ("--trainer.callbacks+=nosuch.It", "--trainer.callbacks nosuch.It: nosuch cannot be imported (ModuleNotFoundError"),
        ("--trainer.callbacks=[pathlib.It]", "--trainer.callbacks pathlib.It: pathlib has no It."),
        ("--trainer.callbacks=[test_cli.Told,nosuch.It]", "--trainer.callbacks nosuch.It: nosuch cannot be imported (Mod"),
        ("--trainer.callbacks+=pathlib.Path", "--trainer.callbacks pathlib.Path: is no subclass of lightning.pytorch.callb"),
        ("--model.network pathlib.Net", "--model.network pathlib.Net: pathlib has no Net."),
        ("--model.network pathlib.Path", "--model.network pathlib.Path: is no subclass of lightning_bc.networks.Network."),
        ("--model.schedule linear", "--model.schedule linear: wanted cosine or constant."),
        ("--model.squash 3", "--model.squash 3: wanted true or false."),
        ("--model.network.activation sine", "--model.network.activation sine: wanted relu or gelu or silu or tanh or elu."),
        ("--data.batch_size x", "--data.batch_size x: wanted a whole number"),
        ("--data.episodes x", "--data.episodes x: wanted a whole number"),
        ("--trainer.max_steps 1.5", "--trainer.max_steps 1.5: wanted a whole number."),
        ("--trainer.gradient_clip_val nan", "--trainer.gradient_clip_val nan: wanted a finite number above 0."),
        ("--trainer.gradient_clip_val inf", "--trainer.gradient_clip_val inf: wanted a finite number above 0."),
        ("--trainer.limit_val_batches x", "--trainer.limit_val_batches x: wanted a number."),
        ("--seed_everything null", "--seed_everything null: wanted a whole number, 0 to 4294967295."),
        ("--model OfflineStrategy", "--model OfflineStrategy: is a base class; wanted one of ACT, AIRL, Autoregressive,"),
        (f"{STOP_EARLY} --trainer.callbacks.patience=x", "--trainer.callbacks.patience x: wanted a whole number."),
        (f"{STOP_EARLY} --trainer.callbacks.patienc=3", "unknown: --trainer.callbacks.patienc. "),
        (f"{DAGGER} --trainer.callbacks.rounds=-1", "--trainer.callbacks.rounds -1: wanted a whole number, at least 1."),
        (f"{DAGGER} --trainer.callbacks.beta=nan", "--trainer.callbacks.beta nan: wanted 0 to 1."),
        ("--model.lr 1e-3", "unknown: --model.lr. Nearest known: --model.optimizer.lr."),
        ("--model.optimizer.weightdecay 1", "unknown: --model.optimizer.weightdecay. Nearest known: --model.optimizer.weig"),
        ("--data.batchsize 3", "unknown: --data.batchsize. Nearest known: --data.batch_size."),
        ("--trainer.max_stepss 3", "unknown: --trainer.max_stepss. Nearest known: --trainer.max_steps."),
        ("--width 512", "unknown: --width. Nearest known: --model.network.width."),
        ("--lr 1e-3", "unknown: --lr. Nearest known: --model.optimizer.lr."),
        ("--model.width 512", "unknown: --model.width. Nearest known: --model.network.width."),
        (
            "--model.network.width 512",
            "unknown: --model.network.width. MLP takes --model.network.hidden_sizes, --model.network.activation, "
            "--model.network.initial_scale, --model.network.input_scale. ResidualMLP, LSTM and Transformer take it: "
            "--model.network ResidualMLP --model.network.width VALUE.",
        ),
    ],
)  # fmt: skip
def test_a_bad_value_or_name_is_told_in_one_line(flags, wanted, capsys):
    error = refused(capsys, "fit", "--model", "MSE", *flags.split())
    assert error.startswith(wanted)
    assert "\n" not in error


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"model": {"class_path": "MSE", "init_args": {"lr": 3}}}, "unknown: --model.lr. Nearest known: --model.optimizer."),
        ({"model": "MSE", "data": {"batchsize": 1}}, "unknown: --data.batchsize. Nearest known: --data.batch_size."),
        ({"model": "MSE", "rollout": {"episodes": 1}}, "unknown: --rollout.episodes. Nearest known: --rollouts.episodes."),
        ({"model": "MSX"}, "unknown: MSX. Nearest known: MSE."),
    ],
)
def test_what_a_file_says_wrong_is_told_as_the_flag_would_be(content, wanted, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    assert refused(capsys, "fit", "--config", str(tmp_path / "mine.yaml")).startswith(wanted)
