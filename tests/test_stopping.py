"""Signals: what they end, with which status and words, and where they wait. In numbers: tests/faults."""

import os
import signal

import pytest

from lightning_bc import cli
from lightning_bc.cli import Command, main
from lightning_bc.errors import InputError, in_a_line
from lightning_bc.files import replacing
from lightning_bc.stopping import STOPPING, StoppedError


@pytest.fixture
def running(monkeypatch):
    """Sets what a made-up command does, and runs it."""

    def run(function, *arguments):
        monkeypatch.setitem(cli.COMMANDS, "make-up", Command("", lambda: lambda name, args: function(), ""))
        with pytest.raises(SystemExit) as end:
            main(["make-up", *arguments])
        return end.value.code

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_and_it_is_said_how_to_begin_again(number, running, capsys):
    before = signal.getsignal(number)
    assert running(lambda: os.kill(os.getpid(), number), "--flag", "a b") == 128 + number
    assert capsys.readouterr().err == (
        "\nstopped; no file is half written. It goes on, or begins again, with python -m lightning_bc make-up --flag 'a b'\n"
    )
    assert signal.getsignal(number) is before


def test_a_file_that_is_being_written_is_written_first_and_a_second_signal_does_no_harm(running, tmp_path):
    def write():
        with replacing(tmp_path / "a") as file:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            file.write(b"whole")
        raise AssertionError("it goes on")

    assert running(write) == 128 + signal.SIGTERM
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_signal_that_a_library_takes_for_an_error_of_its_own_is_not_lost(running):
    def swallow():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except BaseException:
            STOPPING.look()

    assert running(swallow) == 128 + signal.SIGTERM
    with pytest.raises(StoppedError), STOPPING.listening():
        os.kill(os.getpid(), signal.SIGINT)


def test_while_modules_are_imported_nothing_is_raised():
    ended = []
    with STOPPING.listening(), pytest.raises(StoppedError), STOPPING.ending(ended.append):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_lightnings_exit_after_a_signal_is_one_of_that_signal(number, monkeypatch, capsys):
    def interrupted(*_):
        try:
            os.kill(os.getpid(), number)
        except KeyboardInterrupt:
            raise SystemExit(1) from None

    monkeypatch.setattr("lightning_bc.training.CommandLine", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["validate", "--run", "mine"])
    assert end.value.code == 128 + number
    assert "python -m lightning_bc validate --run mine" in capsys.readouterr().err
    STOPPING.look()                                                 # nothing is left of it


def fails(error, cause=None):
    def run():
        raise error from cause

    return run


LIBRARY = type("ProblemError", (Exception,), {"__module__": "optuna.exceptions"})


@pytest.mark.parametrize(
    ("error", "cause", "status", "line"),
    [
        (InputError("a.pt: is no file."), None, 2, "a.pt: is no file."),
        (OSError(28, "No space left on device", "a.pt"), None, 1, "a.pt: No space left on device. What was there before is"),
        (RuntimeError("unexpected pos"), OSError(28, "No space left on device"), 1, "No space left on device. What was"),
        (OSError("120000 requested and 23520 written"), None, 1, "No space left on device. What was there before is whole."),
        (OSError(30, "Read-only file system", "b"), None, 1, "b: Read-only file system. Give the command in a folder that"),
        (IsADirectoryError(21, "Is a directory", ".a.partial", None, "a"), None, 1, "a: Is a directory. Move that folder"),
        (LIBRARY("a\nproblem."), None, 1, "optuna: ProblemError: a problem. With --debug it is shown where."),
    ],
)
def test_errors_of_libraries_and_of_the_system_are_one_line_and_debug_shows_the_traceback(
    error, cause, status, line, running, capsys
):
    assert running(fails(error, cause)) == status
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {line}")
    assert printed.count("\n") == 1
    assert running(fails(error, cause), "--debug") == status
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert "in run" in printed
    assert f"\nerror: {line}" in printed


def test_mistakes_of_the_program_keep_their_traceback(running):
    assert in_a_line(KeyError("a")) is None
    assert in_a_line(RuntimeError("a")) is None
    with pytest.raises(KeyError):
        running(fails(KeyError("a")))
