"""The process of a fit: how it is started and ended, what it prints, how it failed. Needs the standard library alone."""

import shutil
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

OUTPUT = "output.txt"
LAST_LINES = 20
PATIENCE = 10.0
"""Seconds for a process that was asked to end; then it is killed: what it has saved until then is whole."""

# A fit must not outlive who started it: the same command given again goes on with it. Linux's setpriv sees to that.
DIE_TOGETHER = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def start(
    command: Sequence[str], logs: Path, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a fit in a session of its own: Ctrl-C reaches only who started it, who passes it on.

    Args:
        logs: the folder whose output.txt takes what it prints.
        environment: its variables, and ``folder`` its working folder, if they are not this process's.
    """
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / OUTPUT).open("ab") as output:
        return subprocess.Popen(
            [*DIE_TOGETHER, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )


def end(children: Collection[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, by SIGTERM; kill those that still run after ``PATIENCE``, or when a signal ends the waiting."""
    deadline = time.monotonic() + PATIENCE
    try:
        for child in children:
            child.terminate()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()


def failure(status: int, logs: Path) -> str | None:
    """The last lines of what a fit printed, if it failed."""
    if status == 0:
        return None
    text = (logs / OUTPUT).read_text(errors="replace")
    free = shutil.disk_usage(logs).free
    lines = text.rstrip().splitlines()[-LAST_LINES:] or [f"none; the space left on the disk of {logs}: {free:,} bytes"]
    return "\n".join([f"exit status {status}; its last lines:", *lines])
