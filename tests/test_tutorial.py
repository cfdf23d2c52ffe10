"""The commands and scripts of docs/tutorial.md run as they stand there, in their order, on small budgets."""

import re
import shlex
import shutil
from pathlib import Path

import gymnasium
import pytest
from conftest import REPOSITORY

from lightning_bc.cli import main
from lightning_bc.strategies import GaussianMixture

PAGE = (REPOSITORY / "docs" / "tutorial.md").read_text()
STEPS = re.findall(r"^```(bash|python)\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
SMALL = {
    "--pairs": ("100000", "400"),
    "--trainer.max_epochs": ("10", "2"),
    "--rollouts.eval_freq": ("400", "2"),
}


def arguments_of(script):
    """Of the one command of a fence; budgets are small ones."""
    arguments = shlex.split(script.replace("\\\n", " ").removeprefix("python -m lightning_bc "))
    for flag, (written, small) in SMALL.items():
        if flag in arguments:
            place = arguments.index(flag) + 1
            assert arguments[place] == written
            arguments[place] = small
    return arguments + (["--rollouts.episodes", "2", "--data.batch_size", "100"] if arguments[0] == "fit" else [])


def interrupt(patch):
    """Let the Gaussian mixture's sixth update be the end of the program."""
    loss, updates = GaussianMixture.loss, iter(range(5))

    def loss_until_the_end(*args):
        if next(updates, None) is None:
            raise SystemError("switched off")
        return loss(*args)

    patch.setattr(GaussianMixture, "loss", loss_until_the_end)


def test_the_tutorial_runs_and_the_killed_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gymnasium.spec("HalfCheetah-v5"), "max_episode_steps", 20)
    shutil.copytree(REPOSITORY / "configs", "configs")
    shutil.copytree(REPOSITORY / "checkpoints" / "experts", "checkpoints/experts")
    names = {}
    for language, script in STEPS:
        if language == "python":
            exec(script, names)
        elif script.startswith("python -m lightning_bc "):
            arguments = arguments_of(script)
            if "configs/gmm.yaml" in arguments and not Path("checkpoints/gmm").exists():
                with monkeypatch.context() as patch:
                    interrupt(patch)
                    with pytest.raises(SystemError):
                        main(arguments)
            else:
                main(arguments)
    assert "resumed at optimizer step 4" in capsys.readouterr().out
    assert len(names["returns"]) == 20
    assert Path("results/report.html").is_file()
