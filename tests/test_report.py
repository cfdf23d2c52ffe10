"""The report over made-up runs and over real ones, whole and broken."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, json_to_edit, write_pendulum
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks import report as benchmark
from lightning_bc.cli import main
from lightning_bc.report.bands import band
from lightning_bc.report.chart import COLUMNS, Method, make_charts
from lightning_bc.report.parameters import changed_parameters
from lightning_bc.runs.curve import AXES, CURVE_FILE, RETURN
from lightning_bc.runs.plan import Study
from lightning_bc.runs.records import read_records
from lightning_bc.strategies import FlowMatching, Strategy
from lightning_bc.texts import csv_text, parse_csv, write_json, write_yaml

BENCHMARK = vars(benchmark)
CONFIG = benchmark.default_config()
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_run(name, seed=0, lr=3e-3, points=5, config=CONFIG, **results):
    """A made-up run under lightning_logs; see benchmarks/report.py."""
    config = json.loads(json.dumps(config))
    config["model"]["init_args"]["optimizer"]["init_args"]["lr"] = lr
    folder = Path("lightning_logs") / f"{name}-20260101T000000-{len(list(Path().glob('lightning_logs/*'))):04x}"
    benchmark.write_run(folder, config, seed, points, 0.9, **results)
    return folder


def write_method(name, scores, **options):
    """A made-up run of each score, seeds from 0 on; normalized follows from the score."""
    for seed, score in enumerate(scores):
        normalized = (score - benchmark.RANDOM_RETURN) / (benchmark.EXPERT_RETURN - benchmark.RANDOM_RETURN)
        write_run(name, seed, **{"score": score, "normalized": normalized} | options)


def report(*flags):
    main(["report", "lightning_logs", "--output", "results", *flags])


def charts():
    return make_charts(read_records(Path("lightning_logs"))[0])


def rows(environment="HalfCheetah-v5", table="chart"):
    with Path(f"results/{environment}/{table}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def without_pictures(monkeypatch):
    """For tests of tables: drawing takes most of a report's time."""
    for name in ("draw_panels", "draw_method", "draw_scores"):
        monkeypatch.setattr(f"lightning_bc.report.report.{name}", lambda *_: False)


# The chart


def test_runs_that_differ_by_their_seed_alone_are_one_row_with_known_figures(without_pictures):
    write_method("a", [9000.0, 9100.0, 9500.0], failed_episodes=0.01, training_seconds=60.0)
    write_method("b", [8000.0], lr=1e-4)
    report()
    first, second = rows()
    assert first["seeds"] == "3"
    assert first["parameters"] == ""
    assert float(first["final_return_mean"]) == 9200
    assert float(first["final_return_std"]) == pytest.approx(np.std([9000, 9100, 9500], ddof=1))
    assert float(first["normalized"]) == pytest.approx((9200 + 293) / 9993)
    half = 4.302653 * np.std([9000, 9100, 9500], ddof=1) / 3**0.5                   # Student's t with 2 degrees of freedom
    assert float(first["normalized_low"]) == pytest.approx((9200 - half + 293) / 9993)
    assert float(first["normalized_high"]) == pytest.approx((9200 + half + 293) / 9993)
    assert float(first["worst_seed"]) == 9000
    assert second["parameters"] == "lr 0.0001"
    assert second["final_return_std"] == second["normalized_low"] == ""

    header, _, best, other = Path("results/HalfCheetah-v5/chart.md").read_text().splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(COLUMNS)
    assert "| 9,200 ± 265 (3 seeds) | 0.950 (0.884 to 1.016) | 9,000 | 3 of 300 | 60 s |" in best
    assert "1 seed, no interval" in other


def test_the_latex_chart_has_every_row_and_no_bare_special_character(without_pictures):
    write_method("a", [9000.0, 9100.0])
    data = {"path": "a_b&c%.pt", "sha256": "1", "actions": None}
    write_method("b", [9000.0], lr=1e-4, data=data)
    report()
    text = Path("results/HalfCheetah-v5/chart.tex").read_text()
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 2
    for row in body:
        assert row.endswith(r"\\")
        assert len(re.findall(r"(?<!\\)&", row)) == len(COLUMNS) - 1
        assert not re.search(r"(?<!\\)[%#_]|±", row)


