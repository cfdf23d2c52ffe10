"""Autoregressive discretization: a density, its samples, who sees whom, labels, and the places behind the bins."""

import functools
import itertools

import numpy as np
import pytest
import torch
from conftest import build_strategy
from scipy import stats
from torch.nn import functional as F

from lightning_bc.strategies import Autoregressive

binnings = pytest.mark.parametrize("binning", ["uniform", "quantile"])


def fitted(action_dim=2, random_places=1.0, **options):
    """A strategy whose bins were placed by skewed actions, and those actions.

    The places are random, since at first all of them are the centres.
    """
    strategy = build_strategy(
        Autoregressive, observation_dim=1, action_low=[-1.0] * action_dim, action_high=[1.0] * action_dim, **options
    )
    torch.nn.init.normal_(strategy.place_weight, std=random_places / 8)  # of 64 features
    generator = torch.Generator().manual_seed(0)
    actions = (2.4 * torch.rand(5000, action_dim, generator=generator) ** 2 - 1).clamp(-1, 1)  # many on the upper bound
    strategy.fit_actions(actions)
    return strategy, actions


def bins_by_hand(strategy, actions):
    """With the upper edge in the bin."""
    columns = zip(actions.numpy().T, strategy.edges.numpy(), strict=True)
    return np.stack([np.digitize(values, edges[1:-1], right=True) for values, edges in columns], axis=1)


def decoded(strategy, places, dimension, chosen):
    """The action expected behind bin ``chosen``, by interpolation between the edges of the bin that its place is in."""
    edges = strategy.edges[dimension].tolist()
    return float(np.interp(places[dimension, chosen], range(len(edges)), edges))


def places_by_hand(strategy, actions):
    """On the axis where each bin is 1 wide; np.interp alone would not know in which of two empty bins an action lies."""
    bins, edges = bins_by_hand(strategy, actions), strategy.edges.double().numpy()
    columns = np.arange(actions.shape[1])
    lower, upper = edges[columns, bins], edges[columns, bins + 1]
    return bins + (actions.numpy() - lower) / np.maximum(upper - lower, 1e-4)


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
    strategy, _ = fitted(bins=4, binning=binning, random_places=0.1)
    observations, pairs = torch.zeros(1, 1), 20_000
    torch.manual_seed(0)
    with torch.inference_mode():
        samples = strategy.act(observations.expand(pairs, 1), deterministic=False)
        log_bins, places = strategy.heads(observations, torch.zeros(1, 2))
        expected = []
        for first in range(4):
            past = torch.tensor([[decoded(strategy, places[0], 0, first), 0.0]])
            second = strategy.heads(observations, past)[0][0, 1]
            expected.append(pairs * (log_bins[0, 0, first] + second).exp().double().numpy())
    bins = bins_by_hand(strategy, samples)
    observed = np.bincount(4 * bins[:, 0] + bins[:, 1], minlength=16)
    expected = np.concatenate(expected)
    assert stats.chisquare(observed, expected, sum_check=False).pvalue > 0.01
    without_the_first = np.outer(*(expected.reshape(4, 4).sum(axis) for axis in (1, 0))).ravel() / pairs
    assert stats.chisquare(observed, without_the_first, sum_check=False).pvalue < 1e-6  # a missing past would be seen


@pytest.mark.parametrize("head", [0, 1], ids=["bins", "places"])
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
    """The greedy action is the place behind the likeliest bin, under teacher forcing with itself as the past."""
    strategy, _ = fitted(action_dim=4, binning=binning, random_places=5.0)
    observations = torch.randn(50, 1)
    with torch.inference_mode():
        actions = strategy.act(observations, deterministic=True)
        log_bins, places = strategy.heads(observations, actions)
    wanted = [
        [decoded(strategy, places[row], d, int(log_bins[row, d].argmax())) for d in range(4)] for row in range(50)
    ]
    torch.testing.assert_close(actions, torch.tensor(wanted), rtol=0, atol=1e-5)
    assert ((places < 0) | (places > 20)).any()  # some are clipped


# Labels


def with_bounds(actions):
    """Some of ``actions``, and the corners."""
    return torch.cat([actions[:100], torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])])


