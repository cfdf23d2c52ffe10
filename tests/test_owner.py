"""One writer of a run and of a file; what dead processes leave; files that are not what was written."""

import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BUDGET, REPOSITORY, fit, import_from, refused

from lightning_bc.cli import main
from lightning_bc.demonstrations.experts import load_expert
from lightning_bc.demonstrations.readers import read
from lightning_bc.errors import InputError
from lightning_bc.files import _writer, owning, refuse_damaged, write, write_text
from lightning_bc.runs.folders import open_checkpoint
from lightning_bc.strategies.registry import load_strategy

HOLD = """
import sys, time
from lightning_bc.files import owning
with owning(sys.argv[1]):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that owns tmp_path/mine."""
    environment = os.environ | import_from(REPOSITORY)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "mine")], stdout=subprocess.PIPE, text=True, env=environment
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_the_second_writer_is_refused_with_the_first_ones_process_and_a_killed_one_owns_nothing(tmp_path, holder):
    with pytest.raises(InputError, match=rf"mine: process {holder.pid} on .* is writing it"), owning(tmp_path / "mine"):
        pass
    holder.kill()
    holder.wait()
    with owning(tmp_path / "mine"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_that_another_process_trains_is_refused_and_left_as_it_is(data, capsys):
    flags = ["fit", "--model", "MSE", "--data.path", data, "--run", "mine", *BUDGET.split()]
    with owning("lightning_logs/mine"):
        error = refused(capsys, *flags)
        assert f"lightning_logs/mine: process {os.getpid()} on " in error
        assert not Path("checkpoints").exists()
        assert not Path("lightning_logs/mine").exists()
    main(flags)
    assert not list(Path("lightning_logs").glob(".*"))
    for name in ("lock", "owner"):                                  # of a process that was killed when all was written
        Path(f"lightning_logs/.mine.{name}").touch()
    main(flags)
    assert not list(Path("lightning_logs").glob(".*"))


def test_two_collections_into_one_file_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    expert = str(REPOSITORY / "checkpoints/experts/HalfCheetah-v5.pt")
    with owning("out.pt"):
        assert "out.pt: process" in refused(
            capsys, "collect", "--env", "HalfCheetah-v5", "--expert", expert, "--pairs", "10", "--output", "out.pt"
        )
    assert not Path("out.pt").exists()


def _die(path, gate):
    real = os.fsync
    os.fsync = lambda handle: (real(handle), os._exit(1))
    write_text(path, "half")


def test_what_a_killed_writer_leaves_goes_with_the_next_write_and_that_of_others_stays(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path / "a.txt", None))
    process.start()
    process.join()
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    host = _writer().rsplit(".", 1)[0]
    others = {tmp_path / f".a.txt.{host}.{os.getppid()}-x.partial", tmp_path / ".a.txt.elsewhere.1-x.partial"}
    for other in others:
        other.touch()
    write_text(tmp_path / "a.txt", "whole")
    assert set(tmp_path.iterdir()) == {tmp_path / "a.txt", *others}


def flips(path, count, seed=0):
    """Copies of the file with one bit turned over, at random places."""
    content, random = path.read_bytes(), np.random.default_rng(seed)
    for place in random.integers(0, len(content), count):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << random.integers(8)
        copy = path.with_name(f"spoilt{path.suffix}")
        copy.write_bytes(spoilt)
        yield copy


def equal(one, other):
    """Whether two nested structures of tensors and plain values are the same."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other or one != one


READERS = {
    "checkpoint": lambda path: open_checkpoint(path),
    "strategy": lambda path: load_strategy(path).state_dict(),
    "expert": lambda path: load_expert(path, "HalfCheetah-v5").state_dict(),
    "pt": lambda path: [(read(str(path)).observations, read(str(path)).actions)],
    "npz": lambda path: [(read(str(path)).observations, read(str(path)).actions)],
}


@pytest.mark.parametrize("count", [12, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", READERS)
def test_a_flipped_bit_is_named_or_changes_nothing(data, kind, count):
    """500 bits were flipped by hand once, and a score of 7221 became -467 without a word."""
    if kind in ("checkpoint", "strategy"):
        path = Path("checkpoints") / fit(data) / "last.ckpt"
    elif kind == "expert":
        path = Path(shutil.copy(REPOSITORY / "checkpoints/experts/HalfCheetah-v5.pt", "expert.pt"))
    elif kind == "npz":
        content = torch.load(data, weights_only=True)
        path = Path("a.npz")
        np.savez(path, observations=content["observations"].numpy(), actions=content["actions"].numpy())
    else:
        path = Path(data)
    whole, refusals = READERS[kind](path), 0
    for spoilt in flips(path, count):
        try:
            again = READERS[kind](spoilt)
        except InputError as error:
            refusals += "spoilt" in str(error)
        else:
            assert equal(whole, again)
    assert refusals > count / 2


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["checkpoint", "strategy", "pt"])
def test_a_file_that_is_cut_off_is_named(data, kind, share):
    path = Path(data) if kind == "pt" else Path("checkpoints") / fit(data) / "last.ckpt"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=path.name):
        READERS[kind](path)


def test_an_array_of_another_name_in_the_directory_of_an_npz_is_damage(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, observations=np.zeros((4, 2)), actions=np.zeros((4, 1)), episode_lengths=np.array([2, 2]))
    content = path.read_bytes()
    at = content.rindex(b"episode_lengths")                         # zip has names twice
    path.write_bytes(content[:at] + b"f" + content[at + 1 :])
    with pytest.raises(InputError, match=r"a\.npz: is damaged"):
        read(str(path))


def test_the_damaged_entry_is_named_and_the_other_checkpoint_offered(data, capsys):
    folder = Path("checkpoints") / fit(data)
    content = bytearray((folder / "last.ckpt").read_bytes())
    middle = len(content) // 2
    content[middle] ^= 255
    (folder / "last.ckpt").write_bytes(content)
    error = refused(capsys, "test", "--run", folder.name)
    assert "last.ckpt: is damaged: archive/data/" in error.replace("last/data", "archive/data")
    assert "Beside it lies best.ckpt." in error


def test_what_is_no_archive_is_left_to_its_reader(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"nothing")
    refuse_damaged(tmp_path / "a.pt")
    write(tmp_path / "b.pt", {"a": torch.ones(3)})
    refuse_damaged(tmp_path / "b.pt")


def test_an_archive_that_claims_to_span_disks_is_damaged(tmp_path):
    """On such a one zipfile raises already where it is asked whether it is an archive at all."""
    path = tmp_path / "a.pt"
    write(path, {"a": torch.ones(3)})
    whole = path.read_bytes()
    end = whole.rindex(b"PK\5\6")                                   # the record at the archive's end
    path.write_bytes(whole[:end] + b"PK\6\7" + struct.pack("<LQL", 1, 0, 2) + whole[end:])
    for look in (refuse_damaged, read, load_expert):
        with pytest.raises(InputError, match=r"a\.pt: is damaged \(zipfiles that span multiple disks"):
            look(path)