def test_the_sentence_names_the_best_method_with_its_interval():
    write_method("a", [9000.0, 9200.0])
    write_method("b", [9300.0], lr=1e-4)
    chart = charts()[0]
    assert chart.sentence() == (
        "With GaussianMixture (lr 0.0001; demonstrations: sampled, 1 episode, 1 pairs) a return of 9,300 was reached "
        "(1 seed, no interval; normalized 0.960)."
    )


def test_from_ten_seeds_on_the_interquartile_mean_is_shown_and_said():
    write_method("a", [-1000.0, *[9000.0] * 9])
    row = charts()[0].best.row
    assert row.normalized == pytest.approx((9000 + 293) / 9993)
    assert row.final_return_mean == 8000
    assert row.notes == "interquartile mean"


def test_a_seed_that_ran_twice_counts_once():
    write_method("a", [9000.0, 9100.0])
    write_method("a", [9200.0])
    row = charts()[0].best.row
    assert row.seeds == 2
    assert row.final_return_mean == 9150                            # seed 0: 9200, the newer
    assert "1 repeated with the same seed" in row.notes


def test_of_runs_with_names_of_ones_own_the_newest_counts():
    for name, score, written in (("zebra", 9000.0, 1000), ("aardvark", 9200.0, 2000), ("3f0c29ab17-0", 9100.0, 1500)):
        folder = write_run(name, score=score).rename(f"lightning_logs/{name}")
        for path in folder.iterdir():
            os.utime(path, (written, written))
    assert charts()[0].best.row.final_return_mean == 9200


@pytest.mark.parametrize(
    "change",
    [
        {"init_from": "checkpoints/clone/best.ckpt"},
        {"rollouts": {"max_episode_steps": 200}},
        {"trainer": {"gradient_clip_val": 0.5}},
        {"trainer": {"callbacks": [{"class_path": "lightning_bc.callbacks.AveragedWeights", "init_args": {"decay": 0.9}}]}},
    ],
    ids=lambda change: str([*change.values()])[:40],
)
def test_what_changes_the_policy_is_another_method(change):
    write_run("plain")
    config = {name: CONFIG[name] | value if isinstance(value, dict) else value for name, value in change.items()}
    write_run("other", config=CONFIG | config)
    assert len(charts()[0].methods) == 2


def test_a_run_of_the_usual_length_is_no_other_method_and_a_longer_one_is():
    """Flow matching's usual length is limited by passes, of which earlier runs say nothing."""
    model = CONFIG["model"] | {"class_path": "lightning_bc.strategies.offline.flow_matching.FlowMatching"}
    trainer = CONFIG["trainer"] | {"max_steps": FlowMatching.default_steps, "max_epochs": -1}
    config = CONFIG | {"model": model, "trainer": trainer}
    for seed, (name, passes) in enumerate({"before": {}, "now": {"max_passes": 500}, "given": {"max_passes": None}}.items()):
        data = {key: value for key, value in config["data"].items() if key != "max_passes"} | passes
        write_run(name, config=config | {"data": data, "seed_everything": seed}, seed=seed)
    assert sorted(len(method.runs) for method in charts()[0].methods) == [1, 2]
    assert ["max_steps" in method.label for method in charts()[0].methods if len(method.runs) == 1] == [True]


@pytest.mark.parametrize("named", ["checkpoints/clone-{}/last.ckpt", "lightning_logs/clone-{}", "clone-{}"])
def test_a_clone_per_seed_makes_one_method(named):
    for seed in range(2):
        path = named.format(seed)
        write_run(f"improved-{seed}", config=CONFIG | {"init_from": path, "seed_everything": seed}, seed=seed)
    assert [len(method.runs) for method in charts()[0].methods] == [2]


