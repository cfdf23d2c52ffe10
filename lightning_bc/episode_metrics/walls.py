"""How a policy chooses between the two openings of a wall in Gates (see ``environments/gates.py``).

Choices are compared among equals: steps at the same wall whose middle lies on the same side of where one stands. The
demonstrator's coin depends on neither. A policy with one action per observation, to the nearer opening for example, passes
both openings of a wall equally often over episodes although it does not choose; among equals its entropy is 0. D3IL (Jia
2024, https://arxiv.org/abs/2402.14606) takes its behavioural entropy given the initial state for the same reason.
"""

import math

import numpy as np

from lightning_bc.environments import GATES, GatesTask, gates_of
from lightning_bc.environments.gates import WALLS, opening_of
from lightning_bc.episode_metrics import episode_metric
from lightning_bc.episodes import Episodes
from lightning_bc.references import References

IDS = tuple(GATES)


@episode_metric(unit="share, 0 to 1", meaning="in Gates: share of episodes that pass all 8 walls", environments=IDS)
def success(episodes: Episodes, references: References) -> float:
    """The share of episodes that pass every wall."""
    return float((episodes.returns == WALLS).mean())


@episode_metric(
    unit="bit, 0 to 1",
    meaning="in Gates: entropy of the choice between a wall's two openings, -sum_k p_k log2 p_k; mean over the walls passed",
    recorded=True,
    environments=IDS,
)
def choice_entropy(episodes: Episodes, references: References) -> float:
    """Entropy of the choice of an opening among equals; NaN where none was passed."""
    shares, weights = _shares(episodes)
    return float(weights @ -(shares * _log2(shares)).sum(axis=1)) if len(shares) else math.nan


@episode_metric(
    unit="bit",
    meaning="in Gates: sum_k p_k log2(p_k / q_k), p the shares of the two openings, q the demonstrator's; mean likewise",
    recorded=True,
    environments=IDS,
)
def choice_divergence(episodes: Episodes, references: References) -> float:
    """Kullback-Leibler divergence of the choices among equals from the demonstrated odds; NaN where no wall was passed."""
    shares, weights = _shares(episodes)
    demonstrated = np.log2(_task(episodes).odds)
    return float(weights @ (shares * (_log2(shares) - demonstrated)).sum(axis=1)) if len(shares) else math.nan


def choices(episodes: Episodes) -> np.ndarray:
    """How often which opening was passed, (WALLS, sides, openings): by the wall and the side on which its middle lies."""
    dimensions, observations, actions = _task(episodes).dimensions, episodes.observations, episodes.actions
    assert observations is not None
    assert actions is not None
    position, middle = observations[:, :dimensions], observations[:, dimensions : 2 * dimensions]
    opening = opening_of(position + actions, middle)
    wall = np.rint(observations[:, -1] * WALLS).astype(np.int64)
    side = (middle[:, 0] > position[:, 0]).astype(np.int64)
    counts = np.zeros((WALLS, 2, 2), dtype=np.int64)
    has_passed = opening >= 0
    np.add.at(counts, (wall[has_passed], side[has_passed], opening[has_passed]), 1)
    return counts


def _shares(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Shares of the openings among equals, (groups, openings), and the share of all choices in each group, (groups,)."""
    counts = choices(episodes).reshape(-1, 2)
    counts = counts[counts.sum(axis=1) > 0]
    totals = counts.sum(axis=1)
    return counts / totals[:, np.newaxis], totals / max(1, totals.sum())


def _log2(shares: np.ndarray) -> np.ndarray:
    """The logarithm, and 0 for the shares of 0, with which it is multiplied."""
    return np.log2(np.where(shares > 0, shares, 1.0))


def _task(episodes: Episodes) -> GatesTask:
    task = gates_of(episodes.environment_id)
    assert task is not None                                         # the metrics are of these environments alone
    return task
