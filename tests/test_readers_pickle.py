"""Pickles: layouts of episodes are read, whatever rebuilds anything but arrays is refused by name and not run."""

import collections
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from test_readers_layouts import ACTIONS, EPISODES, LENGTHS, OBSERVATIONS, REWARDS, TERMINATED, check

from lightning_bc.demonstrations import peek, read
from lightning_bc.errors import InputError


def pickled(folder, content, protocol=pickle.DEFAULT_PROTOCOL):
    path = folder / "data.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def refusal(path):
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def homework(number):
    """An episode as course homework keeps it."""
    (observations, actions, rewards), length = EPISODES[number], LENGTHS[number]
    return {
        "observation": observations[:-1],
        "image_obs": np.array([]),
        "action": actions,
        "reward": rewards,
        "next_observation": observations[1:],
        "terminal": np.arange(length) == (length - 1 if TERMINATED[number] else -1),
    }


LAYOUTS = {
    "list of dictionaries": [homework(number) for number in range(4)],
    "dictionaries by name": {f"episode_{10 * number}": homework(number) for number in (3, 0, 2, 1)},
    "lists of arrays": {
        "observations": [observations for observations, _, _ in EPISODES],
        "actions": [actions for _, actions, _ in EPISODES],
        "rewards": [rewards for _, _, rewards in EPISODES],
        "terminals": [homework(number)["terminal"] for number in range(4)],
    },
    "ordered dictionaries": [collections.OrderedDict(homework(number)) for number in range(4)],
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_episodes_in_every_protocol(tmp_path, layout, protocol):
    check(read(pickled(tmp_path, LAYOUTS[layout], protocol)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_torch_file_has_the_same_layouts(tmp_path, layout):
    torch.save(LAYOUTS[layout], tmp_path / "data.pt")
    check(read(tmp_path / "data.pt"))
    assert peek(tmp_path / "data.pt").environment_id is None


def test_pairs_of_arrays(tmp_path):
    content = [(observations, actions) for observations, actions, _ in EPISODES]
    check(read(pickled(tmp_path, content)), terminated=False, rewards=False)


def apart(**changes):
    """The four episodes, each by itself, with a change of each."""
    episodes = [{"obs": observations[:-1], "acts": actions, "rews": rewards} for observations, actions, rewards in EPISODES]
    return [one | {key: change(len(one["acts"])) for key, change in changes.items()} for one in episodes]


def test_middle_axis_of_one_environment_in_episodes_that_are_kept_apart(tmp_path):
    lists = [{key: array[:, None] for key, array in episode.items()} for episode in apart()]
    check(read(pickled(tmp_path, lists)), terminated=False, final=False)
    columns = {key: [episode[key] for episode in lists] for key in ("obs", "acts", "rews")}
    check(read(pickled(tmp_path, columns)), terminated=False, final=False)


LAST_TWO = {"dones": lambda steps: np.arange(steps) >= steps - 2}


@pytest.mark.parametrize("layout", [list, lambda episodes: {f"demo_{n}": one for n, one in enumerate(episodes)}])
@pytest.mark.parametrize("named", ["dones", "terminated"])
def test_steps_behind_a_success_belong_to_their_episode(tmp_path, layout, named):
    found = read(pickled(tmp_path, layout(apart(**{named: LAST_TWO["dones"]}))))
    assert found.lengths.tolist() == [*LENGTHS]
    assert (found.terminated is None) == (named == "dones")
    assert named == "dones" or found.terminated.all()


@pytest.mark.parametrize("place", [0, 2, 4])
def test_episodes_without_steps_are_left_out_with_a_warning(tmp_path, place):
    episodes = apart()
    episodes.insert(place, {key: array[:0] for key, array in episodes[0].items()})
    with pytest.warns(UserWarning, match=f"1 episodes have no steps and are left out .* episode {place}"):
        check(read(pickled(tmp_path, episodes)), terminated=False, final=False)
    assert "episode 0: observations is empty" in refusal(pickled(tmp_path, [episodes[place]] * 2))


def test_next_observations_cut_no_episode_that_is_kept_apart(tmp_path):
    noisy = [one | {"next_obs": episode[0][1:] + 0.1} for one, episode in zip(apart(), EPISODES, strict=True)]
    found = read(pickled(tmp_path, noisy))
    assert found.lengths.tolist() == [*LENGTHS]
    np.testing.assert_allclose(found.final_observations, [episode[0][-1] + 0.1 for episode in EPISODES], rtol=1e-6)


def test_dones_in_the_midst_of_episodes_are_taken_for_successes_and_said_so(tmp_path):
    first = {"dones": lambda steps: np.arange(steps) == 0}
    with pytest.warns(UserWarning, match=r"dones mark steps within 3 of 4 episodes \(the first is episode 0\)"):
        assert read(pickled(tmp_path, apart(**first))).lengths.tolist() == [*LENGTHS]


def test_dictionaries_that_are_not_numbered_may_hold_several_episodes(tmp_path):
    flat = {"obs": OBSERVATIONS, "acts": ACTIONS, "rews": REWARDS, "dones": np.isin(np.arange(10), np.cumsum(LENGTHS) - 1)}
    check(read(pickled(tmp_path, {"data": flat})), terminated=False, final=False)


def test_terminal_states_within_an_episode_are_refused(tmp_path):
    first = {"terminated": lambda steps: np.arange(steps) == 0}
    message = refusal(pickled(tmp_path, apart(**first)))
    assert "episode 0: terminated marks row 0 and not the following one, within an episode that ends at row 3" in message


def test_one_pair_of_arrays_with_a_final_observation(tmp_path):
    observations, actions, _ = EPISODES[0]
    found = read(pickled(tmp_path, (observations, actions)))
    assert (found.lengths.tolist(), found.knows_episodes) == ([4], True)
    np.testing.assert_array_equal(found.final_observations, observations[-1:].astype("f4"))


def test_one_pair_of_arrays_says_nothing_of_episodes(tmp_path):
    torch.save((torch.tensor(OBSERVATIONS), torch.tensor(ACTIONS)), tmp_path / "data.pt")
    found = read(tmp_path / "data.pt")
    assert (found.lengths.tolist(), found.knows_episodes) == ([10], False)
    assert read(tmp_path / "data.pt", one_episode=True).knows_episodes
    assert not read(pickled(tmp_path, [OBSERVATIONS, ACTIONS])).knows_episodes


def test_flat_dictionary_of_lists(tmp_path):
    content = {"observations": OBSERVATIONS.tolist(), "actions": list(ACTIONS), "rewards": REWARDS.tolist()}
    check(read(pickled(tmp_path, content | {"episode_lengths": list(LENGTHS)})), terminated=False, final=False)


def test_fortran_order_and_scalars(tmp_path):
    content = {"obs": np.asfortranarray(OBSERVATIONS), "acts": ACTIONS.T.copy().T, "mean_reward": np.float64(3.0)}
    for protocol in (2, 5):
        found = read(pickled(tmp_path, content | {"metadata": {"environment_id": "Pendulum-v1"}}, protocol))
        np.testing.assert_array_equal(found.observations, OBSERVATIONS.astype("f4"))
        np.testing.assert_array_equal(found.actions, ACTIONS.astype("f4"))
        assert found.mean_return == 3.0
        assert peek(tmp_path / "data.pkl").environment_id == found.origin.environment_id == "Pendulum-v1"


def test_content_that_holds_itself_is_refused(tmp_path):
    endless, row = {}, []
    endless["obs"], endless["acts"] = endless, ACTIONS
    row.append(row)
    for content in (endless, {"obs": row, "acts": row}, {"obs": {"a": OBSERVATIONS, "b": endless}, "acts": ACTIONS}):
        assert "data.pkl" in refusal(pickled(tmp_path, content))


# What is refused


class System:
    """A pickle that would run a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_command_is_refused_by_name_and_does_not_run(tmp_path, protocol):
    canary = tmp_path / "canary"
    path = pickled(tmp_path, LAYOUTS["list of dictionaries"] + [System(f"touch {canary}")], protocol)
    for look in (refusal, peek):
        if look is peek:
            with pytest.raises(InputError, match=r"posix\.system"):
                peek(path)
        else:
            assert "pickled Python objects (posix.system), which could run code" in refusal(path)
    assert not canary.exists()
    pickle.loads(path.read_bytes())                                 # it would have run
    assert canary.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{type(Path()).__module__}.PosixPath", Path("a")),           # pathlib, and in Python 3.13 pathlib._local
        ("builtins.eval", eval),
        ("builtins.getattr", getattr),
        ("test_readers_pickle.System", System),
        ("torch._utils._rebuild_tensor_v2", torch.zeros(2)),
        ("_io.BytesIO", io.BytesIO()),
    ],
)
def test_objects_are_refused_by_name(tmp_path, name, value):
    assert f"({name})" in refusal(pickled(tmp_path, {"observations": value}))


def instructions(module, name, *arguments):
    """A pickle that calls ``module.name`` with strings, in the pickle machine's own language."""
    pushed = b"".join(b"V" + argument.encode() + b"\n" for argument in arguments)
    return b"c" + f"{module}\n{name}\n".encode() + b"(" + pushed + b"tR."


def test_attributes_of_what_is_allowed_are_not(tmp_path):
    stack_global = b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93."
    (tmp_path / "data.pkl").write_bytes(stack_global)
    assert "numpy.ndarray.tofile" in refusal(tmp_path / "data.pkl")


def test_codecs_that_a_file_names_are_not_looked_up(tmp_path):
    (tmp_path / "data.pkl").write_bytes(instructions("_codecs", "encode", "text", "this"))
    assert "encoded as this, wanted latin1" in refusal(tmp_path / "data.pkl")


DTYPE = b"cnumpy\ndtype\n(\x8c\x02O8tR"
STATES = {
    "ndarray": b"cnumpy\nndarray\n(K\x01\x85\x8c\x01OC\x08AAAAAAAAtR.",
    "frombuffer": b"cnumpy.core.numeric\n_frombuffer\n(C\x08AAAAAAAA" + DTYPE + b"K\x01\x85\x8c\x01CtR.",
    "scalar": b"cnumpy.core.multiarray\nscalar\n(" + DTYPE + b"C\x08AAAAAAAAtR.",
    "setstate": b"cnumpy.core.multiarray\n_reconstruct\n(NNNtR(K\x01K\x01\x85"
    + DTYPE                                                         # whose flags the file sets to 0: no objects
    + b"(K\x03\x8c\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C\x08AAAAAAAAtb.",
}


@pytest.mark.parametrize("way", STATES)
def test_bytes_of_a_file_are_never_taken_for_objects(tmp_path, way):
    (tmp_path / "data.pkl").write_bytes(b"\x80\x04" + STATES[way])
    assert "cannot be read" in refusal(tmp_path / "data.pkl")


def test_structured_arrays_are_refused(tmp_path):
    assert "(numpy.dtype V8)" in refusal(pickled(tmp_path, {"obs": np.zeros(3, [("x", float)])}))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(3.0, ["holds a float, wanted a dictionary"], id="number"),
        pytest.param([], ["holds a list of 0"], id="empty"),
        pytest.param([1.0, "a"], ["holds a list of 2 float, str"], id="list of words"),
        pytest.param([homework(0), {"action": ACTIONS}], ["episode 1: lacks observations; found action"], id="lacks"),
        pytest.param([{"obs": OBSERVATIONS[:4], "acts": ACTIONS[:2]}], ["episode 0: 4 observations but 2"], id="few"),
        pytest.param(
            [homework(0), homework(1) | {"action": np.zeros((2, 3))}],
            ["episode 1: actions have 3 dimensions, those of", "episode 0 have 2"],
            id="dimensions",
        ),
        pytest.param(
            {"obs": [OBSERVATIONS] * 2, "acts": [ACTIONS]}, ["{'obs': 2, 'acts': 1}", "one array of each"], id="columns"
        ),
    ],
)
def test_layouts_that_are_none_are_refused_in_words(tmp_path, content, words):
    message = refusal(pickled(tmp_path, content))
    assert [word for word in words if word not in message] == []


