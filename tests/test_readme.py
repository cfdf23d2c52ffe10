"""The README's commands run as they stand there, on a small budget; docs/metrics.md names what is really logged."""

import json
import re
import shlex
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import REPOSITORY, can_draw, write_pairs, write_pendulum
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_bc.cli import main
from lightning_bc.demonstrations.collect import default_path
from lightning_bc.report.study import MARKERS, filled, study_table
from lightning_bc.runs.plan import Study
from lightning_bc.runs.store import read_store
from lightning_bc.strategies import OfflineStrategy, strategies

README = (REPOSITORY / "README.md").read_text()
RUNS = (REPOSITORY / "docs" / "runs.md").read_text()
SET_UP = "pip install -c constraints.txt -e . && python -m lightning_bc fit --config configs/gmm.yaml"
INSTALL_FOR_TESTS, RUN_TESTS = "pip install -c constraints.txt -e '.[dev]'", "pytest"
FIT_BUDGET = ["--trainer.max_steps", "4", "--rollouts.eval_freq", "2", "--rollouts.episodes", "2", "--data.batch_size", "16"]

PRINTED = {
    "fit": "score",
    "test": "score",
    "evaluate": "test-bank episodes",
    "validate": "validation/loss",
    "collect": "pairs/s",
    "play": "return",
    "report": "report.html",
}
INTERACTIVE_BUDGET = [
    *["--model.total_environment_steps", "60", "--model.num_envs", "2", "--model.learning_starts", "8"],
    *["--model.batch_size", "8", "--rollouts.eval_freq", "30", "--rollouts.episodes", "2"],
]


