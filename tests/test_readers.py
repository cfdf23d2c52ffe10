"""Readers of demonstrations: what is read, what is refused and in which words, and what a glance into a file tells."""

import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from lightning_bc.demonstrations import Origin, Trajectories, peek, read
from lightning_bc.demonstrations.readers import exists, readers, stem, torch_file
from lightning_bc.errors import InputError
from lightning_bc.files import write

PAIRS = 6
REQUIRED_KEYS = ("observations", "actions")


def content(**changes):
    generator = torch.Generator().manual_seed(0)
    plain = {
        "observations": torch.randn(PAIRS, 3, generator=generator),
        "actions": torch.randn(PAIRS, 2, generator=generator),
        "mean_reward": 12.5,
        "std_reward": 0.5,
    }
    return {key: value for key, value in (plain | changes).items() if value is not None}


def replaced(key, row, value):
    tensor = content()[key].clone()
    tensor[row, 1] = value
    return {key: tensor}


def refusal(path):
    """The message with which a file is refused; it always names the file."""
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


# Files that cannot be opened


def test_missing_file_names_the_command_that_collects_it(tmp_path):
    message = refusal(tmp_path / "cheetah.pt")
    assert f"lightning_bc collect --env ENVIRONMENT_ID --expert EXPERT.pt --output {tmp_path / 'cheetah.pt'}" in message
    assert "--data.path" in message


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("suffix", ["pt", "npz"])
def test_truncated_file(tmp_path, suffix, kept):
    path = tmp_path / f"cheetah.{suffix}"
    if suffix == "pt":
        write(path, content(observations=torch.zeros(1000, 3), actions=torch.zeros(1000, 2)))
    else:
        np.savez(path, **{key: np.asarray(value) for key, value in content().items()})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    message = refusal(path)
    assert "truncated" in message
    assert "collect it anew" in message


@pytest.mark.parametrize("suffix", ["pt", "npz"])
def test_file_of_text(tmp_path, suffix):
    path = tmp_path / f"notes.{suffix}"
    path.write_text("observations: none yet\n" * 20)
    assert "not a demonstration file" in refusal(path)


@pytest.mark.parametrize("writer", ["torch.save", "pickle.dump", "numpy.savez"])
def test_pickled_objects_are_refused_and_not_run(tmp_path, payload, writer):
    bomb, folder = payload
    path = tmp_path / ("cheetah.npz" if writer == "numpy.savez" else "cheetah.pt")
    if writer == "torch.save":
        torch.save(content(metadata=bomb), path)
    elif writer == "pickle.dump":
        path.write_bytes(pickle.dumps(content(metadata=bomb), protocol=2))
    else:
        np.savez(path, observations=np.array([bomb, bomb], dtype=object))
    message = refusal(path)
    assert "pickled Python objects" in message
    assert "Save plain tensors" in message
    with pytest.raises(InputError, match="pickled Python objects"):
        peek(path) if path.suffix == ".pt" else read(path)
    assert not folder.exists()


def test_the_payload_would_run_if_files_were_trusted(tmp_path, payload):
    bomb, folder = payload
    torch.save(content(metadata=bomb), tmp_path / "cheetah.pt")
    torch.load(tmp_path / "cheetah.pt", weights_only=False)
    assert folder.exists()


# Contents that cannot be used


