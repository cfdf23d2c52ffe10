"""Did the demonstrator always answer an observation alike? An estimate from its observations and actions alone.

    1. Where observations repeat, their actions are compared.
    2. Else by the Gamma test (Stefansson, Koncar & Jones 1997, https://doi.org/10.1007/BF01413858): over pairs i and their
       k-th nearest neighbours j, gamma_k = (1/2) mean |a_j - a_i|^2 is regressed on delta_k = mean |o_j - o_i|^2 for
       k = 1 ... K. Where delta is 0 the line has the variance of the noise; gamma_1 bounds that variance from above.

In many dimensions neighbours lie too far apart for the second, and then it cannot be told. Neither can it where few of the
pairs i make up most of gamma: noise is at all pairs, and the steps of a deterministic expert (an angle's end) at few.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_bc.demonstrations.quality import copied_episodes, groups_of_equal
from lightning_bc.demonstrations.trajectories import Trajectories

NEIGHBOURS = 8
QUERIES = 400
MOST_ROWS = 50_000
"""Among as many pairs, drawn at random, neighbours are looked for: enough, and a second's work."""

FEWEST_REPEATED = 20
FEWEST_PAIRS = 200

NEAR = 0.05
"""Mean squared distance of nearest neighbours, over that of two pairs drawn at random, below which a slope can be seen."""

QUIET = 0.1
"""Noise below this part of the actions' standard deviation passes for none."""


@dataclass(frozen=True)
class Noise:
    """What is known of the demonstrator's noise.

    Attributes:
        verdict: "deterministic", "noisy" or "unknown".
        share: standard deviation of the noise over that of the actions; a bound of it where they are deterministic; NaN
            where nothing is known.
        how: the estimate in words, or why there is none.
    """

    verdict: Literal["deterministic", "noisy", "unknown"]
    share: float
    how: str


def action_noise(made: Trajectories, copies: Sequence[int] | None = None) -> Noise:
    """Estimate the demonstrator's noise, from the file's numbers alone.

    Args:
        made: the demonstrations.
        copies: numbers of the episodes that equal an earlier one, where they are known already.
    """
    rows = _rows_without(made, copied_episodes(made) if copies is None else copies)
    observations, actions = made.observations[rows].double(), made.actions[rows].double()
    variance = float(actions.var(dim=0, correction=0).sum())
    if variance == 0:
        return Noise("deterministic", 0.0, "all actions are equal")
    from_repeats = _from_repeats(groups_of_equal(made.observations[rows]), actions, variance)
    if from_repeats is not None:
        return from_repeats
    return _from_neighbours(observations, actions, variance)


def _rows_without(made: Trajectories, copies: Sequence[int]) -> Tensor:
    """The rows of all episodes that are no ``copies``: a copy repeats its noise too."""
    kept = torch.ones(len(made), dtype=torch.bool)
    for episode in copies:
        start = int(made.starts[episode])
        kept[start : start + int(made.lengths[episode])] = False
    return kept.nonzero()[:, 0]


def _from_repeats(groups: Tensor, actions: Tensor, variance: float) -> Noise | None:
    """From the actions of equal observations; None where few repeat."""
    counts = groups.bincount()
    repeated = counts[groups] > 1
    number, different = int(repeated.sum()), int((counts > 1).sum())
    if number < FEWEST_REPEATED:
        return None
    sums = torch.zeros(len(counts), actions.shape[1], dtype=actions.dtype).index_add_(0, groups, actions)
    residuals = (actions - sums[groups] / counts[groups].unsqueeze(1))[repeated]
    share = (float(residuals.square().sum()) / (number - different) / variance) ** 0.5
    return Noise(
        "deterministic" if share < QUIET else "noisy",
        share,
        f"the actions of {number:,} pairs whose observation occurs more than once",
    )


def _from_neighbours(observations: Tensor, actions: Tensor, variance: float) -> Noise:
    """From the actions of near observations, see above."""
    generator = torch.Generator().manual_seed(0)
    if len(observations) > MOST_ROWS:
        drawn = torch.randperm(len(observations), generator=generator)[:MOST_ROWS]
        observations, actions = observations[drawn], actions[drawn]
    deviation, mean = torch.std_mean(observations, dim=0, correction=0)
    varies = deviation > 0
    if len(observations) < FEWEST_PAIRS or not varies.any():
        return Noise("unknown", float("nan"), f"there are fewer than {FEWEST_PAIRS} pairs, or all observations are equal")
    scaled = ((observations - mean) / deviation)[:, varies].float()
    queries = torch.randperm(len(scaled), generator=generator)[:QUERIES]
    distances, neighbours = _nearest(scaled, queries)
    squares = (actions[neighbours] - actions[queries].unsqueeze(1)).square().sum(dim=2) / 2 / variance  # (queries, K)
    gammas = squares.mean(dim=0)                                    # (K,)
    deltas = distances.square().mean(dim=0)                         # (K,)
    slope = torch.cov(torch.stack([deltas, gammas]))[0, 1] / deltas.var()
    noise = float((gammas.mean() - slope * deltas.mean()).clamp(min=0))
    nearness = float(deltas[0]) / (2 * scaled.shape[1])             # of standardised dimensions: 2 each, at random
    how = f"the {NEIGHBOURS} nearest neighbours of {len(queries)} pairs (Gamma test)"
    if gammas[0] < QUIET**2:
        return Noise("deterministic", float(gammas[0].sqrt()), how)
    everywhere = float(squares.mean(dim=1).median()) > noise / 4
    if nearness < NEAR and noise > float(gammas[0]) / 2 and noise > QUIET**2 and everywhere:
        return Noise("noisy", noise**0.5, how)
    why = f"{how} lie too far apart: their actions differ by {float(gammas[0].sqrt()):.0%} of the standard deviation"
    return Noise("unknown", float("nan"), why)


def _nearest(rows: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """Distances and rows of the nearest neighbours of rows ``queries`` but themselves, both (queries, NEIGHBOURS)."""
    distances, neighbours = [], []
    for some in queries.split(50):
        between = torch.cdist(rows[some], rows, compute_mode="use_mm_for_euclid_dist")
        between[torch.arange(len(some)), some] = torch.inf
        found = between.topk(NEIGHBOURS, largest=False)
        distances.append(found.values.double())
        neighbours.append(found.indices)
    return torch.cat(distances), torch.cat(neighbours)
