"""The tables of docs/action-models.md: every offline action model, on much and on little data, with several networks.

    python benchmarks/action_models.py run [--jobs 2] [--seeds 5] [--only models budgets networks ablations]
    python benchmarks/action_models.py report

``run`` trains what is missing with ``python -m lightning_bc fit``, one thread a run, ``--jobs`` of them side by side, each
on a core of its own, and appends a line to docs/action-models.jsonl as each one ends. Stop it at will: the same command
goes on with the runs that have no line yet. ``report`` writes the tables and the picture from those lines.

Defaults were tuned on the selection bank of seeds; every figure here is of the last checkpoint on the test bank.
"""

import argparse
import json
import os
import queue
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from lightning_bc.demonstrations.collect import default_path

RESULTS = Path("docs/action-models.jsonl")
DOCUMENT = Path("docs/action-models.md")
PICTURE = Path("docs/action-models-budgets.svg")
EXPERT = "checkpoints/experts/HalfCheetah-v5.pt"

KINDS = ("sampled", "deterministic")
MODELS = {
    "mse": "MSE",
    "gaussian": "Gaussian",
    "gmm": "Gaussian mixture",
    "diffusion": "Diffusion",
    "flow_matching": "Flow matching",
    "autoregressive": "Autoregressive",
}
DEFAULT_NETWORK = "MLP 256-256-256, the default"
NETWORKS = {
    "MLP 256-256": "--model.network MLP --model.network.hidden_sizes [256,256]",
    "MLP 512-512-512": "--model.network MLP --model.network.hidden_sizes [512,512,512]",
    "MLP 256-256-256, initial_scale 1": "--model.network MLP --model.network.initial_scale 1",
    "ResidualMLP 256, 4 blocks": "--model.network ResidualMLP --model.network.width 256 --model.network.blocks 4",
}
ABLATIONS = {
    "MSE, error on the action itself": ("mse", "--model.squash false"),
    "Diffusion, temperature 1": ("diffusion", "--model.temperature 1"),
    "Flow matching, temperature 1": ("flow_matching", "--model.temperature 1"),
    "Autoregressive, hard labels": ("autoregressive", "--model.label_smoothing 0"),
}
BUDGETS = (1, 4, 10)
FEW_PAIRS_STEPS = 5000
"""Optimizer steps of every run on few trajectories, whatever their number."""

KEPT = (
    "score",
    "normalized",
    "failed_episodes",
    "sampled_normalized",
    "training_seconds",
    "action_latency_ms",
    "network_evaluations",
    "parameters",
    "optimizer_steps",
    "pairs",
    "versions",
)


@dataclass(frozen=True)
class Run:
    """One training: which row and column of which table, and what the command line is told."""

    table: str
    row: str
    column: str
    seed: int
    config: str
    actions: str
    flags: str = ""

    @property
    def key(self) -> list[Any]:
        """What a line of the results is recognised by."""
        return [self.table, self.row, self.column, self.seed]

    def command(self) -> list[str]:
        """The fit. Three points of the curve are enough here: what is compared is the last checkpoint."""
        fixed = f"--config configs/{self.config}.yaml --data.path {demonstrations(self.actions)} --rollouts.eval_freq 5000"
        flags = f"{fixed} --seed_everything {self.seed} {self.flags}"
        return [sys.executable, "-m", "lightning_bc", "fit", *flags.split()]


def demonstrations(actions: str) -> Path:
    """The file of 2.4 million pairs of one kind."""
    return Path(default_path("HalfCheetah-v5", actions))


