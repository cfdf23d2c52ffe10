"""The tables of docs/action-models.md: every offline action model, on much and on little data, with several networks.

    python benchmarks/action_models.py run [--jobs 2] [--seeds 5] [--only models networks ablations originals budgets]
    python benchmarks/action_models.py report

``run`` trains what is missing with ``python -m lightning_bc fit``, one thread a run, ``--jobs`` of them side by side, each
on a core of its own, and appends a line to docs/action-models.jsonl as each one ends. Stop it at will: the same command
goes on with the runs that have no line yet. ``report`` writes the tables and the picture from those lines.

Defaults were tuned on the selection bank of seeds; every figure here is of the last checkpoint on the test bank.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from study import (
    EXPERT,
    Cells,
    Run,
    cells,
    collect,
    demonstrations,
    grid_table,
    interval,
    named,
    run_missing,
    with_worst,
    write_tables,
)

RESULTS = Path("docs/action-models.jsonl")
DOCUMENT = Path("docs/action-models.md")
PICTURE = Path("docs/action-models-budgets.svg")

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
    "MSE, error on the action itself": ("mse", "sampled", "--model.squash false"),
    "Diffusion, temperature 1": ("diffusion", "sampled", "--model.noise_scale 1"),
    "Flow matching, temperature 1": ("flow_matching", "sampled", "--model.noise_scale 1"),
    "Autoregressive, hard labels": ("autoregressive", "deterministic", "--model.label_smoothing 0"),
}
"""One flag changed, on the demonstrations where it should matter."""
BUDGETS = (1, 4, 10)
FEW_PAIRS_STEPS = 5000
"""Optimizer steps of every run on few trajectories, whatever their number."""


ORIGINALS = {
    "Gaussian, learning rate 1e-3, batch 1000": "gaussian --data.batch_size 1000 --model.optimizer.lr 1e-3",
    "Gaussian, learning rate 1e-4, batch 2000": "gaussian --data.batch_size 2000 --model.optimizer.lr 1e-4",
    "DAgger under the first": "gaussian --data.batch_size 1000 --model.optimizer.lr 1e-3 "
    f"--trainer.callbacks+=lightning_bc.callbacks.DAgger --trainer.callbacks.expert={EXPERT} "
    "--trainer.callbacks.round_every=200",
    "Gaussian mixture, learning rate 1e-3, batch 1000": "gmm --data.batch_size 1000 --model.optimizer.lr 1e-3",
    "MSE, 512-512-512, learning rate 1e-3, batch 500, 3 passes": "mse --model.network MLP "
    "--model.network.hidden_sizes [512,512,512] --data.batch_size 500 --model.optimizer.lr 1e-3 "
    "--model.optimizer.weight_decay 1e-6 --trainer.max_epochs 3",
}
"""The rows of the chart that this project began with, as far as their parameters are known."""
REPORTED = dict(zip(ORIGINALS, ("6500 to 7250", "6500 to 7250", "7000", "6500", "9500"), strict=True))
"""The returns that it gave, of another expert, whose own return is not known."""


def cloning(model: str, actions: str, eval_freq: int = 5000) -> str:
    """Flags of a fit. Three points of the curve are enough where only the last checkpoint is compared."""
    return f"--config configs/{model}.yaml --data.path {demonstrations(actions)} --rollouts.eval_freq {eval_freq}"


def all_runs(seeds: int) -> Iterator[Run]:
    """Every run of the tables; all of seed 0 first, so that they fill evenly."""
    for seed in range(seeds):
        for actions in KINDS:
            for model in MODELS:
                flags = cloning(model, actions, eval_freq=800)
                yield Run("models", model, actions, seed, flags, kept=actions == "deterministic")
        for budget in BUDGETS if seed < 3 else ():
            for actions in ("deterministic", "exploratory"):
                for model in MODELS:
                    yield Run("budgets", model, f"{budget} {actions}", seed, f"{cloning(model, actions)} {few(budget)}")
        for network, chosen in NETWORKS.items() if seed < 3 else ():
            for model in ("mse", "diffusion"):
                flags = f"{cloning(model, 'deterministic')} {chosen}"
                yield Run("networks", network, f"{model} 2400", seed, flags)
                yield Run("networks", network, f"{model} 4", seed, f"{flags} {few(4)}")
        for ablation, (model, actions, changed) in ABLATIONS.items() if seed < 3 else ():
            yield Run("ablations", ablation, actions, seed, f"{cloning(model, actions)} {changed}")
        for name, parameters in ORIGINALS.items() if seed < 3 else ():
            model, flags = parameters.split(" ", 1)
            yield Run("originals", name, "", seed, f"{cloning(model, 'sampled', eval_freq=800)} {flags}", kept=True)


def few(trajectories: int) -> str:
    """Flags of a run on few trajectories, all of them for training."""
    return f"--data.episodes {trajectories} --data.validation_fraction 0 --trainer.max_steps {FEW_PAIRS_STEPS}"


def models_table() -> str:
    """Six models by sampled and deterministic demonstrations."""
    header = (
        "| model | demonstrations | seeds | score | normalized, 95% interval | worst seed | failed episodes "
        "| with sampled actions | training, s | latency at 1, ms | at 10, ms | network evaluations | parameters |\n|"
        + "---|" * 13
        + "\n"
    )
    rows = []
    found = cells(RESULTS, "models")
    for model, actions in [(model, actions) for model in MODELS for actions in KINDS if (model, actions) in found]:
        lines = found[model, actions]
        latency = [np.median([line["action_latency_ms"][batch] for line in lines]) for batch in ("1", "10")]
        rows.append(
            f"| {MODELS[model]} | {actions} | {len(lines)} | {judged(lines)} "
            f"| {np.mean([line['sampled_normalized'] for line in lines]):.3f} "
            f"| {np.median([line['training_seconds'] for line in lines]):.0f} | {latency[0]:.2f} | {latency[1]:.2f} "
            f"| {lines[0]['network_evaluations']} | {lines[0]['parameters']:,} |\n"
        )
    return header + "".join(rows)


def originals_table() -> str:
    """The first chart's rows, and what they reach here."""
    text = "| row | reported then | score | normalized, 95% interval | worst seed | failed episodes |\n|" + "---|" * 6 + "\n"
    found = cells(RESULTS, "originals")
    for name in ORIGINALS:
        if lines := found.get((name, "")):
            text += f"| {name} | {REPORTED[name]} | {judged(lines)} |\n"
    return text


