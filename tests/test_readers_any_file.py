"""Any file is learnt from or refused in words before the first step; no other error, and nothing in it runs.

Hypothesis makes the files (any_files.py). The suite tries a few of each format; ``pytest -m slow`` tries ten thousand.
"""

import contextlib
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from any_files import arranged, contents, damaged, keys, values, with_canary

from lightning_bc.demonstrations import Demonstrations, peek, read
from lightning_bc.environments import environment_spaces
from lightning_bc.errors import InputError
from lightning_bc.strategies.offline.mse import MSE

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

SPACES = environment_spaces("Pendulum-v1")
FEW, MANY = 30, 10_000
UNWRITABLE = (TypeError, ValueError, AttributeError, OverflowError, KeyError, RuntimeError)  # of writers


def tries(number):
    return settings(
        max_examples=number, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def learn(path, observation_keys=()):
    """One loss of MSE on everything in a file, finite, or InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = Demonstrations(str(path), "Pendulum-v1", validation_fraction=0.0, observation_keys=list(observation_keys))
        data.prepare_data()
        data.setup("fit")
    made = data.split[0]
    strategy = MSE(SPACES.observation_dim, SPACES.action_low.tolist(), SPACES.action_high.tolist())
    strategy.border.fit(data.training_observations)
    loss, _ = strategy.loss(*strategy.across((data.training_observations, data.training_actions)))
    assert loss.isfinite(), loss
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in strategy.parameters())
    assert int(made.lengths.sum()) == len(made) == len(made.actions)
    if made.terminated is not None:
        assert all(column.isfinite().all() for column in made.transitions().columns)


def check(path, *observation_keys):
    """A file is learnt from or refused in words; a glance into it likewise."""
    for look in (lambda: learn(path, observation_keys), lambda: peek(path)):
        try:
            look()
            hypothesis.event("accepted")
        except InputError as error:
            hypothesis.event(str(error).replace(str(path), "")[:60])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any")


# Writers of a format: what a draw says, in a folder; they return the path, or None where the format cannot hold it


def npz(draw, folder):
    content = draw(contents())
    content = content if isinstance(content, dict) else {"obs": content}
    ragged = {name: np.asanyarray(value, dtype=object if _is_ragged(value) else None) for name, value in content.items()}
    np.savez(folder / "data.npz", **{str(name).replace("/", "-") or "x": value for name, value in ragged.items()})
    return folder / "data.npz"


def pickled(draw, folder):
    content = draw(contents())
    (folder / "data.pkl").write_bytes(pickle.dumps(content, draw(st.integers(0, 5))))
    return folder / "data.pkl"


def torch_saved(draw, folder):
    content = draw(contents())
    as_tensors = draw(st.booleans())
    torch.save(_tensors(content) if as_tensors else content, folder / "data.pt")
    return folder / "data.pt"


def hdf5(draw, folder):
    h5py = pytest.importorskip("h5py", reason="the optional extra hdf5 is not installed")
    content = draw(contents())
    with h5py.File(folder / "data.hdf5", "w") as file:
        parent = file.create_group("data") if draw(st.booleans()) else file
        if isinstance(content, list | tuple):
            content = {f"demo_{number}": episode for number, episode in enumerate(content)}
        _fill(parent, content if isinstance(content, dict) else {"obs": content})
    return folder / "data.hdf5"


def parquet(draw, folder):
    pq = pytest.importorskip("pyarrow.parquet", reason="the optional extra lerobot is not installed")
    content = draw(arranged())
    names = {"obs": "observation.state", "actions": "action", "rewards": "next.reward", "terminated": "next.success"}
    if draw(st.booleans()):
        content = {names.get(name, name): value for name, value in content.items()}
        pairs = len(next(iter(content.values()))) if content else 1
        content |= {"episode_index": np.arange(pairs) // 3, "frame_index": np.arange(pairs) % 3}
        if draw(st.booleans()):
            content[draw(st.sampled_from(["episode_index", "frame_index", "observation.b"]))] = draw(values((pairs,)))
    pq.write_table(_table(content), folder / "data.parquet")
    return folder / "data.parquet"


def imitation(draw, folder):
    pa = pytest.importorskip("pyarrow", reason="the optional extra lerobot is not installed")
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    episodes = [draw(arranged((length,))) for length in lengths]
    table = _table({name: [_list(episode.get(name)) for episode in episodes] for name in episodes[0]})
    with pa.ipc.new_stream(folder / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def episodes_in_a_folder(draw, folder):
    for old in folder.glob("episode_*"):
        old.unlink()
    for number in range(draw(st.integers(0, 3))):
        (folder / f"episode_{number}.pkl").write_bytes(pickle.dumps(draw(arranged())))
    return folder


def minari(draw, folder):
    """A dataset that Minari wrote, in which one array is another one."""
    h5py = pytest.importorskip("h5py", reason="minari stores datasets with h5py, which is not installed")
    with h5py.File(folder / "tests" / "any-v0" / "data" / "main_data.hdf5", "r+") as file:
        group = file["episode_0"]
        name = draw(st.sampled_from(["observations", "actions", "rewards", "terminations", "truncations", "infos"]))
        if name in group:
            del group[name]
        _fill(group, {name: draw(values((5, 3)))} if draw(st.integers(0, 9)) else {})
    return "minari:tests/any-v0"


WRITERS = {
    writer.__name__: writer for writer in (npz, pickled, torch_saved, hdf5, parquet, imitation, episodes_in_a_folder, minari)
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_any_content_is_learnt_from_or_refused(folder, monkeypatch, writer, number):
    here = folder / writer
    here.mkdir(exist_ok=True)
    if writer == "minari":
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(here))
        whole = _minari_dataset(here)

    @tries(number)
    @given(st.data())
    def attempt(data):
        if writer == "minari":
            (here / "tests" / "any-v0" / "data" / "main_data.hdf5").write_bytes(whole)
        try:
            path = WRITERS[writer](data.draw, here)
        except UNWRITABLE as error:
            hypothesis.event(f"cannot be written: {type(error).__name__}")
            return
        check(path, *data.draw(keys))

    attempt()


@pytest.mark.parametrize("ending", ["npz", "pkl", "pt", "hdf5", "parquet", "arrow"])
@pytest.mark.parametrize("number", [FEW // 3, pytest.param(MANY, marks=pytest.mark.slow)])
def test_damaged_bytes_are_learnt_from_or_refused(folder, ending, number):
    here = folder / f"damaged_{ending}"
    here.mkdir(exist_ok=True)
    plain = {"obs": np.ones((6, 3), "f4"), "acts": np.zeros((6, 1), "f4"), "episode_lengths": np.array([4, 2])}
    path = _plain_file(here, ending, plain)
    whole = path.read_bytes()

    @tries(number)
    @given(st.data())
    def attempt(data):
        path.write_bytes(data.draw(damaged(whole)))
        check(here if ending == "arrow" else path)

    learn(here if ending == "arrow" else path)                      # as long as it is whole
    attempt()


@pytest.mark.parametrize("number", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_nothing_in_a_pickle_runs(folder, number):
    canary = folder / "canary"

    @tries(number)
    @given(st.data())
    def attempt(data):
        path = folder / f"bomb.{data.draw(st.sampled_from(['pkl', 'pt', 'npz']))}"
        path.write_bytes(data.draw(with_canary(data.draw(contents()), canary)))
        for look in (lambda: learn(path), lambda: peek(path)):
            with pytest.raises(InputError):
                look()
        assert not canary.exists()

    attempt()


def test_plain_files_of_every_writer_are_learnt_from(folder):
    for ending in ("npz", "pkl", "pt", "hdf5", "parquet"):
        plain = {"obs": np.random.default_rng(0).normal(size=(6, 3)), "acts": np.zeros((6, 1)), "rews": np.zeros(6)}
        learn(_plain_file(folder, ending, plain | {"dones": np.array([0, 0, 1, 0, 0, 1])}))


def _is_ragged(value):
    try:
        np.asarray(value)
    except ValueError:
        return True
    return False


def _tensors(content, depth=0):
    """Arrays that torch knows as its tensors."""
    if isinstance(content, dict) and depth < 3:
        return {key: _tensors(value, depth + 1) for key, value in content.items()}
    if isinstance(content, list) and depth < 3:
        return [_tensors(value, depth + 1) for value in content]
    with contextlib.suppress(*UNWRITABLE):
        return torch.as_tensor(np.ascontiguousarray(content)) if isinstance(content, np.ndarray) else content
    return content


def _fill(group, content, depth=0):
    for name, value in content.items():
        if isinstance(value, dict) and depth < 4:
            _fill(group.create_group(str(name) or "x"), value, depth + 1)
        else:
            with contextlib.suppress(*UNWRITABLE):
                group[str(name) or "x"] = value


def _list(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


def _table(content):
    """Those columns that a table can hold, cut to one length."""
    import pyarrow as pa

    columns = {}
    for name, value in content.items():
        if "..." in repr(value):                                    # holds itself, on which pyarrow does not return
            continue
        with contextlib.suppress(*UNWRITABLE, pa.ArrowException):
            columns[str(name)] = pa.array(list(_list(value)))
    rows = min((len(column) for column in columns.values()), default=0)
    return pa.table({name: column[:rows] for name, column in columns.items()})


def _plain_file(folder: Path, ending, plain):
    path = folder / f"data.{ending}"
    if ending == "npz":
        np.savez(path, **plain)
    elif ending == "pkl":
        path.write_bytes(pickle.dumps(plain))
    elif ending == "pt":
        torch.save({key: torch.as_tensor(value) for key, value in plain.items()}, path)
    elif ending == "hdf5":
        h5py = pytest.importorskip("h5py", reason="the optional extra hdf5 is not installed")
        with h5py.File(path, "w") as file:
            _fill(file, plain)
    else:
        pa = pytest.importorskip("pyarrow", reason="the optional extra lerobot is not installed")
        import pyarrow.parquet as pq

        if ending == "parquet":
            pq.write_table(_table({name: value for name, value in plain.items() if len(value) == 6}), path)
        else:
            table = _table({"obs": [plain["obs"].tolist()], "acts": [plain["acts"].tolist()]})
            with pa.ipc.new_stream(path, table.schema) as writer:
                writer.write_table(table)
            (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": path.name}]}))
            (folder / "dataset_info.json").write_text("{}")
    return path


def _minari_dataset(folder):
    """A Minari dataset of two Pendulum episodes; the bytes of its file of arrays."""
    minari = pytest.importorskip("minari", reason="the optional extra minari is not installed")
    from minari.data_collector import EpisodeBuffer

    if not (folder / "tests").exists():
        buffers = [
            EpisodeBuffer(
                id=number,
                observations=np.zeros((5, 3), np.float32),
                actions=np.zeros((4, 1), np.float32),
                rewards=[0.0] * 4,
                terminations=[False] * 4,
                truncations=[False] * 3 + [True],
            )
            for number in range(2)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers("tests/any-v0", buffers, env="Pendulum-v1")
    assert len(read("minari:tests/any-v0")) == 8
    return (folder / "tests" / "any-v0" / "data" / "main_data.hdf5").read_bytes()
