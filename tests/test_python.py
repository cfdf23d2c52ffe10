"""The examples of docs/python.md run as they stand there, one after another, in one working directory."""

import re

import gymnasium
from conftest import REPOSITORY

import lightning_bc

PAGE = (REPOSITORY / "docs" / "python.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_examples_run_and_the_clone_balances_as_its_expert(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gymnasium.spec("InvertedPendulum-v5"), "max_episode_steps", 60)
    names = {}
    for example in EXAMPLES:
        exec(example, names)
    assert names["result"].mean == 60                               # the function balances until the end
    assert names["curve"].last_return == 60
    assert [names[name].shape for name in ("one", "many")] == [(1,), (10, 1)]
    assert names["ended"]
    printed = capsys.readouterr().out
    assert "normalized 1.000, failed episodes 0% (100 test-bank episodes, deterministic actions)" in printed


def test_training_takes_about_ten_lines():
    train = next(example for example in EXAMPLES if "Trainer(" in example)
    assert len([line for line in train.splitlines() if line]) <= 10


def test_the_page_names_what_there_is():
    promised = PAGE.partition("## ")[0]
    named = set(re.findall(r"`(\w+)`", promised)) - {"lightning_bc"}
    assert named <= set(lightning_bc.__all__)
    assert set(lightning_bc.__all__) - named == {"Evaluation", "Policy", "Trajectories", "__version__", "versions"}