@binnings
@pytest.mark.parametrize("label_smoothing", [0.25, 0.75, 2.0])
def test_labels_equal_the_normal_distributions_mass(binning, label_smoothing):
    strategy, actions = fitted(bins=10, binning=binning, label_smoothing=label_smoothing)
    actions = with_bounds(actions)
    places = places_by_hand(strategy, actions)
    np.testing.assert_allclose(strategy.place_of(actions), places, atol=1e-4)
    labels = strategy.labels(torch.as_tensor(places).unsqueeze(-1))
    mass = np.diff(stats.norm.cdf(np.arange(11), places[..., np.newaxis], label_smoothing))
    np.testing.assert_allclose(labels, mass / mass.sum(-1, keepdims=True), atol=2e-5)


def test_a_pile_of_demonstrations_on_a_bound_keeps_its_label():
    """Quantile bins are empty there: they have no width that noise could be measured by."""
    strategy = build_strategy(Autoregressive, 1, [-1.0], [1.0], bins=10, binning="quantile")
    actions = torch.cat([torch.full((500, 1), -1.0), torch.rand(500, 1) - 0.5])
    strategy.fit_actions(actions)
    place = strategy.place_of(actions[:1]).unsqueeze(-1)
    assert strategy.labels(place).argmax() == place.item() == 0


@binnings
def test_labels_without_smoothing_are_one_hot(binning):
    strategy, actions = fitted(bins=10, binning=binning, label_smoothing=0.0)
    actions = with_bounds(actions)
    bins = torch.as_tensor(bins_by_hand(strategy, actions))
    assert torch.equal(strategy.labels(strategy.place_of(actions).unsqueeze(-1)), F.one_hot(bins, 10).float())
    assert bins[-3:].tolist() == [[0, 0], [0, 9], [9, 9]]


@binnings
def test_labels_approach_hard_ones_as_the_noise_vanishes(binning):
    soft, actions = fitted(bins=10, binning=binning, label_smoothing=1e-6)
    hard, _ = fitted(bins=10, binning=binning, label_smoothing=0.0)
    place = soft.place_of(actions[:100]).unsqueeze(-1)
    torch.testing.assert_close(soft.labels(place), hard.labels(place))


@binnings
def test_loss_is_the_cross_entropy_and_the_squared_error_of_the_places(binning):
    strategy, actions = fitted(binning=binning)
    actions, observations = with_bounds(actions), torch.randn(103, 1)
    log_bins, places = (output.detach() for output in strategy.heads(observations, actions))
    place = strategy.place_of(actions).unsqueeze(-1)
    labels = strategy.labels(place)
    cross_entropy = F.cross_entropy(log_bins.flatten(0, 1), labels.flatten(0, 1))
    error = np.average((places - place).square(), weights=labels)
    loss, metrics = strategy.loss(observations, actions)
    torch.testing.assert_close(metrics["cross_entropy"], 2 * cross_entropy)  # of two dimensions
    assert metrics["place_error"].item() == pytest.approx(2 * error, rel=1e-4)
    torch.testing.assert_close(loss, metrics["cross_entropy"] + metrics["place_error"])


# Values


@functools.cache
def trained_on_a_line():
    """Bins of a tenth, and one action for each observation: 0.8 times it."""
    strategy = build_strategy(Autoregressive, 1, [-1.0], [1.0])
    optimizer = torch.optim.Adam(strategy.parameters(), lr=3e-3)
    for _ in range(500):
        observations = 2 * torch.rand(256, 1) - 1
        optimizer.zero_grad()
        strategy.loss(observations, 0.8 * observations)[0].backward()
        optimizer.step()
    return strategy


@pytest.mark.parametrize("deterministic", [True, False])
def test_decoding_takes_the_noise_of_the_labels_out(deterministic):
    """Whichever of the noisy bins is sampled, the one action comes back."""
    strategy, observations = trained_on_a_line(), torch.linspace(-1, 1, 200)[:, None]
    with torch.inference_mode():
        errors = strategy.act(observations, deterministic) - 0.8 * observations
    assert errors.square().mean().sqrt() < 0.03  # the noise is 2 bins of a tenth


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
@pytest.mark.parametrize(("chosen", "place", "bound"), [(0, -0.3, -1.0), (3, 0.0, -1.0), (16, 20.0, 1.0), (19, 20.3, 1.0)])
def test_the_bounds_are_reached_exactly(binning, chosen, place, bound):
    strategy, _ = fitted(random_places=0.0, binning=binning)
    strategy.head_bias.data[:, chosen] = 1e3
    strategy.place_bias.data[:, chosen] = place
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
