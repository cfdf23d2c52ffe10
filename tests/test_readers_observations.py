"""Observations in several entries: which are taken, in which order, and the order of an environment's dictionary."""

import pickle

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_readers_layouts import ACTIONS, EPISODES, FINAL, LENGTHS, OBSERVATIONS, check

from lightning_bc.arguments import with_lists
from lightning_bc.demonstrations import Demonstrations, peek, read
from lightning_bc.errors import InputError

KEYS = ["object", "robot"]
IMAGE = np.zeros((10, 4, 4, 3), np.uint8)


def parts(observations):
    """The entries of observations, not in their order."""
    return {"robot": observations[:, 1:], "object": observations[:, 0]}


def pickled(folder, content):
    path = folder / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


LAYOUTS = {
    "flat": {"obs": parts(OBSERVATIONS), "final_observations": parts(FINAL), "actions": ACTIONS, "episode_lengths": LENGTHS},
    "episodes": [{"obs": parts(observations), "acts": actions} for observations, actions, _ in EPISODES],
    "pairs": [(parts(observations), actions) for observations, actions, _ in EPISODES],
    "columns": {
        "obs": [parts(observations) for observations, _, _ in EPISODES],
        "acts": [actions for _, actions, _ in EPISODES],
    },
    "a dictionary per step": [
        {"obs": [{"object": row[:1], "robot": row[1:]} for row in observations], "acts": actions}
        for observations, actions, _ in EPISODES
    ],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_entries_side_by_side_in_the_order_of_the_keys(tmp_path, layout):
    made = read(pickled(tmp_path, LAYOUTS[layout]), observation_keys=KEYS)
    check(made, terminated=False, rewards=False)
    assert made.origin.observation_keys == ("object", "robot")
    assert made.origin.note == "observations are object (1), robot (2), side by side in this order"


def test_entries_of_tensors_and_groups_in_groups(tmp_path):
    observations = {"arm": {key: torch.as_tensor(value).float() for key, value in parts(OBSERVATIONS).items()}}
    torch.save({"obs": observations, "acts": torch.as_tensor(ACTIONS), "episode_lengths": [*LENGTHS]}, tmp_path / "data.pt")
    made = read(tmp_path / "data.pt", observation_keys=["arm/object", "arm/robot"])
    check(made, terminated=False, rewards=False, final=False)


def test_one_entry_of_numbers_needs_no_key(tmp_path):
    made = read(pickled(tmp_path, {"obs": {"camera": IMAGE, "state": OBSERVATIONS}, "acts": ACTIONS}))
    assert made.origin.observation_keys == ("state",)
    np.testing.assert_array_equal(made.observations, OBSERVATIONS.astype("f4"))


def test_the_environments_dictionary_says_the_order(tmp_path):
    made = read(pickled(tmp_path, LAYOUTS["episodes"]), environment_keys=KEYS)
    check(made, terminated=False, rewards=False)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        pytest.param([], ["camera image (4, 4, 3) uint8", "robot (2,) float64", "--data.observation_keys robot object"]),
        pytest.param(["robots"], ["no observation robots", "nearest name is robot.", "object () float64"]),
        pytest.param(["camera"], ["camera is an image", "(4, 4, 3)", "--data.observation_keys: robot, object"]),
        pytest.param(["words"], ["words is no numbers"]),
        pytest.param(["robot", "robot"], ["names robot 2 times"]),
        pytest.param(["robot", "short"], ["{'robot': 10, 'short': 9} rows"]),
        pytest.param(["robot", "complex"], ["complex is no numbers"]),
    ],
)
def test_keys_that_do_not_fit_are_refused_in_words(tmp_path, keys, words):
    entries = {**parts(OBSERVATIONS), "camera": IMAGE, "words": np.array(["a"] * 10), "complex": OBSERVATIONS * 1j}
    path = pickled(tmp_path, {"obs": entries | {"short": OBSERVATIONS[1:]}, "acts": ACTIONS})
    with pytest.raises(InputError) as caught:
        read(path, observation_keys=keys)
    assert [word for word in [str(path) if keys != ["robot"] * 2 else "", *words] if word not in str(caught.value)] == []


def test_episode_without_an_entry_of_the_first_is_named(tmp_path):
    first, second = ({"obs": parts(observations), "acts": actions} for observations, actions, _ in EPISODES[:2])
    del second["obs"]["robot"]
    with pytest.raises(InputError, match=r"episode 1: has no observation robot; found object"):
        read(pickled(tmp_path, [first, second]), environment_keys=KEYS)


