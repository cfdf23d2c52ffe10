"""What discriminators learn: signs, known answers at the optimum, the absorbing state, and a discriminator that has won."""

import numpy as np
import pytest
import torch
from conftest import build_strategy
from learners import ADVERSARIAL, at_rest, built, demonstrate, descending, one_dimensional, transitions, warnings_of
from scipy import stats

from lightning_bc.strategies import AIRL, GAIL
from lightning_bc.strategies.contract import Transitions
from lightning_bc.strategies.online import rewards
from lightning_bc.strategies.online.rewards import EnvironmentReward


def loss_of(strategy, learner, expert):
    return strategy.reward.loss(learner, expert, strategy.logits)


def learn(strategy, expert, learner, steps=50, lr=3e-3):
    """Train the discriminator alone, always on these batches; without penalty none is computed, which halves the time."""
    optimizer = torch.optim.Adam(strategy.reward.parameters(), lr=lr)
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        if strategy.reward.penalty == 0:
            patch.setattr(rewards, "gradient_penalty", lambda *_: torch.zeros(()))
        for _ in range(steps):
            optimizer.zero_grad()
            loss_of(strategy, learner, expert)[0].backward()
            optimizer.step()
    return strategy


def test_the_environments_reward_is_as_observed_and_ends_with_the_episode():
    batch = transitions(terminated=[1, 0, 0, 1, 0, 0])
    assert torch.equal(EnvironmentReward()(batch), batch.rewards)
    assert EnvironmentReward().value_after_termination() == 0


@ADVERSARIAL
def test_the_environments_reward_is_not_looked_at(cls):
    strategy, batch = build_strategy(cls), transitions()
    other = Transitions(**vars(batch) | {"rewards": torch.full((6,), float("nan"))})
    assert torch.equal(strategy.reward(batch), strategy.reward(other))
    assert strategy.agent.critic_loss(other, strategy.reward)[0].isfinite()


# What is learnt


@ADVERSARIAL
def test_the_experts_actions_earn_more_than_the_learners(cls):
    generator = torch.Generator().manual_seed(1)
    noise = 0.1 * torch.randn(2, 64, generator=generator)
    expert, learner = at_rest(0.5 + noise[0]), at_rest(-0.5 + noise[1])
    # AIRL's f has the shape of the narrow log pi to make up for, which the penalty's slope of 1 would not let it
    options = {"penalty": 0.0} if cls is AIRL else {}
    strategy = learn(one_dimensional(cls, **options), expert, learner)
    with torch.no_grad():
        assert strategy.reward(expert).min() > strategy.reward(learner).max()
        assert (strategy.logits(strategy.reward.states.inputs(expert)) > 0).all()
        assert (strategy.logits(strategy.reward.states.inputs(learner)) < 0).all()
    _, metrics = loss_of(strategy, learner, expert)
    assert metrics["discriminator_accuracy_expert"] == metrics["discriminator_accuracy_learner"] == 1


def test_the_accuracies_are_of_the_side_in_their_name():
    reward = one_dimensional(GAIL, penalty=0.0).reward
    expert, learner = at_rest([0.5, 0.5, 0.5, -0.5]), at_rest([-0.5, 0.5, 0.5, 0.5])
    _, metrics = reward.loss(learner, expert, logits=lambda inputs: inputs.sum(-1))  # the logit is the action
    assert metrics["discriminator_accuracy_expert"] == 0.75
    assert metrics["discriminator_accuracy_learner"] == 0.25


def densities():
    """Two 1-D densities of actions on (-1, 1)."""
    return stats.beta(4, 2.5, loc=-1, scale=2), stats.beta(2, 3, loc=-1, scale=2)


@ADVERSARIAL
def test_the_best_discriminator_is_the_ratio_of_densities(cls):
    """GAIL:  f = log p_expert - log p_learner;  AIRL:  f = log p_expert - log p_learner + temperature log pi.

    Both densities are stood for by their quantiles, so that no noise of sampling is learnt.
    """
    p_expert, p_learner = densities()
    quantiles = (np.arange(100) + 0.5) / 100
    strategy = one_dimensional(cls, (64, 64, 64), penalty=0.0)
    strategy.agent.log_temperature.data.fill_(np.log(0.5))
    learn(strategy, at_rest(p_expert.ppf(quantiles)), at_rest(p_learner.ppf(quantiles)), steps=300, lr=5e-3)
    actions = np.linspace(-0.6, 0.7, 60)
    batch = at_rest(actions)
    ratio = torch.tensor(p_expert.logpdf(actions) - p_learner.logpdf(actions), dtype=torch.float32)
    with torch.no_grad():
        log_policy = strategy.agent.policy(batch.observations).log_probability(batch.actions)
        wanted = ratio if cls is GAIL else ratio + 0.5 * log_policy
        assert ratio.max() - ratio.min() > 3
        assert (strategy.logits(strategy.reward.states.inputs(batch)) - ratio).abs().max() < 0.25
        assert (strategy.reward(batch) - wanted).abs().max() < 0.25


@ADVERSARIAL
def test_the_discriminator_takes_only_the_replay_for_the_learners(cls):
    """Its demonstrations in the learner's place would teach it that the expert is the learner."""
    strategy, replayed = built(cls, batch_size=6), transitions()
    seen = []
    loss = strategy.reward.loss
    strategy.reward.loss = lambda learner, expert, logits: seen.append((learner, expert)) or loss(learner, expert, logits)
    strategy.update(replayed, 0, descending(strategy))
    ((learner, expert),) = seen
    assert learner is replayed
    assert len(expert.rewards) == 6


