"""Where a learner that acts sees demonstrations: normalisation, mixing, absorbing states."""

import pytest
import torch
from learners import ADVERSARIAL, LEARNERS, built, descending, each, tiny, train, transitions

from lightning_bc.border import Border
from lightning_bc.strategies import AIRL, Needs
from lightning_bc.strategies.online.demonstrated import AbsorbingStates, Demonstrated
from lightning_bc.strategies.online.replay import normalised

IMITATORS = each([cls for cls in LEARNERS if cls.needs is Needs.TRANSITIONS])


@IMITATORS
def test_observations_are_standardised_by_the_demonstrations(cls, data):
    strategy = tiny(cls)
    train(strategy, path=data)
    content = torch.load(data, weights_only=True)
    observations = content["observations"][:110]                    # the twelfth episode is held out
    expert = strategy.demonstrated.transitions
    torch.testing.assert_close(expert.actions, content["actions"][:110] / 3)
    assert torch.equal(expert.observations, observations)
    assert expert.terminated.tolist() == [float(row % 10 == 9) for row in range(110)]
    torch.testing.assert_close(strategy.border.mean, observations.mean(0))
    torch.testing.assert_close(strategy.border.scale, observations.std(0, correction=0))


def test_demonstrations_are_drawn_as_agents_see_them():
    border = Border(3, [-2.0, 0.0], [1.0, 3.0])
    border.mean.fill_(2.0)
    demonstrated = Demonstrated(transitions(50), border)
    torch.testing.assert_close(demonstrated.transitions.actions, border.scaled(transitions(50).actions).clamp(-1, 1))
    torch.manual_seed(0)
    expected = normalised(demonstrated.transitions.sample(20), border)
    torch.manual_seed(0)
    for name, column in vars(demonstrated.sample(20)).items():
        assert torch.equal(column, getattr(expected, name)), name


def test_an_expert_that_holds_still_does_not_blow_up_the_learners_observations(data):
    content = torch.load(data, weights_only=True)
    content["observations"][:, 1] = torch.linspace(0.02, 0.0201, 120)
    torch.save(content, data)
    strategy = tiny(AIRL, total_environment_steps=240, learning_starts=200)
    replay = train(strategy, path=data).interaction.replay
    angles = replay.observations[:200, 1]
    assert strategy.border.scale[1].item() == pytest.approx(angles.std(correction=0).item() / 10)
    assert strategy.border.observe(replay.observations[:200])[:, 1].abs().max() < 100


@pytest.mark.parametrize(
    ("expert", "random_play", "scale"), [(0.0, 0.01, 0.001), (1e-9, 0.01, 0.001), (0.003, 0.0, 0.003), (0.0, 0.0, 1.0)]
)
def test_the_least_scale_is_a_tenth_of_random_plays_however_still_either_is(expert, random_play, scale):
    held = Demonstrated(transitions(50), Border(3, [-1.0, -1.0], [1.0, 1.0]))
    held.transitions.observations[:, 1] = expert * torch.tensor([-1.0, 1.0]).repeat(25)
    played = transitions(50, seed=1)
    played.observations[:, 1] = random_play * torch.tensor([-1.0, 1.0]).repeat(25)
    held.fit_border(played)
    assert held.border.scale[1].item() == pytest.approx(scale, rel=1e-5)


def test_of_the_smallest_batch_one_is_demonstrated():
    expert, replayed = transitions(1, seed=1), transitions(8)
    mixed = Demonstrated(expert, Border(3, [-1.0, -1.0], [1.0, 1.0])).mixed(replayed, share=0.001)
    assert torch.equal(mixed.actions[:1], expert.actions)
    assert torch.equal(mixed.actions[1:], replayed.actions[1:])


@pytest.mark.parametrize(("batch_size", "demonstrated"), [(8, 2), (11, 3)])
def test_a_quarter_of_a_mixed_batch_is_demonstrated(batch_size, demonstrated):
    border, replayed = Border(3, [-1.0, -1.0], [1.0, 1.0]), transitions(batch_size)
    border.mean.fill_(2.0)
    expert = transitions(1, seed=1, terminated=[1.0])
    mixed = Demonstrated(expert, border).mixed(replayed)
    assert len(mixed.rewards) == batch_size
    assert torch.equal(mixed.actions[:demonstrated], expert.actions.expand(demonstrated, -1))
    assert torch.equal(mixed.observations[:demonstrated], expert.observations.expand(demonstrated, -1) - 2)
    assert torch.equal(mixed.next_observations[:demonstrated], expert.next_observations.expand(demonstrated, -1) - 2)
    assert (mixed.terminated[:demonstrated] == 1).all()
    for name, column in vars(replayed).items():
        assert torch.equal(getattr(mixed, name)[demonstrated:], column[demonstrated:])


@ADVERSARIAL
def test_actor_and_critics_learn_from_the_mixed_batch(cls):
    strategy, seen = built(cls, batch_size=6), []
    mixed = strategy.demonstrated.mixed(transitions())
    strategy.demonstrated.mixed = lambda batch: mixed
    loss, improve = strategy.agent.critic_loss, strategy.agent.improve
    strategy.agent.critic_loss = lambda batch, reward: seen.append(batch) or loss(batch, reward)
    strategy.agent.improve = lambda batch, *rest: seen.append(batch) or improve(batch, *rest)
    strategy.update(transitions(), 0, descending(strategy))
    assert len(seen) == 2
    assert all(batch is mixed for batch in seen)


def test_a_terminated_transition_leads_to_the_absorbing_state():
    states, batch = AbsorbingStates(3, 2), transitions(3, terminated=[0, 1, 0])
    inputs = states.inputs(batch)
    assert inputs.shape == (3, 4 + 2 + 4)
    torch.testing.assert_close(inputs[:, :4], torch.cat([batch.observations, torch.zeros(3, 1)], dim=-1))
    torch.testing.assert_close(inputs[:, 4:6], batch.actions)
    assert inputs[1, 6:].tolist() == [0, 0, 0, 10]
    for row in (0, 2):
        assert inputs[row, 6:].tolist() == [*batch.next_observations[row].tolist(), 0]
    absorbed = [0, 0, 0, 10, 0, 0, 0, 0, 0, 10]
    assert states.absorbed(2).tolist() == [absorbed] * 2
    assert torch.equal(states.inputs_and_ends(batch), torch.cat([inputs, torch.tensor([absorbed])]))
