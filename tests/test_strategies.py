"""Likelihoods against torch.distributions and experts without noise."""

import math

import numpy as np
import pytest
import torch
from conftest import build_strategy, constant_outputs, linear_problem, train
from scipy import stats
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform
from torch.nn import functional as F

from lightning_bc.networks import MLP
from lightning_bc.strategies import MSE, Gaussian, GaussianMixture

with_likelihood = pytest.mark.parametrize("cls", [Gaussian, GaussianMixture], ids=lambda cls: cls.__name__)


def one_dimensional(cls):
    """A strategy over one action whose distribution is known, and its weights, means and scales before the tanh."""
    weights, means, raw = [0.5, 0.2, 0.3], [-0.9, 0.1, 0.7], [-3.0, -1.0, -2.0]
    if cls is Gaussian:
        weights, means, raw = [1.0], [0.3], [-1.0]
        outputs, options = means, {"minimum_scale": 0.1}
    else:
        outputs, options = [], {"components": 3, "minimum_scale": 0.1}
        for weight, mean in zip(weights, means, strict=True):
            outputs += [math.log(weight) + 2.0, mean - 0.5]
    strategy = build_strategy(
        cls, observation_dim=1, action_low=[-1.0], action_high=[1.0], network=constant_outputs(outputs), **options
    )
    if cls is GaussianMixture:
        strategy.mean_bias.data.fill_(0.5)
    strategy.raw_scale.data = torch.tensor(raw).reshape(strategy.raw_scale.shape)
    scales = [0.1 + math.log1p(math.exp(r)) for r in raw]
    return strategy, (weights, means, scales)


# Likelihoods


def squashed(distribution):
    """The distribution of tanh(u), as torch.distributions has it."""
    return TransformedDistribution(distribution, TanhTransform())


def test_gaussian_loss_equals_torch_distributions():
    strategy, (observations, actions) = build_strategy(Gaussian, minimum_scale=0.03), linear_problem()
    strategy.raw_scale.data = torch.tensor([-1.0, 0.5])
    actions = actions.clamp(-0.999, 0.999)
    means, scales = strategy.network(observations), 0.03 + F.softplus(torch.tensor([-1.0, 0.5]))
    reference = squashed(Independent(Normal(means, scales.expand_as(means)), 1))
    loss, metrics = strategy.loss(observations, actions)
    torch.testing.assert_close(loss, -reference.log_prob(actions).mean())
    torch.testing.assert_close(metrics["scale"], scales.mean())
    assert torch.equal(strategy.act(observations, deterministic=True), means.tanh())


@pytest.mark.parametrize("components", [1, 2, 5])
def test_mixture_loss_equals_torch_distributions(components):
    strategy = build_strategy(GaussianMixture, components=components, minimum_scale=0.03)
    observations, actions = linear_problem()
    actions = actions.clamp(-0.999, 0.999)
    outputs = 3 * strategy.network(observations).reshape(-1, components, 3)  # each component: logit, 2 means
    means = outputs[:, :, 1:] + (apart := torch.randn(components, 2))
    raw = torch.linspace(-2.0, 1.0, 2 * components).reshape(components, 2)
    before = MixtureSameFamily(
        Categorical(logits=outputs[:, :, 0]),
        Independent(Normal(means, 0.03 + F.softplus(raw).expand_as(means)), 1),
    )
    with torch.no_grad():  # three times the outputs, so that components differ
        strategy.network.layers[-1].weight.mul_(3)
        strategy.network.layers[-1].bias.mul_(3)
        strategy.raw_scale.copy_(raw)
        strategy.mean_bias.copy_(apart)
    loss, _ = strategy.loss(observations, actions)
    torch.testing.assert_close(loss, -squashed(before).log_prob(actions).mean())
    torch.testing.assert_close(strategy.distribution(observations).log_prob(actions), before.log_prob(actions))


def test_mixture_loss_is_finite_where_every_component_is_far_away():
    strategy = build_strategy(
        GaussianMixture, 1, [-1.0], [1.0], network=constant_outputs([0.0, 1e4, 0.0, -1e4]), components=2
    )
    loss, _ = strategy.loss(torch.zeros(1, 1), torch.zeros(1, 1))
    assert loss.isfinite()
    assert loss > 1e6  # logsumexp: the exponentials themselves are 0


@pytest.mark.parametrize(
    ("weights", "wanted"), [([0.25] * 4, 4.0), ([1.0, 1e-12, 1e-12, 1e-12], 1.0), ([0.5, 0.5, 1e-12, 1e-12], 2.0)], ids=str
)
def test_components_used_counts_them(weights, wanted):
    outputs = [value for weight in weights for value in (math.log(weight), 0.0)]
    strategy = build_strategy(
        GaussianMixture, 1, [-1.0], [1.0], network=constant_outputs(outputs), components=4, minimum_scale=0.1
    )
    _, metrics = strategy.loss(torch.zeros(3, 1), torch.zeros(3, 1))
    assert metrics["components_used"].item() == pytest.approx(wanted, abs=1e-5)