def test_keys_of_one_array_are_those_of_the_environment(tmp_path):
    path = pickled(tmp_path, {"obs": OBSERVATIONS, "acts": ACTIONS})
    assert read(path, observation_keys=KEYS, environment_keys=KEYS[::-1]).origin.observation_keys == ("object", "robot")
    with pytest.raises(InputError, match=r"one array.*Name all of object, robot"):
        read(path, observation_keys=["object"], environment_keys=KEYS)
    with pytest.raises(InputError, match=r"one array, and --data\.observation_keys is object robot\. Leave the flag away"):
        read(path, observation_keys=KEYS)


def test_file_that_was_converted_says_its_keys(tmp_path):
    content = {"observations": torch.as_tensor(OBSERVATIONS), "actions": torch.as_tensor(ACTIONS)}
    torch.save(content | {"metadata": {"observation_keys": KEYS}}, tmp_path / "data.pt")
    assert read(tmp_path / "data.pt").origin.observation_keys == ("object", "robot")
    torch.save(content | {"metadata": {"observation_keys": 3}}, tmp_path / "data.pt")
    for look in (read, peek):
        with pytest.raises(InputError, match="metadata's observation_keys is 3"):
            look(tmp_path / "data.pt")


# An environment whose observations are a dictionary


class Goal(gymnasium.Env):
    """Written down in another order than that in which it is flattened: achieved, desired, observation."""

    observation_space = spaces.Dict({key: spaces.Box(-9, 9, (1,)) for key in ("observation", "achieved", "desired")})
    action_space = spaces.Box(-1, 1, (2,))


@pytest.fixture(autouse=True, scope="module")
def _environment():
    gymnasium.register("GoalOfTest-v0", Goal, max_episode_steps=9)
    yield
    del gymnasium.registry["GoalOfTest-v0"]


def demonstrations(path, *keys):
    data = Demonstrations(str(path), "GoalOfTest-v0", validation_fraction=0.0, observation_keys=list(keys) or None)
    data.prepare_data()
    return data.training_observations


def test_columns_are_brought_to_the_order_of_the_space(tmp_path, capsys):
    path = pickled(tmp_path, {"obs": OBSERVATIONS, "acts": ACTIONS})
    brought = demonstrations(path, "observation", "achieved", "desired")
    np.testing.assert_array_equal(brought, OBSERVATIONS[:, [1, 2, 0]].astype("f4"))
    assert "GoalOfTest-v0 are achieved (1), desired (1), observation (1), in this order" in capsys.readouterr().out


def test_the_order_that_is_taken_is_printed(tmp_path, capsys):
    path = pickled(tmp_path, {"obs": OBSERVATIONS, "acts": ACTIONS})
    np.testing.assert_array_equal(demonstrations(path), OBSERVATIONS.astype("f4"))
    printed = capsys.readouterr().out
    assert "taken to be achieved (1), desired (1), observation (1), in this order, which is that of GoalOfTest-v0" in printed
    assert "--data.observation_keys" in printed


@pytest.mark.parametrize("keys", [(), ("observation", "achieved", "desired"), ("desired", "observation", "achieved")])
def test_entries_come_in_the_order_of_the_space_whatever_that_of_the_keys(tmp_path, keys):
    entries = {"observation": OBSERVATIONS[:, 0], "achieved": OBSERVATIONS[:, 1], "desired": OBSERVATIONS[:, 2]}
    path = pickled(tmp_path, {"obs": entries, "acts": ACTIONS})
    np.testing.assert_array_equal(demonstrations(path, *keys), OBSERVATIONS[:, [1, 2, 0]].astype("f4"))


def test_other_entries_may_be_named_for_the_environments(tmp_path):
    entries = {"x": OBSERVATIONS[:, 0], "y": OBSERVATIONS[:, 1], "z": OBSERVATIONS[:, 2]}
    path = pickled(tmp_path, {"obs": entries, "acts": ACTIONS})
    np.testing.assert_array_equal(demonstrations(path, "z", "y", "x"), OBSERVATIONS[:, ::-1].astype("f4"))
    with pytest.raises(InputError, match=r"2 dimensions, those of GoalOfTest-v0 have 3.*name others with --data") as error:
        demonstrations(path, "z", "y")
    assert "Those of the environment are" in str(error.value)
    assert "of a Discrete entry each value has a column" in str(error.value)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["a", "b", "--env", "E"], ['["a", "b"]', "--env", "E"]),
        (["a"], ['["a"]']),
        (['["a", "b"]'], ['["a", "b"]']),
        (["null"], ["null"]),
        ([], []),
    ],
)
def test_flag_takes_several_values(given, wanted):
    flag = ["--x", "1", "--data.observation_keys"]
    assert with_lists([*flag, *given]) == [*flag, *wanted]
