"""AIRL's f and its logit, term by term."""

import numpy as np
import torch
from conftest import build_strategy
from learners import at_rest, one_dimensional, transitions

from lightning_bc.strategies import AIRL
from lightning_bc.strategies.contract import Transitions


def test_airl_rewards_with_reward_and_potential():
    strategy, batch = build_strategy(AIRL, discount=0.9), transitions(2, terminated=[0, 1])
    f, alive, dead = strategy.reward.f, torch.zeros(1), torch.tensor([10.0])
    for row in range(2):
        state = torch.cat([batch.observations[row], alive])
        following = torch.cat([torch.zeros(3), dead]) if row == 1 else torch.cat([batch.next_observations[row], alive])
        reward = f.reward(torch.cat([state, batch.actions[row]])[None])
        expected = reward + 0.9 * f.potential(following[None]) - f.potential(state[None])
        torch.testing.assert_close(strategy.reward(batch)[row], expected[0])


def test_airls_potential_cancels_along_an_episode():
    """sum gamma^t f_t = sum gamma^t g_t + gamma^T h(s_T) - h(s_0)."""
    strategy, steps, discount = build_strategy(AIRL, discount=0.9), 20, 0.9
    path, actions = torch.randn(steps + 1, 3), torch.rand(steps, 2)
    batch = Transitions(path[:-1], actions, torch.zeros(steps), path[1:], torch.zeros(steps))
    weights = discount ** torch.arange(steps)
    states = torch.cat([path, torch.zeros(steps + 1, 1)], dim=-1)
    rewards = strategy.reward.f.reward(torch.cat([states[:-1], actions], dim=-1))
    ends = strategy.reward.f.potential(states[[0, -1]])
    expected = (weights * rewards).sum() + discount**steps * ends[1] - ends[0]
    torch.testing.assert_close((weights * strategy.reward(batch)).sum(), expected, rtol=1e-4, atol=1e-4)


def test_airls_logit_knows_the_policy_and_trains_nothing_of_it():
    strategy, batch = build_strategy(AIRL), transitions(terminated=[0, 0, 1, 0, 1, 0])
    strategy.agent.log_temperature.data.fill_(np.log(0.3))
    batch.actions.mul_(0.5)                                         # where log pi is within its bounds
    inputs = strategy.states.inputs(batch)
    log_policy = strategy.agent.policy(batch.observations).log_probability(batch.actions)
    assert (log_policy.abs() < 20).all()
    torch.testing.assert_close(strategy.logits(inputs), strategy.reward(batch) - 0.3 * log_policy)
    absorbed = strategy.states.absorbed(3)
    torch.testing.assert_close(strategy.logits(absorbed), strategy.reward.f(absorbed))
    strategy.logits(inputs).sum().backward()
    assert all(parameter.grad is None for parameter in strategy.agent.parameters())


def test_airls_logit_knows_how_sure_a_policy_of_many_dimensions_is():
    """Whose log pi is about their number where its entropy is what soft actor-critic wants, -action_dim."""
    strategy = build_strategy(AIRL, action_low=[-1.0] * 30, action_high=[1.0] * 30)
    final = [layer for layer in strategy.agent.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(final.weight)
    final.bias.data = torch.tensor([0.0] * 30 + [-0.3] * 30)
    policy, observations = strategy.agent.policy(torch.zeros(6, 3)), torch.zeros(6, 3)
    actions, log_policy = policy.sample()
    batch = Transitions(observations, actions.detach(), torch.zeros(6), observations, torch.zeros(6))
    assert (log_policy > 20).all()
    temperature = strategy.agent.log_temperature.exp()
    wanted = strategy.reward(batch) - temperature * log_policy
    torch.testing.assert_close(strategy.logits(strategy.states.inputs(batch)), wanted, rtol=1e-3, atol=1e-3)


def test_airls_logit_of_an_impossible_action_is_bounded():
    strategy = one_dimensional(AIRL)
    final = [layer for layer in strategy.agent.network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    torch.nn.init.zeros_(final.weight)
    final.bias.data = torch.tensor([5.0, -100.0])                   # a near-certain action at tanh(5)
    inputs = strategy.states.inputs(at_rest([-1.0, 1.0, 0.0]))
    assert (strategy.logits(inputs) - strategy.reward.f(inputs)).abs().max() <= 20
