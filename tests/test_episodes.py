"""The one loop that plays, against gymnasium's own, and what it promises about seeds, steps and random numbers."""

import gymnasium
import numpy as np
import pytest
import torch
from conftest import build_strategy
from threadpoolctl import ThreadpoolController

from lightning_bc.demonstrations.reference_returns import random_policy
from lightning_bc.environments import environment_spaces, make, quiet_model_loading
from lightning_bc.episodes import SELECTION_BANK, TEST_BANK, TEST_EPISODES, play
from lightning_bc.strategies import MSE

SEEDS = [11, 5, 400, 7, 1_000_000_003, 8, 2_000_000_001]


def hopper_policy(observations):
    """Sums and products alone: the same for a row alone and in a batch, to the last bit."""
    return (0.5 * observations[:, 2:5] - 0.25 * observations[:, 8:11]).clamp(-1, 1)


def pendulum_policy(observations):
    return (2 * observations[:, 1:2] - 0.5 * observations[:, 2:3]).clamp(-2, 2)


POLICIES = {"Hopper-v5": hopper_policy, "Pendulum-v1": pendulum_policy}
either_environment = pytest.mark.parametrize("environment_id", POLICIES)


def played(environment_id, seeds, num_envs, policy=None, **options):
    environments = make(environment_id, num_envs)
    try:
        return play(policy or POLICIES[environment_id], environments, seeds, **options)
    finally:
        environments.close()


def gymnasium_episode(environment_id, policy, seed):
    """Observations, actions and rewards of one episode in a plain loop."""
    with quiet_model_loading():
        environment = gymnasium.make(environment_id)
    observation, _ = environment.reset(seed=seed)
    rows, ended = [], False
    while not ended:
        seen = torch.as_tensor(observation, dtype=torch.float32)
        action = policy(seen[None])[0].numpy()
        observation, reward, terminated, truncated, _ = environment.step(action)
        ended = terminated or truncated
        rows.append((seen.numpy(), action, reward))
    environment.close()
    return [np.array(column) for column in zip(*rows, strict=True)]


@either_environment
@pytest.mark.parametrize("num_envs", [1, 3, 20], ids=["one at a time", "fewer than seeds", "more than seeds"])
def test_play_equals_a_plain_gymnasium_loop(environment_id, num_envs):
    result = played(environment_id, SEEDS, num_envs, record=True)
    wanted = [gymnasium_episode(environment_id, POLICIES[environment_id], seed) for seed in SEEDS]
    assert result.lengths.tolist() == [len(rewards) for _, _, rewards in wanted]
    np.testing.assert_allclose(result.returns, [rewards.sum() for _, _, rewards in wanted], rtol=1e-10)
    for name, column in (("observations", 0), ("actions", 1), ("rewards", 2)):
        rows = np.concatenate([episode[column] for episode in wanted])
        np.testing.assert_allclose(getattr(result, name), rows, rtol=1e-6, atol=1e-6)
        assert getattr(result, name).dtype == np.float32
    if environment_id == "Hopper-v5":
        assert len(set(result.lengths.tolist())) > 1  # episodes end early and not together, or this shows little
        assert result.lengths.max() < 1000


