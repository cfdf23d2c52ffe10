"""Names and layouts of other tools: the same four episodes, written in each of their ways, are the same trajectories.

Written with NumPy alone, after the formats' own descriptions: D4RL's flat arrays
(https://github.com/Farama-Foundation/D4RL/wiki/Tasks), the arrays that imitation writes
(https://github.com/HumanCompatibleAI/imitation, data/types.py), stable-baselines 2's episode_starts.
"""

import pickle

import numpy as np
import pytest
import torch

from lightning_bc.demonstrations import read
from lightning_bc.errors import InputError

LENGTHS = (4, 2, 1, 3)
TERMINATED = (True, False, True, False)
RNG = np.random.default_rng(0)
EPISODES = [(RNG.normal(size=(n + 1, 3)), RNG.uniform(-1, 1, (n, 2)), RNG.normal(size=n)) for n in LENGTHS]
OBSERVATIONS = np.concatenate([observations[:-1] for observations, _, _ in EPISODES])
NEXT = np.concatenate([observations[1:] for observations, _, _ in EPISODES])
FINAL = np.stack([observations[-1] for observations, _, _ in EPISODES])
ACTIONS = np.concatenate([actions for _, actions, _ in EPISODES])
REWARDS = np.concatenate([rewards for _, _, rewards in EPISODES])
LAST = np.cumsum(LENGTHS) - 1
END = np.isin(np.arange(sum(LENGTHS)), LAST)
TERMINAL = np.isin(np.arange(sum(LENGTHS)), LAST[list(TERMINATED)])
START = np.isin(np.arange(sum(LENGTHS)), LAST + 1 - LENGTHS)
PAIRS = {"observations": OBSERVATIONS, "actions": ACTIONS}


def written(folder, **arrays):
    np.savez(folder / "data.npz", **arrays)
    return read(folder / "data.npz")


def check(found, terminated=True, final=True, rewards=True):
    """Compare with the four episodes; what is False is unknown in that layout."""
    wanted = {
        "observations": OBSERVATIONS,
        "actions": ACTIONS,
        "rewards": REWARDS if rewards else None,
        "lengths": np.array(LENGTHS),
        "terminated": np.array(TERMINATED) if terminated else None,
        "final_observations": FINAL if final else None,
    }
    for key, value in wanted.items():
        if value is None:
            assert getattr(found, key) is None, key
        else:
            dtype = np.float32 if value.dtype == np.float64 else value.dtype
            np.testing.assert_array_equal(getattr(found, key).numpy(), value.astype(dtype), err_msg=key)
    assert found.knows_episodes
    if rewards:
        assert found.mean_return == pytest.approx(np.mean([episode[2].sum() for episode in EPISODES]), rel=1e-6)


# Names


@pytest.mark.parametrize("observations", ["observations", "observation", "obs", "states"])
@pytest.mark.parametrize("actions", ["actions", "action", "acts", "act"])
@pytest.mark.parametrize("rewards", ["rewards", "reward", "rews", "rew"])
def test_usual_names(tmp_path, observations, actions, rewards):
    arrays = {observations: OBSERVATIONS, actions: ACTIONS, rewards: REWARDS, "episode_lengths": LENGTHS}
    check(written(tmp_path, **arrays), terminated=False, final=False)


def test_names_of_the_package_come_first(tmp_path):
    simulator = np.zeros((sum(LENGTHS), 9))                         # robosuite's "states" beside observations
    assert torch.equal(
        written(tmp_path, states=simulator, **PAIRS).observations, torch.tensor(OBSERVATIONS, dtype=torch.float32)
    )


# Where episodes end


