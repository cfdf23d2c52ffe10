"""What every picture shares: a colour for each strategy, dashes for its variants, and the square-root axis."""

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

COLOURS = {
    "ACT": "#70a078",
    "AIRL": "#fe45b8",
    "Autoregressive": "#0ba847",
    "Diffusion": "#c61f06",
    "Ensemble": "#ac53b2",
    "FlowMatching": "#8140c8",
    "GAIL": "#184bff",
    "Gaussian": "#fd5f2c",
    "GaussianMixture": "#349ac4",
    "GaussianProcess": "#8a754e",
    "IQLearn": "#16698a",
    "MIP": "#6070d8",
    "MSE": "#067123",
    "MeanFlow": "#905058",
    "SAC": "#bb70fb",
    "TD3": "#aa7288",
    "VAE": "#bf0883",
}
"""A colour for each strategy, the same in every picture.

Each pair is apart for readers with normal vision and without red or green cones, and each colour is readable on white and on
GitHub's dark background; tests/test_styles.py says by how much. They were found by search for the largest smallest distance.
"""

GREY = "#7a7a7a"
"""Of text and lines: as readable on white as on a dark background."""

GREYS = ("#7a7a7a", "#5f6b76", "#9a8f85")
"""Of policies that were trained elsewhere: colours are for what is compared."""

DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 2),
    (1.5, 1.5),
    (7, 2, 1.5, 2),
    (3, 1.5),
    (7, 2, 1.5, 2, 1.5, 2),
    (9, 3),
)
"""Lengths of line and gap in widths of the line; solid is first."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""In place of dashes, where a method is a point."""

STYLE: Any = {
    "font.size": 9,
    "text.color": GREY,
    "text.parse_math": False,                                       # a name with a $ in it is no formula
    "axes.labelcolor": GREY,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,                                             # else each drawing measures all ticks for its place
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": GREY,
    "grid.alpha": 0.2,
    "lines.scale_dashes": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.hashsalt": "lightning_bc",                                 # the same curves give the same file
}


def colour_of(strategy: str) -> str:
    """The colour of a strategy, whatever teaches it beside; one that is not known here has one by its name."""
    name = strategy.split(" with ")[0]
    return COLOURS.get(name) or list(COLOURS.values())[zlib.crc32(name.encode()) % len(COLOURS)]


def variants(strategies: Sequence[str]) -> list[int]:
    """Numbers that tell those of one colour apart, by which dashes or markers are chosen: 0 for the first of each colour."""
    counts: Counter[str] = Counter()
    found = []
    for strategy in strategies:
        colour = colour_of(strategy)
        found.append(counts[colour] % len(DASHES))
        counts[colour] += 1
    return found


# The square-root axis, on which the first tenth of a curve takes 32% of its width


def root(x: Any) -> Any:
    """Where a value lies on the axis."""
    return np.sign(x) * np.sqrt(np.abs(x))


def unroot(place: Any) -> Any:
    """The value at a place of the axis."""
    return np.sign(place) * np.square(place)


def root_ticks(limit: float) -> list[float]:
    """Round values from 0 to ``limit``, about evenly spaced on the axis."""
    ticks = [0.0]
    for value in limit * np.linspace(0, 1, 6)[1:] ** 2:
        tick = float(f"{value:.0e}")
        apart = root(tick) - root(ticks[-1]) >= 0.17 * root(limit)
        if apart and tick <= limit and (limit < 2 or tick == int(tick)):
            ticks.append(tick)
    return ticks