def test_other_data_are_another_row_and_labels_say_what_differs():
    data = {"path": "x.pt", "sha256": "0", "training_pairs": 1000, "actions": "sampled"}
    write_method("a", [1.0], data=data)
    write_method("a", [2.0], data=data | {"sha256": "1", "actions": "deterministic"})
    write_method("a", [3.0], data=data, lr=1e-4)
    labels = {method.label for method in charts()[0].methods}
    assert labels == {"GaussianMixture, sampled", "GaussianMixture, deterministic", "GaussianMixture, sampled, lr 0.0001"}


def test_probability_of_improvement_is_between_methods_of_several_seeds(without_pictures):
    write_method("a", [9000.0, 9100.0])
    write_method("b", [9050.0, 9100.0], lr=1e-4)
    write_method("c", [9999.0], lr=1e-5)
    report()
    table = {(row["method"], row["over"]): float(row["probability"]) for row in rows(table="improvement")}
    first, second = "GaussianMixture", "GaussianMixture, lr 0.0001"
    assert table == {(second, first): 0.625, (first, second): 0.375}
    written = Path("results/report.md").read_text()
    assert "0.62 (0.17 to 0.93)" in written
    assert "0.38 (0.07 to 0.83)" in written                         # the other direction, its interval mirrored


def test_metrics_of_one_environment_are_means_over_runs():
    runs = [
        SimpleNamespace(results=SimpleNamespace(sampled_metrics={"success": share}, environment_id="Gates-v0"))
        for share in (0.2, 0.6)
    ]
    assert Method("MSE", {}, (), tuple(runs)).special["sampled_success"] == pytest.approx(0.4)