def fenced(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands():
    """The arguments of each ``python -m lightning_bc`` in the fences of README.md and docs/runs.md, in their order."""
    lines = "".join(fenced("bash") + fenced("bash", RUNS)).replace("\\\n", " ").splitlines()
    marker = "python -m lightning_bc "
    return [shlex.split(line.partition(marker)[2]) for line in lines if marker in line]


def newest_run():
    return max(Path("lightning_logs").iterdir(), key=lambda path: path.stat().st_mtime).name


def scalars(run):
    events = EventAccumulator(f"lightning_logs/{run}")
    events.Reload()
    return events.Tags()["scalars"]


def test_the_set_up_commands_stand_in_the_readme_and_ci_calls_the_second():
    lines = "".join(fenced("bash")).splitlines()
    assert SET_UP in lines
    assert f"{INSTALL_FOR_TESTS} && {RUN_TESTS}" in lines
    ci = (REPOSITORY / ".ci" / "run").read_text().splitlines()
    assert ci.index(INSTALL_FOR_TESTS) < ci.index(RUN_TESTS)


def test_every_shell_command_stands_in_a_fence():
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ *\$? *(?:pip|python|tensorboard|pytest|taskset) .*", prose, flags=re.MULTILINE) == []


def test_each_command_runs(tmp_path, monkeypatch, capsys):
    """In order, in one working directory. What would collect or train for long gets a small file or a small budget, and
    episodes are short: those that ``collect`` measures references by have 100,000 steps, and ``play`` draws every frame.
    """
    monkeypatch.chdir(tmp_path)
    for environment_id in ("HalfCheetah-v5", "Hopper-v5"):
        monkeypatch.setattr(gymnasium.spec(environment_id), "max_episode_steps", 20)
    shutil.copytree(REPOSITORY / "configs", "configs")
    shutil.copytree(REPOSITORY / "checkpoints" / "experts", "checkpoints/experts")
    for actions in ("sampled", "deterministic"):
        of = {"environment_id": "HalfCheetah-v5"}                   # as collect writes it
        write_pairs(default_path("HalfCheetah-v5", actions), lengths=(20,) * 12, metadata=of)
    small = write_pendulum("small.pt")
    actions = np.full((240, 3), 0.5, np.float32)
    np.savez("mine.npz", observations=np.ones((240, 11)), actions=actions, episode_lengths=[20] * 12)  # of Hopper-v5
    for script in fenced("python"):
        exec(script)
    done = set()
    for arguments in commands():
        command = arguments[0]
        if command == "fit":
            # The first and what resumes it play HalfCheetah from the default file; the others need not.
            if "configs/gmm.yaml" not in arguments and "--data.path" not in arguments:
                arguments += ["--data.path", small]
            arguments += INTERACTIVE_BUDGET if "configs/gail.yaml" in arguments else FIT_BUDGET
        elif command == "collect":
            arguments += ["--pairs", "2000"]
        elif command in ("test", "validate", "evaluate", "play"):
            arguments = [argument.replace("RUN", newest_run()) for argument in arguments]
        if command == "play" and not can_draw():
            continue
        capsys.readouterr()
        main(arguments)
        printed = capsys.readouterr().out
        assert PRINTED[command] in printed, arguments
        if "last" in arguments:
            assert "resumed at optimizer step 4" in printed
        done.add(command)
    assert done == set(PRINTED) - (set() if can_draw() else {"play"})


PAGES = [f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md")) if MARKERS.search(path.read_text())]
"""Those with a table of a study."""


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_those_of_the_studies_and_a_wrong_number_is_seen(page, monkeypatch):
    """If they are not, this puts them there:  python -m lightning_bc report --page PAGE"""
    monkeypatch.chdir(REPOSITORY)
    text, store = Path(page).read_text(), read_store()
    assert filled(text, store) == text
    table = text.index("| --- |", text.index("<!-- study: "))
    broken = text[:table] + re.sub(r"\d\.\d+", "0.1234", text[table:], count=1)
    assert filled(broken, store) == text != broken


def test_every_measured_run_is_one_of_a_study(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    assert set(read_store()) <= {fit.name for path in Path("studies").glob("*.yaml") for fit in Study.read(str(path)).fits}


@pytest.mark.parametrize("page", PAGES)
def test_every_interval_in_the_text_is_one_of_a_table(page):
    tables = "".join(path.read_text() for path in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")))
    known = set(re.findall(r"\d\.\d{3} ± \d\.\d{3}", "".join(re.findall(r"^\|.*", tables, re.MULTILINE))))
    assert set(re.findall(r"\d\.\d{3} ± \d\.\d{3}", (REPOSITORY / page).read_text())) <= known


MEASURED_OTHERWISE = {
    "docs/action-models.md": {"0.810", "0.896"},                            # of the machine that the text names
    "docs/interaction.md": {"0.390"},                                       # a run of IQ-Learn on its own
    "docs/gates.md": {"0.722"},                                             # what is known without training
}
"""Normalized scores in the text whose runs are of no study; the text says what they are of."""


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_normalized_score_in_the_text_is_in_a_table_that_a_study_makes(page, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    score = re.compile(r"(?<![\d.,])\d\.\d{3}(?!\d)")
    store = read_store()
    tables = [study_table(Study.read(str(path)), store) for path in Path("studies").glob("*.yaml")]
    text = re.sub(r"```.*?```|^\s*\|.*?$", "", Path(page).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert set(score.findall(text)) - set(score.findall("".join(tables))) <= MEASURED_OTHERWISE.get(page, set())


def cells(study):
    """The rows of a study's table, by their first cells, made from docs/results.csv."""
    lines = study_table(Study.read(f"studies/{study}.yaml"), read_store()).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]


def test_the_chart_repeats_the_tables_of_the_documentation(monkeypatch):
    """Score over demonstrations: the first figure of each cell of two tables of docs/action-models.md."""
    monkeypatch.chdir(REPOSITORY)
    all_pairs = {row[0]: row[4] for row in cells("models") if row[1] == "deterministic"}
    few = {row[0]: row[3:0:-1] for row in cells("budgets")}
    rows = re.findall(r"^\| ([\w ]+) \| (\d\.\d+) \| (\d\.\d+) \| (\d\.\d+) \| (\d\.\d+) \|$", README, flags=re.MULTILINE)
    assert {name: list(figures) for name, *figures in rows} == {
        name: [cell.split()[0] for cell in (figure, *few[name])] for name, figure in all_pairs.items()
    }


def test_the_text_repeats_the_tables_of_the_documentation(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    acting = {row[0]: row[1].split()[0] for row in cells("adversarial")}
    labels = {row[0]: row[5].split()[0] for row in cells("labels")}
    text = " ".join(README.split())
    assert f"GAIL reaches {acting['GAIL']} and AIRL {acting['AIRL']}" in text
    assert f"DAgger {labels['DAgger']} after 10,000 queries" in text
    models = {row[0]: row for row in cells("models") if row[1] == "deterministic"}
    assert f"takes {models['MSE'][8]} s (MSE) to {models['Autoregressive'][8]} s (autoregressive)" in text
    assert f"one action {models['MSE'][9]} ms (MSE) to {models['Diffusion'][9]} ms (ten steps of diffusion)" in text


def test_links_lead_to_files():
    for document in (REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *(REPOSITORY / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
            assert target.startswith("https://") or (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("strategy", strategies())
def test_metrics_document_names_what_a_run_logs(strategy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    offline = issubclass(strategies()[strategy], OfflineStrategy)
    budget = FIT_BUDGET if offline else INTERACTIVE_BUDGET
    if not offline:
        monkeypatch.setattr(strategies()[strategy], "log_every", 1)  # of 50 updates
    main(["fit", "--model", strategy, "--data.path", write_pendulum("small.pt"), *budget])
    document = (REPOSITORY / "docs" / "metrics.md").read_text()
    logged = scalars(newest_run())
    assert {"rollout/return_mean", "time/seconds", "time/pairs", "time/optimizer_steps"} <= set(logged)
    assert ("time/environment_steps" in logged) is not offline
    declared = {f"train/{name}" for name in strategies()[strategy].logs}
    assert declared | ({"train/loss", "validation/loss"} if offline else set()) <= set(logged)
    results = json.loads(Path(f"lightning_logs/{newest_run()}/results.json").read_text())
    results.pop("checksum")                                         # of the file; the table is of what it says
    keys = [*results, *(f"{key}.{inner}" for key in ("references", "data") for inner in results[key])]
    missing = [name for name in [*logged, *keys] if f"| `{name.removeprefix('time/')}` |" not in document]
    assert missing == []
