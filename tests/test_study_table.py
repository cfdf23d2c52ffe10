"""Tables of studies: known figures, from runs on disk before the store, and what is not whole."""

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, refused
from test_report import BENCHMARK, CONFIG

from lightning_bc.cli import main
from lightning_bc.errors import InputError
from lightning_bc.report.study import FIGURES
from lightning_bc.runs.held_out import HeldOutResults
from lightning_bc.runs.plan import Study
from lightning_bc.runs.store import line_of, read_store, write_store
from lightning_bc.strategies.offline.base import VALIDATION

GRID = "seeds: 2\nrows: {one: --model MSE, other: --model VAE}\ncolumns: {all: --data.path a.pt, few: --data.path b.pt}\n"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("docs").mkdir()


def run(fit, normalized, **changes):
    """A made-up run of a fit."""
    changes = {"score": 1000 * normalized, "normalized": normalized} | changes
    return BENCHMARK["write_run"](Path("lightning_logs") / fit.name, {}, fit.seed, 2, 0.5, **changes)


def read(text):
    Path("study.yaml").write_text(text)
    return Study.read("study.yaml")


def test_a_grid_has_known_figures_and_says_what_is_not_run(capsys):
    study = read(GRID)
    first, _, _, other_few, second, *_ = study.fits
    run(first, 0.5)
    run(second, 0.7)
    run(other_few, 0.25)
    main(["report", "--study", "study.yaml"])
    half = 12.7062 * 0.1                                            # t_0.975(1) std / sqrt(2) = 12.7062 sqrt(0.02) / sqrt(2)
    assert capsys.readouterr().out.splitlines() == [
        "|  | all | few |",
        "| --- | --- | --- |",
        f"| one | 0.600 ± {half:.3f}; 0.500 | not run |",
        "| other | not run | 0.250; 0.250 (1 of 2 seeds) |",
    ]


def test_runs_without_a_simulator_show_their_errors_and_have_not_diverged(capsys):
    study = read("seeds: 2\nrows: {one: --model MSE, other: --model VAE}\ncolumns: {all: --data.path a.pt}\n")
    errors = {fit: 0.5 + 0.1 * number for number, fit in enumerate(study.fits)}
    for fit, error in errors.items():
        held_out = dict.fromkeys(VALIDATION, 0.3) | {"action_root_mean_squared_error": error, "explained_variance": math.nan}
        results = run(fit, 0.5)
        known = {entry.name: getattr(results, entry.name, held_out) for entry in fields(HeldOutResults)}
        HeldOutResults(**known).write(f"lightning_logs/{fit.name}/results.json")
        assert "NaN" not in Path(f"lightning_logs/{fit.name}/results.json").read_text()
    main(["report", "--study", "study.yaml"])
    (one, other), (again, last) = np.array([*errors.values()]).reshape(2, 2)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"| one | {(one + again) / 2:.4g}; {again:.4g} |",
        f"| other | {(other + last) / 2:.4g}; {last:.4g} |",
    ]
    Path("study.yaml").write_text(Path("study.yaml").read_text() + "figures: [seeds, held-out loss, held-out error]\n")
    main(["report", "--study", "study.yaml"])
    assert "| one | 2 | 0.3 | 0.6 |" in capsys.readouterr().out


def test_a_cell_whose_returns_have_no_scale_says_so(capsys):
    study = read("seeds: 1\nrows: {one: --model MSE}\ncolumns: {all: --data.path a.pt}\n")
    fit = study.fits[0]
    BENCHMARK["write_run"](Path("lightning_logs") / fit.name, {}, fit.seed, 2, 0.5, normalized=None)
    main(["report", "--study", "study.yaml"])
    assert capsys.readouterr().out.splitlines()[-1] == "| one | no scale |"


def test_rows_are_compared_over_all_columns(capsys):
    study = read(GRID + "aggregated: true\n")
    for fit in study.fits:
        run(fit, (0.5 if fit.row == "one" else 0.8) + (fit.column == "few") * 0.1 + fit.seed * 0.01)
    main(["report", "--study", "study.yaml"])
    mean = np.mean([0.51, 0.6])                                     # of 0.50, 0.51, 0.60 and 0.61
    *_, names, _, one, other = capsys.readouterr().out.splitlines()
    assert names == "| over all columns | interquartile mean | above one | above other |"
    assert [cell.split(" (")[0] for cell in one.split(" | ")] == ["| one", f"{mean:.3f}", "", "0.00 |"]
    assert [cell.split(" (")[0] for cell in other.split(" | ")] == ["| other", f"{mean + 0.3:.3f}", "1.00", " |"]


def test_each_column_is_left_out_and_has_what_the_row_reaches_that_is_best_on_the_others(capsys):
    study = read(GRID.replace("few:", "third: --data.path c.pt, few:") + "aggregated: true\n")
    returns = {"one": {"all": 0.9, "third": 0.8, "few": 0.1}, "other": {"all": 0.6, "third": 0.7, "few": 0.65}}
    for fit in study.fits:
        run(fit, returns[fit.row][fit.column])
    main(["report", "--study", "study.yaml"])
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "| left out | best on the others | reaches here | highest here | of |",
        "| --- | --- | --- | --- | --- |",
        "| all | other | 0.600 | 0.900 | one |",                    # 0.675 beside 0.45 on third and few
        "| third | other | 0.700 | 0.800 | one |",                  # 0.625 beside 0.5
        "| few | one | 0.100 | 0.650 | other |",                    # 0.85 beside 0.65
    ]