@with_likelihood
def test_density_integrates_to_one(cls):
    strategy, _ = one_dimensional(cls)
    grid = torch.linspace(-3.7, 3.7, 2001).tanh()                   # fine near the bounds, where the volume changes most
    with torch.inference_mode():
        density = np.array([math.exp(-strategy.loss(torch.zeros(1, 1), action.reshape(1, 1))[0]) for action in grid])
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-4)
    assert density.min() >= 0


@with_likelihood
def test_samples_follow_the_distribution_that_the_loss_fits(cls):
    strategy, (weights, means, scales) = one_dimensional(cls)
    torch.manual_seed(0)
    with torch.inference_mode():
        samples = strategy.act(torch.zeros(20_000, 1), deterministic=False)[:, 0].numpy()

    def cumulative(values):
        before = np.arctanh(np.clip(values, -0.999999, 0.999999))
        return sum(w * stats.norm.cdf(before, m, s) for w, m, s in zip(weights, means, scales, strict=True))

    assert stats.kstest(samples, cumulative).pvalue > 1e-2
    assert stats.kstest(samples + 0.05, cumulative).pvalue < 1e-6  # the test would have seen a small shift


def test_mixtures_deterministic_action_is_the_mean_of_the_likeliest_component():
    strategy, (weights, means, _) = one_dimensional(GaussianMixture)
    with torch.inference_mode():
        actions = strategy.act(torch.randn(10, 1), deterministic=True)
    torch.testing.assert_close(actions, torch.full((10, 1), math.tanh(means[int(np.argmax(weights))])))


def test_mixture_chooses_the_likeliest_component_for_each_observation():
    strategy = build_strategy(GaussianMixture, components=4)
    observations = 5 * torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        outputs = strategy.network(observations).reshape(200, 4, 3)
        means = outputs[:, :, 1:] + strategy.mean_bias
        actions = strategy.act(observations, deterministic=True)
    likeliest = outputs[:, :, 0].argmax(1)
    assert len(likeliest.unique()) > 1
    for row in range(200):
        assert torch.equal(actions[row], means[row, likeliest[row]].tanh())


@with_likelihood
def test_standard_deviation_has_its_floor(cls):
    """On actions without any noise the likelihood would otherwise grow without end."""
    strategy = build_strategy(cls, minimum_scale=0.2)
    observations, _ = linear_problem()
    losses = train(strategy, lambda: (observations, torch.zeros(256, 2)), steps=400, learning_rate=1e-2)
    best_possible = 2 * (math.log(0.2) + 0.5 * math.log(2 * math.pi))
    assert best_possible <= losses[-1] < best_possible + 0.5


def test_a_mixtures_scale_begins_where_it_is_said_to():
    at_first = {}
    for initial in (None, 0.5):
        strategy = build_strategy(GaussianMixture, components=4, initial_scale=initial, minimum_scale=0.1)
        at_first[initial] = strategy.parameters_of(torch.zeros(1, 3))[2]
    torch.testing.assert_close(at_first[0.5], torch.full((4, 2), 0.5))
    torch.testing.assert_close(at_first[None], torch.full((4, 2), 0.1 + math.log(2)))


# Experts without noise


RARE = 0.03


def rarely_hard(pairs):
    """Deterministic demonstrations: nearly all pairs linear, a few, which one observation tells, a sine of another."""
    rare = torch.rand(pairs, 1) < RARE
    observations = torch.randn(pairs, 4)
    observations[:, :1] = torch.where(rare, 3.0, 0.0) + 0.1 * observations[:, :1]
    return observations, torch.where(rare, 0.6 * torch.sin(2 * observations[:, 2:3]), 0.2 * observations[:, 1:2]), rare


def error_where_it_is_rare(cls, scale_of_the_observation=False):
    """Root mean squared error of the deterministic action on the rare pairs, after training."""
    strategy = build_strategy(cls, observation_dim=4, action_low=[-1.0], action_high=[1.0], hidden_sizes=(64, 64))
    if scale_of_the_observation:  # sigma(o) without a floor, the usual form
        scale_network = MLP(4, 1, hidden_sizes=(64, 64))
        strategy.scale_network = scale_network
        strategy.distribution = lambda observations: Independent(
            Normal(strategy.network(observations), 1e-6 + F.softplus(scale_network(observations))), 1
        )
    torch.manual_seed(0)
    train(strategy, lambda: rarely_hard(256)[:2], steps=700, learning_rate=5e-3)
    observations, actions, rare = rarely_hard(20_000)
    with torch.inference_mode():
        return F.mse_loss(strategy.act(observations, deterministic=True)[rare], actions[rare]).sqrt().item()


@pytest.mark.slow
def test_likelihoods_learn_what_is_rare_where_a_scale_without_floor_does_not():
    """Without noise the scale of what is easy vanishes, and its 1 / scale^2 drowns the rest (Seitzer 2022)."""
    assert error_where_it_is_rare(Gaussian, scale_of_the_observation=True) > 0.2
    assert error_where_it_is_rare(MSE) < 0.1
    assert error_where_it_is_rare(Gaussian) < 0.1
    assert error_where_it_is_rare(GaussianMixture) < 0.1