@pytest.mark.parametrize("key", REQUIRED_KEYS)
def test_missing_key_is_named_with_those_found_and_wanted(tmp_path, key):
    write(tmp_path / "cheetah.pt", content(**{key: None}))
    message = refusal(tmp_path / "cheetah.pt")
    assert f"lacks {key}; found {', '.join(other for other in content() if other != key)}" in message
    assert f"at least {' and '.join(REQUIRED_KEYS)}" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"observations": torch.zeros(PAIRS)}, ["(6,)", "(pairs, observation_dim)", ".reshape(-1, 1)"], id="rank 1"
        ),
        pytest.param({"actions": torch.zeros(2, 3, 2)}, ["actions", "(2, 3, 2)", "(pairs, action_dim)"], id="rank 3"),
        pytest.param({"rewards": torch.zeros(PAIRS, 2)}, ["rewards", "(6, 2)", "(pairs,)"], id="rewards of rank 2"),
        pytest.param(
            {"observations": torch.zeros(PAIRS, 3, dtype=torch.int64)},
            ["observations has type int64", ".astype('float32')"],
            id="integers",
        ),
        pytest.param({"actions": torch.zeros(PAIRS, 2) > 0}, ["actions", "bool", "float32"], id="booleans"),
        pytest.param({"actions": torch.zeros(PAIRS, 2) * 1j}, ["actions", "complex64", "float32"], id="complex numbers"),
        pytest.param({"actions": "left"}, ["actions", "str", "wanted an array"], id="a word in place of an array"),
        pytest.param(
            {"actions": np.full((PAIRS, 2), "1.0")},
            ["actions is an array of words, wanted an array of numbers"],
            id="words for numbers",
        ),
        pytest.param({"observations": [[1.0], [1.0, 2.0]]}, ["observations", "list", "wanted an array"], id="ragged list"),
        pytest.param({"actions": torch.zeros(PAIRS - 1, 2)}, ["6 observations", "5 actions", "(5, 2)"], id="fewer actions"),
        pytest.param({"rewards": torch.zeros(PAIRS + 1)}, ["7 rewards", "6 pairs"], id="more rewards"),
        pytest.param(
            {"observations": torch.zeros(0, 3), "actions": torch.zeros(0, 2)}, ["empty", "Collect"], id="no pairs"
        ),
        pytest.param({"observations": torch.zeros(PAIRS, 0)}, ["observations", "empty"], id="no dimensions"),
        pytest.param(replaced("actions", 4, float("nan")), ["actions[4] holds NaN", "Remove these pairs"], id="NaN"),
        pytest.param(replaced("observations", 2, float("inf")), ["observations[2] holds Inf", "first of 1"], id="Inf"),
        pytest.param(replaced("observations", 0, float("-inf")), ["observations[0] holds Inf"], id="negative Inf"),
        pytest.param(replaced("actions", slice(3, 5), float("nan")), ["actions[3]", "first of 2"], id="two NaN"),
        pytest.param({"rewards": torch.full((PAIRS,), float("nan"))}, ["rewards[0] holds NaN"], id="NaN rewards"),
        pytest.param(
            {"observations": torch.full((PAIRS, 3), 1e300, dtype=torch.float64)},
            ["observations[0] holds 1e+300, more than float32 can hold"],
            id="beyond float32",
        ),
        pytest.param({"mean_reward": "high"}, ["mean_reward", "str", "one number"], id="word for mean_reward"),
        pytest.param({"std_reward": torch.zeros(3)}, ["std_reward", "Tensor", "one number"], id="array for std_reward"),
        pytest.param({"mean_reward": float("nan")}, ["mean_reward is nan", "finite"], id="NaN for mean_reward"),
        pytest.param({"episode_lengths": torch.tensor([3, 2])}, ["sum to the number of pairs, 6", "sum 5"], id="short sum"),
        pytest.param(
            {"actions": torch.zeros(PAIRS - 1, 2), "episode_lengths": torch.tensor([2, 4])},
            ["6 observations, as episode_lengths sum to, but 5 actions"],
            id="fewer actions than lengths say",
        ),
        pytest.param({"episode_lengths": torch.tensor([7, -1])}, ["positive integers"], id="negative length"),
        pytest.param({"episode_lengths": torch.tensor([5, 0])}, ["positive integers"], id="short sum and empty episode"),
        pytest.param({"episode_lengths": torch.tensor([2.5, 3.5])}, ["integers", "float32"], id="float lengths"),
        pytest.param({"episode_lengths": torch.tensor([[3, 3]])}, ["shape (1, 2)"], id="lengths of rank 2"),
        pytest.param({"episode_lengths": "3, 3"}, ["episode_lengths", "str", "positive integers"], id="word for lengths"),
        pytest.param({"random_returns": "low"}, ["random_returns", "str"], id="word for returns"),
        pytest.param(
            {"expert_returns": torch.tensor([1.0, float("nan")])}, ["expert_returns", "finite", "Remove"], id="NaN return"
        ),
    ],
)
def test_unusable_content_is_refused_in_words(tmp_path, changes, words):
    write(tmp_path / "cheetah.pt", content(**changes))
    message = refusal(tmp_path / "cheetah.pt")
    assert [word for word in words if word not in message] == []


