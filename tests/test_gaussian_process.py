"""The Gaussian process against regression in closed form, written out once more in NumPy and SciPy."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from conftest import build_strategy, fit
from scipy import stats

import lightning_bc
from lightning_bc.strategies import GaussianProcess
from lightning_bc.strategies.offline.gaussian_process import BLOCK, Covariance, Posterior, angle

GENERATOR = torch.Generator().manual_seed(0)


def randomised(module):
    """Other lengths, variances and noise than at first."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return module


def problem(pairs, outputs=2):
    """Observations (pairs, 3) and targets of a smooth function, with a little noise, (pairs, outputs)."""
    observations = torch.randn(pairs, 3, generator=torch.Generator().manual_seed(2)).double()
    noise = torch.randn(pairs, outputs, generator=torch.Generator().manual_seed(3)).double()
    return observations, (2 * observations[:, :outputs]).sin() + observations[:, 2:] / 2 + 0.05 * noise


def covariance_of(covariance, x, y):
    """k(x, y) of two observations, number by number."""
    values = {name: value.detach().double().exp().numpy() for name, value in covariance.named_parameters()}
    linear = sum(values["log_linear_variances"] * x * y)
    p, q = (np.append(one / values["log_network_lengths"], 1) for one in (x, y))
    norms = math.hypot(*p) * math.hypot(*q)
    t = math.acos(min(p @ q / norms, 1))
    network = norms * (math.sin(t) + (math.pi - t) * math.cos(t)) / math.pi
    r = math.sqrt(5 * sum(((x - y) / values["log_smooth_lengths"]) ** 2))
    smooth = (1 + r + r**2 / 3) * math.exp(-r)
    return linear + values["log_network_variance"] * network + values["log_smooth_variance"] * smooth


def matrix(covariance, left, right):
    return np.array([[covariance_of(covariance, x, y) for y in right.numpy()] for x in left.numpy()])


def test_covariances_are_those_of_the_equations():
    covariance, (x, _) = randomised(Covariance(3)), problem(12)
    torch.testing.assert_close(covariance(x, x[:5]).detach().numpy(), matrix(covariance, x, x[:5]), rtol=1e-6, atol=1e-6)


def test_the_arc_cosine_is_the_mean_of_random_relus():
    """2 E[relu(w p) relu(w q)] over w ~ Normal(0, I)."""
    covariance = Covariance(3)
    with torch.no_grad():
        covariance.log_linear_variances.fill_(-50)
        covariance.log_smooth_variance.fill_(-50)
        covariance.log_network_variance.fill_(0)
    x = torch.tensor([[1.0, -0.5, 0.2], [-0.3, 0.8, 1.0]])
    p = torch.cat([x / math.sqrt(3), torch.ones(2, 1)], dim=1)
    features = (p @ torch.randn(4, 1_000_000, generator=GENERATOR)).relu()
    torch.testing.assert_close(covariance(x, x).float(), 2 * features @ features.T / 1_000_000, rtol=0.01, atol=0.01)


def test_the_loss_is_the_log_density_of_the_targets_per_pair():
    strategy = randomised(build_strategy(GaussianProcess))
    x, y = problem(40)
    loss, _ = strategy.loss(x.float(), y.tanh().float())
    noise = float(strategy.network.noise.detach())
    covariance = matrix(strategy.network.covariance, x.float(), x.float()) + noise * np.eye(40)
    density = stats.multivariate_normal(np.zeros(40), covariance)
    wanted = -sum(density.logpdf(y[:, dimension]) for dimension in range(2)) / 40
    assert float(loss) == pytest.approx(wanted, rel=1e-4)


def test_blocks_count_by_their_pairs():
    strategy, (x, y) = build_strategy(GaussianProcess), problem(BLOCK + 50)
    x, a = x.float(), y.tanh().float()
    with torch.no_grad():
        whole, first, second = (
            strategy.loss(x[rows], a[rows])[0] for rows in (slice(None), slice(BLOCK), slice(BLOCK, None))
        )
    assert float(whole) == pytest.approx((BLOCK * float(first) + 50 * float(second)) / (BLOCK + 50), rel=1e-5)


