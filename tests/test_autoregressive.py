"""Autoregressive discretization: a density, its samples, and who sees whom."""

import itertools

import pytest
import torch
from conftest import build_strategy
from scipy import stats

from lightning_bc.strategies import Autoregressive

binnings = pytest.mark.parametrize("binning", ["uniform", "quantile"])


def fitted(action_dim=2, **options):
    """A strategy whose bins were placed by skewed actions, and those actions."""
    strategy = build_strategy(
        Autoregressive, observation_dim=1, action_low=[-1.0] * action_dim, action_high=[1.0] * action_dim, **options
    )
    generator = torch.Generator().manual_seed(0)
    actions = (2 * torch.rand(5000, action_dim, generator=generator) ** 2 - 1) * 1.2
    actions = actions.clamp(-1, 1)                                  # many on the upper bound
    strategy.fit_actions(actions)
    return strategy, actions


@binnings
def test_density_integrates_to_one(binning):
    strategy, _ = fitted(bins=6, binning=binning)
    widths = strategy.edges.diff(dim=-1).clamp(min=1e-4)
    total = 0.0
    for first, second in itertools.product(range(6), range(6)):
        middle = torch.stack([strategy.edges[d, [b, b + 1]].mean() for d, b in enumerate((first, second))])
        if (strategy.edges.diff(dim=-1)[[0, 1], [first, second]] > 1e-3).all():
            assert strategy.bins_of(middle[None]).tolist() == [[first, second]]
        with torch.inference_mode():
            logits = strategy.log_probability_of_bins(torch.zeros(1, 1), torch.tensor([[first, second]]))
        total += float(logits.exp() * widths[0, first] * widths[1, second])
    assert total == pytest.approx(1, abs=1e-5)


@binnings
def test_samples_follow_the_density(binning):
    strategy, _ = fitted(bins=4, binning=binning)
    torch.manual_seed(0)
    with torch.inference_mode():
        samples = strategy.act(torch.zeros(20_000, 1), deterministic=False)
    observed, expected = [], []
    widths = strategy.edges.diff(dim=-1).clamp(min=1e-4)
    for first, second in itertools.product(range(4), range(4)):
        value = torch.stack([strategy.decoded[0, first], strategy.decoded[1, second]])
        observed.append(int((samples == value).all(-1).sum()))
        with torch.inference_mode():
            log_density = strategy.log_probability_of_bins(torch.zeros(1, 1), torch.tensor([[first, second]]))
        expected.append(20_000 * float(log_density.exp() * widths[0, first] * widths[1, second]))
    assert sum(observed) == 20_000
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 0.01


def test_a_dimension_depends_on_those_before_it_alone():
    strategy, actions = fitted(action_dim=3)
    observations = torch.zeros(4, 1)
    for changed in range(3):
        past = actions[:4].clone().requires_grad_()
        strategy.logits(observations, past)[:, changed].sum().backward()
        assert (past.grad[:, changed:] == 0).all()
        assert changed == 0 or (past.grad[:, :changed] != 0).any()


def test_acting_gives_the_logits_of_training():
    """The greedy action, bin by bin, is the argmax under teacher forcing with itself as the past."""
    strategy, _ = fitted(action_dim=4)
    observations = torch.randn(50, 1)
    with torch.inference_mode():
        actions = strategy.act(observations, deterministic=True)
        logits = strategy.logits(observations, actions)
    assert torch.equal(strategy.decode(logits.argmax(-1)), actions)


@binnings
def test_bins_decode_to_the_mean_of_their_actions_and_reach_the_bounds(binning):
    strategy, actions = fitted(bins=20, binning=binning)
    bins = strategy.bins_of(actions)
    for dimension in range(2):
        for chosen in bins[:, dimension].unique().tolist():
            inside = actions[bins[:, dimension] == chosen, dimension]
            assert float(strategy.decoded[dimension, chosen]) == pytest.approx(float(inside.mean()), abs=1e-5)
    assert (strategy.decode(strategy.bins_of(torch.ones(1, 2))) > 0.95).all()
    assert ((strategy.decode(bins) - actions).abs().mean() < 0.06).all()


def test_quantile_bins_hold_equally_many():
    strategy = build_strategy(Autoregressive, observation_dim=1, action_low=[-1.0], action_high=[1.0], binning="quantile")
    actions = torch.randn(10_000, 1, generator=torch.Generator().manual_seed(0)).mul(0.2).clamp(-1, 1)
    strategy.fit_actions(actions)
    counts = torch.bincount(strategy.bins_of(actions)[:, 0], minlength=20)
    assert (counts - 500).abs().max() <= 1
