"""What the trials share: commands in processes of their own, and what these leave.

Most are forked, and begin at once since torch is imported; some are begun anew, with everything that a process does first.

``FAULTS_SHARE=0.1`` tries a tenth of everything, ``FAULTS_SEED=1`` other instants; the counts go to the file that
``FAULTS_REPORT`` names, a line each.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, fit, import_from, write_pendulum

import lightning_bc.study.sweep
import lightning_bc.training  # noqa: F401 so that the forked processes need not import it
from lightning_bc.cli import main

SHARE = float(os.environ.get("FAULTS_SHARE", "1"))
SEED = int(os.environ.get("FAULTS_SEED", "0"))

MARK = "FAULTS_TRIAL"
"""A variable that all processes inherit that a trial has started, also those in sessions of their own."""

LONGEST = 10.0
"""Seconds until a command has ended after a signal."""

QUIET = "--trainer.enable_progress_bar false"
SHORT = f"{QUIET} --rollouts.eval_freq 20 --rollouts.episodes 2 --data.batch_size 16 --model.optimizer.lr 1e-3"
ACTING = (
    f"{QUIET} --model.total_environment_steps 300 --model.num_envs 2 --model.learning_starts 20 --model.batch_size 8 "
    "--rollouts.eval_freq 20 --rollouts.episodes 2"
)


@contextlib.contextmanager
def working_folder(tmp_path_factory, *runs):
    """A new working folder with demonstrations, and with a run for each of the flags in ``runs``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trials"))
        write_pendulum("pendulum.pt")
        for flags in runs:
            fit("pendulum.pt", flags=flags)
        yield Path.cwd()


def sized(count, least=1):
    """So many trials of ``count`` as are wanted."""
    return max(least, round(count * SHARE))


def tell(what, **counts):
    """Note what was tried, for docs/reliability.md."""
    line = json.dumps({"what": what, **counts})
    print(line)
    if path := os.environ.get("FAULTS_REPORT"):
        with Path(path).open("a") as file:
            file.write(line + "\n")


def printed_command(output):
    """The arguments of the last command of this package that was printed, to the end of its line."""
    return shlex.split(re.findall(r"python -m lightning_bc (.*)", output)[-1])


def instants(count, seconds, seed):
    """Random instants, one in each of ``count`` equal parts of ``seconds``."""
    return (np.arange(count) + np.random.default_rng(seed + 1000 * SEED).random(count)) / count * seconds


@dataclass
class Trial:
    """A command in a process of its own, the first of its group.

    Attributes:
        arguments: of ``python -m lightning_bc``.
        environment: further variables.
        anew: whether a new Python runs it, not a forked process.
        output: what it has printed, once it has ended.
        status: of its exit; -N after signal N.
        seconds: from its start to its end.
    """

    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    anew: bool = False
    output: str = ""
    status: int | None = None
    seconds: float = 0.0

    def start(self):
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._path = Path(f"/tmp/trial-{self.mark}.txt")
        self._started = time.monotonic()
        self.process = os.fork()
        if not self.process:
            self._run()
        with contextlib.suppress(OSError):
            os.setpgid(self.process, self.process)
        return self

    def _run(self):
        status = 70
        try:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            output = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stdout, sys.stderr = (os.fdopen(os.dup(output), "w", buffering=1) for _ in range(2))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.environ.update({**self.environment, MARK: self.mark})
            if self.anew:
                os.environ.update(import_from(REPOSITORY))
                os.execv(sys.executable, [sys.executable, "-m", "lightning_bc", *self.arguments])
            try:
                main(self.arguments)
                status = 0
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def has_printed(self):
        """What it has printed so far."""
        return self.output or (self._path.read_text(errors="replace") if self._path.exists() else "")

    def send(self, number):
        """Send a signal; nothing happens where it has ended."""
        if not self.has_ended():
            os.kill(self.process, number)

    def stop(self, number, twice=False):
        """Send a signal, and ``twice`` a second one, which does no harm; the seconds until it has ended."""
        self.send(number)
        told = time.monotonic()
        if twice:
            time.sleep(0.1)
            self.send(signal.SIGINT)
        self.wait(60)
        return time.monotonic() - told

    def has_ended(self):
        """Whether it has."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout=300):
        """Wait for its end."""
        deadline = time.monotonic() + timeout
        while not self.has_ended():
            if time.monotonic() > deadline:
                os.killpg(self.process, signal.SIGKILL)
                raise TimeoutError(f"{self.arguments} has not ended; {self._path.read_text()}")
            time.sleep(0.005)
        return self

    def _reap(self, options):
        if self.status is None:
            process, found = os.waitpid(self.process, options)
            if not process:
                return False
            self.status, self.seconds = os.waitstatus_to_exitcode(found), time.monotonic() - self._started
            self.output = self.has_printed()
            self._path.unlink(missing_ok=True)
        return True

    def orphans(self, patience=60.0):
        """Processes that it has started and that live on: a worker that imports torch ends when it has."""
        deadline = time.monotonic() + patience
        while (left := {*group(self.process), *marked(self.mark)}) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left


def run(*arguments, timeout=300, **environment):
    """Run a command to its end."""
    words = [word for argument in arguments for word in (argument.split() if isinstance(argument, str) else argument)]
    return Trial(words, environment).start().wait(timeout)


def stopped_after(words, number, instant, patience=60.0):
    """A command that a signal meets after ``instant`` seconds, and that ends as it should: the trial, and how long it took.

    The seconds are None where it had ended before.

    Args:
        number: of the trial: which signal it is, and whether a second one follows.
        patience: seconds that processes which it has started may outlive it.
    """
    sent = (signal.SIGTERM, signal.SIGINT)[number % 2]
    trial = Trial(words).start()
    time.sleep(instant)
    seconds = trial.stop(sent, twice=number % 3 == 2)
    assert not trial.orphans(patience)
    assert "Traceback" not in trial.output, trial.output
    if trial.status == 0:
        return trial, None
    assert trial.status == 128 + sent, trial.output
    assert seconds < LONGEST
    return trial, seconds


def group(number):
    """The processes of a group, those aside that have ended and wait for their parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, process_group, *_ = path.read_text().rpartition(")")[2].split()
            if int(process_group) == number and state != "Z":
                found.append(int(path.parent.name))
    return found


def marked(mark):
    """The processes that a trial with this mark has started, however far away."""
    found, variable = [], f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if variable in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def command_of(process):
    """Its command line, in one piece."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def cpu_seconds(process):
    """What a process has used of a core, which says better than a clock how far it has come."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def leftovers(folder="."):
    """Files and folders that no command leaves when it has ended well."""
    names = (".partial", ".lock", ".owner")
    return [path for path in Path(folder).rglob(".*") if path.name.endswith(names) or path.is_dir()]