def test_something_else_than_a_dictionary(tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    message = refusal(tmp_path / "list.pt")
    assert "holds a list of 1 Tensor, wanted a dictionary" in message


# Contents that can


AS = {
    "torch tensors": lambda value: value,
    "numpy arrays": lambda value: value.numpy() if isinstance(value, torch.Tensor) else value,
    "numpy arrays and scalars": lambda value: value.numpy() if isinstance(value, torch.Tensor) else np.float64(value),
    "zero-dimensional tensors": lambda value: torch.as_tensor(value),
    "float64": lambda value: value.double() if isinstance(value, torch.Tensor) else value,
    "float16": lambda value: value.half() if isinstance(value, torch.Tensor) else value,
}


@pytest.mark.parametrize("kind", AS)
def test_four_keys_are_enough_in_any_of_the_usual_types(tmp_path, kind):
    torch.save({key: AS[kind](value) for key, value in content().items()}, tmp_path / "cheetah.pt")
    file = read(tmp_path / "cheetah.pt")
    for key in ("observations", "actions"):
        assert getattr(file, key).dtype == torch.float32
        tolerance = 2e-3 if kind == "float16" else 0
        torch.testing.assert_close(getattr(file, key), content()[key], rtol=0, atol=tolerance)
    assert (file.origin.mean_return, file.origin.std_return) == (12.5, 0.5)
    assert type(file.origin.mean_return) is float
    assert file.rewards is file.terminated is file.final_observations is None
    assert (file.lengths.tolist(), file.knows_episodes) == ([PAIRS], False)
    assert file.origin == Origin(str(tmp_path / "cheetah.pt"), file.origin.sha256, mean_return=12.5, std_return=0.5)


@pytest.mark.parametrize("suffix", ["pt", "npz"])
def test_all_keys(tmp_path, suffix):
    everything = content(
        rewards=torch.arange(float(PAIRS)),
        episode_lengths=torch.tensor([4, 2], dtype=torch.int32),
        terminated=torch.tensor([True, False]),
        final_observations=torch.ones(2, 3),
        random_returns=torch.tensor([1.0, 2.0]),
        expert_returns=torch.tensor([3.0, 5.0]),
    )
    path = tmp_path / f"cheetah.{suffix}"
    if suffix == "pt":
        everything["metadata"] = {"environment_id": "Pendulum-v1", "seed": 3}
        write(path, everything)
    else:
        np.savez(path, **{key: np.asarray(value) for key, value in everything.items()})
    file = read(path)
    for key in ("observations", "actions", "rewards", "terminated", "final_observations"):
        assert torch.equal(getattr(file, key), everything[key])
    assert file.lengths.tolist() == [4, 2]
    assert (file.lengths.dtype, file.terminated.dtype, file.knows_episodes) == (torch.int64, torch.bool, True)
    assert (file.origin.random_returns, file.origin.expert_returns) == ((1.0, 2.0), (3.0, 5.0))
    assert (file.origin.mean_return, file.origin.std_return) == (12.5, 0.5)
    if suffix == "pt":
        assert (file.origin.environment_id, file.origin.seed) == ("Pendulum-v1", 3)


# What other tools write: every dtype and layout that converts exactly


def npz(path, **arrays):
    np.savez(path, **{key: np.asarray(value) for key, value in arrays.items()})
    return read(path)


def test_episodes_without_steps_are_left_out_with_a_warning(tmp_path):
    ends = {"terminated": np.array([True, False, True]), "final_observations": np.arange(9.0).reshape(3, 3)}
    with pytest.warns(UserWarning, match=r"data\.npz: 1 episodes have no steps and are left out .* episode 1\)"):
        file = npz(tmp_path / "data.npz", **content(episode_lengths=np.array([4, 0, 2]), **ends))
    assert (file.lengths.tolist(), file.terminated.tolist()) == ([4, 2], [True, True])
    assert file.final_observations.tolist() == [[0, 1, 2], [6, 7, 8]]


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "uint64", "int16", ">i4", "float64"])
def test_lengths_of_any_type_that_holds_whole_numbers(tmp_path, dtype):
    file = npz(tmp_path / "data.npz", **content(episode_lengths=np.array([4, 2], dtype=dtype)))
    assert (file.lengths.tolist(), file.lengths.dtype) == ([4, 2], torch.int64)


