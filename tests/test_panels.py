"""The report's pictures: which methods share one, which scores are joined, and what a hostile name does to them."""

import json
from pathlib import Path

import pytest
from test_report import CONFIG, charts, report, rows, write_run

from lightning_bc.report.labels import distinguishing, in_words
from lightning_bc.report.panels import CURVES, make_panels
from lightning_bc.report.scores import Point, demonstrations_points, draw_scores


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(strategy, score, episodes=100, actions="deterministic", lr=3e-3, **results):
    """A made-up run of one strategy on so many episodes."""
    config = json.loads(json.dumps(CONFIG))
    config["model"]["class_path"] = f"lightning_bc.strategies.{strategy}"
    data = {"sha256": f"{episodes}{actions}", "training_pairs": 1000 * episodes, "training_episodes": episodes}
    normalized = (score + 293) / 9993
    scores = {"score": score, "normalized": normalized}
    write_run(strategy, config=config, lr=lr, data=data | {"actions": actions}, **scores, **results)


def test_methods_are_shown_by_what_they_learn_from():
    write("MSE", 9000.0)
    write("Gaussian", 9100.0)
    write("MSE", 8000.0, actions="sampled")
    write("MSE", 500.0, episodes=1)
    write("VAE", 700.0, episodes=4)
    write("GAIL", 9800.0, episodes=1, environment_steps=100)
    panels = {panel.title: panel.names for panel in make_panels(charts()[0])}
    assert panels == {
        "All demonstrations: 100 episodes, deterministic actions": ("Gaussian", "MSE"),
        "All demonstrations: 100 episodes, sampled actions": ("MSE",),
        "Fewer demonstrations: 1 to 4 episodes, deterministic actions": ("VAE", "MSE"),
        "Acting in the environment or querying an expert": ("GAIL",),
    }


def test_no_panel_has_more_curves_than_can_be_followed_and_none_is_lost():
    for number in range(2 * CURVES + 1):
        write("MSE", 9000.0 + number, lr=1e-4 * (1 + number))
    first, second, third = make_panels(charts()[0])
    assert [len(panel.methods) for panel in (first, second, third)] == [7, 7, 1]
    assert first.title == "All demonstrations: 100 episodes, deterministic actions, ranks 1 to 7"
    assert [method.score for method in (*first.methods, *second.methods, *third.methods)] == [
        9000.0 + number for number in reversed(range(2 * CURVES + 1))
    ]


def test_the_chart_has_the_parameters_that_tell_its_rows_apart_and_its_csv_all():
    found = distinguishing(
        ["MSE", "MSE", "GAIL"], [{"lr": 1e-3, "width": 5, "expert": "a/x.pt"}, {"width": 5, "expert": "b/y.pt"}, {"lr": 1}]
    )
    assert found == [{"lr": 1e-3, "expert": "a/x.pt"}, {"expert": "b/y.pt"}, {}]
    assert in_words(found[0]) == {"lr": "lr 0.001", "expert": "expert x.pt"}
    write("MSE", 9000.0, lr=1e-4)
    write("GAIL", 8000.0, lr=1e-4, environment_steps=100)
    report()
    assert "lr 0.0001" in rows()[0]["parameters"]
    assert "lr 0.0001" not in Path("results/HalfCheetah-v5/chart.md").read_text()
    assert "lr 0.0001" in Path("results/report.html").read_text()  # every run
    wanted = "With MSE (demonstrations: deterministic, 100 episodes, 100,000 pairs) a return"
    assert charts()[0].sentence().startswith(wanted)


def test_scores_of_one_method_on_more_and_fewer_demonstrations_are_joined():
    write("MSE", 9000.0)
    write("MSE", 500.0, episodes=1)
    write("MSE", 8500.0, lr=1e-4)                                   # other parameters: another line, of one point
    write("GAIL", 9800.0, episodes=1, environment_steps=100, training_seconds=900.0)
    points = demonstrations_points(charts()[0])
    assert {(point.name, point.x) for point in points} == {("MSE", 1e5), ("MSE", 1e3), ("GAIL", 1e3)}
    report()
    assert {path.name for path in Path("results/HalfCheetah-v5").glob("scores-*")} == {
        "scores-demonstrations.svg",
        "scores-time.svg",
    }


def test_a_picture_of_scores_needs_two_points_apart(capsys):
    path = Path("scores.svg")
    alone = [Point("a", "MSE", 10.0, 0.5), Point("b", "GAIL", 10.0, 0.9), Point("c", "GAIL", 0.0, 0.9)]
    assert not draw_scores(path, alone, "title", "pairs", "score", 1.0)
    assert not path.exists()
    assert draw_scores(path, [*alone, Point("a", "MSE", 20.0, -0.5, -0.6, -0.4)], "title", "pairs", "score", None)
    assert path.read_text().startswith("<?xml")
    write("MSE", 9000.0)
    report()
    assert "no picture of the score against demonstrations" in capsys.readouterr().err
    assert "scores-" not in Path("results/report.md").read_text()


def test_names_from_outside_are_text_in_every_picture():
    hostile = "<img src=x onerror=alert(1)>$\\frac%{y}</script>"
    write("MSE", 9000.0, actions=hostile)
    write("MSE", 8000.0, environment_id=f"{hostile}-v0")
    write("MSE", 8000.0, actions=hostile, lr=1e-4)
    write(hostile, 8000.0)
    report()
    page = Path("results/report.html").read_text()
    assert "<img src=x" not in page
    assert "<img src=x".replace("<", "\\u003c") not in page         # plotly reads tags in the texts it is given
    assert "alert(1)" in page
    assert "%{y}</" not in page
