"""The contract of a strategy, for every one there is; likelihoods against torch.distributions; two ways to act."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import build_strategy
from scipy import stats
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform
from torch.nn import functional as F

from lightning_bc.networks import MLP, ResidualMLP
from lightning_bc.strategies import (
    MSE,
    Autoregressive,
    Diffusion,
    FlowMatching,
    Gaussian,
    GaussianMixture,
    OfflineStrategy,
    strategies,
)
from lightning_bc.strategies.offline.squashing import log_volume, unsquash

LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([1.0, 3.0])  # build_strategy's bounds
ALL = strategies()
OFFLINE = {name: cls for name, cls in ALL.items() if issubclass(cls, OfflineStrategy)}
MULTIMODAL = [GaussianMixture, Autoregressive, Diffusion, FlowMatching]
every_strategy = pytest.mark.parametrize("cls", ALL.values(), ids=ALL)
every_offline_strategy = pytest.mark.parametrize("cls", OFFLINE.values(), ids=OFFLINE)
with_likelihood = pytest.mark.parametrize("cls", [Gaussian, GaussianMixture], ids=lambda cls: cls.__name__)


def constant_outputs(outputs):
    """A network factory: the same ``outputs`` whatever is observed."""

    def factory(input_size, output_size):
        network = torch.nn.Linear(input_size, output_size)
        torch.nn.init.zeros_(network.weight)
        with torch.no_grad():
            network.bias.copy_(torch.as_tensor(outputs))
        return network

    return factory


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


def train(strategy, batch_of, steps=200, learning_rate=3e-3):
    """Minimise ``strategy.loss`` with Adam; the losses along the way."""
    optimizer, losses = torch.optim.Adam(strategy.parameters(), lr=learning_rate), []
    for _ in range(steps):
        loss, _ = strategy.loss(*batch_of())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def linear_problem(pairs=256):
    """Observations, and actions in [-1, 1] that are linear in them."""
    generator = torch.Generator().manual_seed(0)
    observations = torch.randn(pairs, 3, generator=generator)
    return observations, (observations @ torch.tensor([[0.3, -0.1], [0.0, 0.2], [-0.2, 0.1]])).clamp(-1, 1)


# The contract


def test_every_strategy_is_found():
    assert {"Gaussian", "GaussianMixture", "MSE"} <= set(ALL)


@every_strategy
def test_strategy_is_final(cls):
    assert cls.__subclasses__() == []


@every_strategy
@pytest.mark.parametrize("magnitude", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("deterministic", [True, False], ids=["deterministic", "sampled"])
def test_actions_are_finite_and_within_the_bounds(cls, magnitude, deterministic):
    strategy = build_strategy(cls)
    observations = magnitude * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        actions = strategy(observations, deterministic=deterministic)
    assert actions.shape == (500, 2)
    assert actions.isfinite().all()
    assert (actions >= LOW).all()
    assert (actions <= HIGH).all()
    if magnitude == 1e6:
        assert (actions.amax(0) > actions.amin(0)).any()  # it answers what it sees, so the bounds were tried


@every_strategy
def test_one_observation_is_a_batch(cls):
    strategy = build_strategy(cls)
    observations = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone = torch.cat([strategy(row[None], deterministic=True) for row in observations])
        torch.testing.assert_close(alone, strategy(observations, deterministic=True), rtol=1e-4, atol=1e-4)
        assert strategy(observations[:0], deterministic=True).shape == (0, 2)


@every_strategy
def test_deterministic_actions_repeat_themselves(cls):
    strategy = build_strategy(cls)
    observations = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.manual_seed(1)
        first = strategy(observations, deterministic=True)
        torch.manual_seed(2)
        assert torch.equal(strategy(observations, deterministic=True), first)
        assert torch.equal(strategy(observations), first)  # and are what is played unless told otherwise


@every_strategy
def test_samples_repeat_under_the_same_seed(cls):
    strategy = build_strategy(cls)
    observations = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))

    def sample(seed):
        torch.manual_seed(seed)
        with torch.inference_mode():
            return strategy(observations, deterministic=False)

    assert torch.equal(sample(1), sample(1))
    if cls is not MSE:
        assert not torch.equal(sample(1), sample(2))


@every_strategy
def test_scale_brings_the_bounds_to_minus_one_and_one(cls):
    corners = torch.stack([LOW, HIGH])
    torch.testing.assert_close(build_strategy(cls).border.scaled(corners), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))


@pytest.mark.parametrize(
    ("scaled", "wanted"),
    [
        pytest.param([-1.0, 1.0], [-2.0, 3.0], id="corner"),
        pytest.param([0.0, 0.0], [-0.5, 1.5], id="middle"),
        pytest.param([0.5, -0.2], [0.25, 1.2], id="between"),
        pytest.param([-7.0, 1e9], [-2.0, 3.0], id="beyond the bounds"),
    ],
)
def test_forward_and_scale_are_inverse_maps_and_forward_clamps(scaled, wanted):
    strategy = build_strategy(MSE, network=constant_outputs(scaled), squash=False)
    with torch.inference_mode():
        actions = strategy(torch.zeros(1, 3))
    torch.testing.assert_close(actions, torch.tensor([wanted]))
    torch.testing.assert_close(strategy.border.scaled(actions), torch.tensor([scaled]).clamp(-1, 1))


@every_strategy
def test_forward_normalises_what_it_observes(cls):
    strategy = build_strategy(cls)
    observations = 500 + 20 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    normalized = (observations - observations.mean(0)) / observations.std(0, correction=0)
    with torch.inference_mode():
        wanted = strategy(normalized, deterministic=True)
        strategy.border.fit(observations)
        torch.testing.assert_close(strategy(observations, deterministic=True), wanted, rtol=1e-3, atol=1e-3)


@every_strategy
def test_weights_bounds_and_normalization_travel_in_the_state_dict(cls):
    source = build_strategy(cls)
    source.border.fit(3 + torch.randn(100, 3))
    target = build_strategy(cls, action_low=[-5.0, -5.0], action_high=[5.0, 5.0])
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.mul_(1.5)
    target.load_state_dict(source.state_dict())
    observations = torch.randn(20, 3)
    with torch.inference_mode():
        assert torch.equal(target(observations), source(observations))


@every_offline_strategy
def test_loss_is_a_finite_scalar_and_every_parameter_learns_from_it(cls):
    strategy, batch = build_strategy(cls), linear_problem()
    train(strategy, lambda: batch, steps=3)  # past layers that begin at zero
    loss, metrics = strategy.loss(*batch)
    strategy.zero_grad()
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    for name, parameter in strategy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    for name, metric in metrics.items():
        assert torch.as_tensor(metric).numel() == 1, name
        assert math.isfinite(metric), name
        assert not metric.requires_grad, name


@every_offline_strategy
def test_loss_is_finite_for_actions_at_the_bounds_and_far_observations(cls):
    observations = 1e3 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    actions = torch.ones(64, 2)
    actions[::2] = -1
    loss, _ = build_strategy(cls).loss(observations, actions)
    assert loss.isfinite()


@every_offline_strategy
def test_training_lowers_the_loss_and_finds_the_action(cls):
    strategy, batch = build_strategy(cls), linear_problem()
    torch.manual_seed(0)
    with torch.inference_mode():
        before = F.mse_loss(strategy.act(batch[0], deterministic=True), batch[1])
    losses = train(strategy, lambda: batch)
    with torch.inference_mode():
        after = F.mse_loss(strategy.act(batch[0], deterministic=True), batch[1])
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
    assert after < before / 2


@every_offline_strategy
def test_strategy_takes_another_network(cls):
    strategy = build_strategy(cls, network=lambda size_in, size_out: ResidualMLP(size_in, size_out, width=16, blocks=1))
    loss, _ = strategy.loss(*linear_problem())
    assert loss.isfinite()
    assert any(isinstance(module, ResidualMLP) for module in strategy.modules())


# MSE


squash_or_not = pytest.mark.parametrize("squash", [True, False], ids=["before tanh", "on the action"])


@squash_or_not
def test_mse_loss_is_the_mean_squared_distance(squash):
    strategy, (observations, actions) = build_strategy(MSE, squash=squash), linear_problem()
    outputs, targets = strategy.network(observations).detach().double().numpy(), actions.double().numpy()
    if squash:
        targets = np.arctanh(np.clip(targets, -0.999, 0.999))
    loss, _ = strategy.loss(observations, actions)
    np.testing.assert_allclose(loss.item(), np.mean((outputs - targets) ** 2), rtol=1e-5)
    acted = strategy.act(observations, deterministic=True).detach().numpy()
    np.testing.assert_allclose(acted, np.tanh(outputs) if squash else outputs, atol=1e-6)


@squash_or_not
def test_mse_finds_the_mean_before_or_after_the_squashing(squash):
    """Demonstrations of a soft actor-critic, a = tanh(m + sigma e): squashed, the clone is as decided as its mean."""
    strategy = build_strategy(
        MSE, 1, action_low=[-1.0], action_high=[1.0], network=constant_outputs([0.0]), squash=squash
    )
    generator = torch.Generator().manual_seed(0)
    actions = torch.tanh(1.0 + 0.5 * torch.randn(20_000, 1, generator=generator))
    train(strategy, lambda: (torch.zeros(20_000, 1), actions), steps=300, learning_rate=0.03)
    with torch.inference_mode():
        found = strategy(torch.zeros(1, 1)).item()
    assert found == pytest.approx(math.tanh(1.0) if squash else actions.mean().item(), abs=0.01)
    assert math.tanh(1.0) - actions.mean().item() > 0.03  # the two differ by more than the tolerance


# Before the tanh


def test_unsquash_inverts_the_tanh():
    actions = torch.linspace(-0.999, 0.999, 1001, dtype=torch.float64).reshape(-1, 7)
    torch.testing.assert_close(unsquash(actions).tanh(), actions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(unsquash(actions).numpy(), np.arctanh(actions.numpy()), atol=1e-12)


def test_log_volume_equals_torch_distributions():
    before = torch.linspace(-3.7, 3.7, 1001, dtype=torch.float64).reshape(-1, 7)
    reference = TanhTransform().log_abs_det_jacobian(before, before.tanh()).sum(-1)
    torch.testing.assert_close(log_volume(before.tanh()), reference, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_volume(before.tanh().float()), reference.float(), rtol=1e-4, atol=1e-3)


def test_actions_on_and_beyond_the_bounds_count_as_a_thousandth_within():
    bounds, within = torch.tensor([[-1.0, 1.0, -7.0, 7.0]]), torch.tensor([[-0.999, 0.999, -0.999, 0.999]])
    assert torch.equal(unsquash(bounds), unsquash(within))
    assert torch.equal(log_volume(bounds), log_volume(within))
    torch.testing.assert_close(unsquash(bounds), torch.tensor([[-3.8002, 3.8002, -3.8002, 3.8002]]), rtol=0, atol=1e-3)
    assert log_volume(bounds).isfinite().all()


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
    train(strategy, lambda: rarely_hard(256)[:2], steps=2000)
    observations, actions, rare = rarely_hard(20_000)
    with torch.inference_mode():
        return F.mse_loss(strategy.act(observations, deterministic=True)[rare], actions[rare]).sqrt().item()


def test_likelihoods_learn_what_is_rare_where_a_scale_without_floor_does_not():
    """Without noise the scale of what is easy vanishes, and its 1 / scale^2 drowns the rest (Seitzer 2022)."""
    assert error_where_it_is_rare(Gaussian, scale_of_the_observation=True) > 0.2
    assert error_where_it_is_rare(MSE) < 0.1
    assert error_where_it_is_rare(Gaussian) < 0.1
    assert error_where_it_is_rare(GaussianMixture) < 0.1


# Two good ways to act

HUMP = 0.6


def two_humps(pairs):
    """Actions near +0.6 or -0.6, whichever comes, shifted a little by the observation."""
    observations = torch.randn(pairs, 1)
    side = torch.randint(0, 2, (pairs, 1)) * 2 - 1
    return observations, HUMP * side + 0.05 * observations + 0.05 * torch.randn(pairs, 1)


@pytest.fixture(scope="module")
def trained_on_two_humps():
    def trained(cls):
        strategy = build_strategy(cls, observation_dim=1, action_low=[-1.0], action_high=[1.0], hidden_sizes=(64, 64))
        torch.manual_seed(0)
        train(strategy, lambda: two_humps(512), steps=1500)
        return strategy

    return {cls: trained(cls) for cls in (MSE, Gaussian, *MULTIMODAL)}


@pytest.mark.parametrize("cls", [MSE, Gaussian], ids=lambda cls: cls.__name__)
def test_one_action_for_two_humps_lies_between_them(trained_on_two_humps, cls):
    observations = torch.linspace(-1, 1, 50)[:, None]
    with torch.inference_mode():
        actions = trained_on_two_humps[cls](observations, deterministic=True)
    assert actions.abs().max() < HUMP / 2


@pytest.mark.parametrize("cls", MULTIMODAL, ids=lambda cls: cls.__name__)
def test_samples_lie_on_both_humps(trained_on_two_humps, cls):
    samples = 4000
    torch.manual_seed(0)
    with torch.inference_mode():
        actions = trained_on_two_humps[cls](0.5 * torch.randn(samples, 1), deterministic=False)
    on_left = ((actions + HUMP).abs() < 0.4).double().mean()
    on_right = ((actions - HUMP).abs() < 0.4).double().mean()
    binomial_tolerance = 3 * math.sqrt(0.25 / samples)
    assert on_left > 0.45 - binomial_tolerance
    assert on_right > 0.45 - binomial_tolerance


@pytest.mark.parametrize("cls", [GaussianMixture, Autoregressive], ids=lambda cls: cls.__name__)
def test_the_likeliest_action_lies_on_a_hump(trained_on_two_humps, cls):
    observations = torch.linspace(-1, 1, 50)[:, None]
    with torch.inference_mode():
        actions = trained_on_two_humps[cls](observations, deterministic=True)
    assert ((actions.abs() - HUMP).abs() < 0.2).all()


@pytest.mark.parametrize("cls", [Diffusion, FlowMatching], ids=lambda cls: cls.__name__)
def test_the_noise_at_the_start_decides_for_a_hump(trained_on_two_humps, cls):
    """The upper half of the noise is the right hump, though noise is turned down on the way (noise scale 0.3)."""
    strategy, noises = copy.deepcopy(trained_on_two_humps[cls]), torch.tensor([[-1.5], [-1.0], [1.0], [1.5]])
    strategy.noise_scale, strategy.start_noise = 0.3, noises.repeat(50, 1)
    observations = torch.linspace(-1, 1, 50)[:, None].repeat_interleave(4, dim=0)
    with torch.inference_mode():
        actions = strategy(observations, deterministic=True)
    assert ((actions - HUMP * strategy.start_noise.sign()).abs() < 0.2).all()