@pytest.mark.parametrize("shape", [(1,), (1, 1)], ids=str)
def test_number_in_an_array_of_one_element(tmp_path, shape):
    file = npz(tmp_path / "data.npz", **content(mean_reward=np.full(shape, 7.0)))
    assert file.mean_return == 7.0


def test_key_that_is_not_needed_is_never_opened(tmp_path, payload):
    bomb, folder = payload
    file = npz(tmp_path / "data.npz", **content(infos=np.array([bomb], dtype=object)))
    assert torch.equal(file.observations, content()["observations"])
    assert not folder.exists()


def test_tensor_that_requires_a_gradient_is_read_without(tmp_path):
    write(tmp_path / "data.pt", content(actions=content()["actions"].requires_grad_()))
    assert not read(tmp_path / "data.pt").actions.requires_grad


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda array: array.astype(">f8"), id="big-endian"),
        pytest.param(lambda array: array.astype("g"), id="longer than double"),
        pytest.param(np.asfortranarray, id="column by column"),
        pytest.param(lambda array: np.repeat(array, 2, 0)[::2], id="strided"),
        pytest.param(lambda array: array[::-1].copy()[::-1], id="backwards"),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "npz"])
def test_layouts_of_arrays_that_convert_exactly(tmp_path, suffix, change):
    actions = change(content()["actions"].numpy())
    path = tmp_path / f"data.{suffix}"
    if suffix == "pt":
        write(path, content(actions=actions))
    else:
        np.savez(path, **content(actions=actions))
    assert torch.equal(read(path).actions, content()["actions"])


@pytest.mark.parametrize("dtype", [bool, "float32", "uint8"])
def test_terminated_may_be_written_as_ones_and_zeros(tmp_path, dtype):
    both = {"episode_lengths": np.array([4, 2]), "terminated": np.array([0, 1], dtype=dtype)}
    assert npz(tmp_path / "data.npz", **content(**both)).terminated.tolist() == [False, True]


STRANGE = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "compressed": lambda tensor: tensor.to_sparse_csr(),
    "nested": lambda tensor: torch.nested.nested_tensor([tensor[:2], tensor[2:]]),
    "without memory": lambda tensor: tensor.to("meta"),
    "complex numbers of two bytes": lambda tensor: tensor.to(torch.complex32),
    "no dimensions": lambda tensor: tensor[0, 0],
    "bytes of floats": lambda tensor: tensor.to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore::UserWarning")                  # of torch, that some of these are prototypes
@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("key", ["observations", "rewards", "episode_lengths", "indices", "dones", "random_returns"])
def test_tensors_of_any_kind_are_read_or_refused(tmp_path, kind, key):
    torch.save(content(**{key: STRANGE[kind](torch.rand(PAIRS, 3))}), tmp_path / "data.pt")
    if (kind, key) == ("bytes of floats", "observations"):
        assert read(tmp_path / "data.pt").observations.shape == (PAIRS, 3)
    else:
        assert key in refusal(tmp_path / "data.pt")


@pytest.mark.parametrize("lengths", [[2**62, 2**62, 2**62, 2**62, PAIRS], [-1, PAIRS + 1]], ids=["wraps", "negative"])
def test_lengths_that_sum_by_overflow_are_refused(tmp_path, lengths):
    with pytest.raises(InputError, match="episode_lengths must be positive integers"):
        npz(tmp_path / "data.npz", **content(episode_lengths=np.array(lengths)))


def test_mean_return_is_computed_where_rewards_and_lengths_are_there(tmp_path):
    absent = {"mean_reward": None, "std_reward": None}
    file = npz(tmp_path / "data.npz", **content(rewards=np.arange(6.0), episode_lengths=np.array([4, 2]), **absent))
    assert file.mean_return == (0 + 1 + 2 + 3 + 4 + 5) / 2
    write(tmp_path / "stated.pt", content(rewards=torch.arange(6.0), episode_lengths=torch.tensor([4, 2])))
    assert read(tmp_path / "stated.pt").mean_return == 12.5  # what the file says