# Parameters


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--config configs/mse.yaml", {}),
        ("--config configs/gmm.yaml --rollouts.eval_freq 7 --seed_everything 3 --trainer.accelerator cpu", {}),
        ("--config configs/mse.yaml --model.optimizer.lr 1e-4 --data.batch_size 1000", {"lr": 1e-4, "batch_size": 1000}),
        (
            "--config configs/mse.yaml --model.network ResidualMLP --model.network.width 512",
            {"network": "ResidualMLP", "width": 512},
        ),
        ("--config configs/mse.yaml --model.optimizer AdamW --model.optimizer.lr 1e-4", {"lr": 1e-4}),
        ("--config configs/mse.yaml --trainer.max_epochs 3", {"max_epochs": 3}),
        ("--config configs/mse.yaml --trainer.max_epochs -1 --trainer.max_steps 9", {"max_steps": 9}),
        (
            "--config configs/gail.yaml --trainer.max_epochs -1",
            {"hidden_sizes": [256, 256], "initial_scale": 1.0, "total_environment_steps": 100_000},
        ),
        (
            "--config configs/dagger.yaml --trainer.callbacks.rounds 5 --trainer.max_epochs -1",
            {"max_steps": 10_000, "expert": "checkpoints/experts/HalfCheetah-v5.pt", "rounds": 5},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parameters_are_those_that_differ_from_the_defaults(flags, expected, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(SystemExit):
        main(["fit", *flags.split(), "--print_config"])
    config = yaml.safe_load(capsys.readouterr().out)
    if config["trainer"]["max_epochs"] is None:                     # as a run's own configuration has it
        config["trainer"] |= {"max_epochs": -1, "max_steps": Strategy.default_steps}
    assert changed_parameters(config) == expected


def test_nothing_that_a_configuration_names_is_imported():
    config = json.loads(json.dumps(CONFIG))
    config["model"] = {"class_path": "antigravity.Strategy", "init_args": {"size": 3}}
    assert changed_parameters(config) == {"size": 3}
    assert "antigravity" not in sys.modules


def test_callbacks_that_do_not_teach_do_not_make_another_method():
    config = json.loads(json.dumps(CONFIG))
    config["trainer"]["callbacks"] = [
        {"class_path": "lightning.pytorch.callbacks.LearningRateMonitor", "init_args": {"log_momentum": False}},
        {"class_path": "antigravity.Callback", "init_args": {"size": 3}},
    ]
    write_run("a", 0)
    write_run("a", 1, config=config)
    assert [(method.label, len(method.runs)) for method in charts()[0].methods] == [("GaussianMixture", 2)]
    dagger = {"class_path": "lightning_bc.callbacks.DAgger", "init_args": {"expert": "a.pt", "rounds": 10}}
    config["trainer"]["callbacks"] = [dagger]
    write_run("a", 2, config=config)
    labels = {method.label for method in charts()[0].methods}
    assert labels == {"GaussianMixture", "GaussianMixture with DAgger"}


# Curves


def test_the_band_is_over_runs_on_a_common_axis():
    for seed in range(3):
        write_run("a", seed, points=20)
    method = charts()[0].methods[0]
    curve = band(method, "optimizer_steps")
    assert curve.x.tolist() == list(range(0, 200, 10))
    np.testing.assert_allclose(curve.center, np.mean([run.curve[RETURN] for run in method.runs], axis=0))
    half = 4.302653 * curve.runs.std(axis=0, ddof=1) / 3**0.5                       # Student's t with 2 degrees of freedom
    np.testing.assert_allclose(curve.interval[0], curve.runs.mean(axis=0) - half, rtol=1e-5)
    by_time = band(method, "seconds")
    ends = [run.curve["seconds"][-1] for run in method.runs]
    assert max(ends) > min(ends) == by_time.x[-1]
    by_queries = band(method, "expert_queries")
    assert by_queries.x.tolist() == [0]
    assert by_queries.center == pytest.approx(curve.center[-1])     # what it reached without any


# What is written


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_gives_pictures_tables_and_a_page(axis):
    write_method("a", [9000.0, 9100.0])
    write_method("b", [9050.0], lr=1e-4)
    report("--x", axis)
    names = {str(path.relative_to("results")) for path in Path("results").rglob("*") if path.is_file()}
    assert names == {
        "report.md",
        "report.html",
        *(f"HalfCheetah-v5/{name}" for name in ("chart.md", "chart.csv", "chart.tex", "curves.svg")),
        "HalfCheetah-v5/curves-GaussianMixture.svg",
        "HalfCheetah-v5/curves-GaussianMixture-lr-0.0001.svg",
    }
    for target in re.findall(r"\]\(([^)]+)\)", Path("results/report.md").read_text()):
        assert Path("results", target).is_file()


def test_the_page_needs_no_network_and_links_to_each_runs_configuration():
    write_method("a", [9000.0, 9100.0])
    report()
    page = Path("results/report.html").read_text()
    assert not re.search(r"<(?:script|img|link)[^>]+(?:src|href)=[\"'](?:https?:)?//", page)
    targets = re.findall(r'<a href="([^"]+config.yaml)"', page)
    assert len(targets) == 2
    for target in targets:
        assert yaml.safe_load(Path("results", unquote(target)).read_text())["model"] == CONFIG["model"]
    for run in Path("lightning_logs").iterdir():
        assert f"python -m lightning_bc fit --config {run}/config.yaml" in page


def test_the_browser_runs_the_pages_own_scripts_alone():
    """The policy names a number that each script of the page bears, and that no run could know."""
    write_method("a", [9000.0, 9100.0])
    numbers = []
    for _ in range(2):
        report()
        page = Path("results/report.html").read_text()
        policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', page)[1]
        numbers.append(re.search(r"script-src 'nonce-([\w-]{20,})'", policy)[1])
        assert policy.startswith("default-src 'none';")
        scripts = re.compile(rf'<script nonce="{numbers[-1]}">.*?</script>', re.DOTALL)
        assert len(scripts.findall(page)) >= 3                      # the library, the curves, the buttons
        assert "<script" not in scripts.sub("", page)
    assert numbers[0] != numbers[1]


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the path")
def test_the_page_renders_in_a_browser(tmp_path):
    write_method("a", [9000.0, 9100.0])
    write_method("b", [9050.0, 9060.0], lr=1e-4)
    write_run("p", environment_id="Hopper-v5")
    report()
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    page = f"file://{tmp_path / 'results' / 'report.html'}"
    command += ["--virtual-time-budget=20000", "--dump-dom", page]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    legend = re.findall(r'<button type="button" aria-pressed="true"[^>]*><svg.*?</svg>([^<]+)<', rendered)
    assert {"GaussianMixture", "GaussianMixture, lr 0.0001"} <= set(legend)
    assert rendered.count('class="main-svg"') >= 2
    assert len(re.findall(r'class="js-line"', rendered)) >= 3
    assert "normalized (random 0, expert 1)" in rendered


def test_a_later_report_takes_the_place_of_the_earlier_and_leaves_other_files(capsys):
    write_method("a", [9000.0])
    report()
    Path("results/mine.txt").write_text("mine")
    write_method("a", [9500.0])
    report()
    assert float(rows()[0]["final_return_mean"]) == 9500
    assert Path("results/mine.txt").read_text() == "mine"
    assert {path.name for path in Path().iterdir()} == {"lightning_logs", "results"}


# Several environments and experts


def test_each_environment_has_a_chart(without_pictures):
    write_method("a", [9000.0, 9100.0])
    write_method("b", [2000.0], environment_id="Hopper-v5")
    report()
    assert len(rows("HalfCheetah-v5")) == len(rows("Hopper-v5")) == 1
    assert re.findall("^## (.+)$", Path("results/report.md").read_text(), re.MULTILINE) == ["HalfCheetah-v5", "Hopper-v5"]


def test_results_against_different_experts_are_not_compared(without_pictures):
    against = {"random_return": -293.0, "expert_source": "made up"}
    write_method("a", [9000.0], references=against | {"expert_return": 9700.0})
    write_method("b", [9001.0], references=against | {"expert_return": 9701.0}, lr=1e-4)   # the same, on another machine
    write_method("c", [9002.0], references=against | {"expert_return": 12000.0}, lr=1e-5)
    write_method("d", [9003.0], references=against | {"expert_return": None}, normalized=None, failed_episodes=None)
    report()
    found = {chart.name: len(chart.methods) for chart in charts()}
    assert found == {
        "HalfCheetah-v5, expert return 12000": 1,
        "HalfCheetah-v5, expert return 9700": 2,
        "HalfCheetah-v5 without expert": 1,
    }
    assert "no expert" in Path("results/HalfCheetah-v5-without-expert/chart.md").read_text()
    assert rows("HalfCheetah-v5-without-expert")[0]["normalized"] == ""


# Bad input


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_info:
        main(["report", *arguments])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    return error


def test_an_empty_or_missing_folder_is_refused(capsys):
    assert "nowhere: no such folder" in refused(capsys, "nowhere", "--output", "results")
    Path("empty").mkdir()
    error = refused(capsys, "empty", "--output", "results")
    assert "empty: holds no finished run" in error
    assert "python -m lightning_bc fit" in error
    write_method("a", [1.0])
    Path("file").write_text("mine")
    assert "--output file: is a file" in refused(capsys, "lightning_logs", "--output", "file")
    assert "optimizer_steps" in refused(capsys, "lightning_logs", "--x", "steps")
    assert not Path("results").exists()


def test_an_unfinished_run_is_marked_and_not_counted(capsys):
    write_method("a", [9000.0, 9100.0])
    folder = write_run("a", seed=2, score=0.0)
    (folder / "results.json").unlink()
    report()
    assert rows()[0]["seeds"] == "2"
    assert rows()[0]["notes"] == "1 unfinished, not counted"
    assert f"{folder}: unfinished" in capsys.readouterr().err
    for page in ("report.md", "report.html"):
        assert str(folder) in Path("results", page).read_text()


def write_return(path, text):
    """Put it in the place of the second point's return."""
    names, rows = parse_csv(path.read_text())
    rows[1][names.index(RETURN)] = text
    path.write_text(csv_text(names, rows))


@pytest.mark.parametrize(
    "breaking",
    [
        lambda path: path.write_text(path.read_text().replace("40,40", "40,4\0")),
        lambda path: path.write_text("\n".join(path.read_text().split("\n")[:-2]) + "\n"),
        lambda path: path.write_text("this is no curve at all\n"),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text(""),
        lambda path: write_return(path, "inf"),
        lambda path: write_return(path, ""),
        Path.unlink,
    ],
    ids=["damaged", "ends early", "other", "no text", "empty", "not finite", "without a number", "missing"],
)
def test_a_run_with_a_broken_curve_is_named_and_its_score_still_counts(breaking):
    write_method("a", [9000.0, 9100.0])
    path = write_run("a", seed=2, score=9200.0) / CURVE_FILE
    breaking(path)
    records, _, broken = read_records(Path("lightning_logs"))
    assert list(broken) == [str(path)]
    method = make_charts(records)[0].best
    assert method.row.seeds == 3
    assert method.notes == ("1 without a readable curve",)
    assert len(band(method, "optimizer_steps").runs) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": None}, "model is None"),
        ({"model": {}}, "model lacks its class_path"),
        ({"data": 3}, "data is 3"),
        ({"trainer": "fast"}, "trainer is 'fast'"),
    ],
)
def test_a_configuration_of_another_form_is_named_and_the_rest_goes_on(changes, words):
    write_method("a", [9000.0])
    write_yaml(path := write_run("a", seed=1) / "config.yaml", CONFIG | changes)
    records, _, broken = read_records(Path("lightning_logs"))
    assert words in broken[str(path)]
    assert make_charts(records)[0].best.row.seeds == 1


