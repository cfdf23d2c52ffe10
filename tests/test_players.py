"""Policies with memory: ``play`` against a plain gymnasium loop with queues, whatever the number of sub-environments."""

from collections import deque

import gymnasium
import numpy as np
import pytest
import torch
from conftest import build_strategy

from lightning_bc.callbacks.dagger import ExpertOrLearner
from lightning_bc.environments import environment_spaces, make
from lightning_bc.episodes import forked_random_state, play
from lightning_bc.players import Memory, Memoryless
from lightning_bc.strategies import Diffusion, FlowMatching

SEEDS = range(20)
TASKS = ("InvertedPendulum-v5", "Hopper-v5", "HalfCheetah-v5")
OTHERS = [(1, 5), (3, 1), (1, 1)]


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch):
    """HalfCheetah never falls: cut its episodes, in both worlds, so that chunks are cut by ends too."""
    monkeypatch.setattr(gymnasium.registry["HalfCheetah-v5"], "max_episode_steps", 60)


def answer(chunk, action_dim, shift=0.0):
    """A policy (batch, history, o) to (batch, chunk, action_dim) that looks at everything it sees.

    The sum is one of whole numbers: a sum of fractions may round otherwise in another batch, and one bit grows into another
    episode.
    """
    steps = torch.arange(chunk * action_dim).view(chunk, action_dim)

    def act(seen):
        places = torch.arange(seen[0].numel()).view(seen[0].shape)  # (history, o)
        total = (1000 * torch.sin(seen * (1 + places % 3) + places + shift)).long().sum((1, 2))
        return torch.sin(total[:, None, None] / 500 + steps)        # (batch, chunk, action_dim)

    return act


def plain(environment_id, seed, act, history, chunk, label=None):
    """One episode as a script would play it: observations in one queue, actions in another."""
    environment = gymnasium.make(environment_id)
    observation, _ = environment.reset(seed=seed)
    seen = deque([torch.as_tensor(observation, dtype=torch.float32)] * history, maxlen=history)
    actions, steps, ended = deque(), [], False
    while not ended:
        seen.append(torch.as_tensor(observation, dtype=torch.float32))
        window = torch.stack(list(seen)).unsqueeze(0)               # (1, history, o)
        if not actions:
            actions.extend(act(window)[0, :chunk])
        action = actions.popleft()
        recorded = action if label is None else label(window)[0, 0]
        following, reward, terminated, truncated, _ = environment.step(action.numpy())
        steps.append((observation.astype(np.float32), recorded.numpy(), reward))
        observation, ended = following, terminated or truncated
    environment.close()
    observations, recorded, rewards = (np.array(column) for column in zip(*steps, strict=True))
    return observations, recorded, rewards, observation.astype(np.float32), terminated


@pytest.mark.parametrize(
    ("environment_id", "history", "chunk"), [*((task, 3, 5) for task in TASKS), *(("Hopper-v5", h, c) for h, c in OTHERS)]
)
def test_play_equals_a_plain_loop_with_queues(environment_id, history, chunk):
    act = answer(chunk, environment_spaces(environment_id).action_dim)
    episodes = [plain(environment_id, seed, act, history, chunk) for seed in SEEDS]
    played = play(Memory(act, history, chunk), make(environment_id, 7), SEEDS, record=True)
    observations, actions, rewards, final, terminated = zip(*episodes, strict=True)
    assert played.lengths.tolist() == [len(episode) for episode in rewards]
    assert len(set(played.lengths.tolist())) > 1 or environment_id != "Hopper-v5"
    np.testing.assert_array_equal(played.observations, np.concatenate(observations))
    np.testing.assert_array_equal(played.actions, np.concatenate(actions))
    np.testing.assert_array_equal(played.rewards, np.concatenate(rewards).astype(np.float32))
    np.testing.assert_array_equal(played.final_observations, np.stack(final))
    assert played.terminated.tolist() == list(terminated)


@pytest.mark.parametrize("environment_id", ["InvertedPendulum-v5", "Hopper-v5"])
def test_returns_do_not_depend_on_the_number_of_sub_environments(environment_id):
    act = answer(5, environment_spaces(environment_id).action_dim)
    returns = [play(Memory(act, 3, 5), make(environment_id, number), SEEDS).returns for number in (1, 7, 32)]
    for others in returns[1:]:
        np.testing.assert_array_equal(others, returns[0])