@pytest.mark.parametrize("dtype", [bool, "uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=["vector", "column"])
def test_d4rl_terminals_and_timeouts(tmp_path, dtype, shape):
    ends = {"terminals": TERMINAL.astype(dtype).reshape(shape), "timeouts": (END & ~TERMINAL).astype(dtype).reshape(shape)}
    check(written(tmp_path, **PAIRS, rewards=REWARDS.reshape(shape), **ends), final=False)


@pytest.mark.parametrize("ended", ["terminated", "terminal"])
@pytest.mark.parametrize("cut_off", ["truncated", "timeouts"])
def test_next_observations_hold_the_final_ones(tmp_path, ended, cut_off):
    ends = {ended: TERMINAL, cut_off: END & ~TERMINAL}
    check(written(tmp_path, **PAIRS, rewards=REWARDS, next_observations=NEXT, **ends))


def test_dones_alone_do_not_tell_termination_from_time_limit(tmp_path):
    arrays = {"states": OBSERVATIONS, "actions": ACTIONS, "next_states": NEXT, "dones": END.astype("f4")}
    check(written(tmp_path, **arrays), terminated=False, rewards=False)


def test_dones_and_timeouts_together_do(tmp_path):
    check(written(tmp_path, **PAIRS, rewards=REWARDS, dones=END, timeouts=END & ~TERMINAL), final=False)


def test_imitation_has_one_observation_more_per_episode_and_split_points(tmp_path):
    arrays = {"obs": np.concatenate([observations for observations, _, _ in EPISODES]), "acts": ACTIONS, "rews": REWARDS}
    infos = np.array([{}] * len(ACTIONS), dtype=object)             # which is never opened
    check(written(tmp_path, **arrays, infos=infos, terminal=np.array(TERMINATED), indices=np.cumsum(LENGTHS)[:-1]))


def test_one_episode_of_imitation(tmp_path):
    observations, actions, _ = EPISODES[0]
    found = written(tmp_path, obs=observations, acts=actions, terminal=np.array([False]), indices=np.array([]))
    assert (found.lengths.tolist(), found.terminated.tolist()) == ([4], [False])
    np.testing.assert_array_equal(found.final_observations, observations[-1:].astype("f4"))


def test_episode_starts(tmp_path):
    check(written(tmp_path, obs=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, episode_starts=START), False, False)


@pytest.mark.parametrize("name", ["episode_ids", "episode_id", "episode_index"])
@pytest.mark.parametrize("dtype", ["i8", "u1", "f4"])
def test_number_of_each_steps_episode(tmp_path, name, dtype):
    numbers = np.repeat([7, 3, 4, 9], LENGTHS).astype(dtype)
    check(written(tmp_path, obs=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, **{name: numbers}), False, False)
    check(written(tmp_path, **PAIRS, rewards=REWARDS, **{name: numbers[:, None], "terminals": TERMINAL}), final=False)


def test_names_of_each_steps_episode(tmp_path):
    names = np.repeat(["one", "two", "three", "four"], LENGTHS)
    check(written(tmp_path, obs=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, episode_id=names), False, False)


@pytest.mark.parametrize(
    "numbers", [np.arange(4), np.arange(10) % 2, np.full(10, np.nan), np.array(["a", "b"] * 5), np.array(7)]
)
def test_numbers_that_say_nothing_are_left_aside_where_flags_say_where_episodes_end(tmp_path, numbers):
    check(written(tmp_path, **PAIRS, rewards=REWARDS, terminals=TERMINAL, timeouts=END, episode_id=numbers), final=False)


def test_lengths_beside_ends_per_step(tmp_path):
    check(written(tmp_path, **PAIRS, rewards=REWARDS, episode_lengths=LENGTHS, terminals=TERMINAL), final=False)


def test_cut_off_episodes_are_found_where_the_next_observation_is_another_one(tmp_path):
    check(written(tmp_path, **PAIRS, rewards=REWARDS, terminals=TERMINAL, next_observations=NEXT))


ORDERED = {"obs": OBSERVATIONS, "acts": ACTIONS, "next_obs": NEXT, "terminals": TERMINAL, "dones": END}


def test_shuffled_transitions_without_ends_are_no_episodes(tmp_path):
    order = np.random.default_rng(1).permutation(len(ACTIONS))
    found = written(tmp_path, **{key: ORDERED[key][order] for key in ("obs", "acts", "next_obs")}, rewards=REWARDS[order])
    assert not found.knows_episodes
    assert np.isnan(found.mean_return)


@pytest.mark.parametrize("ends", [["terminals"], ["dones"], ["terminals", "dones"]], ids=str)
def test_rows_that_are_not_in_their_order_are_refused(tmp_path, ends):
    order = np.random.default_rng(1).permutation(len(ACTIONS))
    arrays = {key: ORDERED[key][order] for key in ("obs", "acts", "next_obs", *ends)}
    with pytest.raises(InputError, match=r"rows are not in the order .* episode_lengths"):
        written(tmp_path, **arrays)
    assert not written(tmp_path, obs=arrays["obs"], acts=arrays["acts"]).knows_episodes


def test_environments_in_turn_are_refused(tmp_path):
    observations = RNG.normal(size=(3, 7, 3))                       # three environments, an episode of six steps each
    in_turn = {"obs": observations[:, :-1], "next_obs": observations[:, 1:], "acts": observations[:, :-1, :2]}
    in_turn = {key: array.swapaxes(0, 1).reshape(18, -1) for key, array in in_turn.items()}
    with pytest.raises(InputError, match="after 15 of 15 rows that end no episode, next_observations is not"):
        written(tmp_path, **in_turn, dones=np.arange(18) >= 15)


def test_next_observations_of_another_precision_are_the_same(tmp_path):
    exact = {"obs": OBSERVATIONS, "next_obs": NEXT}
    for key, array in exact.items():
        rounded = exact | {key: array.astype("f4")}
        check(written(tmp_path, acts=ACTIONS, rews=REWARDS, terminals=TERMINAL, **rounded))


def test_noise_of_next_observations_is_no_end(tmp_path):
    noise = 1e-5 * (~END & (np.arange(10) % 3 == 0))[:, None]
    check(written(tmp_path, **PAIRS, rewards=REWARDS, terminals=TERMINAL, next_obs=NEXT + noise))


def test_a_row_that_is_far_off_hides_no_end(tmp_path):
    observations, following = OBSERVATIONS.copy(), NEXT.copy()
    observations[1, 0] = following[0, 0] = 1e9
    found = written(tmp_path, obs=observations, acts=ACTIONS, next_obs=following, terminals=TERMINAL)
    assert tuple(found.lengths.tolist()) == LENGTHS


def test_rounding_of_every_next_observation_is_no_disorder(tmp_path):
    noise = 1e-6 * RNG.normal(size=NEXT.shape)
    found = written(tmp_path, **PAIRS, rewards=REWARDS, terminals=TERMINAL, next_obs=NEXT + noise, dones=END)
    assert tuple(found.lengths.tolist()) == LENGTHS


def test_the_rows_after_the_last_end_are_an_episode_that_was_cut_off(tmp_path):
    found = written(tmp_path, **PAIRS, terminals=TERMINAL, timeouts=END & ~TERMINAL & (np.arange(len(END)) < 9))
    assert (found.lengths.tolist(), found.terminated.tolist()) == ([*LENGTHS], [*TERMINATED])


def test_without_any_end_the_episodes_are_unknown_and_none_terminated(tmp_path):
    never = np.zeros(len(ACTIONS), bool)
    found = written(tmp_path, **PAIRS, terminals=never)
    assert not found.knows_episodes
    cut = found.in_episodes_of(4)
    assert (cut.lengths.tolist(), cut.terminated.tolist()) == ([4, 4, 2], [False] * 3)


# Stacks: (episodes, steps, dimensions)


STACK = {"obs": np.arange(30.0).reshape(2, 5, 3), "acts": np.arange(20.0).reshape(2, 5, 2), "rews": np.ones((2, 5))}


def test_stack_of_episodes_of_one_length(tmp_path):
    terminal = np.zeros((2, 5), bool)
    terminal[1, -1] = True
    found = written(tmp_path, **STACK, terminal=terminal)
    np.testing.assert_array_equal(found.observations, STACK["obs"].reshape(10, 3))
    np.testing.assert_array_equal(found.actions, STACK["acts"].reshape(10, 2))
    assert (found.lengths.tolist(), found.terminated.tolist(), found.mean_return) == ([5, 5], [False, True], 5.0)


@pytest.mark.parametrize("more", [0, 1])
def test_padding_behind_lengths_is_cut(tmp_path, more):
    observations = np.arange(2 * (5 + more) * 3.0).reshape(2, 5 + more, 3)
    found = written(tmp_path, **(STACK | {"obs": observations}), episode_lengths=np.array([3, 5], np.uint8))
    np.testing.assert_array_equal(found.observations, np.concatenate([observations[0, :3], observations[1, :5]]))
    np.testing.assert_array_equal(found.actions, np.concatenate([STACK["acts"][0, :3], STACK["acts"][1]]))
    assert (found.lengths.tolist(), found.mean_return) == ([3, 5], 4.0)
    if more:
        np.testing.assert_array_equal(found.final_observations, [observations[0, 3], observations[1, 5]])


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ({"dones": np.eye(2, 5) > 0}, "dones marks ends before the last of 5 steps"),
        ({"episode_lengths": np.array([3, 6])}, "episode_lengths must be 2 integers from 0 to 5"),
        ({"episode_lengths": np.array([3])}, "episode_lengths must be 2 integers from 0 to 5"),
    ],
)
def test_stack_that_may_be_padded_is_refused(tmp_path, ends, words):
    with pytest.raises(InputError, match=words):
        written(tmp_path, **STACK, **ends)