def test_an_end_of_an_interval_that_a_diverged_run_makes_is_said_to_be_one(capsys):
    study = read(GRID.replace("seeds: 2", "seeds: 5") + "aggregated: true\n")
    for number, fit in enumerate(study.fits):
        run(fit, float("nan"), diverged="x") if number == 0 else run(fit, 0.5)
    main(["report", "--study", "study.yaml"])
    *_, one, other = capsys.readouterr().out.splitlines()
    assert "0.500 (diverged to 0.500)" in one
    assert "0.500 (0.500 to 0.500)" in other


def test_a_row_that_is_not_whole_is_not_compared(capsys):
    study = read(GRID + "aggregated: true\n")
    for fit in study.fits[:-1]:
        run(fit, 0.5)
    main(["report", "--study", "study.yaml"])
    assert "| over all columns | interquartile mean | above one |\n" in capsys.readouterr().out


def test_a_row_without_an_expert_is_not_compared(capsys):
    study = read(GRID + "aggregated: true\n")
    for fit in study.fits:
        run(fit, 0.5) if fit.row == "one" else run(fit, float("nan"), score=7.0)
    main(["report", "--study", "study.yaml"])
    *_, names, _, row = capsys.readouterr().out.splitlines()
    assert names == "| over all columns | interquartile mean | above one |"
    assert row.startswith("| one | 0.500 |")


def test_chosen_figures_are_a_line_per_cell(capsys):
    study = read(GRID + "figures: [seeds, score, failed episodes]\n")
    for fit in study.fits:
        run(fit, 0.5 + fit.seed, failed_episodes=0.01)
    main(["report", "--study", "study.yaml"])
    assert capsys.readouterr().out.splitlines()[2] == "| one | all | 2 | 1000 | 2 of 200 |"


def test_failed_episodes_are_counted_run_by_run():
    runs = {"failed_episodes": np.array([1.0, 0.0, 0.5]), "episodes": np.array([100.0, 4.0, 4.0])}  # the first diverged
    assert FIGURES["failed episodes"](runs) == "102 of 108"


def test_a_page_is_filled_and_its_runs_are_stored_and_then_suffice():
    study = read(GRID)
    for fit in study.fits:
        results = run(fit, 0.5)
    Path("page.md").write_text("before\n<!-- study: study.yaml -->\nold\n<!-- /study -->\nafter\n")
    main(["report", "--page", "page.md"])
    page = Path("page.md").read_text()
    assert "| one | 0.500 ± 0.000; 0.500 | 0.500 ± 0.000; 0.500 |" in page
    assert page.startswith("before\n<!-- study: study.yaml -->\n|")
    assert page.endswith("`python -m lightning_bc report --study study.yaml`.\n<!-- /study -->\nafter\n")
    Path("lightning_logs").rename("gone")
    main(["report", "--page", "page.md"])
    assert Path("page.md").read_text() == page
    line = read_store()[study.fits[-1].name]
    assert line["flags"] == "--data.path b.pt --model VAE"
    assert line["score"] == results.score
    assert line["latency_ms_10"] == results.action_latency_ms["10"]


def test_a_report_on_a_study_leaves_other_runs_out(capsys):
    for name, score in ((read(GRID).fits[0].name, 500.0), ("other", 900.0)):
        BENCHMARK["write_run"](Path("lightning_logs") / name, CONFIG, 0, 5, 0.5, score=score)
    main(["report", "lightning_logs", "--study", "study.yaml", "--output", "out"])
    report = Path("out/report.md").read_text()
    assert "500" in report
    assert "900" not in report


def test_the_store_keeps_nine_figures_and_what_is_not_known():
    fit = read(GRID).fits[0]
    line = line_of(fit, run(fit, 1 / 3, sampled_normalized=None))
    write_store([line], Path("store.csv"))
    again = read_store(Path("store.csv"))[fit.name]
    whole = Path("store.csv").read_text()
    for cut in (whole[:-5], whole.rstrip("\n").rpartition(",")[0] + "\n"):
        Path("cut.csv").write_text(cut)
        with pytest.raises(InputError, match=r"cut\.csv: is damaged"):
            read_store(Path("cut.csv"))
    assert again["score"] == pytest.approx(line["score"], rel=1e-8)
    assert math.isnan(again["sampled_normalized"])


def test_what_cannot_be_used_is_refused(capsys):
    read(GRID + "figures: [scores]\n")
    for command in (["report", "--study"], ["study"]):             # before the first fit
        assert "figures: scores: wanted some of seeds; score" in refused(capsys, *command, "study.yaml")
    read(GRID + "figures: [score: 2]\n")
    assert "figures: {'score': 2}: wanted some of seeds; score" in refused(capsys, "study", "study.yaml")
    for figures in ("score", "5"):
        with pytest.raises(InputError, match=f"figures: {figures}: wanted a list"):
            read(GRID + f"figures: {figures}\n")
    Path("page.md").write_text("no markers")
    assert "has no place for a table" in refused(capsys, "report", "--page", "page.md")
    assert "nowhere.md: cannot be read" in refused(capsys, "report", "--page", "nowhere.md")
    assert "lightning_logs" in refused(capsys, "report")
    Path("docs/results.csv").write_text("run,score\na,b\n")
    read(GRID)
    assert "docs/results.csv: is damaged" in refused(capsys, "report", "--study", "study.yaml")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_fit_of_the_shipped_studies_is_in_the_store_and_named_by_its_flags(path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    store = read_store()
    for fit in Study.read(f"studies/{path.name}").fits:
        assert store[fit.name]["flags"] == " ".join(fit.flags)
        assert store[fit.name]["seed"] == fit.seed