def test_a_name_that_looks_like_one_with_a_time_is_a_name(without_pictures):
    write_run("a").rename("lightning_logs/mine-20261399T999999-abcd")
    report()
    assert rows()[0]["seeds"] == "1"


def test_no_two_pictures_are_one_file():
    for number, width in enumerate((1, 2, 3)):
        network = {"class_path": "lightning_bc.networks.MLP", "init_args": {"hidden_sizes": [512] * 30 + [width]}}
        arguments = CONFIG["model"]["init_args"] | {"network": network}
        write_run("a", number, config=CONFIG | {"model": CONFIG["model"] | {"init_args": arguments}})
    report()
    assert len(list(Path("results/HalfCheetah-v5").glob("curves-*.svg"))) == 3


@pytest.mark.parametrize("name", ["one/Hopper-v5", "hopper-v5"])
def test_no_two_charts_are_one_folder(name, without_pictures):
    write_run("a", environment_id=name)
    write_run("a", environment_id=name.replace("/", "-").replace("h", "H"))
    report()
    assert len(list(Path("results").glob("*/chart.csv"))) == 2


def test_charts_of_one_environment_whose_random_returns_alone_differ_have_names_of_their_own():
    for random in (0.0, 5.0):
        write_run("a", references={"random_return": random, "expert_return": 10.0, "expert_source": ""})
    names = [chart.name for chart in charts()]
    assert names == ["HalfCheetah-v5, expert return 10", "HalfCheetah-v5, expert return 10 (2)"]


