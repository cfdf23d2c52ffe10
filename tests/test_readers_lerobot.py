"""LeRobot's datasets, in the layouts of versions 2 and 3, and Parquet files of other tools."""

import json
import sys

import numpy as np
import pytest
from test_readers_layouts import ACTIONS, END, EPISODES, LENGTHS, OBSERVATIONS, REWARDS, TERMINAL, TERMINATED, check

from lightning_bc.demonstrations import peek, read
from lightning_bc.errors import InputError

pa = pytest.importorskip("pyarrow", reason="the optional extra lerobot is not installed")
import pyarrow.parquet as pq  # noqa: E402

EPISODE = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
FRAME = np.concatenate([np.arange(length) for length in LENGTHS])


def fixed(rows, kind=None):
    """As LeRobot 3 writes vectors: lists of one size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1), kind), rows.shape[1])


def columns(rows=slice(None), vectors=fixed, **changes):
    """LeRobot's columns, of some of the steps."""
    made = {
        "observation.state": vectors(OBSERVATIONS[rows]),
        "observation.image": pa.array([{"bytes": b"png", "path": None}] * len(ACTIONS[rows])),
        "action": vectors(ACTIONS[rows]),
        "episode_index": EPISODE[rows],
        "frame_index": FRAME[rows],
        "timestamp": FRAME[rows] / 30,
        "index": np.arange(len(ACTIONS))[rows],
        "task_index": np.zeros(len(ACTIONS[rows]), int),
        "next.reward": REWARDS[rows],
        "next.done": END[rows],
        "next.success": TERMINAL[rows],
    }
    return {name: column for name, column in (made | changes).items() if column is not None}


def dataset(folder, version, **tables):
    """A folder with those files of steps."""
    (folder / "meta").mkdir()
    (folder / "meta" / "info.json").write_text(json.dumps({"codebase_version": version, "fps": 30}))
    for name, table in tables.items():
        file = folder / "data" / "chunk-000" / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), file)
    return folder


def test_version_2_has_a_file_per_episode(tmp_path):
    lists = {"vectors": lambda rows: pa.array(rows.tolist(), pa.list_(pa.float64()))}
    files = {f"episode_{number:06}": columns(number == EPISODE, **lists) for number in range(len(LENGTHS))}
    made = read(dataset(tmp_path, "v2.1", **files))
    check(made, final=False)
    assert made.origin.observation_keys == ("observation.state",)
    assert peek(tmp_path).environment_id is None


def test_a_dataset_that_lacks_episodes_says_so(tmp_path):
    made = dataset(tmp_path, "v2.1", episode_000000=columns(EPISODE == 0), episode_000002=columns(EPISODE == 2))
    (made / "meta" / "info.json").write_text(json.dumps({"codebase_version": "v2.1", "total_frames": 10}))
    with pytest.warns(UserWarning, match="its files hold 5 frames, and meta/info.json says 10"):
        assert read(made).lengths.tolist() == [4, 1]


def test_without_frames_the_episodes_must_lie_in_their_order(tmp_path):
    pq.write_table(pa.table(columns(frame_index=None)), tmp_path / "data.parquet")
    assert tuple(read(tmp_path / "data.parquet").lengths.tolist()) == LENGTHS
    shuffled = np.random.default_rng(0).permutation(len(ACTIONS))
    pq.write_table(pa.table(columns(shuffled, frame_index=None)), tmp_path / "data.parquet")
    with pytest.raises(InputError, match="episode_ids come back to earlier episodes"):
        read(tmp_path / "data.parquet")


def test_version_3_has_episodes_together(tmp_path):
    files = {"file-000": columns(EPISODE < 2), "file-001": columns(EPISODE >= 2)}
    check(read(dataset(tmp_path, "v3.0", **files)), final=False)


def test_one_file_in_any_order_of_its_rows(tmp_path):
    pq.write_table(pa.table(columns(np.random.default_rng(0).permutation(len(ACTIONS)))), tmp_path / "data.parquet")
    check(read(tmp_path / "data.parquet"), final=False)


def test_observations_without_a_key(tmp_path):
    shuffled = columns(np.random.default_rng(0).permutation(len(ACTIONS)))
    shuffled["observation"] = shuffled.pop("observation.state")
    del shuffled["observation.image"]
    check(read(dataset(tmp_path, "v3.0", **{"file-000": shuffled})), final=False)


