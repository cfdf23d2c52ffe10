"""Autoregressive discretization: a density, its samples, who sees whom, labels, and positions within the bins."""

import itertools

import numpy as np
import pytest
import torch
from conftest import build_strategy
from scipy import stats
from torch.nn import functional as F

from lightning_bc.strategies import Autoregressive

binnings = pytest.mark.parametrize("binning", ["uniform", "quantile"])


def fitted(action_dim=2, random_positions=1.0, **options):
    """A strategy whose bins were placed by skewed actions, and those actions.

    The positions are random, since at first all of them are the centres.
    """
    strategy = build_strategy(
        Autoregressive, observation_dim=1, action_low=[-1.0] * action_dim, action_high=[1.0] * action_dim, **options
    )
    torch.nn.init.normal_(strategy.position_weight, std=random_positions / 8)  # of 64 features
    generator = torch.Generator().manual_seed(0)
    actions = (2.4 * torch.rand(5000, action_dim, generator=generator) ** 2 - 1).clamp(-1, 1)  # many on the upper bound
    strategy.fit_actions(actions)
    return strategy, actions


def bins_by_hand(strategy, actions):
    """With the upper edge in the bin."""
    columns = zip(actions.numpy().T, strategy.edges.numpy(), strict=True)
    return np.stack([np.digitize(values, edges[1:-1], right=True) for values, edges in columns], axis=1)


def decoded(strategy, positions, dimension, chosen):
    """The action in bin ``chosen`` by interpolation between its edges."""
    edges = strategy.edges[dimension].tolist()
    return float(np.interp(positions[dimension, chosen], [0, 1], edges[chosen : chosen + 2]))


# The density


@binnings
def test_density_integrates_to_one(binning):
    """Over three points in each bin of each of two dimensions, as the second's bins depend on the first's value."""
    strategy, _ = fitted(bins=6, binning=binning)
    edges = strategy.edges.double().numpy()
    points = (edges[:, :-1, None] + np.diff(edges)[:, :, None] * [1 / 6, 3 / 6, 5 / 6]).reshape(2, -1)
    areas = np.outer(*np.repeat(np.diff(edges) / 3, 3, axis=1))
    actions = torch.tensor(list(itertools.product(*points)), dtype=torch.float32)
    with torch.inference_mode():
        density = strategy.log_probability(torch.zeros(len(actions), 1), actions).exp().reshape(18, 18).numpy()
    assert (density * areas).sum() == pytest.approx(1, abs=1e-5)
    assert density.max() > 1.5 * density.min()


@binnings
def test_log_probability_equals_torch_distributions(binning):
    strategy, actions = fitted(action_dim=3, binning=binning)
    actions, observations = actions[:200], torch.randn(200, 1)
    log_bins, _ = strategy.heads(observations, actions)
    bins = torch.as_tensor(bins_by_hand(strategy, actions))
    widths = torch.stack([strategy.edges[d].diff()[bins[:, d]] for d in range(3)], dim=-1)
    wanted = torch.distributions.Categorical(logits=log_bins).log_prob(bins) - widths.log()
    torch.testing.assert_close(strategy.log_probability(observations, actions), wanted.sum(-1))


@binnings
def test_samples_follow_the_density(binning):
    """A sampled bin is decoded, and the next dimension's bins depend on the decoded value."""
    strategy, _ = fitted(bins=4, binning=binning, random_positions=0.1)
    observations, pairs = torch.zeros(1, 1), 20_000
    torch.manual_seed(0)
    with torch.inference_mode():
        samples = strategy.act(observations.expand(pairs, 1), deterministic=False)
        log_bins, positions = strategy.heads(observations, torch.zeros(1, 2))
        expected = []
        for first in range(4):
            past = torch.tensor([[decoded(strategy, positions[0], 0, first), 0.0]])
            second = strategy.heads(observations, past)[0][0, 1]
            expected.append(pairs * (log_bins[0, 0, first] + second).exp().double().numpy())
    bins = bins_by_hand(strategy, samples)
    observed = np.bincount(4 * bins[:, 0] + bins[:, 1], minlength=16)
    expected = np.concatenate(expected)
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 0.01
    without_the_first = np.outer(*(expected.reshape(4, 4).sum(axis) for axis in (1, 0))).ravel() / pairs
    assert stats.chisquare(observed, without_the_first, sum_check=False).pvalue < 1e-6  # a missing past would be seen


