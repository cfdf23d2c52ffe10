"""``python -m benchmarks`` runs and writes its tables; what it measures is no test."""

import math
import re
import shutil

import gymnasium
import pytest
from conftest import REPOSITORY

from benchmarks import __main__ as benchmarks

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


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit) as end:
        benchmarks.main(["everything"])
    assert end.value.code == 2
    assert "everything: no such part; there are training," in capsys.readouterr().err
