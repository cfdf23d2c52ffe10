"""Soft actor-critic: the squashed Gaussian against torch.distributions, the losses by hand, and who moves what."""

import copy
import math

import numpy as np
import pytest
import torch
from conftest import build_strategy
from learners import EVERY_SOFT, built, descending, transitions, warnings_of
from torch.distributions import Independent, Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from lightning_bc.strategies import SAC
from lightning_bc.strategies.online.rewards import EnvironmentReward
from lightning_bc.strategies.online.soft_actor_critic import LOG_SCALE_RANGE, SquashedGaussian
from lightning_bc.strategies.online.watch import Watch

ACTION_DIM = 2

def reference(outputs):
    """torch's own tanh of a Normal, from the same outputs of a network."""
    mean, raw = outputs.chunk(2, dim=-1)
    low, high = LOG_SCALE_RANGE
    scale = torch.exp(low + (high - low) * (torch.tanh(raw) + 1) / 2)
    return TransformedDistribution(Independent(Normal(mean, scale), 1), [TanhTransform(cache_size=1)])


def network_outputs(batch=64):
    return torch.randn(batch, 2 * ACTION_DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_log_probability_equals_torch_distributions():
    outputs = network_outputs()
    actions = 2 * torch.rand(64, ACTION_DIM, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 1
    torch.testing.assert_close(SquashedGaussian(outputs).log_probability(actions), reference(outputs).log_prob(actions))


def test_samples_and_their_log_probability_equal_torch_distributions():
    outputs = network_outputs()
    torch.manual_seed(3)
    actions, log_probability = SquashedGaussian(outputs).sample()
    torch.manual_seed(3)
    distribution = reference(outputs)
    expected = distribution.rsample()
    torch.testing.assert_close(actions, expected)
    torch.testing.assert_close(log_probability, distribution.log_prob(expected))


def test_both_log_probabilities_agree_in_single_precision():
    outputs = network_outputs().float() * torch.tensor([1.0, 1.0, 0.3, 0.3])
    actions, log_probability = SquashedGaussian(outputs).sample()
    inside = (actions.abs() < 0.999).all(-1)
    assert inside.sum() > 10
    again = SquashedGaussian(outputs).log_probability(actions)
    torch.testing.assert_close(again[inside], log_probability[inside], rtol=1e-3, atol=2e-3)


def test_density_integrates_to_one():
    outputs = torch.tensor([[0.4, -0.2]], dtype=torch.float64)
    actions = torch.linspace(-0.99999, 0.99999, 20_001, dtype=torch.float64).unsqueeze(-1)
    density = SquashedGaussian(outputs.expand(len(actions), -1)).log_probability(actions).exp()
    assert torch.trapezoid(density, actions[:, 0]).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("bound", [-1.0, 1.0])
def test_log_probability_is_finite_on_the_bounds(bound):
    outputs = 10 * network_outputs().float()
    outputs.requires_grad_()
    log_probability = SquashedGaussian(outputs).log_probability(torch.full((64, ACTION_DIM), bound))
    (gradient,) = torch.autograd.grad(log_probability.sum(), outputs)
    assert log_probability.isfinite().all()
    assert gradient.isfinite().all()


def test_samples_and_gradients_are_finite_however_large_the_outputs():
    outputs = torch.tensor([[1e4, -1e4, 1e4, -1e4]]).requires_grad_()
    actions, log_probability = SquashedGaussian(outputs).sample()
    assert torch.equal(actions, torch.tensor([[1.0, -1.0]]))
    (gradient,) = torch.autograd.grad(log_probability.sum(), outputs)
    assert log_probability.isfinite().all()
    assert gradient.isfinite().all()


def test_samples_carry_the_gradient_of_their_reparameterisation():
    """For the noise that was drawn, a = tanh(m + sigma e):  da/dm = 1 - a^2,  da/d(log sigma) = (1 - a^2) sigma e."""
    outputs = network_outputs().requires_grad_()
    policy = SquashedGaussian(outputs)
    actions, _ = policy.sample()
    by_mean, by_log_scale = torch.autograd.grad(actions.sum(), (policy.mean, policy.log_scale), retain_graph=True)
    slope = 1 - actions.square()
    torch.testing.assert_close(by_mean, slope)
    torch.testing.assert_close(by_log_scale, slope * (actions.arctanh() - policy.mean))
    assert torch.autograd.grad(actions.sum(), outputs)[0].all()


def test_the_gradient_of_the_sampled_entropy_is_that_of_the_closed_form():
    """Far from the bounds tanh is the identity, and the entropy is log sigma + (1 + log 2 pi) / 2 a dimension."""
    log_scale = torch.full((20_000, 1), -4.0, dtype=torch.float64)
    low, high = LOG_SCALE_RANGE
    raw = torch.atanh(2 * (log_scale - low) / (high - low) - 1)
    policy = SquashedGaussian(torch.cat([torch.zeros_like(raw), raw.requires_grad_()], dim=-1))
    _, log_probability = policy.sample()
    assert -log_probability.mean().item() == pytest.approx(Normal(0.0, torch.tensor(-4.0).exp()).entropy().item(), abs=0.03)
    (gradient,) = torch.autograd.grad(-log_probability.mean(), policy.log_scale)
    assert gradient.sum().item() == pytest.approx(1, abs=0.03)


# The losses


def agent(**options):
    """SAC's, whose slow critics are others than the fast ones, at a temperature of exp(-0.7)."""
    made = build_strategy(SAC, **options).agent
    torch.nn.init.normal_(made.target_critics.weights[-1])
    made.log_temperature.data.fill_(-0.7)
    return made


def test_a_terminated_transition_does_not_bootstrap_and_a_truncated_one_does():
    soft, batch = agent(discount=0.9), transitions(2, terminated=[1, 0])
    torch.manual_seed(5)
    loss, metrics = soft.critic_loss(batch, EnvironmentReward())

    torch.manual_seed(5)
    next_actions, log_probability = soft.policy(batch.next_observations).sample()
    slow = soft.target_critics(batch.next_observations, next_actions)
    future = min(slow[0, 1].item(), slow[1, 1].item()) - np.exp(-0.7) * log_probability[1].item()
    targets = [batch.rewards[0].item(), batch.rewards[1].item() + 0.9 * future]
    values = soft.critics(batch.observations, batch.actions).tolist()
    expected = sum(np.mean(np.square(np.subtract(member, targets))) for member in values)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert metrics["reward"].item() == pytest.approx(batch.rewards.mean().item())
    assert metrics["q_value"].item() == pytest.approx(np.mean(values))


def test_the_actors_loss_is_the_price_of_entropy_less_the_least_value():
    soft, batch = agent(), transitions()
    torch.manual_seed(5)
    loss, metrics = soft.actor_loss(batch.observations)
    torch.manual_seed(5)
    actions, log_probability = soft.policy(batch.observations).sample()
    first, second = soft.critics(batch.observations, actions)
    torch.testing.assert_close(loss, (np.exp(-0.7) * log_probability - torch.minimum(first, second)).mean())
    torch.testing.assert_close(metrics["entropy"], -log_probability.mean())


def test_an_anchor_is_weighed_against_values_in_units_of_their_size():
    soft, observations = agent(), transitions().observations
    torch.manual_seed(5)
    alone, _ = soft.actor_loss(observations)
    torch.manual_seed(5)
    values = soft.critics(observations, soft.policy(observations).sample()[0]).amin(0)
    soft.anchor = lambda policy, seen: torch.tensor(2.0)
    torch.manual_seed(5)
    anchored, metrics = soft.actor_loss(observations)
    torch.testing.assert_close(anchored, alone / values.abs().mean() + 2)
    assert metrics["actor_loss"] == alone


def test_the_actors_step_raises_value():
    soft, batch = agent(), transitions(64)
    soft.log_temperature.data.fill_(-10.0)

    def value():
        with torch.no_grad():
            actions = soft.policy(batch.observations).mean.tanh()
            return soft.critics(batch.observations, actions).amin(0).mean()

    before, optimizer = value(), torch.optim.Adam(soft.network.parameters(), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        soft.actor_loss(batch.observations)[0].backward()
        optimizer.step()
    assert value() > before


@pytest.mark.parametrize(("entropy", "direction"), [(-2.5, 1), (-1.5, -1), (3.0, -1), (-50.0, 1)])
def test_the_temperature_rises_while_the_entropy_is_under_minus_action_dim(entropy, direction):
    soft = build_strategy(SAC).agent                                # two actions
    optimizer, before = torch.optim.SGD([soft.log_temperature], lr=0.1), soft.log_temperature.item()
    soft.temperature_loss(torch.tensor(entropy)).backward()
    optimizer.step()
    assert (soft.log_temperature.item() - before) * direction > 0


# Who moves what


@EVERY_SOFT
def test_actor_and_temperature_leave_no_trace_in_the_critics(cls):
    """An update with them, and one without: critics, their gradients and the slow critics are the same."""
    options = {"discriminator_every": 1} if "discriminator_loss" in cls.logs else {}
    strategies = [built(cls, actor_every=2, batch_size=6, **options) for _ in range(2)]
    for strategy in strategies:
        torch.nn.init.normal_(strategy.agent.target_critics.weights[-1], generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(strategies[0].agent)
    for number, strategy in enumerate(strategies):                  # the actor's turn is at even ones
        torch.manual_seed(5)
        strategy.update(transitions(), number, descending(strategy))
    with_actor, without = (strategy.agent for strategy in strategies)
    actors = [torch.nn.utils.parameters_to_vector(each.network.parameters()) for each in (with_actor, without, before)]
    assert not torch.equal(actors[0], actors[2])
    assert torch.equal(actors[1], actors[2])
    assert with_actor.log_temperature != before.log_temperature
    assert without.log_temperature == before.log_temperature
    for name in ("critics", "target_critics"):
        for one, other in zip(getattr(with_actor, name).parameters(), getattr(without, name).parameters(), strict=True):
            assert torch.equal(one, other)
    for one, other in zip(with_actor.critics.parameters(), without.critics.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
        assert one.requires_grad                                    # again, for the next update


@pytest.mark.parametrize("rate", [0.005, 0.3, 1.0])
def test_the_slow_critics_move_by_exactly_the_target_rate(rate):
    strategy = build_strategy(SAC, target_rate=rate)
    torch.nn.init.normal_(strategy.agent.target_critics.weights[0])
    before = copy.deepcopy(strategy.agent.target_critics)
    strategy.update(transitions(), 0, descending(strategy))
    groups = (before.parameters(), strategy.agent.critics.parameters(), strategy.agent.target_critics.parameters())
    for old, critic, new in zip(*groups, strict=True):
        torch.testing.assert_close(new, (1 - rate) * old + rate * critic)
        assert not new.requires_grad


@pytest.mark.parametrize(
    ("temperatures", "words"),
    [([1.0, 99.0, 1e-6], None), ([99.0, 101.0, 200.0], "the temperature is 101"), ([math.nan, math.inf], "is nan")],
    ids=["usual", "high", "not finite"],
)
def test_a_temperature_that_diverges_is_warned_of_once(temperatures, words):
    soft, watch = build_strategy(SAC).agent, Watch()

    def check(temperature):
        soft.log_temperature.data.fill_(math.log(temperature))
        soft.check(watch)

    messages = warnings_of(check, *temperatures)
    assert len(messages) == (words is not None)
    assert all(words in message and "--model.optimizer.lr" in message for message in messages)