def test_mean_return_is_unknown_where_nothing_says_it(tmp_path):
    absent = {"mean_reward": None, "std_reward": None}
    assert np.isnan(npz(tmp_path / "bare.npz", **content(**absent)).mean_return)
    assert np.isnan(npz(tmp_path / "no_ends.npz", **content(rewards=np.arange(6.0), **absent)).mean_return)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"terminated": torch.tensor([True])}, ["1 terminated for 2 episodes"], id="too few"),
        pytest.param({"terminated": torch.tensor([2, 0])}, ["terminated must be yes or no"], id="twos"),
        pytest.param({"final_observations": torch.zeros(3, 3)}, ["3 final_observations for 2 episodes"], id="final"),
        pytest.param({"final_observations": torch.zeros(2, 4)}, ["4 dimensions, observations 3"], id="dimensions"),
        pytest.param(
            {"final_observations": torch.full((2, 3), float("nan"))}, ["final_observations[0] holds NaN"], id="NaN"
        ),
        pytest.param(
            {"terminated": torch.tensor([True]), "episode_lengths": None},
            ["1 values for 6 pairs", "nothing says where"],
            id="without lengths",
        ),
        pytest.param({"observations": torch.zeros(9, 3)}, ["one more after each of 2 episodes"], id="observations"),
    ],
)
def test_unusable_ends_of_episodes_are_refused_in_words(tmp_path, changes, words):
    write(tmp_path / "cheetah.pt", content(**{"episode_lengths": torch.tensor([4, 2]), **changes}))
    message = refusal(tmp_path / "cheetah.pt")
    assert [word for word in words if word not in message] == []


def test_sha256_tells_files_apart(tmp_path):
    write(tmp_path / "one.pt", content())
    write(tmp_path / "two.pt", content(mean_reward=12.6))
    (tmp_path / "copy.pt").write_bytes((tmp_path / "one.pt").read_bytes())
    one, two, copy = (read(tmp_path / f"{name}.pt").origin.sha256 for name in ("one", "two", "copy"))
    assert one == copy != two
    assert len(one) == 64


# A glance


