"""The commands of the pages in docs/ are understood, as they stand there; those of the tutorial run: test_tutorial.py."""

import contextlib
import functools
import io
import re
import shlex

import pytest
from conftest import REPOSITORY, write_pairs

from lightning_bc.cli import COMMANDS, main

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
MARKER = "python -m lightning_bc "
OF_THE_READER = "absolute_error.AbsoluteError"                      # the strategy of docs/your-strategy.md


def commands(page):
    """The arguments of each command in the fences and indented blocks of a page."""
    lines = page.read_text().replace("\\\n", " ").splitlines()
    return [shlex.split(line.partition(MARKER)[2]) for line in lines if line.strip().startswith(MARKER)]


COMMANDS_OF_PAGES = {shlex.join(arguments): arguments for page in PAGES for arguments in commands(page)}


@functools.cache
def flags(command):
    """The flags that ``--help`` names."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit):
        main([command, "--help"])
    return set(re.findall(r"--\w[\w-]*", printed.getvalue()))


@pytest.mark.parametrize("command", COMMANDS_OF_PAGES)
def test_the_pages_commands_are_understood(command, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(REPOSITORY)
    name, *rest = ["MSE" if word == OF_THE_READER else word for word in COMMANDS_OF_PAGES[command]]
    assert name in COMMANDS
    if name == "fit" and not {"--ckpt_path", "--run"} & set(rest):
        if not {"--config", "--model"} & set(rest):                 # the file of the reader is looked at
            monkeypatch.chdir(tmp_path)
            write_pairs("mine.pt", lengths=(20,) * 12, observation_dim=11, action_dim=3)  # of Hopper-v5
        with pytest.raises(SystemExit) as end:                      # --print_config ends where everything is parsed
            main([name, *rest, "--print_config"])
        assert end.value.code == 0, capsys.readouterr().err
    elif name not in ("fit", "validate", "test"):
        assert {word for word in rest if word.startswith("--") and "." not in word} <= flags(name)  # with a dot: fit's
