"""Statistics over runs, against known answers and scipy's."""

import numpy as np
import pytest
from scipy import stats

from lightning_bc.report.statistics import (
    GRID_POINTS,
    center,
    improvement_over_tasks,
    interval,
    on_common_grid,
    over_tasks,
    probability_interval,
    probability_of_improvement,
)


def test_the_center_is_the_mean_and_from_ten_runs_on_the_interquartile_mean():
    nine = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 1000])
    assert center(nine) == nine.mean()
    ten = np.array([-1000.0, 0, 1, 2, 3, 4, 5, 6, 7, 1000])         # floor(10 / 4) = 2 are left out at either end
    assert center(ten) == np.mean([1, 2, 3, 4, 5, 6])
    assert center(np.stack([ten, 2 * ten], axis=1)).tolist() == [3.5, 7]


def test_an_interval_is_students_t_and_one_run_has_none():
    assert interval(np.array([3.0])) is None
    for runs in ([1.0, 5.0], [1.0, 2.0, 5.0], [4.0, 4.5, 4.1, 4.0, 9.0]):
        expected = stats.t.interval(0.95, len(runs) - 1, loc=np.mean(runs), scale=stats.sem(runs))
        assert interval(np.array(runs)) == pytest.approx(expected)


def test_from_ten_runs_on_it_is_that_of_the_trimmed_mean():
    runs = np.random.default_rng(3).normal(size=12)
    low, high = interval(runs)
    winsorised = np.sort(runs)
    winsorised[:3], winsorised[-3:] = winsorised[3], winsorised[-4]
    half = stats.t.ppf(0.975, 5) * winsorised.std(ddof=1) / (0.5 * np.sqrt(12))
    assert (low, high) == pytest.approx((center(runs) - half, center(runs) + half))


@pytest.mark.parametrize("runs", [2, 3, 5, 9, 10, 20])
def test_an_interval_covers_the_mean_as_often_as_it_says(runs):
    samples = np.random.default_rng(1).normal(7.0, 2.0, size=(runs, 20_000))
    low, high = interval(samples)
    slack = 0.007 if runs < 10 else 0.02                            # that of a trimmed mean is approximate
    assert np.mean((low < 7) & (high > 7)) == pytest.approx(0.95, abs=slack)


def test_each_point_of_a_curve_has_the_interval_of_its_own_runs():
    values = np.random.default_rng(2).normal(size=(12, 3))
    low, high = interval(values)
    for column in range(3):
        assert interval(values[:, column]) == pytest.approx((low[column], high[column]))


def test_equal_runs_have_an_interval_without_width():
    assert interval(np.full(5, 2.0)) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("x", "y", "probability"),
    [
        ([2, 3], [0, 1], 1),
        ([0, 1], [2, 3], 0),
        ([1, 1], [1, 1], 0.5),
        ([1, 3], [2], 0.5),
        ([1, 2, 3], [2, 2], 0.5),
        ([0, 4, 5], [1, 2, 3, 4], (0 + 3.5 + 4) / 12),
    ],
)
def test_probability_of_improvement_has_the_known_answers(x, y, probability):
    assert probability_of_improvement(np.array(x), np.array(y)) == pytest.approx(probability)


def test_probability_of_improvement_is_the_mann_whitney_statistic():
    random = np.random.default_rng(0)
    x, y = random.integers(0, 5, 13), random.integers(1, 6, 8)      # with ties
    expected = stats.mannwhitneyu(x, y).statistic / (13 * 8)
    assert probability_of_improvement(x, y) == pytest.approx(expected)
    assert probability_of_improvement(y, x) == pytest.approx(1 - expected)


