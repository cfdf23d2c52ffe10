"""The tables of docs/gates.md: every offline action model on walls with two openings, as configured and changed.

    python benchmarks/gates.py run [--seeds 1] [--only models variants]
    python benchmarks/gates.py report

Each run learns for 5000 steps from 24,000 sampled pairs of the scripted expert, which are collected first. ``run`` trains
what is missing with ``python -m lightning_bc fit``, one thread a run and one run at a time, plays 1000 episodes of the test
bank with the last checkpoint, appends a line to docs/gates.jsonl, and goes on where it was stopped. ``report`` writes the
tables and the picture from those lines.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from study import Run, read_lines, run_missing, write_tables

from lightning_bc.demonstrations.experts import shipped_expert
from lightning_bc.environments import GATES, make
from lightning_bc.episode_metrics import measure_all
from lightning_bc.episode_metrics.walls import choices
from lightning_bc.episodes import TEST_BANK, play
from lightning_bc.references import References
from lightning_bc.strategies import load_strategy

RESULTS = Path("docs/gates.jsonl")
DOCUMENT = Path("docs/gates.md")
PICTURE = Path("docs/gates-choices.svg")

EPISODES = 1000
PAIRS = 24_000
STEPS = 5000
MODELS = {
    "mse": "MSE",
    "gaussian": "Gaussian",
    "gmm": "Gaussian mixture",
    "diffusion": "Diffusion",
    "flow_matching": "Flow matching",
    "autoregressive": "Autoregressive",
}
CHANGES = {
    "gmm": ("--model.minimum_scale 0.01", "--model.minimum_scale 0.005 --model.initial_scale 0.05"),
    "diffusion": ("--model.steps 100",),
    "autoregressive": ("--model.label_smoothing 0",),
}
"""Flags of further fits."""
_MEDIAN = {"act_steps": 50, "spacing": 3.0, "noise_scale": 1.0}
AFTERWARDS: dict[str, tuple[dict[str, float], ...]] = {
    "flow_matching": ({"act_steps": 50}, {"act_steps": 50, "spacing": 3.0}, _MEDIAN),
    "diffusion": ({"noise_scale": 1.0},),
}
"""What of a trained policy can be set anew, in which it is played again."""
BEST = {"flow_matching": ""} | {model: flags[-1] for model, flags in CHANGES.items()}
"""Flags that are also tried on the variants."""


def demonstrations(environment_id: str) -> Path:
    """The file of pairs."""
    return Path(f"data/{environment_id}-sampled-{PAIRS}.pt")


def all_runs(seeds: int) -> Iterator[Run]:
    """Every run of the tables; all of seed 0 first."""
    for seed in range(seeds):
        for model in MODELS:
            for flags in ("", *CHANGES.get(model, ())):
                yield _run("models", "Gates-v0", model, flags, seed)
        for environment_id in ("GatesUneven-v0", "Gates2D-v0"):
            for model, flags in BEST.items():
                yield _run("variants", environment_id, model, flags, seed)


def _run(table: str, environment_id: str, model: str, flags: str, seed: int) -> Run:
    fit = (
        f"--config configs/{model}.yaml --env lightning_bc:{environment_id} --data.path {demonstrations(environment_id)} "
        f"--trainer.max_steps {STEPS} --rollouts.eval_freq {STEPS} {flags}"
    )
    return Run(table, environment_id, f"{model} {flags}".strip(), seed, fit)


def collect(environment_id: str) -> None:
    """Make the file of demonstrations, unless it is there."""
    if not demonstrations(environment_id).exists():
        env = f"lightning_bc:{environment_id}"
        command = [sys.executable, "-m", "lightning_bc", "collect", "--env", env, "--pairs", str(PAIRS)]
        expert, path = str(shipped_expert(env)), str(demonstrations(environment_id))
        subprocess.run([*command, "--expert", expert, "--output", path], check=True)


def played(folder: Path) -> dict[str, Any]:
    """What 1000 episodes of the test bank say of a run's last checkpoint, with sampled and deterministic actions."""
    strategy = load_strategy(Path("checkpoints", folder.name, "last.ckpt")).eval()
    environment_id = next(name for name in GATES if name in (folder / "config.yaml").read_text())
    model = {"FlowMatching": "flow_matching", "Diffusion": "diffusion"}.get(type(strategy).__name__, "")
    found = {}
    with closing(make(environment_id, 100)) as environments:
        for changed in ({}, *AFTERWARDS.get(model, ())):
            for name, value in changed.items():
                setattr(strategy, name, value)
            for kind in ("sampled", "deterministic"):
                player = strategy.player(kind == "deterministic")
                episodes = play(player, environments, TEST_BANK.seeds(EPISODES), record=True)
                counts = choices(episodes)
                name = ", ".join(f"{name} {value:g}" for name, value in changed.items())
                figures = measure_all(episodes, References(0.0, 8.0, "all walls"))
                keys = ("success", "choice_entropy", "choice_divergence", "normalized_return")
                found[f"{kind} {name}".strip()] = {key: None if np.isnan(figures[key]) else figures[key] for key in keys} | {
                    "passed": counts.sum(axis=(0, 1)).tolist(),     # through the lower and the upper opening
                    "steps": int(episodes.lengths.sum()),
                }
    return {"played": found}


