"""IQ-Learn's loss against the paper's equation, summed row by row, and what it makes of known distributions."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from learners import at_rest, built, demonstrate, descending, one_dimensional, transitions
from scipy import stats

from lightning_bc.strategies import IQLearn

ALPHA, DISCOUNT = 0.3, 0.9


def by_the_equation(strategy, learner, expert):
    """- E_expert[Q - gamma V'] + E[V - gamma V'] + E[(Q - gamma V')^2] / (4 alpha), mean over critics, in NumPy.

    Rows that terminated are followed by 10 steps in the absorbing state, 1 / (1 - gamma), each earning its reward.
    """
    columns = [torch.cat([getattr(learner, name), getattr(expert, name)]) for name in ("observations", "next_observations")]
    with torch.no_grad():
        actions, log_probability = strategy.agent.policy(torch.cat(columns)).sample()
        values = strategy.agent.critics(torch.cat(columns), actions).numpy()
        values = values - np.exp(strategy.agent.log_temperature.item()) * log_probability.numpy()
        after = strategy.absorbing_reward.item()
        terms = {"expert": [], "all": [], "squares": []}
        for who, batch, first in (("learner", learner, 0), ("expert", expert, len(learner.rewards))):
            q = strategy.agent.critics(batch.observations, batch.actions).numpy()  # (members, batch)
            for row in range(len(batch.rewards)):
                value, next_value = values[:, first + row], values[:, len(columns[0]) + first + row]
                following = DISCOUNT * (10 * after if batch.terminated[row] else next_value)
                steps = [(q[:, row] - following, value - following)]
                if batch.terminated[row]:
                    steps += 10 * [(np.full(2, after), np.full(2, after))]
                for reward, earned in steps:
                    terms["all"].append(earned)
                    terms["squares"].append(reward**2)
                    if who == "expert":
                        terms["expert"].append(reward)
    return np.mean(-np.mean(terms["expert"], 0) + np.mean(terms["all"], 0) + np.mean(terms["squares"], 0) / (4 * ALPHA))


@pytest.mark.parametrize("terminated", [[0] * 6, [1, 0, 0, 1, 0, 0], [1] * 6], ids=["none ends", "two end", "all end"])
def test_the_loss_is_the_papers(terminated):
    strategy = built(IQLearn, discount=DISCOUNT, chi_square_alpha=ALPHA)
    strategy.absorbing_reward.data.fill_(1.7)
    strategy.agent.log_temperature.data.fill_(-0.7)
    learner, expert = transitions(terminated=terminated), transitions(4, seed=1, terminated=[0, 0, 1, 0])
    torch.manual_seed(5)
    loss, metrics = strategy.critic_loss(learner, expert)
    torch.manual_seed(5)
    assert loss.item() == pytest.approx(by_the_equation(strategy, learner, expert), rel=1e-5)
    assert metrics["critic_loss"] == loss


def test_the_environments_reward_is_not_looked_at():
    strategy, batch = built(IQLearn), transitions()
    batch.rewards.fill_(float("nan"))
    assert strategy.critic_loss(batch, transitions(seed=1))[0].isfinite()


def test_the_gradient_goes_through_what_follows_too():
    """The paper's objective is not a regression to a fixed target: V' is learnt as V is."""
    strategy = built(IQLearn)
    following = transitions().next_observations.requires_grad_()
    batch = transitions()
    object.__setattr__(batch, "next_observations", following)
    strategy.critic_loss(batch, transitions(seed=1))[0].backward()
    assert following.grad.any()


def learn(strategy, learner, expert, policy, steps=120):
    """The critics alone, always on these batches, under a policy that takes these actions in turn and has no entropy."""
    turns = torch.as_tensor(policy, dtype=torch.float32).unsqueeze(-1)
    strategy.agent.policy = lambda observations: SimpleNamespace(
        sample=lambda: (turns.repeat(len(observations) // len(turns), 1), torch.zeros(len(observations)))
    )
    optimizer = torch.optim.Adam(strategy.parts()["critic"], lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        strategy.critic_loss(learner, expert)[0].backward()
        optimizer.step()
    return strategy


def test_the_best_reward_is_the_chi_square_divergences():
    """4 alpha (p_expert - p_learner) / (p_expert + p_learner), where the learner's actions are the policy's.

    Both densities are stood for by their quantiles, so that no noise of sampling is learnt. The discount is 0, where r = Q:
    above it one action for V adds its variance to the square.
    """
    p_expert, p_learner = stats.beta(4, 2.5, loc=-1, scale=2), stats.beta(2, 3, loc=-1, scale=2)
    quantiles = (np.arange(100) + 0.5) / 100
    expert, learner = p_expert.ppf(quantiles), p_learner.ppf(quantiles)
    strategy = one_dimensional(IQLearn, chi_square_alpha=0.5, discount=0.0)
    learn(strategy, at_rest(learner), at_rest(expert), policy=learner)
    actions = np.linspace(-0.6, 0.7, 60)
    with torch.no_grad():
        rewards = strategy.agent.critics(torch.zeros(60, 1), at_rest(actions).actions)
    densities = p_expert.pdf(actions), p_learner.pdf(actions)
    expected = 2 * (densities[0] - densities[1]) / (densities[0] + densities[1])
    assert np.ptp(expected) > 2
    assert np.abs(rewards.numpy() - expected).max() < 0.15


@pytest.mark.parametrize("who_dies", ["learner", "expert"])
def test_dying_is_worth_what_the_expert_makes_of_it(who_dies):
    """Both act alike; only that one of them terminates tells them apart."""
    actions = np.linspace(-0.5, 0.5, 32)
    dies, lives = at_rest(actions, np.float32(np.arange(32) % 2)), at_rest(actions)
    expert, learner = (lives, dies) if who_dies == "learner" else (dies, lives)
    strategy = learn(one_dimensional(IQLearn, discount=0.9), learner, expert, policy=actions)
    with torch.no_grad():
        living = strategy.value(torch.zeros(32, 1)).mean()
        assert (strategy.value_after_termination() > living) == (who_dies == "expert")
        assert (strategy.absorbing_reward > 0) == (who_dies == "expert")


def test_actor_and_critics_learn_from_replay_and_demonstrations_in_equal_parts():
    strategy, seen = demonstrate(built(IQLearn, batch_size=6), transitions(1, seed=1)), []
    improve = strategy.agent.improve
    strategy.agent.improve = lambda batch, *rest: seen.append(batch) or improve(batch, *rest)
    replayed = transitions()
    strategy.update(replayed, 0, descending(strategy))
    (batch,) = seen
    assert torch.equal(batch.observations[:6], replayed.observations)
    assert torch.equal(batch.observations[6:], transitions(1, seed=1).observations.expand(6, -1))
