"""Trajectories of imitation: the folder that ``imitation.data.serialize.save`` writes (1.0.1, datasets 5.2), and pickles."""

import json
import pickle
import sys
import types

import numpy as np
import pytest
from test_readers_layouts import EPISODES, LENGTHS, TERMINATED, check

from lightning_bc.demonstrations import peek, read
from lightning_bc.errors import InputError

pa = pytest.importorskip("pyarrow", reason="the optional extra lerobot is not installed")

MATRIX = pa.list_(pa.list_(pa.float64()))
WORDS, COLUMN = pa.list_(pa.string()), pa.list_(pa.float64())
SCHEMA = pa.schema(
    {"obs": MATRIX, "acts": MATRIX, "infos": WORDS, "terminal": pa.bool_(), "rews": COLUMN},
    metadata={"huggingface": json.dumps({"info": {"features": {}}})},
)


def saved(folder, files=1, **changes):
    """The folder, with the episodes in that many files."""
    rows = {
        "obs": [observations.tolist() for observations, _, _ in EPISODES],
        "acts": [actions.tolist() for _, actions, _ in EPISODES],
        "infos": [["{}"] * length for length in LENGTHS],
        "terminal": list(TERMINATED),
        "rews": [rewards.tolist() for _, _, rewards in EPISODES],
    } | changes
    table = pa.table(rows, schema=SCHEMA)
    names = [f"data-{number:05}-of-{files:05}.arrow" for number in range(files)]
    each = -(-table.num_rows // files)
    for number, name in enumerate(names):
        with pa.ipc.new_stream(folder / name, SCHEMA) as writer:
            writer.write_table(table.slice(number * each, each))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], "_split": None}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


@pytest.mark.parametrize("files", [1, 2])
def test_saved_trajectories(tmp_path, files):
    check(read(saved(tmp_path, files)))
    assert peek(tmp_path).environment_id is None


def test_unequal_episode_is_named(tmp_path):
    saved(tmp_path, acts=[actions[:1].tolist() for _, actions, _ in EPISODES])
    with pytest.raises(InputError, match=r"episode 0: 5 observations but 1 actions"):
        read(tmp_path)


def test_damaged_file_is_named(tmp_path):
    file = saved(tmp_path) / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"data-00000-of-00001\.arrow: cannot be read"):
        read(tmp_path)


@pytest.mark.parametrize("state", ["{", "[]", '{"_data_files": []}', '{"_data_files": [{"filename": "../secret.arrow"}]}'])
def test_state_that_names_no_files_of_the_folder_is_refused(tmp_path, state):
    (saved(tmp_path) / "state.json").write_text(state)
    for look in (read, peek):
        with pytest.raises(InputError, match=r"state\.json: (cannot be read|names the files)"):
            look(tmp_path)


def test_pickle_of_trajectories_is_read_without_its_classes(tmp_path, monkeypatch):
    module = types.ModuleType("imitation.data.types")

    class TrajectoryWithRew:                                        # a dataclass there; its instances pickle alike
        def __init__(self, **fields):
            self.__dict__ |= fields

    TrajectoryWithRew.__module__, TrajectoryWithRew.__qualname__ = module.__name__, "TrajectoryWithRew"
    module.TrajectoryWithRew = TrajectoryWithRew
    with monkeypatch.context() as patch:
        for name in ("imitation", "imitation.data", module.__name__):
            patch.setitem(sys.modules, name, module)
        made = [
            TrajectoryWithRew(obs=obs, acts=acts, rews=rews, infos=np.array([{}] * len(acts)), terminal=terminal)
            for (obs, acts, rews), terminal in zip(EPISODES, TERMINATED, strict=True)
        ]
        (tmp_path / "data.pkl").write_bytes(pickle.dumps(made))
    check(read(tmp_path / "data.pkl"))
