"""What a report over many runs costs: seconds and peak memory of ``report``, from its start to its end.

The runs are made up, in a temporary folder: a curve that rises to a score, logged as ``fit`` logs it, with the default
configuration of the Gaussian mixture but for the learning rate, which tells methods apart.
"""

import contextlib
import io
import math
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.measure import Row, Settings, seconds
from lightning_bc.cli import main as command_line
from lightning_bc.runs.curve import CURVE_FILE
from lightning_bc.runs.folders import CONFIG_FILE
from lightning_bc.runs.results import RESULTS_FILE, Results
from lightning_bc.texts import csv_text, write_yaml

RANDOM_RETURN, EXPERT_RETURN = -293.0, 9700.0


def default_config() -> dict[str, Any]:
    """The configuration that ``fit --model GaussianMixture`` would save."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        command_line(["fit", "--model", "GaussianMixture", "--env", "HalfCheetah-v5", "--print_config"])
    return yaml.safe_load(printed.getvalue())


def write_run(folder: Path, config: dict[str, Any], seed: int, points: int, quality: float, **changes: Any) -> Results:
    """One run whose return rises from the random one to ``quality`` on the normalized scale.

    ``changes`` replace what is in its results, which are returned; those of ``data`` what is in there.
    """
    folder.mkdir(parents=True)
    write_yaml(folder / CONFIG_FILE, config | {"seed_everything": seed})
    random = np.random.default_rng(seed)
    steps = np.arange(points) * 10
    rise = quality * (1 - np.exp(-4 * np.arange(points) / points)) + 0.02 * random.standard_normal(points)
    returns = RANDOM_RETURN + (EXPERT_RETURN - RANDOM_RETURN) * rise
    names = ["step", "optimizer_steps", "environment_steps", "expert_queries", "seconds", "rollout/return_mean"]
    pairs = zip(steps.tolist(), returns.tolist(), strict=True)
    rows = [[step, step, 0, 0, step * (1 + seed / 50), value] for step, value in pairs]
    (folder / CURVE_FILE).write_text(csv_text(names, rows))         # a Curve would sync each of its points to the disk
    score = float(returns[-1])
    data: dict[str, Any] = {
        "path": "made-up.pt",
        "sha256": "0",
        "training_pairs": 1,
        "training_episodes": 1,
        "validation_episodes": 0,
        "actions": "sampled",
        **dict.fromkeys(("expert", "expert_sha256", "seed", "versions")),
    }
    content = {
        "run": folder.name,
        "checkpoint": f"checkpoints/{folder.name}/last.ckpt",
        "environment_id": "HalfCheetah-v5",
        "strategy": "GaussianMixture",
        "score": score,
        "score_std": 0.0,
        "normalized": (score - RANDOM_RETURN) / (EXPERT_RETURN - RANDOM_RETURN),
        "failed_episodes": 0.0,
        "sampled_score": score,
        "sampled_normalized": None,
        "references": {"random_return": RANDOM_RETURN, "expert_return": EXPERT_RETURN, "expert_source": "made up"},
        "action_latency_ms": {"1": 0.1, "10": 0.2},
        "network_evaluations": 1,
        "parameters": 1,
        "test_seeds": [0, 99],
        "returns": [score] * 100,
        "sampled_returns": [score] * 100,
        "optimizer_steps": int(steps[-1]),
        "environment_steps": 0,
        "expert_queries": 0,
        "pairs": 1,
        "seconds": float(steps[-1]),
        "training_seconds": float(steps[-1]),
        "seed": seed,
        "versions": {},
    } | changes
    results = Results.from_dict(content | {"data": data | changes.get("data", {})})
    results.write(folder / RESULTS_FILE)
    return results


def rows(settings: Settings) -> list[Row]:
    """Seconds, core seconds and peak memory; nothing stands beside them."""
    methods, seeds, points = settings.sized(200, 2), settings.sized(5, 1), settings.sized(240, 10)
    logs, config = settings.folder / "lightning_logs", default_config()
    for method in range(methods):
        config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = 1e-4 * (1 + method)
        for seed in range(seeds):
            quality = 0.9 + 0.1 * method / methods
            write_run(logs / f"GaussianMixture-{method}-{seed}", config, seed, points, quality)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "lightning_bc", "report", str(logs), "--output", str(settings.folder / "results")]
    whole = seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    what = f"report of {methods * seeds} runs of {points} points"
    values = ((whole, "s"), (cores, "core seconds"), (used.ru_maxrss / 1024, "MiB at most"))
    return [Row(what, "", value, math.nan, unit, ()) for value, unit in values]