def test_a_line_break_in_a_parameter_ends_no_row(without_pictures):
    network = {"class_path": "mine.Net", "init_args": {"note": "a\nb"}}
    arguments = CONFIG["model"]["init_args"] | {"network": network}
    write_run("a", 0, config=CONFIG | {"model": CONFIG["model"] | {"init_args": arguments}})
    write_run("a", 1)
    report()
    assert len(Path("results/HalfCheetah-v5/chart.md").read_text().splitlines()) == 4
    assert "note a b" in Path("results/HalfCheetah-v5/chart.tex").read_text()


def test_the_command_of_a_run_with_a_space_in_its_name_can_be_pasted():
    write_run("a").rename("lightning_logs/my run")
    report()
    assert "fit --config &#39;lightning_logs/my run/config.yaml&#39;</code>" in Path("results/report.html").read_text()


def test_a_broken_run_of_a_study_is_named(capsys, without_pictures):
    Path("study.yaml").write_text("seeds: 2\nrows: {a: --model GaussianMixture}\n")
    good, bad = Study.read("study.yaml").fits
    write_run("a", good.seed).rename(Path("lightning_logs", good.name))
    (write_run("a", bad.seed) / "results.json").write_text("{")
    write_run("a", bad.seed).rename(Path("lightning_logs", bad.name))
    Path("lightning_logs", bad.name, "results.json").write_text("{")
    report("--study", "study.yaml")
    error = capsys.readouterr().err
    assert f"lightning_logs/{bad.name}/results.json: cannot be read" in error
    assert error.count("cannot be read") == 1