@pytest.mark.parametrize("more", [0, 1])
def test_stacked_episode_without_steps_is_left_out_with_a_warning(tmp_path, more):
    observations = np.arange(2 * (5 + more) * 3.0).reshape(2, 5 + more, 3)
    with pytest.warns(UserWarning, match=r"1 episodes have no steps .* episode 0\)"):
        found = written(tmp_path, **(STACK | {"obs": observations}), episode_lengths=np.array([0.0, 4.0]))
    assert found.lengths.tolist() == [4]
    np.testing.assert_array_equal(found.observations, observations[1, :4])


def test_middle_axis_of_one_environment_is_no_episode(tmp_path):
    ends = {"dones": END[:, None], "timeouts": (END & ~TERMINAL)[:, None].astype("f4")}
    one = {"observations": OBSERVATIONS[:, None], "actions": ACTIONS[:, None], "next_observations": NEXT[:, None]}
    check(written(tmp_path, **one, rewards=REWARDS[:, None], **ends))
    check(written(tmp_path, **one, rewards=REWARDS, terminals=TERMINAL, timeouts=END))


def test_middle_axis_of_one_environment_in_dictionaries(tmp_path):
    parts = {"object": OBSERVATIONS[:, None, :1], "robot": OBSERVATIONS[:, None, 1:]}
    content = {"obs": parts, "acts": ACTIONS[:, None], "rews": REWARDS[:, None], "dones": END[:, None]}
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    check(read(tmp_path / "data.pkl", observation_keys=["object", "robot"]), terminated=False, final=False)