def test_peek_reads_the_metadata_alone(tmp_path):
    metadata = {"environment_id": "Pendulum-v1", "versions": {"torch": "2"}, "of_another_tool": 1}
    write(tmp_path / "new.pt", content(metadata=metadata))
    write(tmp_path / "plain.pt", content())
    torch.save(content(metadata=metadata), tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name, environment_id in (("new", "Pendulum-v1"), ("plain", None), ("legacy", "Pendulum-v1")):
        assert peek(tmp_path / f"{name}.pt").environment_id == environment_id


def test_peek_into_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.pt: no such demonstration file"):
        peek(tmp_path / "gone.pt")


# Every reader that is found


def as_npz(path, made):
    np.savez(path, **{key: np.asarray(value) for key, value in made.items() if key != "metadata"})


def as_hdf5(made, path):
    h5py = pytest.importorskip("h5py", reason="the optional extra hdf5 is not installed")
    if any(isinstance(value, np.ndarray) and value.dtype.hasobject for value in made.values()):
        pytest.skip("HDF5 holds no Python objects")
    with h5py.File(path, "w") as file:
        for key, value in made.items():
            file[key] = np.asarray(value)


def as_pickle(made, path):
    path.write_bytes(pickle.dumps({key: value.numpy() if hasattr(value, "numpy") else value for key, value in made.items()}))


WRITERS = {
    ".pt": torch.save,
    ".pth": torch.save,
    ".npz": lambda made, path: as_npz(path, made),
    ".pkl": as_pickle,
    ".pickle": as_pickle,
    ".hdf5": lambda made, path: as_hdf5(made, path),
    ".h5": lambda made, path: as_hdf5(made, path),
    ".parquet": None,
    "/": None,
    "/dataset_info.json": None,
    ".shards": None,
    "/shards.json": None,
    "/meta/info.json": None,
    "minari:": None,
}


def test_these_tests_know_every_reader():
    assert set(WRITERS) == set(readers())


@pytest.mark.parametrize("ending", [ending for ending, writer in WRITERS.items() if writer is not None])
class TestEveryFormatOfFiles:
    def test_reads_what_was_written_and_peeks_at_its_origin(self, ending, tmp_path):
        path = tmp_path / f"data{ending}"
        returns = {"random_returns": torch.tensor([1.0, 2.0]), "expert_returns": torch.tensor([3.0, 5.0])}
        made = content(rewards=torch.arange(6.0), episode_lengths=torch.tensor([4, 2]), **returns)
        WRITERS[ending](made, path)
        found = read(path)
        assert isinstance(found, Trajectories)
        assert torch.equal(found.observations, made["observations"])
        assert torch.equal(found.actions, made["actions"])
        assert torch.equal(found.rewards, made["rewards"])
        assert found.lengths.tolist() == [4, 2]
        assert peek(path) == replace(found.origin, sha256="")

    def test_damaged_file_is_refused_by_both(self, ending, tmp_path):
        path = tmp_path / f"data{ending}"
        WRITERS[ending](content(), path)
        path.write_bytes(path.read_bytes()[:-100])
        for look in (read, peek):
            with pytest.raises(InputError, match=r"cannot be read .* truncated"):
                look(path)

    def test_pickled_objects_are_refused_and_not_run(self, ending, tmp_path, payload):
        bomb, folder = payload
        path = tmp_path / f"data{ending}"
        WRITERS[ending](content(actions=np.array([bomb], dtype=object)), path)
        assert "pickled Python objects" in refusal(path)
        assert not folder.exists()

    def test_nan_is_refused(self, ending, tmp_path):
        path = tmp_path / f"data{ending}"
        WRITERS[ending](content(**replaced("actions", 4, float("nan"))), path)
        assert "actions[4] holds NaN" in refusal(path)


@pytest.mark.parametrize("name", ["data.hdf9", "data", "data.csv", "folder/"])
def test_unknown_ending_names_those_that_are_known(tmp_path, name):
    message = refusal(tmp_path / name)
    assert [ending for ending in readers() if ending not in message] == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/HalfCheetah-v5-sampled-2400000.pt", "HalfCheetah-v5-sampled-2400000"),
        ("minari:mujoco/halfcheetah/expert-v0", "expert-v0"),
        ("minari:expert-v0", "expert-v0"),
        (r"C:\data\mine.npz", "mine"),
        ("a:b.pt", "a:b"),
    ],
)
def test_stem_is_what_demonstrations_are_called(path, name):
    assert stem(path) == name


def test_there_is_something_to_peek_into(tmp_path):
    write(tmp_path / "data.pt", content())
    assert exists(tmp_path / "data.pt")
    assert exists("minari:pendulum/test-v0")
    assert not exists(tmp_path / "gone.pt")


def test_torch_file_is_read_as_it_was_written(tmp_path):
    path = str(tmp_path / "data.pt")
    origin = Origin(path, environment_id="Pendulum-v1", seed=3, mean_return=1.5, std_return=0.0, random_returns=(1.0, 2.0))
    made = Trajectories(
        observations=content()["observations"],
        actions=content()["actions"],
        lengths=torch.tensor([4, 2]),
        rewards=torch.arange(6.0),
        terminated=torch.tensor([True, False]),
        final_observations=torch.ones(2, 3),
        origin=origin,
    )
    torch_file.write(path, made)
    found = read(path)
    for key in ("observations", "actions", "lengths", "rewards", "terminated", "final_observations"):
        assert torch.equal(getattr(found, key), getattr(made, key))
    assert replace(found.origin, sha256="") == origin


def test_reader_of_the_documentation(tmp_path):
    page = (REPOSITORY / "docs" / "experts.md").read_text()
    example = re.search(r"## A format of one's own.*?```python\n(.*?)```", page, re.DOTALL)
    scope = {}
    exec(example[1], scope)
    (tmp_path / "data.csv").write_text("obs_0,obs_1,action_0,reward,done\n1,2,3,4,0\n5,6,7,8,1\n9,10,11,12,0\n")
    found = scope["read"](str(tmp_path / "data.csv"))
    assert (found.observations.tolist(), found.actions.tolist()) == ([[1, 2], [5, 6], [9, 10]], [[3], [7], [11]])
    assert (found.rewards.tolist(), found.lengths.tolist()) == ([4, 8, 12], [2, 1])
    assert scope["peek"](str(tmp_path / "data.csv")).path == str(tmp_path / "data.csv")