def test_references_of_another_environment_are_named(without_pictures, capsys):
    write_run("a")
    entry = {"given": "mine.pt", "environment_id": "Hopper-v5", "step": None, "returns": [1.0, 2.0], "references": None}
    write_json("mine.json", {"evaluations": [entry]})
    report("--references", "[mine.json]")
    assert "--references mine.pt: is not drawn, for no run has played in Hopper-v5" in capsys.readouterr().err


def test_runs_of_a_search_alone_make_no_report(capsys):
    write_run("a", 0, config=CONFIG | {"search": "mine"})
    assert "lightning_logs: holds runs of a search alone" in refused(capsys, "lightning_logs", "--output", "results")
    assert not Path("results").exists()


def test_a_run_whose_latency_is_not_known_has_none(without_pictures):
    write_run("a", action_latency_ms={})
    report()
    assert rows()[0]["action_latency_ms"] == ""


@pytest.mark.parametrize("file", ["results.json", "config.yaml"])
@pytest.mark.parametrize("content", ["{", "", "[]", "{}", '{"score": "high"}', "\0"])
def test_a_broken_file_is_named_and_the_rest_goes_on(file, content):
    write_method("a", [9000.0])
    path = write_run("a", seed=1) / file
    path.write_text(content)
    records, _, broken = read_records(Path("lightning_logs"))
    assert list(broken) == [str(path)]
    assert make_charts(records)[0].best.row.seeds == 1


def test_results_that_lack_a_key_name_it_and_the_report_says_so(capsys):
    write_method("a", [9000.0])
    path = write_run("a", seed=1) / "results.json"
    path.write_text(json.dumps({key: value for key, value in json_to_edit(path).items() if key != "score"}))
    report()
    assert f"{path}: lacks score" in capsys.readouterr().err
    for page in ("report.md", "report.html"):
        assert str(path) in Path("results", page).read_text()


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys):
    write_method("a", [9000.0])
    for module in ("report", "page"):
        monkeypatch.delitem(sys.modules, f"lightning_bc.report.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    assert "pip install 'lightning_bc[report]'" in refused(capsys, "lightning_logs")


# Real runs


def test_real_runs_are_reported_and_fill_tensorboards_tabs():
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    budget = "--trainer.max_steps 4 --rollouts.eval_freq 2 --rollouts.episodes 2 --data.batch_size 16"
    data = write_pendulum("small.pt")
    for seed in "01":
        main(["fit", "--model", "MSE", "--data.path", data, *budget.split(), "--seed_everything", seed])
    report()
    row = rows("InvertedPendulum-v5")[0]
    assert (row["method"], row["parameters"], row["seeds"]) == ("MSE", "max_steps 4, batch_size 16", "2")
    scores = [json.loads(path.read_text())["score"] for path in Path().glob("lightning_logs/*/results.json")]
    assert float(row["final_return_mean"]) == pytest.approx(np.mean(scores))
    assert band(charts()[0].methods[0], "optimizer_steps").x.tolist() == [0, 2, 4]

    events = EventAccumulator(str(next(Path("lightning_logs").iterdir()))).Reload()
    start = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    assert start.session_start_info.hparams["data.batch_size"].number_value == 16
    assert start.session_start_info.hparams["model.class_path"].string_value.endswith("MSE")
    shown = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/experiment"])
    assert {metric.name.tag for metric in shown.experiment.metric_infos} <= set(events.Tags()["scalars"])
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert list(layout.category[0].chart[0].multiline.tag) == [RETURN]
    assert len(events.Scalars(RETURN)) == 3                         # the tabs add no point to the curve