def test_the_penalty_is_taken_over_all_rows_of_both_sides_ends_too(monkeypatch):
    strategy, seen = build_strategy(GAIL), []
    monkeypatch.setattr(rewards, "gradient_penalty", lambda f, *sides: seen.append(sides) or torch.zeros(()))
    learner, expert = transitions(terminated=[1, 1, 1, 0, 0, 0]), transitions(4, seed=1)
    loss_of(strategy, learner, expert)
    ((of_expert, of_learner),) = seen
    states = strategy.reward.states
    assert torch.equal(of_learner, states.inputs_and_ends(learner))  # 6, and 3 in the absorbing state
    assert torch.equal(of_expert, states.inputs(expert).repeat(3, 1)[:9])


def test_the_reward_correlation_is_numpys():
    strategy, batch = built(GAIL), transitions(40)
    batch.rewards.add_(5.0)
    metrics = strategy.reward.update(batch, strategy.demonstrated.sample, 0, lambda *_: None, strategy.logits)
    expected = np.corrcoef(strategy.reward(batch).detach(), batch.rewards)[0, 1]
    assert metrics["reward_correlation"].item() == pytest.approx(expected, abs=1e-5)


# After a termination


@ADVERSARIAL
def test_a_learnt_reward_goes_on_after_termination(cls):
    strategy = build_strategy(cls, discount=0.9)
    batch, reward = transitions(1, terminated=[1]), strategy.reward
    loss, _ = strategy.agent.critic_loss(batch, reward)
    after = reward.f(reward.states.absorbed(1)) / (1 - 0.9)
    torch.testing.assert_close(reward.value_after_termination(), after[0])
    expected = (strategy.agent.critics(batch.observations, batch.actions) - reward(batch) - 0.9 * after).square().sum()
    torch.testing.assert_close(loss, expected)


@ADVERSARIAL
@pytest.mark.parametrize("who_dies", ["learner", "expert"])
def test_dying_is_worth_what_the_expert_makes_of_it(cls, who_dies):
    """Both act alike; only that one of them terminates tells them apart."""
    actions = np.linspace(-0.5, 0.5, 32)
    dies, lives = at_rest(actions, np.float32(np.arange(32) % 2)), at_rest(actions)
    expert, learner = (lives, dies) if who_dies == "learner" else (dies, lives)
    reward = learn(one_dimensional(cls), expert, learner).reward
    with torch.no_grad():
        after, living = reward.value_after_termination(), reward(lives).mean() / (1 - reward.discount)
    sign = -1 if who_dies == "learner" else 1
    assert sign * after > 50
    assert sign * (after - living) > 0


def test_the_absorbing_states_reward_is_the_ratio_of_how_often_each_is_there():
    """64 steps each, of which 16 of the expert's and 32 of the learner's terminate: f = log (16 / 80) / (32 / 96)."""
    actions = np.linspace(-0.5, 0.5, 64)
    expert, learner = (at_rest(actions, np.float32(np.arange(64) % every == 0)) for every in (4, 2))
    reward = learn(one_dimensional(GAIL, penalty=0.0), expert, learner, steps=150).reward
    with torch.no_grad():
        assert reward.f(reward.states.absorbed(1)).item() == pytest.approx(np.log(0.6), abs=0.05)
        assert reward.value_after_termination().item() == pytest.approx(100 * np.log(0.6), abs=5)
        living = np.log((64 / 80) / (64 / 96))
        assert reward(expert).mean().item() == pytest.approx(living, abs=0.05)


# A discriminator that has won


def test_a_discriminator_that_has_won_is_warned_of_once():
    strategy = one_dimensional(GAIL)

    def check(accuracy):
        for _ in range(5000):
            strategy.watch.follow("discriminator_accuracy", torch.tensor(accuracy), rate=0.002, first=0.5)
        strategy.check()

    assert warnings_of(check, 0.5, 0.95) == []
    (message,) = warnings_of(check, 1.0, 0.5, 1.0)
    assert "--model.penalty" in message
    assert "--model.discriminator_every" in message


def test_updates_of_the_discriminator_move_its_running_accuracy():
    """Accuracies of updates 0, 3 and 6 alone, each with a weight of 0.002."""
    strategy = one_dimensional(GAIL, batch_size=16, discriminator_every=3)
    demonstrate(strategy, at_rest(np.full(50, 0.9)))
    descend, expected = descending(strategy), 0.5
    for number in range(7):
        metrics = strategy.update(at_rest(np.full(16, -0.9)), number, descend)
        assert ("discriminator_loss" in metrics) == (number % 3 == 0)
        if number % 3 == 0:
            accuracy = (metrics["discriminator_accuracy_expert"] + metrics["discriminator_accuracy_learner"]).item() / 2
            expected += 0.002 * (accuracy - expected)
    assert strategy.watch.means["discriminator_accuracy"].item() == pytest.approx(expected)
    for number in range(0, 120, 3):
        metrics = strategy.update(at_rest(np.full(16, -0.9)), number, descend)
    assert metrics["discriminator_accuracy_expert"] == metrics["discriminator_accuracy_learner"] == 1