@torch.no_grad()
def test_the_posterior_mean_of_few_pairs_is_exact_regression():
    posterior, (x, y), (new, _) = randomised(Posterior(3, 2, 50)), problem(30), problem(60)
    posterior.condition(x, y)
    noisy = matrix(posterior.covariance, x, x) + float(posterior.noise) * np.eye(30)
    wanted = matrix(posterior.covariance, new, x) @ np.linalg.solve(noisy, y.numpy())
    np.testing.assert_allclose(posterior(new).numpy(), wanted, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_posterior_that_is_loaded_counts_and_answers_by_no_more_than_it_has():
    """Neither what was to be computed before nor 470 pairs with a weight of 0, which would take 16 times as long."""
    posterior, other, (x, y) = randomised(Posterior(3, 2, 500)), Posterior(3, 2, 500), problem(30)
    posterior.condition(x, y)
    other.pending = partial(other.condition, 0 * x, 0 * y)
    other.load_state_dict(posterior.state_dict())
    assert other.used == posterior.used == 30
    assert torch.equal(other(x), posterior(x))


@torch.no_grad()
def test_away_from_the_pairs_the_smooth_function_is_zero():
    posterior, (x, y) = Posterior(3, 2, 30), problem(30)
    for variances in (posterior.covariance.log_linear_variances, posterior.covariance.log_network_variance):
        variances.fill_(-50)
    posterior.condition(x, y)
    assert posterior(x).abs().max() > 0.5
    assert posterior(x + 100).abs().max() < 1e-6


@torch.no_grad()
def test_where_nothing_is_smooth_it_is_ridge_regression():
    posterior, (x, y), (new, _) = Posterior(3, 2, 30), problem(30), problem(60)
    for variance in (posterior.covariance.log_smooth_variance, posterior.covariance.log_network_variance):
        variance.fill_(-50)
    posterior.condition(x, y)
    penalty = float(posterior.noise / posterior.covariance.log_linear_variances.double().exp()[0])
    slopes = torch.linalg.solve(x.T @ x + penalty * torch.eye(3), x.T @ y)
    torch.testing.assert_close(posterior(new), new @ slopes, rtol=1e-6, atol=1e-8)


@torch.no_grad()
def test_samples_are_the_mean_and_the_noise():
    strategy = build_strategy(GaussianProcess)
    strategy.network.log_noise.fill_(-4.0)
    torch.manual_seed(0)
    samples = strategy.act(torch.zeros(20_000, 3), deterministic=False).arctanh()
    mean = strategy.act(torch.zeros(1, 3), deterministic=True).arctanh()
    torch.testing.assert_close(samples.mean(0), mean[0], rtol=0, atol=0.005)
    torch.testing.assert_close(samples.std(0), torch.full((2,), math.exp(-2)), rtol=0.05, atol=0)


@torch.no_grad()
@pytest.mark.parametrize(("noise", "first"), [(0.001, -5.0), (0.3, -1.0)])
def test_training_begins_with_the_noise_that_suits_the_pairs(noise, first):
    strategy, (x, _) = build_strategy(GaussianProcess), problem(400)
    u = x[:, :2].tanh() / 2 + noise * torch.randn(400, 2, generator=GENERATOR)
    strategy.fit_actions(u.tanh().float())
    strategy.begin(x.float(), u.tanh().float())
    assert float(strategy.network.log_noise) == first


def test_an_action_that_does_not_vary_counts_for_nothing_and_is_played_as_it_is():
    one, three, (x, y) = problem_of(1), problem_of(3), problem(60, outputs=1)
    still = torch.tensor([0.3, -0.2]).expand(60, 2)
    a = y.tanh().float()
    one.fit_actions(a)
    three.fit_actions(torch.cat([a, still], dim=1))
    losses = [one.loss(x.float(), a)[0], three.loss(x.float(), torch.cat([a, still], dim=1))[0]]
    torch.testing.assert_close(losses[0], losses[1])
    with torch.no_grad():
        torch.testing.assert_close(three.act(x.float(), deterministic=False)[:, 1:], still)


def problem_of(action_dim):
    torch.manual_seed(0)
    return build_strategy(GaussianProcess, 3, [-1.0] * action_dim, [1.0] * action_dim)


def test_the_angle_of_an_exported_policy_is_arccos(monkeypatch):
    near = torch.logspace(-12, 0, 400, dtype=torch.float64)
    cosine = torch.cat([1 - near, near - 1])
    wanted = cosine.arccos()
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(angle(cosine), wanted, rtol=0, atol=1e-10)


def test_a_matrix_without_factor_is_a_loss_that_is_no_number():
    strategy = build_strategy(GaussianProcess)
    with torch.no_grad():
        strategy.network.covariance.log_smooth_variance.fill_(1e3)
    assert strategy.loss(*(column.float() for column in problem(20)))[0].isnan()


@torch.no_grad()
@pytest.mark.parametrize("ask", ["acts", "is frozen", "is saved"])
def test_the_posterior_is_computed_once_when_it_is_asked_for(ask, monkeypatch):
    strategy, computed, (x, y) = build_strategy(GaussianProcess), [], problem(20)
    compute = strategy.network.condition
    monkeypatch.setattr(strategy.network, "condition", lambda *given: computed.append(given) or compute(*given))
    for _ in range(3):                                              # training steps
        strategy.condition(x.float(), y.tanh().float())
    assert not computed
    for _ in range(2):
        {"acts": lambda: strategy(x.float()), "is frozen": strategy.frozen, "is saved": strategy.state_dict}[ask]()
    assert len(computed) == 1


def test_a_run_ends_conditioned_on_all_its_pairs(data):
    """The pendulum's 120 pairs, of which 110 are learnt from; the last are others than at first."""
    policy = lightning_bc.load(fit(data, "GaussianProcess", "--trainer.max_steps 3 --model.pairs 200"))
    posterior = policy.strategy.network
    used = posterior.weights.abs().sum(1) > 0
    assert used[:110].all()
    assert not used[110:].any()


def test_of_more_pairs_than_it_answers_by_the_first_count(data):
    """A warning says so."""
    with pytest.warns(UserWarning, match="answers by the first 20 of 110 pairs"):
        run = fit(data, "GaussianProcess", "--trainer.max_steps 3 --model.pairs 20")
    strategy = lightning_bc.load(run).strategy
    observations = torch.load(data)["observations"][:20]
    torch.testing.assert_close(strategy.network.points, strategy.border.observe(observations).double())