def judged(lines: list[dict[str, Any]]) -> str:
    """Four columns: score, normalized with its interval, the worst seed, failed episodes."""
    normalized = [line["normalized"] for line in lines]
    failed = round(100 * sum(line["failed_episodes"] for line in lines))
    score = np.mean([line["score"] for line in lines])
    return f"{score:.0f} | {interval(normalized)} | {min(normalized):.3f} | {failed} of {100 * len(lines)}"


def ablations_table() -> str:
    """What one change costs, beside the same seeds of the default."""
    text = "| changed | demonstrations | default | changed |\n|---|---|---|---|\n"
    changed, default = cells(RESULTS, "ablations"), cells(RESULTS, "models")
    for ablation, (model, actions, _) in ABLATIONS.items():
        compared = (default.get((model, actions), []), changed.get((ablation, actions), []))
        entries = [with_worst([line["normalized"] for line in lines if line["key"][3] < 3]) for lines in compared]
        text += f"| {ablation} | {actions} | {' | '.join(entries)} |\n"
    return text


def networks_cells() -> Cells:
    """The lines of the third table; those of the default network are in the other two."""
    found = cells(RESULTS, "networks")
    for model in ("mse", "diffusion"):
        full = cells(RESULTS, "models").get((model, "deterministic"), [])
        found[DEFAULT_NETWORK, f"{model} 2400"] = [line for line in full if line["key"][3] < 3]
        found[DEFAULT_NETWORK, f"{model} 4"] = cells(RESULTS, "budgets").get((model, "4 deterministic"), [])
    return found


def draw_budgets() -> None:
    """Normalized by number of trajectories, a panel for each kind of demonstrations."""
    found = cells(RESULTS, "budgets")
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


def report() -> None:
    """Write the tables between their markers, and the picture."""
    budgets = named(f"{budget} {kind}" for kind in ("deterministic", "exploratory") for budget in BUDGETS)
    networks = (DEFAULT_NETWORK, *NETWORKS)
    tables = {
        "models": models_table(),
        "originals": originals_table(),
        "ablations": ablations_table(),
        "budgets": grid_table(cells(RESULTS, "budgets"), "model", MODELS, budgets),
        "networks": grid_table(
            networks_cells(),
            "network",
            named(networks),
            {f"{model} {n}": f"{MODELS[model]}, {n} trajectories" for model in ("mse", "diffusion") for n in (2400, 4)},
        ),
    }
    write_tables(DOCUMENT, tables)
    draw_budgets()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--seeds", type=int, default=5, help="training seeds of the first table; the others have 3 of them")
    tables = ["models", "budgets", "networks", "ablations", "originals"]
    parser.add_argument("--only", nargs="+", choices=tables, default=tables, help="tables to run")
    arguments = parser.parse_args()
    if arguments.what == "run":
        for actions in ("sampled", "deterministic", "exploratory"):
            collect(actions)
        runs = [run for run in all_runs(arguments.seeds) if run.table in arguments.only]
        run_missing(runs, RESULTS, arguments.jobs)
    report()