def test_stack_of_environments_is_refused_with_the_way_to_flat_arrays(tmp_path):
    stack = {name: array.swapaxes(0, 1) for name, array in STACK.items()}
    ends = np.zeros((5, 2), bool)
    ends[-1] = True
    with pytest.raises(InputError, match=r"dones marks ends .* shape is \(5, 2, 2\).*\.swapaxes\(0, 1\)\.reshape"):
        written(tmp_path, **stack, dones=ends)
    flat = {name: array.swapaxes(0, 1).reshape(10, *array.shape[2:]) for name, array in (stack | {"dones": ends}).items()}
    assert written(tmp_path, **flat).lengths.tolist() == [5, 5]


def test_one_flag_for_one_episode(tmp_path):
    observations, actions, _ = EPISODES[1]                          # as imitation's data sets on the HuggingFace hub
    np.savez(tmp_path / "data.npz", obs=observations, acts=actions, terminal=True)
    assert read(tmp_path / "data.npz", one_episode=True).terminated.tolist() == [True]


# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"dones": END[:-1]}, ["9 dones for 10 actions"], id="too few dones"),
        pytest.param({"dones": END * 2.0}, ["dones must be yes or no"], id="twos"),
        pytest.param({"dones": np.full(10, np.nan)}, ["dones must be yes or no"], id="NaN"),
        pytest.param(
            {"terminals": TERMINAL, "episode_lengths": [5, 5]},
            ["terminated marks row 3 and not the following one, within an episode that ends at row 4", "lengths that fit"],
            id="an end within lengths",
        ),
        pytest.param({"timeouts": START, "episode_lengths": LENGTHS}, ["timeouts marks row 0"], id="starts for ends"),
        pytest.param({"episode_id": np.arange(10) % 2}, ["2 lie in 10 places", "Sort them"], id="episodes in turn"),
        pytest.param({"episode_id": np.full(10, np.nan)}, ["not all finite", "Leave the key out"], id="NaN numbers"),
        pytest.param({"episode_id": np.arange(4)}, ["4 episode_ids for 10 actions"], id="numbers"),
        pytest.param({"indices": np.array([4, 4])}, ["indices must be the rows, below 10"], id="split twice"),
        pytest.param({"indices": np.array([4, 10])}, ["indices", "give episode_lengths"], id="split at the end"),
        pytest.param({"indices": np.array([4.5])}, ["indices"], id="split in a row"),
        pytest.param({"next_obs": NEXT[:-1]}, ["next_observations has shape (9, 3), observations (10, 3)"], id="next"),
        pytest.param({"episode_starts": START[:-1]}, ["9 episode_starts for 10 actions"], id="starts"),
        pytest.param({"actions": ACTIONS[:0], "indices": []}, ["actions is empty"], id="no steps"),
        pytest.param(
            {"observations": NEXT[:, 0], "next_obs": NEXT[:, 0]}, ["observations has shape (10,)"], id="vectors"
        ),
        pytest.param({"actions": ACTIONS[:-1]}, ["10 observations but 9 actions"], id="one action fewer"),
        pytest.param({"actions": None}, ["lacks actions; found observations", "docs/your-data.md"], id="no actions"),
    ],
)
def test_ends_that_do_not_fit_are_refused_in_words(tmp_path, changes, words):
    arrays = {key: value for key, value in (PAIRS | changes).items() if value is not None}
    with pytest.raises(InputError) as caught:
        written(tmp_path, **arrays)
    assert [word for word in ["data.npz", *words] if word not in str(caught.value)] == []