def rows(table: str) -> Iterator[tuple[str, str, str, list[dict[str, dict[str, Any]]]]]:
    """Environment, model, what was changed, and for each seed the figures by kind of actions, in the order of the runs."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in read_lines(RESULTS):
        name, environment_id, row, _ = line["key"]
        if name == table:
            found.setdefault((environment_id, row), []).append(line["played"])
    known = {(run.row, run.column): None for run in all_runs(1) if run.table == table}
    for environment_id, row in known:
        runs = found.get((environment_id, row), [])
        model, _, flags = row.partition(" ")
        played_again = [name.removeprefix("sampled ") for name in (runs[0] if runs else ()) if name.startswith("sampled ")]
        for after in ("", *played_again):
            changed = ", ".join(filter(None, [flags.replace("--model.", ""), after]))
            kinds = {kind: f"{kind} {after}".strip() for kind in ("sampled", "deterministic")}
            seeds = [{kind: run[key] for kind, key in kinds.items()} for run in runs]
            yield environment_id, MODELS[model], changed or "as configured", seeds


def table_of(name: str) -> str:
    """Success, entropy and divergence of each row."""
    figures = "success, sampled", "walls passed, of 8", "entropy, bit", "divergence, bit", "success, deterministic"
    header = *["environment"] * (name == "variants"), "model", "changed", *figures
    text = f"| {' | '.join(header)} |\n|{'---|' * len(header)}\n"
    for environment_id, model, changed, seeds in rows(name):
        if not seeds:
            continue
        values = [
            _mean(seeds, "sampled", "success", 3),
            _mean(seeds, "sampled", "normalized_return", 2, 8),
            _mean(seeds, "sampled", "choice_entropy", 3),
            _mean(seeds, "sampled", "choice_divergence", 4),
            _mean(seeds, "deterministic", "success", 3),
        ]
        text += f"| {' | '.join([*[environment_id] * (name == 'variants'), model, changed, *values])} |\n"
    return text


def _mean(seeds: list[dict[str, dict[str, Any]]], kind: str, key: str, decimals: int, factor: float = 1) -> str:
    values = [seed[kind][key] for seed in seeds]
    return "none passed" if None in values else f"{factor * np.mean(values):.{decimals}f}"


def draw() -> None:
    """Shares of the steps through the lower opening, into the wall and through the upper one, of each row."""
    shares = {"demonstrator": (0.5, 0.0, 0.5)}
    for _, model, changed, seeds in rows("models"):
        if seeds and "noise_scale" not in changed:
            lower, upper, steps = (
                np.sum([value(seed["sampled"]) for seed in seeds])
                for value in (lambda one: one["passed"][0], lambda one: one["passed"][1], lambda one: one["steps"])
            )
            shares[f"{model}, {changed}"] = (lower / steps, 1 - (lower + upper) / steps, upper / steps)
    figure, panel = plt.subplots(figsize=(9, 0.32 * len(shares) + 0.9), layout="constrained")
    left = np.zeros(len(shares))
    parts = np.array(list(shares.values())).T
    for part, label, colour in zip(parts, ("lower opening", "wall", "upper opening"), ("C0", "0.8", "C1"), strict=True):
        panel.barh(list(shares), part, left=left, label=label, color=colour)
        left += part
    panel.invert_yaxis()
    panel.set_xlim(0, 1)
    panel.set_xlabel("share of the steps of 1000 episodes, sampled actions")
    panel.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Train what is missing; write tables and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=("models", "variants"), default=("models", "variants"))
    given = parser.parse_args()
    if given.command == "run":
        for environment_id in GATES:
            collect(environment_id)
        run_missing((run for run in all_runs(given.seeds) if run.table in given.only), RESULTS, 1, played)
    write_tables(DOCUMENT, {f"gates-{name}": table_of(name) for name in ("models", "variants")})
    draw()


if __name__ == "__main__":
    main()
