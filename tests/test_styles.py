"""Colours, dashes and places that pictures of the report share."""

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("plotly")

from lightning_bc.report.end_labels import spread
from lightning_bc.report.styles import COLOURS, DASHES, GREY, GREYS, colour_of, root, root_ticks, unroot, variants
from lightning_bc.strategies import strategies

SEEN = {                                                            # Machado 2009, severity 1, on linear RGB
    "all cones": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def linear(colour):
    encoded = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Ottosson 2020, https://bottosson.github.io/posts/oklab/."""
    cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    opponents = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(opponents) @ np.cbrt(np.array(cones) @ rgb)


def contrast(colour, other):
    """WCAG 2.1."""
    low, high = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) + 0.05 for each in (colour, other))
    return high / low


@pytest.mark.parametrize(("eyes", "smallest"), [("all cones", 0.1), ("no red cones", 0.052), ("no green cones", 0.052)])
def test_each_two_colours_are_apart_for_every_reader(eyes, smallest):
    seen = [oklab(np.clip(np.array(SEEN[eyes]) @ linear(colour), 0, 1)) for colour in COLOURS.values()]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) >= smallest


@pytest.mark.parametrize("background", ["#ffffff", "#0d1117"])
def test_lines_and_text_are_readable_in_light_and_dark(background):
    assert min(contrast(colour, background) for colour in (*COLOURS.values(), *GREYS)) >= 3
    assert contrast(GREY, background) >= 4.2


def test_every_strategy_has_a_colour_that_its_teacher_does_not_change():
    ours = {name for name, cls in strategies().items() if cls.__module__.startswith("lightning_bc.")}
    assert ours == set(COLOURS)
    assert colour_of("MSE with DAgger") == colour_of("MSE")
    assert colour_of("SomebodysOwn") == colour_of("SomebodysOwn") in COLOURS.values()


def test_variants_of_one_colour_differ_by_their_dashes():
    assert variants(["GAIL", "MSE", "GAIL", "MSE with DAgger", "SAC"]) == [0, 0, 1, 1, 0]
    assert len(set(DASHES)) == len(DASHES) == 7


@pytest.mark.parametrize("limit", [0.3, 1.0, 4, 40, 1163, 14_256, 400_000, 2.5e6])
def test_ticks_are_round_and_apart(limit):
    ticks = root_ticks(limit)
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 6
    assert 0.25 * limit <= ticks[-1] <= limit
    assert np.diff(root(ticks)).min() >= 0.17 * root(limit)
    np.testing.assert_allclose(unroot(root(np.array([-4.0, 0.0, 9.0]))), [-4, 0, 9])
    assert root(0.1 * limit) / root(limit) == pytest.approx(0.316, abs=1e-3)


def test_names_are_moved_no_further_than_it_takes():
    assert spread(np.array([0.2, 0.5]), np.array([0.1, 0.1])) == pytest.approx([0.2, 0.5])
    assert spread(np.array([0.5, 0.5, 0.8]), np.full(3, 0.1)) == pytest.approx([0.45, 0.55, 0.8])
    assert spread(np.full(3, 1.0), np.array([0.1, 0.2, 0.1])) == pytest.approx([0.65, 0.8, 0.95])
    many = spread(np.full(12, 0.5), np.full(12, 0.1))
    assert many[0] == pytest.approx(0.05)
    assert np.diff(many) == pytest.approx(np.full(11, 0.1))