def test_replay_buffers_of_tianshou_have_names_of_their_own(tmp_path):
    arrays = {"obs": OBSERVATIONS, "act": ACTIONS, "rew": REWARDS, "obs_next": NEXT, "done": END}
    check(written(tmp_path, **arrays, terminated=TERMINAL, truncated=END & ~TERMINAL))


# What could be meant otherwise


def test_terminal_states_alone_leave_out_time_limits_which_is_said(tmp_path):
    with pytest.warns(UserWarning, match=r"terminal states alone .* give timeouts, next_observations or episode_lengths"):
        assert written(tmp_path, **PAIRS, terminals=TERMINAL).lengths.tolist() == [4, 3, 3]


@pytest.mark.parametrize("fill", [0.0, None], ids=["zeros", "the last row"])
@pytest.mark.parametrize("kind", [np.asarray, lambda rows: torch.tensor(rows, dtype=torch.bfloat16).requires_grad_()])
def test_rows_of_a_stack_that_may_be_padding_are_said(tmp_path, fill, kind):
    def stacked(episodes):
        more = {"mode": "edge"} if fill is None else {"mode": "constant", "constant_values": fill}
        return kind(np.stack([np.pad(rows, ((0, 5 - len(rows)), (0, 0)), **more) for rows in episodes]))

    observations, actions = stacked([rows[:-1] for rows, _, _ in EPISODES]), stacked([rows for _, rows, _ in EPISODES])
    torch.save({"obs": observations, "acts": actions}, tmp_path / "a.pt")
    with pytest.warns(UserWarning, match=r"4 of 4 stacked episodes end in equal rows .* episode 0, from its step [34]"):
        assert len(read(tmp_path / "a.pt")) == 20


def test_parts_that_may_be_splits_are_said(tmp_path):
    parts = {"train": PAIRS, "test": {key: rows[:2] for key, rows in PAIRS.items()}}
    torch.save(parts, tmp_path / "data.pt")
    with pytest.warns(UserWarning, match="all of its parts, test, train, are read"):
        assert read(tmp_path / "data.pt").lengths.tolist() == [2, 10]


def test_of_many_parts_some_are_named(tmp_path):
    torch.save({letter: PAIRS for letter in "gfedcba"}, tmp_path / "data.pt")
    with pytest.warns(UserWarning, match=r"all of its parts, a, b, c, d, e, \.\.\., are read"):
        read(tmp_path / "data.pt")


def test_a_stack_without_steps_is_refused_in_words(tmp_path):
    torch.save({"observations": torch.zeros(4, 0, 3), "actions": torch.zeros(4, 0, 2)}, tmp_path / "data.pt")
    with pytest.raises(InputError, match="observations is empty"):
        read(tmp_path / "data.pt")


def test_a_list_of_steps_is_refused_as_one(tmp_path):
    steps = [{"obs": observation, "acts": action} for observation, action in zip(OBSERVATIONS, ACTIONS, strict=True)]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(steps))
    with pytest.raises(InputError, match="is a list of 10 dictionaries with one step each"):
        read(tmp_path / "data.pkl")
