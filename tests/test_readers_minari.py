"""Local Minari datasets: of an environment, of none, with observations that are dictionaries."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from lightning_bc.demonstrations import peek, read
from lightning_bc.demonstrations.readers.minari import _of_its_own
from lightning_bc.errors import InputError


def refusal(path):
    with pytest.raises(InputError) as caught:
        read(path)
    assert path in str(caught.value)
    return str(caught.value)


@pytest.fixture
def minari_dataset(tmp_path, monkeypatch):
    """Two Pendulum episodes of 3 and 2 steps in a Minari dataset of their own folder."""
    minari = pytest.importorskip("minari", reason="the optional extra minari is not installed")
    pytest.importorskip("h5py", reason="minari stores datasets with h5py, which is not installed")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    generator = np.random.default_rng(0)
    episodes = []
    for index, length in enumerate((3, 2)):
        # Minari's arrays hold one observation more than actions: the one after the last step.
        episodes.append(
            EpisodeBuffer(
                id=index,
                observations=generator.uniform(-1, 1, (length + 1, 3)).astype(np.float32),
                actions=generator.uniform(-1, 1, (length, 1)).astype(np.float32),
                rewards=[-1.0 - index] * length,
                terminations=[False] * (length - 1) + [index == 1],
                truncations=[False] * (length - 1) + [index == 0],
            )
        )
    minari.create_dataset_from_buffers("pendulum/test-v0", episodes, env="Pendulum-v1")
    return episodes


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_minari_dataset(minari_dataset):
    file = read("minari:pendulum/test-v0")
    first, second = minari_dataset
    observations = np.concatenate([first.observations[:3], second.observations[:2]])
    np.testing.assert_array_equal(file.observations, observations)
    np.testing.assert_array_equal(file.actions, np.concatenate([first.actions, second.actions]))
    assert file.rewards.tolist() == [-1.0, -1.0, -1.0, -2.0, -2.0]
    assert file.lengths.tolist() == [3, 2]
    assert file.terminated.tolist() == [False, True]
    np.testing.assert_array_equal(file.final_observations, [first.observations[3], second.observations[2]])
    assert file.mean_return == -3.5
    assert file.origin.environment_id == "Pendulum-v1"
    assert peek("minari:pendulum/test-v0") == replace(file.origin, sha256="")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_environment_with_arguments_of_its_own_is_another_than_its_id(minari_dataset):
    import minari

    environment = gymnasium.make("Pendulum-v1", g=1.0)
    minari.create_dataset_from_buffers("pendulum/light-v0", minari_dataset, env=environment)
    with pytest.warns(UserWarning, match=r"recorded in Pendulum-v1 with g=1.0, which is another environment"):
        assert peek("minari:pendulum/light-v0").environment_id is None


@pytest.mark.parametrize("kwargs", [{}, {"g": 10.0}, {"limits": (-1.0, 1.0)}], ids=str)
def test_arguments_that_the_id_stands_for_are_not_its_own(kwargs):
    gymnasium.register("Own-v0", "gymnasium.envs.classic_control:PendulumEnv", kwargs={"limits": (-1.0, 1.0)})
    spec = SimpleNamespace(id="Own-v0", kwargs=json.loads(json.dumps(kwargs)))
    assert _of_its_own(spec) == {}
    assert _of_its_own(SimpleNamespace(id="Own-v0", kwargs={"g": 1.0})) == {"g": 1.0}
    del gymnasium.registry["Own-v0"]


def test_unknown_minari_dataset_names_the_local_ones_and_the_download(minari_dataset):
    message = refusal("minari:pendulum/other-v0")
    assert "Local datasets: pendulum/test-v0" in message
    assert "minari download pendulum/other-v0" in message


def test_without_minari_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)  # what an import finds where it is not installed
    assert "pip install 'lightning_bc[minari]'" in refusal("minari:pendulum/test-v0")


BOX = spaces.Box(-9, 9, (2,), np.float64)
SPACES = {
    "vector": BOX,
    "dictionary": spaces.Dict({"observation": BOX, "achieved_goal": BOX, "goal": spaces.Box(-9, 9, (2, 2), np.float64)}),
    "tuple in a dictionary": spaces.Dict({"b": BOX, "a": spaces.Tuple([BOX, BOX])}),
    "with a choice": spaces.Dict({"mode": spaces.Discrete(3), "position": BOX}),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", SPACES)
def test_observations_are_flattened_as_gymnasium_flattens_them_and_no_environment_is_needed(tmp_path, monkeypatch, kind):
    space = SPACES[kind]
    rows = [spaces.flatten(space, one) for one in filled(space, tmp_path, monkeypatch)]
    found = read("minari:tests/any-v0")
    np.testing.assert_array_equal(found.observations, np.stack(rows).astype(np.float32))
    assert (found.lengths.tolist(), found.terminated.tolist()) == ([3, 2], [False, False])
    assert found.origin.environment_id is None
    assert peek("minari:tests/any-v0") == replace(found.origin, sha256="", note="", observation_keys=None)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_parts_of_a_dictionary_in_the_order_of_the_keys(tmp_path, monkeypatch):
    seen = filled(SPACES["dictionary"], tmp_path, monkeypatch)
    found = read("minari:tests/any-v0", observation_keys=["observation", "achieved_goal"])
    rows = [np.concatenate([one["observation"], one["achieved_goal"]]) for one in seen]
    np.testing.assert_array_equal(found.observations, np.stack(rows).astype(np.float32))
    assert found.origin.observation_keys == ("observation", "achieved_goal")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_images_are_refused_by_name(tmp_path, monkeypatch):
    image = spaces.Box(0, 255, (4, 4, 3), np.uint8)
    filled(spaces.Dict({"camera": image, "position": BOX}), tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"camera is an image, .*\(4, 4, 3\) uint8.*observation_keys: position"):
        read("minari:tests/any-v0")
    assert read("minari:tests/any-v0", observation_keys=["position"]).observations.shape == (5, 2)


def filled(space, folder, monkeypatch):
    """A dataset of two episodes without an environment; the observations that were acted on."""
    minari = pytest.importorskip("minari", reason="the optional extra minari is not installed")
    pytest.importorskip("h5py", reason="minari stores datasets with h5py, which is not installed")
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    acted_on = []
    space.seed(0)
    buffers = []
    for index, length in enumerate((3, 2)):
        seen = [space.sample() for _ in range(length + 1)]
        acted_on += seen[:-1]
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=stacked(space, seen),
                actions=np.zeros((length, 1), np.float32),
                rewards=[1.0] * length,
                terminations=[False] * length,
                truncations=[False] * (length - 1) + [True],
            )
        )
    action_space = spaces.Box(-1, 1, (1,), np.float32)
    minari.create_dataset_from_buffers("tests/any-v0", buffers, observation_space=space, action_space=action_space)
    return acted_on


def stacked(space, seen):
    """Minari's way to keep several observations of a space: one array for each part."""
    if isinstance(space, spaces.Dict):
        return {key: stacked(part, [one[key] for one in seen]) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [one[index] for one in seen]) for index, part in enumerate(space.spaces))
    return np.array(seen)
