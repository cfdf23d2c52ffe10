"""The tables of docs/interaction.md (GAIL, AIRL, and soft actor-critic, which makes experts) and of docs/dagger.md.

    python benchmarks/interaction.py run [--jobs 2] [--seeds 3] [--only adversarial labels causes hopper] [--rows gail ...]
    python benchmarks/interaction.py report

``run`` trains what is missing, appends a line with the whole curve to docs/interaction.jsonl as each run ends, and can be
stopped at will: the same command goes on, also within a run. ``report`` writes the tables and pictures from those lines.

Final figures are of the last checkpoint on the test bank; curves are on the selection bank.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from study import (
    EXPERT,
    Run,
    cells,
    collect,
    demonstrations,
    grid_table,
    named,
    run_missing,
    save_normalized,
    write_tables,
)

from lightning_bc.callbacks import DAgger
from lightning_bc.runs.curve import CURVE_FILE, read_curve

RESULTS = Path("docs/interaction.jsonl")
DOCUMENT = Path("docs/interaction.md")
DAGGER_DOCUMENT = Path("docs/dagger.md")
CURVES = Path("docs/interaction-curves.svg")
LABELS = Path("docs/dagger-labels.svg")

LEARNERS = {"gail": "GAIL", "airl": "AIRL"}
CLONING = "cloning (MSE)"
DETERMINISTIC = f"--data.path {demonstrations('deterministic')} --data.validation_fraction 0"
REPEATED = Path("data/HalfCheetah-v5-one-trajectory-2400-times.pt")
FEW = "--config configs/mse.yaml --data.validation_fraction 0 --trainer.max_steps 10000 --rollouts.eval_freq 500"
TRAJECTORIES = (1, 2, 4, 7, 11, 20)
"""Of 1000 pairs: what cloning learns from, and what DAgger ends with, one of them demonstrated."""
CONFIGURED = 11
"""What configs/dagger.yaml ends with."""
CHART_SEEDS = 5
"""Of the chart's runs that take less than two minutes."""


def dagger(rounds: int, callback: str = "lightning_bc.callbacks.DAgger", options: str = "") -> str:
    """Flags of DAgger with MSE."""
    expert = f"--trainer.callbacks.expert={EXPERT} --trainer.callbacks.rounds={rounds}"
    return f"{FEW} --trainer.callbacks+={callback} {expert} {options}"


ONE = f"--data.path {demonstrations('deterministic')} --data.episodes 1"
CAUSES = {
    "as it is": f"{dagger(10)} {ONE}",
    "new labels diluted": f"{dagger(10)} --data.path {REPEATED}",
    "a new learner after each round": f"{dagger(10, 'interaction.RestartingDAgger')} {ONE}",
    "beta = 0.5": f"{dagger(10, options='--trainer.callbacks.beta=0.5')} {ONE}",
    "beta = 0.9": f"{dagger(10, options='--trainer.callbacks.beta=0.9')} {ONE}",
}


class RestartingDAgger(DAgger):
    """DAgger whose learner begins anew after each round: its first weights, and nothing in the optimizer's memory."""

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Remember the first weights."""
        self._first = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    def _round(self, trainer: Trainer, module: LightningModule) -> None:
        super()._round(trainer, module)
        module.load_state_dict(self._first, strict=False)
        trainer.optimizers[0].state.clear()


def write_repeated() -> None:
    """The first trajectory 2400 times, as many pairs as the whole file: whatever joins them is one among many."""
    if not REPEATED.exists():
        content = torch.load(demonstrations("deterministic"), weights_only=True, mmap=True)
        columns = {name: content[name][:1000].repeat(2400, 1) for name in ("observations", "actions")}
        returns = {name: content[name] for name in ("mean_reward", "std_reward")}
        torch.save(columns | returns | {"episode_lengths": [1000] * 2400}, REPEATED)


HOPPER = Path("data/Hopper-v5-deterministic-10000.pt")
HOPPER_FLAGS = f"--env Hopper-v5 --data.path {HOPPER} --data.validation_fraction 0"


def experts(seeds: int) -> Iterator[Run]:
    """Soft actor-critic on the environments' own rewards."""
    for seed in range(seeds):
        yield Run("adversarial", "sac", "", seed, "--config configs/sac.yaml", kept=True)
    flags = "--config configs/sac.yaml --env Hopper-v5 --model.replay_capacity 1_000_000"
    yield Run("hopper", "SAC", "score", 0, flags)


