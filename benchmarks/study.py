"""What the studies in this folder share: runs of ``python -m lightning_bc fit`` side by side, a line per run, and tables.

A study names its runs. What has no line in its results file yet is trained, one thread per run, each on a core of its own,
and its line is appended as it ends. Stopped at will, the study goes on with the runs that are missing, and a run that had
begun goes on from its last checkpoint.
"""

import json
import os
import queue
import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from lightning_bc.demonstrations.collect import default_path
from lightning_bc.report.tables import with_tables
from lightning_bc.runs.curve import CURVE_FILE
from lightning_bc.runs.folders import CONFIG_FILE
from lightning_bc.runs.results import RESULTS_FILE, Results

rcParams["svg.hashsalt"] = "lightning_bc"                           # the same figures give the same file

OUTPUTS = Path("lightning_logs/studies")
"""What a run that has not ended printed; the file has the run's name, by which it goes on."""

KEPT_LOGS = Path("docs/results/runs")
"""Logs of the runs that the README's chart is made of."""

EXPERT = "checkpoints/experts/HalfCheetah-v5.pt"

@dataclass(frozen=True)
class Run:
    """One training: which row and column of which table, what the command line is told, and whether its logs are kept."""

    table: str
    row: str
    column: str
    seed: int
    flags: str
    kept: bool = False

    @property
    def key(self) -> list[Any]:
        """What a line of the results is recognised by."""
        return [self.table, self.row, self.column, self.seed]

    def command(self) -> list[str]:
        """The fit."""
        return [sys.executable, "-m", "lightning_bc", "fit", *self.flags.split(), "--seed_everything", str(self.seed)]


def demonstrations(actions: str) -> Path:
    """The file of 2.4 million pairs of one kind: sampled, deterministic or exploratory."""
    return Path(default_path("HalfCheetah-v5", actions))


def collect(actions: str) -> None:
    """Make that file, unless it is there."""
    if not demonstrations(actions).exists():
        command = [sys.executable, "-m", "lightning_bc", "collect", "--env", "HalfCheetah-v5", "--expert", EXPERT]
        subprocess.run([*command, "--actions", actions], check=True)


def read_lines(results: Path) -> list[dict[str, Any]]:
    """The lines so far."""
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def run_missing(
    runs: Iterable[Run], lines: Path, jobs: int, more: Callable[[Path], dict[str, Any]] = lambda folder: {}
) -> None:
    """Train what has no line yet; ``more`` reads what else a line is to hold from a run's folder."""
    done = [line["key"] for line in read_lines(lines)]
    missing = [run for run in runs if run.key not in done]
    cores: queue.Queue[int] = queue.Queue()
    for core in sorted(os.sched_getaffinity(0))[:jobs]:
        cores.put(core)

    def train(run: Run) -> None:
        core = cores.get()
        try:
            folder = _fit(run, OUTPUTS / f"{lines.stem}-{'-'.join(map(str, run.key))}.txt".replace(" ", "_"), core)
        finally:
            cores.put(core)
        results = Results.read(folder / RESULTS_FILE)
        if run.kept:
            keep_logs(folder)
        figures = {name: value for name, value in results.as_dict().items() if not isinstance(value, list)}
        line = {"key": run.key, "command": " ".join(run.command()[1:])} | figures | more(folder)
        with lines.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{' '.join(map(str, run.key)):60} {results.score:.0f} {results.normalized:.3f}", flush=True)

    print(f"{len(missing)} runs to go, {len(done)} done", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        for _ in pool.map(train, missing):
            pass


def keep_logs(folder: Path) -> None:
    """Copy what the report reads of a run."""
    kept = KEPT_LOGS / folder.name
    kept.mkdir(parents=True, exist_ok=True)                         # the line may not have been written after it
    for name in (CONFIG_FILE, RESULTS_FILE, CURVE_FILE):
        shutil.copyfile(folder / name, kept / name)


def _fit(run: Run, output: Path, core: int) -> Path:
    """Train, from the start or from where it stood; the folder of its logs."""
    name = output.stem
    command = [*run.command(), "--run", name]
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a") as file:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        ended = subprocess.run(
            ["taskset", "-c", str(core), *command], env=environment, stdout=file, stderr=file, check=False
        )
    if ended.returncode:
        raise RuntimeError(f"{shlex.join(command)}\nended with {ended.returncode}:\n{output.read_text()[-2000:]}")
    output.unlink()
    return Path("lightning_logs", name)


# Tables


def interval(values: Sequence[float]) -> str:
    """Mean and 95% interval of the mean over seeds (Student's t)."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.3f} (1 seed)"
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{mean:.3f} ± {half:.3f}"


def with_worst(values: Sequence[float]) -> str:
    """Mean with its interval, then the worst seed."""
    return f"{interval(values)}; {min(values):.3f}" if values else "not run"


Cells = dict[tuple[str, str], list[dict[str, Any]]]


def cells(results: Path, table: str) -> Cells:
    """The lines of each (row, column)."""
    found = defaultdict(list)
    for line in read_lines(results):
        if line["key"][0] == table:
            found[line["key"][1], line["key"][2]].append(line)
    return found


def grid_table(found: Cells, corner: str, rows: dict[str, str], columns: dict[str, str]) -> str:
    """Normalized with its interval, and the worst seed, for each row and column."""
    text = f"| {corner} | " + " | ".join(columns.values()) + " |\n|" + "---|" * (1 + len(columns)) + "\n"
    for row, name in rows.items():
        entries = [with_worst([line["normalized"] for line in found.get((row, column), [])]) for column in columns]
        text += f"| {name} | " + " | ".join(entries) + " |\n"
    return text


def named(names: Iterable[str]) -> dict[str, str]:
    """Rows or columns whose names are their keys."""
    return {name: name for name in names}


def save_normalized(figure: Figure, panel: Axes, horizontal: str, path: Path, legend: str = "best") -> None:
    """Finish a picture of normalized returns: the expert as a line, names, legend."""
    panel.axhline(1, color="grey", linewidth=0.8, linestyle="--")
    panel.set_xlabel(horizontal)
    panel.set_ylabel("normalized return (expert 1, random 0)")
    panel.legend(fontsize=8, loc=legend)
    figure.savefig(path, metadata={"Date": None})


def write_tables(document: Path, tables: dict[str, str]) -> None:
    """Put each table between its markers in the document."""
    document.write_text(with_tables(document.read_text(), tables))