@either_environment
def test_result_does_not_depend_on_the_number_of_environments(environment_id):
    results = [played(environment_id, SEEDS, num_envs, record=True) for num_envs in (1, 4, 7, 16)]
    for other in results[1:]:
        for name in ("returns", "lengths", "observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(other, name), getattr(results[0], name))


@either_environment
@pytest.mark.parametrize("num_envs", [2, 5, 16])
def test_no_step_is_played_for_nobody(environment_id, num_envs):
    steps, asked = [], []

    def counting_policy(observations):
        asked.append(len(observations))
        return POLICIES[environment_id](observations)

    result = played(environment_id, SEEDS, num_envs, counting_policy, on_step=steps.append)
    assert sum(steps) == sum(asked) == result.lengths.sum()
    assert max(steps) == min(num_envs, len(SEEDS))


def test_each_seed_counts_once_and_in_the_order_given():
    forwards = played("Hopper-v5", SEEDS, 3)
    backwards = played("Hopper-v5", SEEDS[::-1], 3)
    np.testing.assert_array_equal(forwards.returns, backwards.returns[::-1])
    assert len(set(forwards.returns.tolist())) == len(SEEDS)


def test_same_seed_twice_gives_the_same_episode_twice():
    result = played("Hopper-v5", [3, 4, 3, 3], 2)
    assert result.returns[0] == result.returns[2] == result.returns[3] != result.returns[1]


def test_without_seeds_nothing_is_played():
    result = played("Hopper-v5", [], 3, policy=lambda observations: pytest.fail("asked for an action"))
    assert len(result.returns) == len(result.lengths) == 0


def test_environments_may_be_used_again():
    environments = make("Hopper-v5", 4)
    first = play(hopper_policy, environments, SEEDS)
    play(hopper_policy, environments, [99, 98])
    again = play(hopper_policy, environments, SEEDS)
    environments.close()
    np.testing.assert_array_equal(first.returns, again.returns)


# What is recorded


def test_recorded_rows_are_ordered_by_episode():
    together = played("Hopper-v5", SEEDS, 3, record=True)
    alone = [played("Hopper-v5", [seed], 1, record=True) for seed in SEEDS]
    for name in ("observations", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(together, name), np.concatenate([getattr(one, name) for one in alone]))
    ends = together.lengths.cumsum()
    sums = [rewards.astype(np.float64).sum() for rewards in np.split(together.rewards, ends[:-1])]
    np.testing.assert_allclose(sums, together.returns, rtol=1e-5)


def test_nothing_is_recorded_unless_asked():
    result = played("Hopper-v5", SEEDS, 3)
    assert result.observations is result.actions is result.rewards is None


def test_labels_replace_the_recorded_actions_and_not_those_played():
    def label(observations):
        return torch.stack([observations[:, 0], observations.sum(1), torch.full((len(observations),), 7.0)], dim=1)

    plain = played("Hopper-v5", SEEDS, 3, record=True)
    labelled = played("Hopper-v5", SEEDS, 3, record=True, label=label)
    np.testing.assert_array_equal(labelled.observations, plain.observations)
    np.testing.assert_array_equal(labelled.returns, plain.returns)
    np.testing.assert_allclose(labelled.actions, label(torch.from_numpy(plain.observations)), rtol=1e-5, atol=1e-5)
    assert not np.array_equal(labelled.actions, plain.actions)


# Random numbers


@either_environment
def test_random_policy_repeats_itself_and_leaves_the_random_state_alone(environment_id):
    spaces = environment_spaces(environment_id)
    policy = random_policy(spaces.action_low, spaces.action_high)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = played(environment_id, SEEDS, 4, policy, record=True)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)  # what was drawn outside does not reach the episodes
    second = played(environment_id, SEEDS, 4, policy, record=True)
    np.testing.assert_array_equal(first.actions, second.actions)
    np.testing.assert_array_equal(first.returns, second.returns)
    other = played(environment_id, [seed + 1 for seed in SEEDS], 4, policy, record=True)
    assert not np.array_equal(first.actions[:20], other.actions[:20])


def test_random_state_is_put_back_when_a_policy_fails():
    def failing(observations):
        torch.rand(5)
        raise RuntimeError("no idea")

    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no idea"):
        played("Hopper-v5", SEEDS, 3, failing)
    assert torch.equal(torch.get_rng_state(), before)


@either_environment
def test_random_actions_fill_the_bounds(environment_id):
    spaces = environment_spaces(environment_id)
    actions = random_policy(spaces.action_low, spaces.action_high)(torch.zeros(20_000, spaces.observation_dim)).numpy()
    assert (actions >= spaces.action_low).all()
    assert (actions <= spaces.action_high).all()
    width = spaces.action_high - spaces.action_low
    np.testing.assert_allclose(actions.mean(0), (spaces.action_low + spaces.action_high) / 2, atol=0.02 * width.max())
    np.testing.assert_allclose(actions.std(0), width / np.sqrt(12), rtol=0.02)


# The banks


def test_seed_banks_are_disjoint_and_a_smaller_request_is_a_part_of_a_larger():
    everything = SELECTION_BANK.seeds(1_000_000_000), TEST_BANK.seeds(1_000_000_000)
    assert everything[0].stop <= everything[1].start
    assert everything[0].start == 1_000_000_000  # collection stays below
    assert list(SELECTION_BANK.seeds(5)) == list(SELECTION_BANK.seeds(20))[:5]
    assert TEST_EPISODES == 100


def test_the_number_of_threads_of_numpys_products_changes_nothing():
    """OpenBLAS rounds otherwise with two threads; worker processes have one."""
    policy = build_strategy(MSE, 11, (-1, -1, -1), (1, 1, 1), (256, 256)).eval().frozen()
    returns = []
    for threads in (1, 2):
        with ThreadpoolController().limit(limits=threads, user_api="blas"):
            returns.append(play(policy, make("Hopper-v5", 50), range(50)).returns)
    assert np.array_equal(*returns)