def test_without_history_and_chunks_a_memory_plays_as_the_bare_policy():
    act = answer(1, 3)
    bare = play(lambda observations: act(observations.unsqueeze(1))[:, 0], make("Hopper-v5", 7), SEEDS)
    with_memory = play(Memory(act, 1, 1), make("Hopper-v5", 7), SEEDS)
    np.testing.assert_array_equal(bare.returns, with_memory.returns)


@pytest.mark.parametrize(("cls", "fast"), [(Diffusion, {"act_steps": 2}), (FlowMatching, {"act_steps": 2})])
@pytest.mark.parametrize("deterministic", [True, False], ids=["deterministic", "sampled"])
def test_a_strategy_with_chunks_equals_a_plain_loop_with_queues(cls, fast, deterministic):
    spaces = environment_spaces("Hopper-v5")
    strategy = build_strategy(
        cls, spaces.observation_dim, spaces.action_low, spaces.action_high, history=3, horizon=8, chunk=5, **fast
    )
    for seed in SEEDS:
        played = play(strategy.player(deterministic), make("Hopper-v5", 1), [seed], record=True)
        entropy = int(np.random.SeedSequence([seed]).generate_state(1, np.uint64)[0] >> 1)
        with forked_random_state(entropy, torch.device("cpu")), torch.inference_mode():
            observations, actions, *_ = plain("Hopper-v5", seed, lambda o: strategy(o, deterministic), 3, 5)
        np.testing.assert_array_equal(played.observations, observations)
        np.testing.assert_array_equal(played.actions, actions)


def test_a_labeller_with_memory_answers_every_step_anew_on_the_history_that_was_played():
    """What is recorded is the first action of the chunk that the labeller would begin at this step."""
    spaces = environment_spaces("Hopper-v5")
    act, expert = answer(5, spaces.action_dim), answer(4, spaces.action_dim, shift=0.5)
    played = play(Memory(act, 3, 5), make("Hopper-v5", 7), SEEDS, record=True, label=Memory(expert, 3, 1))
    episodes = [plain("Hopper-v5", seed, act, 3, 5, label=expert) for seed in SEEDS]
    np.testing.assert_array_equal(played.observations, np.concatenate([episode[0] for episode in episodes]))
    np.testing.assert_array_equal(played.actions, np.concatenate([episode[1] for episode in episodes]))
    strategy = build_strategy(Diffusion, 11, [-1.0] * 3, [1.0] * 3, history=3, horizon=8, chunk=5)
    labeller, actor = strategy.player(replan=True), strategy.player()
    assert (labeller.chunk, labeller.history, actor.chunk) == (1, 3, 5)


@pytest.mark.parametrize(("beta", "shift"), [(1.0, 0.5), (0.0, 0.0)])
def test_in_a_mixture_both_players_see_every_step(beta, shift):
    spaces = environment_spaces("Hopper-v5")
    expert, learner = answer(1, spaces.action_dim, shift=0.5), answer(5, spaces.action_dim)
    mixture = ExpertOrLearner(Memory(expert, 3, 1), Memory(learner, 3, 5), beta)
    played = play(mixture, make("Hopper-v5", 7), SEEDS, record=True)
    alone = (expert, 3, 1) if beta else (learner, 3, 5)
    np.testing.assert_array_equal(
        played.actions, np.concatenate([plain("Hopper-v5", seed, *alone)[1] for seed in SEEDS])
    )


def test_a_learner_whose_action_was_replaced_goes_on_with_its_chunk_at_the_right_place():
    """Each step is the expert's or the learner's of that very step of its chunk, never one that was left over."""
    numbered = Memory(lambda seen: torch.arange(5.0).view(1, 5, 1).expand(len(seen), 5, 1) / 10, 1, 5)
    expert = Memoryless(lambda observations: torch.full((len(observations), 1), 2.0))
    played = play(ExpertOrLearner(expert, numbered, 0.5), make("InvertedPendulum-v5", 3), SEEDS, record=True)
    steps = np.concatenate([np.arange(length) for length in played.lengths])
    actions = played.actions[:, 0]
    learners = actions != 2.0
    assert 0.2 < learners.mean() < 0.8
    np.testing.assert_allclose(actions[learners], (steps[learners] % 5) / 10, rtol=1e-6)
