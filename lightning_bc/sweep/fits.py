"""One run of ``python -m lightning_bc fit`` in a process of its own, and what a trial reads of it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import Trial

from lightning_bc.runs import folders as runs
from lightning_bc.runs.curve import CURVE_FILE, RETURN, read_curve
from lightning_bc.sweep.study import place
from lightning_bc.sweep.workers import FitFailedError

# A fit must not outlive its worker: another one may resume it. Linux's setpriv sees to that, however the worker dies.
DIE_WITH_WORKER = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()


def run_name(trial: Trial, seed: int) -> str:
    """The name of the run of a trial's setting with one seed, the same for every worker that takes the setting up."""
    index, _ = place(trial.study, trial.number)
    return f"{trial.study.study_name}-{index}-{seed}"


def fit(run: str, flags: Sequence[str], seed: int) -> str:
    """Run ``fit`` under the name ``run``, which goes on where a worker that died left its checkpoint here; the name again.

    Raises:
        FitFailedError: with the last lines of what it printed.
    """
    command = [sys.executable, "-m", "lightning_bc", "fit", *flags, "--seed_everything", str(seed), "--run", run]
    fitted = subprocess.run(
        [*DIE_WITH_WORKER, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,                                     # Ctrl-C reaches the worker alone
        check=False,
    )
    if fitted.returncode != 0:
        last = "\n".join(fitted.stdout.rstrip().splitlines()[-20:])
        raise FitFailedError(f"exit status {fitted.returncode}; its last lines:\n{last}")
    return run


def last_return(run: str) -> float:
    """Mean return at the last point of a run's curve: of its last checkpoint, on the selection bank."""
    path = runs.LOGS / run / CURVE_FILE
    try:
        return float(read_curve(path)[RETURN][-1])
    except (OSError, ValueError, LookupError) as error:
        raise FitFailedError(f"{path}: no curve to judge the run by ({error}); leave checkpoints on.") from error


def test_results(run: str) -> Mapping[str, Any]:
    """What ``fit`` has written of the test bank."""
    return json.loads((runs.LOGS / run / "results.json").read_text())
