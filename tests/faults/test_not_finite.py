"""Numbers that are none, in data of every format and of experts. Learning rates of 1e6 and 1e30: test_divergence.py."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import SMALL, refused, write_pairs

from faults.trials import SHORT, run, tell
from lightning_bc.demonstrations import read
from lightning_bc.errors import InputError

pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore")]


def as_hdf5(path, content):
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in content.items():
            file[name] = values


def as_parquet(path, content):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = np.arange(len(content["actions"]))
    columns = {"observation.state": list(content["observations"]), "action": list(content["actions"])}
    columns |= {"next.reward": content["rewards"], "episode_index": rows // 10, "frame_index": rows % 10}
    pq.write_table(pa.table(columns), path)


WRITERS = {
    "a.pt": lambda path, content: torch.save({key: torch.from_numpy(value) for key, value in content.items()}, path),
    "a.npz": lambda path, content: np.savez(path, **content),
    "a.pkl": lambda path, content: path.write_bytes(pickle.dumps(content)),
    "a.hdf5": as_hdf5,
    "a.parquet": as_parquet,
}


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("column", ["observations", "actions", "rewards"])
@pytest.mark.parametrize("name", WRITERS)
def test_data_that_hold_one_number_that_is_none_are_refused_by_name(name, column, number, tmp_path):
    random = np.random.default_rng(0)
    content = {"observations": random.normal(size=(60, 4)), "actions": random.uniform(-1, 1, (60, 1))}
    content = {key: value.astype("f4") for key, value in {**content, "rewards": random.normal(size=60)}.items()}
    content |= {} if "parquet" in name else {"episode_lengths": np.full(6, 10)}
    WRITERS[name](tmp_path / name, content)
    read(tmp_path / name)
    content[column].flat[17] = number
    WRITERS[name](tmp_path / name, content)
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)
    tell("not finite", kind=f"{column} of {name}", refused=1)


NAN_EXPERT = """
import numpy
calls = []

def act(observations):
    calls.append(1)
    return numpy.full((len(observations), 1), numpy.{number} if len(calls) > {after} else 0.0)
"""


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_experts_that_answer_what_is_no_number_are_refused_by_every_command(number, after, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"expert_{number}_{after}"
    Path(f"{name}.py").write_text(NAN_EXPERT.format(number=number, after=after))
    lengths = (10,) * 12
    write_pairs("pendulum.pt", lengths, 4, 1, metadata={"environment_id": "InvertedPendulum-v5"})
    expert, there = f"{name}:act", ["--env", "InvertedPendulum-v5"]
    assert "finite" in refused(capsys, "evaluate", expert, *there)
    for output in ("out.pt", "out.shards"):
        assert "finite" in refused(capsys, "collect", *there, "--expert", expert, "--pairs", "200", "--output", output)
        assert not Path(output).exists()
    options = {"expert": expert, "round_every": 10, "rounds": 3, "episodes": 3, "beta": 0.5}
    callback = {"class_path": "lightning_bc.callbacks.DAgger", "init_args": options}
    Path("dagger.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    trial = run(f"fit --config dagger.yaml --data.path pendulum.pt --model MSE {SMALL} {SHORT} --trainer.max_steps 40")
    assert trial.status in (1, 2), trial.output
    assert "finite" in trial.output
    assert "Traceback" not in trial.output
    tell("not finite", kind=f"expert, {number} from call {after} on", refused=4)