def test_the_interval_of_a_probability_reverses_with_it_and_ends_at_certainty():
    low, high = probability_interval(0.7, 3, 5)
    assert 0 < low < 0.7 < high < 1
    assert probability_interval(0.3, 5, 3) == pytest.approx((1 - high, 1 - low))
    assert probability_interval(1.0, 3, 3) == (pytest.approx(0.501, abs=0.001), 1)
    assert probability_interval(0.0, 3, 3) == (0, pytest.approx(0.499, abs=0.001))
    assert np.ptp(probability_interval(0.5, 3, 3)) > 2 * np.ptp(probability_interval(0.5, 20, 20)) > 0


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("runs", "others"), [(3, 3), (3, 5), (5, 5), (10, 10)])
def test_the_interval_of_a_probability_holds_it_about_as_often_as_it_says(runs, others, distance):
    random, true = np.random.default_rng(0), stats.norm.cdf(distance / np.sqrt(2))
    better, worse = random.normal(distance, 1, (3000, runs)), random.normal(0, 1, (3000, others))
    ends = {p: probability_interval(p, runs, others) for p in {*probability_of_improvement(better, worse).tolist()}}
    held = [ends[p][0] <= true <= ends[p][1] for p in probability_of_improvement(better, worse).tolist()]
    assert 0.89 < np.mean(held) < 0.98


def test_curves_are_interpolated_where_all_of_them_are():
    first, second = np.array([0.0, 1, 4, 9]), np.array([0.5, 3, 6])
    grid, values = on_common_grid([(first, 2 * first), (second, 10 - second)])
    assert grid.tolist() == [0.5, 1, 3, 4, 6]
    np.testing.assert_allclose(values, [2 * grid, 10 - grid])


def test_points_that_coincide_are_the_grid_and_many_are_thinned():
    x = np.array([0.0, 5, 10])
    grid, values = on_common_grid([(x, x), (x, x**2)])
    assert grid.tolist() == x.tolist()
    assert values.tolist() == [x.tolist(), (x**2).tolist()]
    many = np.arange(10_000.0)
    grid, values = on_common_grid([(many, 3 * many), (many + 0.5, 3 * many)])
    assert len(grid) == GRID_POINTS
    assert (grid[0], grid[-1]) == (0.5, 9999)
    np.testing.assert_allclose(values[0], 3 * grid)


def test_over_tasks_the_interquartile_mean_leaves_out_the_quarters_of_all_runs_together():
    mean, ends = over_tasks([np.array([0.0, 1, 2, 3, 4]), np.array([5.0, 6, 7, 8, 1000])])
    assert mean == np.mean([2, 3, 4, 5, 6, 7])
    assert ends[0] <= mean <= ends[1]
    assert over_tasks([np.array([1.0, 2, 3, 4]), np.array([2.0, 4, 5, 6, 7])])[1] is None


def test_a_task_of_more_runs_weighs_no_more_over_tasks():
    of_three, of_one = np.array([0.0, 1, 2]), np.array([10.0])
    assert over_tasks([of_three, of_one])[0] == over_tasks([of_three, of_one.repeat(3)])[0]


def test_the_interval_over_tasks_is_around_their_mean_however_unequal_their_runs():
    generator = np.random.default_rng(0)
    mean, (low, high) = over_tasks([generator.normal(0, 1, 5), generator.normal(10, 1, 20)])
    assert mean == pytest.approx(5, abs=1)
    assert 3 < low < mean < high < 7


def test_differences_between_tasks_are_no_uncertainty_over_tasks():
    assert over_tasks([np.full(5, task) for task in (0.0, 1, 2, 30)])[1] == (1.5, 1.5)


def test_the_interval_over_tasks_holds_the_mean_about_as_often_as_it_says():
    """Of five runs each of five tasks a bootstrap holds it somewhat more rarely than in 95% of cases."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = over_tasks([task + random.standard_normal(5) for task in (-0.2, -0.1, 0.0, 0.1, 0.2)])[1]
        held += low <= 0 <= high
    assert 0.85 < held / 200 < 0.99


def test_improvement_over_tasks_is_the_mean_of_theirs():
    x, y = [np.array([1.0, 2]), np.array([5.0])], [np.array([1.5]), np.array([7.0, 9])]
    assert improvement_over_tasks(x, y) == (0.5 + 0) / 2
