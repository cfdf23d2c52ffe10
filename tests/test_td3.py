"""TD3's losses by hand, its three devices against overestimation, and actions on their bounds."""

import copy

import numpy as np
import pytest
import torch
from conftest import build_strategy
from learners import descending, transitions

from lightning_bc.strategies import TD3
from lightning_bc.strategies.online.rewards import EnvironmentReward


def agent(**options):
    """TD3's, whose slow networks are others than the fast ones."""
    made = build_strategy(TD3, **options).agent
    for network in (made.target_network, made.target_critics):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return made


@pytest.mark.parametrize(("noise", "bound"), [(0.0, 0.5), (0.2, 0.5), (5.0, 0.1)])
def test_the_critics_learn_the_least_value_of_the_slow_actors_smoothed_action(noise, bound):
    twin, batch = agent(discount=0.9, target_noise=noise, target_noise_bound=bound), transitions(40, terminated=[1, 0] * 20)
    torch.manual_seed(5)
    loss, metrics = twin.critic_loss(batch, EnvironmentReward())

    torch.manual_seed(5)
    drawn = noise * torch.randn(40, 2).numpy()
    actions = np.tanh(twin.target_network(batch.next_observations).detach().numpy())
    smoothed = np.clip(actions + np.clip(drawn, -bound, bound), -1, 1)
    following = twin.target_critics(batch.next_observations, torch.from_numpy(smoothed)).detach().numpy().min(0)
    targets = batch.rewards.numpy() + 0.9 * (1 - batch.terminated.numpy()) * following
    values = twin.critics(batch.observations, batch.actions).detach().numpy()
    assert loss.item() == pytest.approx(((values - targets) ** 2).mean(1).sum(), rel=1e-4)
    assert metrics["q_value"].item() == pytest.approx(values.mean(), rel=1e-4)


def test_the_actor_climbs_the_first_critic():
    twin, observations = agent(), transitions(64).observations

    def value():
        with torch.no_grad():
            return twin.critics(observations, twin.network(observations).tanh())[0].mean()

    torch.testing.assert_close(twin.actor_loss(observations), -value())
    before, optimizer = value(), torch.optim.Adam(twin.network.parameters(), lr=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        twin.actor_loss(observations).backward()
        optimizer.step()
    assert value() > before


def test_actor_and_slow_networks_wait_for_their_turn():
    strategy = build_strategy(TD3, actor_every=3, target_rate=0.3)
    descend = descending(strategy)
    vector = torch.nn.utils.parameters_to_vector
    for number in range(7):
        before, after = copy.deepcopy(strategy.agent), strategy.agent
        strategy.update(transitions(), number, descend)
        is_due = number % 3 == 0
        assert torch.equal(vector(before.network.parameters()), vector(after.network.parameters())) != is_due
        for slow, fast in (("target_network", "network"), ("target_critics", "critics")):
            old, new = (vector(getattr(each, slow).parameters()) for each in (before, after))
            rate = 0.3 if is_due else 0.0
            torch.testing.assert_close(new, (1 - rate) * old + rate * vector(getattr(after, fast).parameters()))


def test_what_collects_is_the_learning_actor_with_noise_and_what_plays_has_none():
    strategy = build_strategy(TD3, exploration_noise=0.1)
    observations = transitions(1).observations.expand(20_000, -1)
    with torch.no_grad():
        spread = strategy.agent.explore(observations) - strategy.agent.network(observations).tanh()
    assert spread.mean(0).abs().max() < 0.005
    torch.testing.assert_close(spread.std(0), torch.full((2,), 0.1), rtol=0.03, atol=0)
    sampled, deterministic = (strategy(observations[:5], deterministic=each) for each in (False, True))
    assert torch.equal(sampled, deterministic)


def test_actions_go_to_their_bounds_where_that_is_best():
    """The reward is the sum of the actions, and every transition the last of its episode."""
    strategy = build_strategy(TD3, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=3e-3))
    descend = descending(strategy)
    for number in range(400):
        batch = transitions(64, terminated=torch.ones(64), seed=number)
        batch.rewards.copy_(batch.actions.sum(-1))
        strategy.update(batch, number, descend)
    assert (strategy.act(transitions(50).observations, deterministic=True) > 0.95).all()
