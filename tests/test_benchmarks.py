"""``python -m benchmarks`` runs and writes its tables; what it measures is no test."""

import math
import re
import shutil

import gymnasium
import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from benchmarks import __main__ as benchmarks
from benchmarks import imitation

PAGE = REPOSITORY / "docs" / "benchmarks.md"


def test_the_page_has_a_place_for_each_part():
    assert set(re.findall(r"<!-- measured: (\w+) -->", PAGE.read_text())) == set(benchmarks.PARTS)


@pytest.mark.parametrize("part", ["training", "playing", "latency", "protocol", "physics", "collection"])
def test_a_part_writes_its_table(part, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gymnasium.registry["HalfCheetah-v5"], "max_episode_steps", 20)
    page = tmp_path / "page.md"
    shutil.copy(PAGE, page)
    benchmarks.main([part, "--quick", "--output", str(page)])
    written = page.read_text().split(f"<!-- measured: {part} -->")[1].split("<!-- end -->")[0]
    ratios = [float(ratio) for ratio in re.findall(r"\*\*([\d.]+)\*\*", written)]
    assert ratios
    assert all(math.isfinite(ratio) for ratio in ratios)
    assert "torch" in written
    assert written.strip().splitlines()[-1] in capsys.readouterr().out


def test_imitations_policy_is_played_as_torch_plays_it():
    layers = torch.nn.Linear(3, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
    network = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    weights = [tensor.detach().numpy() for layer in layers for tensor in (layer.weight, layer.bias)]
    observations = torch.randn(50, 3)
    found = imitation.Clone(weights, np.full(2, -0.1), np.full(2, 0.2)).answer(observations.numpy())
    torch.testing.assert_close(torch.from_numpy(found), network(observations).detach().clamp(-0.1, 0.2))


def test_the_first_point_that_returns_what_is_wanted():
    points = [(1.0, 5.0), (2.0, 9.0), (3.0, 8.0)]
    assert [imitation.first(points, wanted) for wanted in (5.0, 6.0, 10.0)] == [1.0, 2.0, 3.0]


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        benchmarks.main(["everything"])
    assert end.value.code == 2
    assert "everything: no such part; there are training," in capsys.readouterr().err