def cloning(trajectories: int, seed: int) -> Run:
    """MSE from so many trajectories."""
    flags = f"{FEW} --data.path {demonstrations('deterministic')} --data.episodes {trajectories}"
    return Run("labels", "cloning", f"{trajectories}", seed, flags, kept=trajectories == 1)


def aggregating(trajectories: int, seed: int) -> Run:
    """DAgger with MSE from one trajectory, until it has as many labels."""
    flags = f"{dagger(trajectories - 1)} {ONE}"
    return Run("labels", "dagger", f"{trajectories}", seed, flags, kept=trajectories == CONFIGURED)


def learners(seeds: int) -> Iterator[Run]:
    """Every other run; all of seed 0 first."""
    for seed in range(seeds):
        for trajectories in (1, 4):
            for config in LEARNERS:
                flags = f"--config configs/{config}.yaml {DETERMINISTIC} --data.episodes {trajectories}"
                yield Run("adversarial", config, f"{trajectories}", seed, flags, kept=True)
        for trajectories in TRAJECTORIES:
            yield cloning(trajectories, seed)
            if trajectories > 1:
                yield aggregating(trajectories, seed)
        for cause, flags in CAUSES.items():
            yield Run("causes", cause, "11", seed, flags)
    for seed in range(seeds, CHART_SEEDS):
        yield cloning(1, seed)
        yield aggregating(CONFIGURED, seed)
    for config, name in LEARNERS.items():
        yield Run("hopper", name, "score", 0, f"--config configs/{config}.yaml {HOPPER_FLAGS} --data.episodes 4")
    yield Run("hopper", "cloning", "score", 0, f"{FEW} {HOPPER_FLAGS} --data.episodes 4")


def collect_hopper() -> None:
    """Demonstrations of the best point of the curve of what ``experts`` has trained."""
    if not HOPPER.exists():
        line = cells(RESULTS, "hopper")["SAC", "score"][0]
        command = [sys.executable, "-m", "lightning_bc", "collect", "--env", "Hopper-v5", "--actions", "deterministic"]
        expert = f"checkpoints/{line['run']}/best.ckpt"
        subprocess.run([*command, "--expert", expert, "--pairs", "10000", "--output", str(HOPPER)], check=True)


def curve(folder: Path) -> dict[str, Any]:
    """The points of a run's curve: its axes and its return."""
    points = read_curve(folder / CURVE_FILE)
    names = {"environment_steps": 0, "expert_queries": 0, "rollout/return_mean": 1, "rollout/normalized_return": 4}
    return {"curve": {name.removeprefix("rollout/"): points[name].round(digits).tolist() for name, digits in names.items()}}


# The report


def draw_curves() -> None:
    """Normalized return over environment steps from one trajectory, with soft actor-critic and cloning beside."""
    found = cells(RESULTS, "adversarial")
    if not found:
        return
    figure, panel = plt.subplots(figsize=(7, 4), layout="constrained")
    rows = {("gail", "1"): "GAIL, 1 trajectory", ("airl", "1"): "AIRL, 1 trajectory", ("sac", ""): "SAC, the true reward"}
    for color, (key, name) in enumerate(rows.items()):
        for seed, line in enumerate(found.get(key, [])):
            steps, normalized = line["curve"]["environment_steps"], line["curve"]["normalized_return"]
            panel.plot(steps, normalized, color=f"C{color}", label=name if seed == 0 else None, linewidth=1.2)
    cloned = [line["normalized"] for line in cells(RESULTS, "labels").get(("cloning", "1"), [])]
    if cloned:
        panel.axhline(float(np.mean(cloned)), color="C3", label=f"{CLONING}, 1 trajectory", linewidth=1.2)
    save_normalized(figure, panel, "environment steps", CURVES)


