"""Statistics over runs. A run is one number, its score; its episodes never enter here.

The interquartile mean and the probability of improvement follow Agarwal 2021 (Deep Reinforcement Learning at the Edge of
the Statistical Precipice, https://arxiv.org/abs/2108.13264). Its intervals do not: they are percentiles of a bootstrap, for
tens of runs of several tasks. Of the 3 to 5 runs of a row here such percentiles are little more than the range of the runs.
Three runs lie on one side of the median in a quarter of cases, so their range holds it in 75%, not in 95%.

So the interval of a row is Student's t, which is exact where scores are normally distributed, however few they are. It may
reach beyond the best possible score. From 10 runs on, where it is that of the interquartile mean, it holds it in about 93%.
That of a probability of improvement is Newcombe's. tests/test_statistics.py says how often each holds.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

FEWEST_FOR_INTERQUARTILE_MEAN = 10
FEWEST_FOR_BOOTSTRAP = 5
RESAMPLES = 2000
GRID_POINTS = 250

Curve = tuple[np.ndarray, np.ndarray]
"""x, rising, and y, both (points,)."""


def center(values: np.ndarray) -> np.ndarray:
    """The mean over runs; from 10 runs on the interquartile mean.

    The interquartile mean leaves out the lowest and the highest quarter of the runs (of n runs, floor(n / 4) at either
    end). It is steadier than the mean and, with few runs, than the median; below 10 runs there is too little to leave out.

    Args:
        values: (runs, ...), in any unit.
    """
    if len(values) < FEWEST_FOR_INTERQUARTILE_MEAN:
        return values.mean(0)
    return stats.trim_mean(values, 0.25)


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """95% interval of :func:`center`, Student's t over runs.

        center +- t_0.975(k - 1) se,    k runs that are not left out

    where se = sqrt(n) / k times the standard deviation of the n runs, winsorised where some are left out: these count as the
    nearest that is not (Tukey and McLaughlin 1963).

    Returns:
        Lower and upper end; None for a single run, which says nothing of its spread.
    """
    runs = len(values)
    if runs < 2:
        return None
    cut = runs // 4 if runs >= FEWEST_FOR_INTERQUARTILE_MEAN else 0
    kept = runs - 2 * cut
    ordered = np.sort(values, axis=0)
    winsorised = np.clip(ordered, ordered[cut], ordered[runs - 1 - cut])
    error = winsorised.std(0, ddof=1) * np.sqrt(runs) / kept        # without cuts, std / sqrt(runs)
    half = stats.t.ppf(0.975, kept - 1) * error
    return center(values) - half, center(values) + half


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How probable it is that a run of one method scores above a run of another.

        P(X > Y) = 1 / (n m) sum_i sum_j S(x_i, y_j),    S = 1 if x_i > y_j, 1/2 if equal, 0 otherwise

    which is the Mann-Whitney U statistic divided by n m.

    Args:
        x: scores of n runs along the last axis.
        y: scores of m runs along the last axis.
    """
    return (1 + np.sign(x[..., :, None] - y[..., None, :]).mean(axis=(-2, -1))) / 2


def over_tasks(scores: Sequence[np.ndarray]) -> tuple[float, tuple[float, float] | None]:
    """The interquartile mean over all runs of all tasks, each task of the same weight, and its 95% interval.

    Percentiles of a bootstrap in which the runs of each task are drawn anew, so that every task keeps its number of runs
    (stratified; Agarwal 2021). Differences between tasks are then no uncertainty, those between runs are.

    Args:
        scores: of the runs of each task, (runs,); normalized, so that tasks can be compared.

    Returns:
        Both; None for the interval where a task has less than 5 runs.
    """
    size = math.lcm(*map(len, scores))                              # each task as if it had so many runs
    mean = float(stats.trim_mean(np.concatenate([np.repeat(runs, size // len(runs)) for runs in scores]), 0.25))
    if min(map(len, scores)) < FEWEST_FOR_BOOTSTRAP:
        return mean, None
    random = np.random.default_rng(0)
    drawn = [np.repeat(random.choice(runs, (RESAMPLES, len(runs))), size // len(runs), axis=1) for runs in scores]
    low, high = np.percentile(stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1), [2.5, 97.5])
    return mean, (float(low), float(high))


def improvement_over_tasks(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> float:
    """Mean over tasks of :func:`probability_of_improvement`, whose runs of either method are (runs,) for each task."""
    return float(np.mean([probability_of_improvement(one, other) for one, other in zip(x, y, strict=True)]))


def probability_interval(probability: float, runs: int, others: int) -> tuple[float, float]:
    """95% interval of a :func:`probability_of_improvement` p of n = ``runs`` over m = ``others``, Newcombe's of 2006.

    The probabilities P from which p is no further than z_0.975 standard errors, where

        se^2 = P (1 - P) / (n m) [1 + k (1 - P) / (2 - P) + k P / (1 + P)],    k = (n + m) / 2 - 1

    is that of exponentially distributed scores (https://doi.org/10.1002/sim.2324, method 5). Methods without overlap have
    one too: of 3 runs each it is 0.50 to 1.
    """
    k, z = (runs + others) / 2 - 1, stats.norm.ppf(0.975)

    def excess(other: float) -> float:
        variance = other * (1 - other) * (1 + k * (1 - other) / (2 - other) + k * other / (1 + other)) / (runs * others)
        return (probability - other) ** 2 - z**2 * variance

    inner = 1e-9                                                    # at 0 and 1 the error is 0, and so is the excess there
    low = optimize.brentq(excess, 0, min(probability, 1 - inner)) if probability > 0 else 0.0
    high = optimize.brentq(excess, max(probability, inner), 1) if probability < 1 else 1.0
    return float(low), float(high)


def on_common_grid(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Curves whose points lie at different x, interpolated linearly on one grid.

    The grid spans what all curves span, so that each of its points is over all runs: a mean over those that happen to have
    come that far would jump where one ends. Where the curves' points coincide they are the grid.

    Returns:
        The grid, (points,), and the values there, (curves, points).
    """
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.unique(np.concatenate([x for x, _ in curves]))
    grid = grid[(first <= grid) & (grid <= last)]
    if len(grid) > GRID_POINTS:
        grid = np.linspace(first, last, GRID_POINTS)
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])
