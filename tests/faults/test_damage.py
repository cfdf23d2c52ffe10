"""Flipped bits and truncations of every kind of file that is read: named, or the same content is read."""

import dataclasses
import pickle
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import BUDGET, REPOSITORY, SMALL
from stable_models import model_of

from faults.trials import sized, tell, working_folder
from lightning_bc.cli import main
from lightning_bc.demonstrations import read
from lightning_bc.demonstrations.experts import load_expert
from lightning_bc.errors import InputError
from lightning_bc.report.evaluations import read_evaluations
from lightning_bc.runs.folders import open_checkpoint
from lightning_bc.runs.held_out import read_results
from lightning_bc.runs.plan import Study
from lightning_bc.runs.records import read_records
from lightning_bc.runs.store import read_store
from lightning_bc.strategies import load_strategy

pytestmark = pytest.mark.faults


def content():
    made = torch.load("pendulum.pt", weights_only=True)
    return {key: made[key].numpy() for key in ("observations", "actions", "episode_lengths")}


def hdf5(path):
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in content().items():
            file[name] = values


def parquet(path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    made, rows = content(), len(content()["actions"])
    episode = np.repeat(np.arange(12), 10)
    columns = {
        "observation.state": list(made["observations"]),
        "action": list(made["actions"]),
        "episode_index": episode,
        "frame_index": np.arange(rows) % 10,
    }
    pq.write_table(pa.table(columns), path)


def shards(path):
    main(["convert", "pendulum.pt", "--output", str(path.parent)])


def evaluation(path):
    main(["evaluate", "one", "--episodes", "3", "--output", str(path)])


def demonstrations(path):
    folder = path.parent if path.parent.name.endswith((".shards", "episodes")) else path
    made = read(str(folder))
    columns = [getattr(made, one.name) for one in dataclasses.fields(made) if one.name != "origin"]
    return [*columns, made.origin.environment_id]


def record(path):
    records, held_out, broken = read_records(path.parent.parent)
    if broken:
        raise InputError("; ".join(f"{path}: {why}" for path, why in broken.items()))
    return [dataclasses.asdict(one) | {"folder": ""} for one in (*records, *held_out)]


def copy_of_run(path):
    shutil.copytree("lightning_logs/one", path.parent)


# how each kind of file is made and read, and whether something in it tells that it is not what was written
KINDS = {
    "checkpoint": ("last.ckpt", lambda path: shutil.copy("checkpoints/one/last.ckpt", path), open_checkpoint, True),
    "checkpoint, as a policy": (
        "policy.ckpt",
        lambda path: shutil.copy("checkpoints/one/last.ckpt", path),
        lambda path: load_strategy(path).state_dict(),
        True,
    ),
    "demonstrations .pt": ("data.pt", lambda path: shutil.copy("pendulum.pt", path), demonstrations, True),
    "expert of CleanRL": (
        "expert.pt",
        lambda path: shutil.copy(REPOSITORY / "checkpoints/experts/HalfCheetah-v5.pt", path),
        lambda path: load_expert(path, "HalfCheetah-v5").state_dict(),
        True,
    ),
    "stable-baselines3 .zip": (
        "model.zip",
        lambda path: model_of("SAC").save(path),
        lambda path: load_expert(path).state_dict(),
        True,
    ),
    ".npz": ("data.npz", lambda path: np.savez(path, **content()), demonstrations, True),
    ".npz, compressed": ("small.npz", lambda path: np.savez_compressed(path, **content()), demonstrations, True),
    "folder of .npz": (
        "episodes/0.npz",
        lambda path: [np.savez(path.parent / f"{number}.npz", **content()) for number in range(2)],
        demonstrations,
        True,
    ),
    "shards, rows": ("a.shards/00000.rows.npy", shards, demonstrations, True),
    "shards, episodes": ("b.shards/00000.episodes.npz", shards, demonstrations, True),
    "shards, index": ("c.shards/shards.json", shards, demonstrations, True),
    "export, policy.safetensors": (
        "export/policy.safetensors",
        lambda path: main(["export", "--ckpt_path", "checkpoints/one/last.ckpt", "--output", str(path.parent)]),
        lambda path: load_expert(path.parent).state_dict(),
        True,
    ),
    "export, policy.json": (
        "export2/policy.json",
        lambda path: main(["export", "--ckpt_path", "checkpoints/one/last.ckpt", "--output", str(path.parent)]),
        lambda path: load_expert(path.parent).state_dict(),
        True,
    ),
    "results.json": (
        "results.json",
        lambda path: shutil.copy("lightning_logs/one/results.json", path),
        lambda path: dataclasses.asdict(read_results(path)),
        True,
    ),
    "results.json without a simulator": (
        "held_out.json",
        lambda path: shutil.copy("lightning_logs/two/results.json", path),
        lambda path: dataclasses.asdict(read_results(path)),
        True,
    ),
    ".hdf5": ("data.hdf5", hdf5, demonstrations, False),
    ".parquet": ("data.parquet", parquet, demonstrations, False),
    ".pkl": ("data.pkl", lambda path: path.write_bytes(pickle.dumps(content())), demonstrations, False),
    "curve.csv": ("logs/run/curve.csv", copy_of_run, record, True),
    "config.yaml": ("logs2/run/config.yaml", copy_of_run, record, True),
    "study": (
        "study.yaml",
        lambda path: path.write_text("flags: --data.path a.pt --trainer.max_steps 4\nrows: {a: --model MSE}\nseeds: 2\n"),
        lambda path: Study.read(str(path)).fits,
        False,
    ),
    "results.csv": ("store.csv", lambda path: shutil.copy(REPOSITORY / "docs/results.csv", path), read_store, True),
    "evaluation": ("evaluation.json", evaluation, lambda path: read_evaluations(str(path)), True),
}
FLIPS, TRUNCATIONS = 1000, 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with demonstrations, and with two runs."""
    runs = f"{BUDGET} --run one {SMALL}", f"{BUDGET} --run two --rollouts.episodes 0"
    with working_folder(tmp_path_factory, *runs) as here:
        yield here


def spoilt(whole, random, is_flip):
    """The bytes with one bit turned over, or cut off."""
    if not is_flip:
        return whole[: random.integers(len(whole))]
    place, made = random.integers(len(whole)), bytearray(whole)
    made[place] ^= 1 << random.integers(8)
    return bytes(made)


def equal(one, other):
    """Whether two nested structures of arrays and plain values are the same."""
    if isinstance(one, torch.Tensor | np.ndarray):
        return type(one) is type(other) and np.array_equal(np.asarray(one), np.asarray(other), equal_nan=_is_float(one))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) or (one != one and other != other)


def _is_float(values):
    return np.asarray(values).dtype.kind in "fc"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_named_or_reads_the_same(kind, folder, monkeypatch):
    monkeypatch.chdir(folder)
    name, make, reader, has_checksum = KINDS[kind]
    path = folder / f"kind{[*KINDS].index(kind)}" / name
    path.parent.parent.mkdir(exist_ok=True, parents=True)
    if not (path.parent.name.startswith(("export", "run")) or path.parent.suffix == ".shards"):
        path.parent.mkdir(exist_ok=True)
    make(path)
    whole, before = path.read_bytes(), reader(path)
    random = np.random.default_rng([*KINDS].index(kind))
    every = {}
    for what, count in (("flips", sized(-(-FLIPS // len(KINDS)))), ("truncations", sized(-(-TRUNCATIONS // len(KINDS))))):
        named = same = changed = 0
        for _ in range(count):
            path.write_bytes(spoilt(whole, random, what == "flips"))
            try:
                again = reader(path)
            except InputError as error:
                words = str(error)
                named += 1
                if not {path.name, path.parent.name} & set(re.split(r"[/\s:,;]+", words)) or "\n" in words:
                    pytest.fail(f"{kind}: {words}")
                continue
            is_same = equal(before, again)
            same, changed = same + is_same, changed + (not is_same)
        every |= {what: count, f"{what}_named": named, f"{what}_same_content": same, f"{what}_changed_silently": changed}
    path.write_bytes(whole)
    assert equal(before, reader(path))
    tell("damage", kind=kind, has_checksum=has_checksum, **every)
    if has_checksum:
        assert every["flips_changed_silently"] == every["truncations_changed_silently"] == 0