def draw_labels() -> None:
    """Normalized by number of labels: the mean over seeds, and from the worst to the best."""
    found = cells(RESULTS, "labels")
    figure, panel = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for color, (row, name) in enumerate({"cloning": "cloning", "dagger": "DAgger"}.items()):
        measured = [(n, [line["normalized"] for line in found[row, str(n)]]) for n in TRAJECTORIES if (row, str(n)) in found]
        if measured:
            labels = [1000 * n for n, _ in measured]
            panel.plot(labels, [float(np.mean(values)) for _, values in measured], marker="o", color=f"C{color}", label=name)
            panel.vlines(labels, *([f(v) for _, v in measured] for f in (min, max)), colors=f"C{color}")
    save_normalized(figure, panel, "labels of the expert, the first 1000 from its own trajectory", LABELS, "lower right")


def sac_table() -> str:
    """Return of soft actor-critic, a column a seed, at some environment steps, and at the end on the test bank."""
    lines = sorted(cells(RESULTS, "adversarial").get(("sac", ""), []), key=lambda line: line["key"][-1])
    if not lines:
        return "not run\n"
    curves = [dict(zip(line["curve"]["environment_steps"], line["curve"]["return_mean"], strict=True)) for line in lines]
    rows = [["environment steps", *(f"seed {line['key'][-1]}" for line in lines)], ["---"] * (1 + len(lines))]
    steps = (48_000, 100_000, 152_000, 200_000, 300_000)
    rows += [[f"{step:,}", *(f"{curve[step]:.0f}" for curve in curves)] for step in steps]
    rows.append([f"{lines[0]['environment_steps']:,}, test bank", *(f"{line['score']:.0f}" for line in lines)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def hopper_table() -> str:
    """Scores on Hopper-v5."""
    text = "| | score | normalized | failed episodes | environment steps |\n|---|---|---|---|---|\n"
    for (row, _), (line, *_) in cells(RESULTS, "hopper").items():
        normalized = "" if line["normalized"] is None else f"{line['normalized']:.3f}"
        failed = "" if line["failed_episodes"] is None else f"{line['failed_episodes']:.0%}"
        text += f"| {row} | {line['score']:.0f} | {normalized} | {failed} | {line['environment_steps']:,} |\n"
    return text


def report() -> None:
    """Write the tables between their markers, and the pictures."""
    labels = {str(n): f"{1000 * n:,} labels" for n in TRAJECTORIES}
    labelled = cells(RESULTS, "labels")
    labelled["dagger", "1"] = labelled["cloning", "1"]              # before its first round
    tables = {
        "adversarial": grid_table(
            cells(RESULTS, "adversarial") | {(CLONING, n): labelled["cloning", n] for n in ("1", "4")},
            "from",
            LEARNERS | named([CLONING]),
            {"1": "1 trajectory", "4": "4 trajectories"},
        ),
        "sac": sac_table(),
        "hopper": hopper_table(),
    }
    write_tables(DOCUMENT, tables)
    tables = {
        "labels": grid_table(labelled, "learner", {"cloning": "cloning", "dagger": "DAgger"}, labels),
        "causes": grid_table(cells(RESULTS, "causes"), "DAgger", named(CAUSES), {"11": "11,000 labels"}),
    }
    write_tables(DAGGER_DOCUMENT, tables)
    draw_curves()
    draw_labels()


if __name__ == "__main__":
    tables = ["adversarial", "labels", "causes", "hopper"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "report"])
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, a core each")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, where a table has more than one")
    parser.add_argument("--only", nargs="+", choices=tables, default=tables, help="tables to run")
    parser.add_argument("--rows", nargs="+", help="of these tables, only these rows: sac, gail, dagger, ...")
    arguments = parser.parse_args()

    def run(runs: Iterator[Run]) -> None:
        """Those that were asked for."""
        chosen = (run for run in runs if run.table in arguments.only)
        run_missing([run for run in chosen if run.row in (arguments.rows or [run.row])], RESULTS, arguments.jobs, curve)

    if arguments.what == "run":
        collect("deterministic")
        write_repeated()
        run(experts(arguments.seeds))
        if "hopper" in arguments.only:
            collect_hopper()
        run(learners(arguments.seeds))
    report()
