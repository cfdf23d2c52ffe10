"""HDF5: the flat layout, groups per episode, and observations that are groups."""

import sys

import numpy as np
import pytest
from test_readers_layouts import ACTIONS, END, EPISODES, NEXT, OBSERVATIONS, REWARDS, TERMINAL, TERMINATED, check

from lightning_bc.demonstrations import peek, read
from lightning_bc.errors import InputError

h5py = pytest.importorskip("h5py", reason="the optional extra hdf5 is not installed")


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "data.hdf5", "w") as opened:
        yield opened


def found(file, **keys):
    path = file.filename
    file.close()
    assert peek(path).path == path
    return read(path, **keys)


def fill(group, **arrays):
    for name, array in arrays.items():
        group[name] = array


def test_d4rl_flat(file):
    fill(file, observations=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, terminals=TERMINAL, timeouts=END & ~TERMINAL)
    fill(file, **{"next_observations": NEXT, "infos/qpos": ACTIONS, "metadata/algorithm": "SAC"})
    check(found(file))


def test_groups_in_the_order_of_their_numbers(file):
    for number, (observations, actions, rewards) in enumerate(EPISODES):
        ended = np.arange(len(actions)) == (len(actions) - 1 if TERMINATED[number] else -1)
        group = file.create_group(f"episode_{7 + number}")          # 7 8 9 10
        fill(group, observations=observations, actions=actions, rewards=rewards, terminations=ended, truncations=ended)
    check(found(file))


def test_robomimic_groups(file):
    for number, (observations, actions, rewards) in enumerate(EPISODES):
        group = file.create_group(f"data/demo_{7 + number}")
        fill(group, actions=actions, rewards=rewards, dones=np.ones(len(actions)))
        for key, rows in (("obs", observations[:-1]), ("next_obs", observations[1:])):
            images = np.zeros((len(actions), 4, 4, 3), np.uint8)
            fill(group, **{f"{key}/robot": rows[:, 1:], f"{key}/hand_image": images, f"{key}/object": rows[:, 0]})
    file["mask/train"] = np.array([b"demo_7"])
    made = found(file, observation_keys=["object", "robot"])
    check(made, terminated=False)
    assert made.origin.note == "observations are object (1), robot (2), side by side in this order"
    assert made.origin.observation_keys == ("object", "robot")


def test_groups_whose_terminal_state_lasts_and_that_have_a_final_observation(file):
    for number, (observations, actions, rewards) in enumerate(EPISODES):
        ended = (np.arange(len(actions)) >= len(actions) - 2) & TERMINATED[number]
        group = file.create_group(f"traj_{number}")                 # as ManiSkill writes them
        fill(group, obs=observations, actions=actions, rewards=rewards, terminated=ended, truncated=~ended & False)
    check(found(file))


def test_next_observations_cut_no_group(file):
    for number, (observations, actions, rewards) in enumerate(EPISODES):
        noisy = observations[1:] + (np.arange(len(actions)) < len(actions) - 1)[:, None]
        group = file.create_group(f"data/demo_{number}")
        fill(group, obs=observations[:-1], actions=actions, rewards=rewards, next_obs=noisy)
    check(found(file), terminated=False)


@pytest.mark.parametrize("names", [("data/x",), ("observations",), ("data/demo_0/obs/x", "data/demo_0/rewards")])
def test_what_is_in_no_layout_is_refused(file, names):
    path = file.filename
    fill(file, **{name: OBSERVATIONS for name in names})
    with pytest.raises(InputError, match=r"lacks .*actions; found " + names[0].split("/")[0]):
        found(file)
    assert path.endswith("data.hdf5")


def test_episode_that_does_not_fit_is_named(file):
    for number in range(2):
        fill(file.create_group(f"data/demo_{number}"), obs=OBSERVATIONS, actions=ACTIONS[: 10 - 5 * number])
    with pytest.raises(InputError, match=r"data\.hdf5, episode 1: 10 observations but 5 actions"):
        found(file)


def test_without_h5py_the_extra_is_named(file, monkeypatch):
    path = file.filename
    file.close()
    monkeypatch.setitem(sys.modules, "h5py", None)                  # what an import finds where it is not installed
    for look in (read, peek):
        with pytest.raises(InputError, match=r"pip install 'lightning_bc\[hdf5\]'"):
            look(path)


def test_groups_without_numbers_hold_several_episodes_where_ends_are_marked(file):
    """They are the splits of a data set, not its episodes."""
    fill(file.create_group("train"), obs=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, dones=END)
    check(found(file), terminated=False, final=False)