@pytest.mark.parametrize("head", [0, 1], ids=["bins", "positions"])
def test_a_dimension_depends_on_those_before_it_alone(head):
    strategy, actions = fitted(action_dim=3)
    observations = torch.zeros(4, 1)
    for changed in range(3):
        past = actions[:4].clone().requires_grad_()
        strategy.heads(observations, past)[head][:, changed, 0].sum().backward()
        assert (past.grad[:, changed:] == 0).all()
        assert (past.grad[:, :changed] != 0).any(0).all()


@binnings
def test_acting_agrees_with_training(binning):
    """The greedy action is the likeliest bin, and its position, under teacher forcing with itself as the past."""
    strategy, _ = fitted(action_dim=4, binning=binning)
    observations = torch.randn(50, 1)
    with torch.inference_mode():
        actions = strategy.act(observations, deterministic=True)
        log_bins, positions = strategy.heads(observations, actions)
    wanted = [
        [decoded(strategy, positions[row], d, int(log_bins[row, d].argmax())) for d in range(4)] for row in range(50)
    ]
    torch.testing.assert_close(actions, torch.tensor(wanted), rtol=0, atol=1e-5)
    assert ((positions < 0) | (positions > 1)).any()  # some are clipped


# Labels


def with_bounds(actions):
    """Some of ``actions``, and the corners."""
    return torch.cat([actions[:100], torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])])


@binnings
@pytest.mark.parametrize("label_smoothing", [0.25, 0.75, 2.0])
def test_labels_equal_the_normal_distributions_mass(binning, label_smoothing):
    strategy, actions = fitted(bins=10, binning=binning, label_smoothing=label_smoothing)
    actions = with_bounds(actions)
    bins = bins_by_hand(strategy, actions)
    labels = strategy.labels(actions, torch.as_tensor(bins).unsqueeze(-1))
    edges = strategy.edges.double().numpy()
    for row, dimension in itertools.product(range(len(actions)), range(2)):
        # On the axis where each bin is 1 wide; np.interp alone would not know in which of two empty bins an action lies.
        lower, upper = edges[dimension, bins[row, dimension]], edges[dimension, bins[row, dimension] + 1]
        place = bins[row, dimension] + (actions[row, dimension].item() - lower) / max(upper - lower, 1e-4)
        mass = np.diff(stats.norm.cdf(np.arange(11), place, label_smoothing))
        np.testing.assert_allclose(labels[row, dimension], mass / mass.sum(), atol=2e-5)
    torch.testing.assert_close(labels.sum(-1), torch.ones(103, 2))


def test_a_pile_of_demonstrations_on_a_bound_keeps_its_label():
    """Quantile bins are empty there: they have no width that noise could be measured by."""
    strategy = build_strategy(Autoregressive, 1, [-1.0], [1.0], bins=10, binning="quantile")
    actions = torch.cat([torch.full((500, 1), -1.0), torch.rand(500, 1) - 0.5])
    strategy.fit_actions(actions)
    bins = strategy.bins_of(actions[:1]).unsqueeze(-1)
    assert strategy.labels(actions[:1], bins).argmax() == bins.item() == 0


@binnings
def test_labels_without_smoothing_are_one_hot(binning):
    strategy, actions = fitted(bins=10, binning=binning, label_smoothing=0.0)
    actions = with_bounds(actions)
    bins = torch.as_tensor(bins_by_hand(strategy, actions))
    assert torch.equal(strategy.labels(actions, bins.unsqueeze(-1)), F.one_hot(bins, 10).float())
    assert bins[-3:].tolist() == [[0, 0], [0, 9], [9, 9]]