def test_a_table_of_steps_under_the_usual_names_is_no_lerobot(tmp_path):
    made = columns()
    table = {name: made[name] for name in ("action", "episode_index", "frame_index")}
    table |= {"observation": made["observation.state"], "reward": REWARDS, "terminated": TERMINAL}
    pq.write_table(pa.table(table), tmp_path / "data.parquet")
    check(read(tmp_path / "data.parquet"), final=False)


def test_success_alone_tells_terminations(tmp_path):
    pq.write_table(pa.table(columns(**{"next.success": None})), tmp_path / "data.parquet")
    check(read(tmp_path / "data.parquet"), terminated=False, final=False)


def test_several_observations_need_keys(tmp_path):
    several = columns(**{"observation.state": fixed(OBSERVATIONS[:, :2]), "observation.gripper": OBSERVATIONS[:, 2]})
    pq.write_table(pa.table(several), tmp_path / "data.parquet")
    with pytest.raises(InputError, match=r"state \(2,\) float64, observation\.image \(\) image, observation\.gripper \(\)"):
        read(tmp_path / "data.parquet")
    with pytest.raises(InputError, match=r"observation\.image is an image"):
        read(tmp_path / "data.parquet", observation_keys=["observation.image"])
    check(read(tmp_path / "data.parquet", observation_keys=["observation.state", "observation.gripper"]), final=False)


def test_usual_names_per_step_and_per_episode(tmp_path):
    steps = {"obs": fixed(OBSERVATIONS), "acts": fixed(ACTIONS), "rews": REWARDS, "terminals": TERMINAL, "timeouts": END}
    pq.write_table(pa.table(steps), tmp_path / "steps.parquet")
    check(read(tmp_path / "steps.parquet"), final=False)
    numbered = {"observation": fixed(OBSERVATIONS), "action": fixed(ACTIONS), "reward": REWARDS, "episode_index": EPISODE}
    pq.write_table(pa.table(numbered), tmp_path / "numbered.parquet")
    check(read(tmp_path / "numbered.parquet"), terminated=False, final=False)
    episodes = {key: [episode[index].tolist() for episode in EPISODES] for index, key in enumerate(("obs", "acts", "rews"))}
    pq.write_table(pa.table(episodes | {"terminal": TERMINATED}), tmp_path / "episodes.parquet")
    check(read(tmp_path / "episodes.parquet"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"frame_index": FRAME + (FRAME > 2)}, "episode 0 goes from frame 2 to 4", id="missing"),
        pytest.param({"episode_index": EPISODE // 2}, "episode 0 goes from frame 0 to 0", id="twice"),
        pytest.param({"episode_index": EPISODE / 2}, "episode_index has .*float64; wanted one whole number", id="half"),
        pytest.param({"next.success": TERMINAL * 2}, "terminated must be yes or no", id="twos"),
        pytest.param({"action": None}, "lacks actions; found observations", id="no actions"),
        pytest.param({"action": pa.array([[1.0], [1.0, 2.0]] * 5)}, "action holds lists of 1 to 2 values", id="ragged"),
        pytest.param({"action": pa.array([[1.0], None] * 5)}, "action lacks values, 5 of 10", id="null"),
        pytest.param({"action": pa.array([[1.0], [None]] * 5)}, "action lacks values, 5 of 10", id="null in a list"),
        pytest.param({"action": pa.array([["a"]] * 10)}, "actions is an array of Python objects, wanted", id="words"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(tmp_path, changes, words):
    pq.write_table(pa.table(columns(**changes)), tmp_path / "data.parquet")
    with pytest.raises(InputError, match=rf"data\.parquet.*{words}"):
        read(tmp_path / "data.parquet")


def test_damaged_and_missing_files_are_named(tmp_path):
    dataset(tmp_path, "v2.1")
    with pytest.raises(InputError, match=r"LeRobot dataset \(v2\.1\) without files"):
        read(tmp_path)
    dataset_file = tmp_path / "data.parquet"
    pq.write_table(pa.table(columns()), dataset_file)
    dataset_file.write_bytes(dataset_file.read_bytes()[:-50])
    for look in (read, peek):
        with pytest.raises(InputError, match=r"data\.parquet: cannot be read .* truncated"):
            look(dataset_file)
    (tmp_path / "meta" / "info.json").write_text("{")
    with pytest.raises(InputError, match=r"info\.json: cannot be read"):
        read(tmp_path)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    pq.write_table(pa.table(columns()), tmp_path / "data.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)               # what an import finds where it is not installed
    for look in (read, peek):
        with pytest.raises(InputError, match=r"pip install 'lightning_bc\[lerobot\]'"):
            look(tmp_path / "data.parquet")
