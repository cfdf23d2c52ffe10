"""One run of ``python -m lightning_bc fit`` in a process of its own, and what a trial reads of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from optuna.trial import Trial
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_bc.runs import folders as runs
from lightning_bc.sweep.workers import FitFailedError

# A fit must not outlive its worker: another one may resume it. Linux's setpriv sees to that, however the worker dies.
DIE_WITH_WORKER = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()

_RUN = re.compile(r"run (\S+?)(?:, resumed.*)?\n")


def fit(trial: Trial, flags: Sequence[str], seed: int) -> str:
    """Run ``fit``, or resume what a worker that died has left of it here; the run's name, kept as the trial's attribute.

    Raises:
        FitFailedError: with the last lines of what it printed.
    """
    known = f"run {seed}"
    run = trial.user_attrs.get(known, "")
    command = [sys.executable, "-m", "lightning_bc", "fit", *flags, "--seed_everything", str(seed)]
    if run and runs.last_checkpoint(run).is_file():
        command += ["--ckpt_path", str(runs.last_checkpoint(run))]
    printed: deque[str] = deque(maxlen=20)
    with subprocess.Popen(
        [*DIE_WITH_WORKER, *command],
        env=os.environ | {"PYTHONUNBUFFERED": "1"},                 # the run's name must be known before a kill
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,                                     # Ctrl-C reaches the worker alone
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if (match := _RUN.fullmatch(line)) and match[1] != run:
                run = match[1]
                trial.set_user_attr(known, run)
    if process.returncode != 0:
        raise FitFailedError(f"exit status {process.returncode}; its last lines:\n{''.join(printed).rstrip()}")
    return run


def last_return(run: str) -> float:
    """Mean return at the last point of a run's curve: of its last checkpoint, on the selection bank."""
    events = EventAccumulator(str(runs.LOGS / run), size_guidance={"scalars": 0})
    events.Reload()
    if "rollout/return_mean" not in events.Tags()["scalars"]:
        raise FitFailedError(f"{runs.LOGS / run}: holds no curve to judge the run by; leave the logger and the rollouts on.")
    return float(max(events.Scalars("rollout/return_mean"), key=lambda point: point.step).value)


def test_results(run: str) -> dict[str, Any]:
    """What ``fit`` has written of the test bank."""
    return json.loads((runs.LOGS / run / "results.json").read_text())