@binnings
def test_labels_approach_hard_ones_as_the_noise_vanishes(binning):
    soft, actions = fitted(bins=10, binning=binning, label_smoothing=1e-6)
    hard, _ = fitted(bins=10, binning=binning, label_smoothing=0.0)
    bins = soft.bins_of(actions[:100]).unsqueeze(-1)
    torch.testing.assert_close(soft.labels(actions[:100], bins), hard.labels(actions[:100], bins))


@binnings
def test_loss_is_the_cross_entropy_and_the_squared_error_of_the_position(binning):
    strategy, actions = fitted(binning=binning)
    actions, observations = with_bounds(actions), torch.randn(103, 1)
    log_bins, positions = strategy.heads(observations, actions)
    bins = torch.as_tensor(bins_by_hand(strategy, actions))
    cross_entropy = F.cross_entropy(log_bins.flatten(0, 1), strategy.labels(actions, bins.unsqueeze(-1)).flatten(0, 1))
    errors = []
    for row, dimension in itertools.product(range(len(actions)), range(2)):
        chosen, edges = bins[row, dimension], strategy.edges[dimension].tolist()
        wanted = np.interp(actions[row, dimension].item(), edges[chosen : chosen + 2], [0, 1])
        errors.append((positions[row, dimension, chosen].item() - wanted) ** 2)
    loss, metrics = strategy.loss(observations, actions)
    torch.testing.assert_close(metrics["cross_entropy"], 2 * cross_entropy.detach())  # of two dimensions
    assert metrics["position_error"].item() == pytest.approx(2 * np.mean(errors), rel=1e-4)
    torch.testing.assert_close(loss, metrics["cross_entropy"] + metrics["position_error"])


# Values


@binnings
def test_actions_are_learnt_far_more_finely_than_the_bins(binning):
    """Bins of a tenth, whose centres would leave an error of a tenth / sqrt(12) = 0.029."""
    torch.manual_seed(0)
    observations = 4 * torch.rand(5000, 1) - 2
    actions = torch.cat([0.9 * torch.sin(2 * observations), 0.4 * observations * observations.sign() - 0.3], dim=1)
    strategy = build_strategy(Autoregressive, 1, [-1.0] * 2, [1.0] * 2, hidden_sizes=(64, 64), binning=binning)
    strategy.fit_actions(actions)
    optimizer = torch.optim.Adam(strategy.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000)
    for _ in range(1000):
        rows = torch.randint(0, 5000, (256,))
        optimizer.zero_grad()
        strategy.loss(observations[rows], actions[rows])[0].backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        errors = (strategy.act(observations, deterministic=True) - actions).square().mean(0).sqrt()
    assert (errors < 0.01).all()


@binnings
@pytest.mark.parametrize(("chosen", "position", "bound"), [(0, -0.3, -1.0), (0, 0.0, -1.0), (19, 1.0, 1.0), (19, 1.3, 1.0)])
def test_the_bounds_are_reached_exactly(binning, chosen, position, bound):
    strategy, _ = fitted(random_positions=0.0, binning=binning)
    strategy.head_bias.data[:, chosen] = 1e3
    strategy.position_bias.data[:, chosen] = position
    for deterministic in (True, False):
        assert torch.equal(strategy.act(torch.zeros(3, 1), deterministic), torch.full((3, 2), bound))


@pytest.mark.parametrize("dimension", [0, 1])
def test_quantile_bins_hold_equally_many(dimension):
    strategy = build_strategy(Autoregressive, 1, [-1.0] * 2, [1.0] * 2, binning="quantile")
    generator = torch.Generator().manual_seed(0)
    actions = (torch.randn(10_000, 2, generator=generator) * torch.tensor([0.2, 0.1])).clamp(-1, 1)
    strategy.fit_actions(actions)
    counts = torch.bincount(strategy.bins_of(actions)[:, dimension], minlength=20)
    assert (counts - 500).abs().max() <= 1