def all_runs(seeds: int) -> Iterator[Run]:
    """Every run of the four tables; all of seed 0 first, so that the tables fill evenly."""
    for seed in range(seeds):
        for actions in KINDS:
            for model in MODELS:
                yield Run("models", model, actions, seed, model, actions)
        for budget in BUDGETS if seed < 3 else ():
            flags = few(budget)
            for actions in ("deterministic", "exploratory"):
                for model in MODELS:
                    yield Run("budgets", model, f"{budget} {actions}", seed, model, actions, flags)
        for network, chosen in NETWORKS.items() if seed < 3 else ():
            for model in ("mse", "diffusion"):
                yield Run("networks", network, f"{model} 2400", seed, model, "deterministic", chosen)
                yield Run("networks", network, f"{model} 4", seed, model, "deterministic", f"{chosen} {few(4)}")
        for ablation, (model, changed) in ABLATIONS.items() if seed < 3 else ():
            for actions in KINDS:
                yield Run("ablations", ablation, actions, seed, model, actions, changed)


def few(trajectories: int) -> str:
    """Flags of a run on few trajectories, all of them for training."""
    return f"--data.episodes {trajectories} --data.validation_fraction 0 --trainer.max_steps {FEW_PAIRS_STEPS}"


def read_results() -> list[dict[str, Any]]:
    """The lines so far."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def run_missing(jobs: int, seeds: int, only: Sequence[str]) -> None:
    """Train what has no line yet."""
    done = [line["key"] for line in read_results()]
    missing = [run for run in all_runs(seeds) if run.table in only and run.key not in done]
    for actions in sorted({run.actions for run in missing}):
        if not demonstrations(actions).exists():
            collect = [sys.executable, "-m", "lightning_bc", "collect", "--env", "HalfCheetah-v5", "--expert", EXPERT]
            subprocess.run([*collect, "--actions", actions], check=True)
    cores: queue.Queue[int] = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[:jobs]:
        cores.put(core)

    def train(run: Run) -> None:
        core = cores.get()
        command = ["taskset", "-c", str(core), *run.command()]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(command, env=one_thread, capture_output=True, text=True, check=False)
        cores.put(core)
        found = re.search(r"^results +(\S+results\.json)", ended.stdout, re.MULTILINE)
        if ended.returncode or found is None:
            raise RuntimeError(f"{' '.join(command)}\nended with {ended.returncode}:\n{ended.stderr[-2000:]}")
        results = json.loads(Path(found[1]).read_text())
        line = {"key": run.key, "command": " ".join(run.command()[1:])} | {key: results[key] for key in KEPT}
        with RESULTS.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{' '.join(map(str, run.key)):50} normalized {results['normalized']:.3f}", flush=True)

    print(f"{len(missing)} runs to go, {len(done)} done", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(train, missing):
            pass


# The report


def interval(values: Sequence[float]) -> str:
    """Mean and 95% interval of the mean over seeds (Student's t)."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.3f} (1 seed)"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean:.3f} ± {half:.3f}"


Cells = dict[tuple[str, str], list[dict[str, Any]]]


def cells(table: str) -> Cells:
    """The lines of each (row, column)."""
    found = defaultdict(list)
    for line in read_results():
        if line["key"][0] == table:
            found[line["key"][1], line["key"][2]].append(line)
    return found


def models_table() -> str:
    """Six models by sampled and deterministic demonstrations."""
    header = (
        "| model | demonstrations | seeds | score | normalized, 95% interval | worst seed | failed episodes "
        "| with sampled actions | training, s | latency at 1, ms | at 10, ms | network evaluations | parameters |\n|"
        + "---|" * 13
        + "\n"
    )
    rows = []
    found = cells("models")
    for model, actions in [(model, actions) for model in MODELS for actions in KINDS if (model, actions) in found]:
        lines = found[model, actions]
        latency = [np.median([line["action_latency_ms"][batch] for line in lines]) for batch in ("1", "10")]
        failed = round(100 * sum(line["failed_episodes"] for line in lines))
        rows.append(
            f"| {MODELS[model]} | {actions} | {len(lines)} | {np.mean([line['score'] for line in lines]):.0f} "
            f"| {interval([line['normalized'] for line in lines])} | {min(line['normalized'] for line in lines):.3f} "
            f"| {failed} of {100 * len(lines)} | {np.mean([line['sampled_normalized'] for line in lines]):.3f} "
            f"| {np.median([line['training_seconds'] for line in lines]):.0f} | {latency[0]:.2f} | {latency[1]:.2f} "
            f"| {lines[0]['network_evaluations']} | {lines[0]['parameters']:,} |\n"
        )
    return header + "".join(rows)


def networks_cells() -> Cells:
    """The lines of the third table; those of the default network are in the other two."""
    found = cells("networks")
    for model in ("mse", "diffusion"):
        full = cells("models").get((model, "deterministic"), [])
        found[DEFAULT_NETWORK, f"{model} 2400"] = [line for line in full if line["key"][3] < 3]
        found[DEFAULT_NETWORK, f"{model} 4"] = cells("budgets").get((model, "4 deterministic"), [])
    return found


def grid_table(found: Cells, corner: str, rows: dict[str, str], columns: dict[str, str]) -> str:
    """Normalized with its interval, and the worst seed, for each row and column."""
    text = f"| {corner} | " + " | ".join(columns.values()) + " |\n|" + "---|" * (1 + len(columns)) + "\n"
    for row, name in rows.items():
        entries = []
        for column in columns:
            values = [line["normalized"] for line in found.get((row, column), [])]
            entries.append(f"{interval(values)}; {min(values):.3f}" if values else "not run")
        text += f"| {name} | " + " | ".join(entries) + " |\n"
    return text


def draw_budgets() -> None:
    """Normalized by number of trajectories, a panel for each kind of demonstrations."""
    found = cells("budgets")
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for panel, actions in zip(panels, ("deterministic", "exploratory"), strict=True):
        for shift, (model, name) in enumerate(MODELS.items()):
            measured = [b for b in BUDGETS if (model, f"{b} {actions}") in found]
            if not measured:
                continue
            values = [[line["normalized"] for line in found[model, f"{b} {actions}"]] for b in measured]
            x = np.array([BUDGETS.index(b) for b in measured]) + 0.06 * (shift - 2.5)
            panel.plot(x, [float(np.mean(v)) for v in values], marker="o", markersize=4, label=name, color=f"C{shift}")
            panel.vlines(x, [min(v) for v in values], [max(v) for v in values], colors=f"C{shift}")
        panel.set_xticks(range(len(BUDGETS)), [str(b) for b in BUDGETS])
        panel.axhline(1, color="grey", linewidth=0.8, linestyle="--")
        panel.set_xlabel(f"{actions} trajectories of 1000 pairs")
    panels[0].set_ylabel("normalized return (expert 1, random 0)")
    panels[0].legend(fontsize=8)
    figure.savefig(PICTURE, metadata={"Date": None})


def named(names: Iterable[str]) -> dict[str, str]:
    """Rows or columns whose names are their keys."""
    return {name: name for name in names}


def report() -> None:
    """Write the tables between their markers, and the picture."""
    kinds = ("deterministic", "exploratory")
    networks = (DEFAULT_NETWORK, *NETWORKS)
    tables = {
        "models": models_table(),
        "ablations": grid_table(cells("ablations"), "changed", named(ABLATIONS), named(KINDS)),
        "budgets": grid_table(cells("budgets"), "model", MODELS, named(f"{b} {kind}" for kind in kinds for b in BUDGETS)),
        "networks": grid_table(
            networks_cells(),
            "network",
            named(networks),
            {f"{model} {n}": f"{MODELS[model]}, {n} trajectories" for model in ("mse", "diffusion") for n in (2400, 4)},
        ),
    }
    text = DOCUMENT.read_text()
    for name, table in tables.items():
        marker = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text, replaced = re.subn(marker, lambda match, table=table: match[1] + table + match[2], text, flags=re.DOTALL)
        assert replaced == 1, f"{DOCUMENT}: no place for table {name}"
    DOCUMENT.write_text(text)
    draw_budgets()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--seeds", type=int, default=5, help="training seeds of the first table; the others have 3 of them")
    parser.add_argument("--only", nargs="+", default=["models", "budgets", "networks", "ablations"], help="tables to run")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run_missing(arguments.jobs, arguments.seeds, arguments.only)
    report()
