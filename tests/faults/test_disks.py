"""Full and read-only disks in every phase: one line, and what was there before is whole."""

import contextlib
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
from conftest import SMALL, actor_state, write_pendulum

from faults.trials import ACTING, SHORT, run, tell

pytestmark = pytest.mark.faults

FIT = f"{SMALL} {SHORT} --trainer.max_steps 60"
LOGS, CHECKPOINTS = "lightning_logs", "checkpoints"
# a command; which of the folders lie on the small disk, the others on a large one; how much of its room is free, in bytes
CASES = {
    "fit, checkpoints": (f"fit --data.path pendulum.pt --model MSE {FIT} --run new", [CHECKPOINTS], (0, 3000, 20_000)),
    "fit, logs": (f"fit --data.path pendulum.pt --model MSE {FIT} --run new", [LOGS], (0, 4096, 12_000)),
    "fit, going on": (
        f"fit --model MSE --run old --data.path pendulum.pt {FIT} --trainer.max_steps 120",
        [CHECKPOINTS, LOGS],
        (0,),
    ),
    "fit SAC": (f"fit --env InvertedPendulum-v5 --model SAC {SMALL} {ACTING} --run new", [CHECKPOINTS], (0, 30_000)),
    "fit with workers": (
        f"fit --data.path pendulum.pt --model MSE {FIT} --run new --rollouts.workers 1",
        [CHECKPOINTS],
        (0, 20_000),
    ),
    "test": ("test --run old", [LOGS], (0,)),
    "collect": (
        "collect --env InvertedPendulum-v5 --expert expert.pt --pairs 20000 --output out/new.pt",
        ["out"],
        (0, 100_000),
    ),
    "collect shards": (
        "collect --env InvertedPendulum-v5 --expert expert.pt --pairs 20000 --output out/new.shards",
        ["out"],
        (0, 100_000),
    ),
    "convert": ("convert pendulum.pt --output out/new.pt", ["out"], (0, 1000)),
    "convert to shards": ("convert pendulum.pt --output out/new.shards", ["out"], (0, 1000)),
    "evaluate": ("evaluate expert.pt --env InvertedPendulum-v5 --episodes 30 --output out/new.json", ["out"], (0,)),
    "export": ("export --ckpt_path checkpoints/old/last.ckpt --output out/new", ["out"], (0, 4096)),
    "report": ("report lightning_logs --output out/new", ["out"], (0, 100_000)),
    "study": ("study study.yaml", [LOGS], (0,)),
}
SIZE = 30_000_000


@pytest.fixture
def disk(tmp_path):
    """A small disk; skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted: {mounted.stderr.decode().strip()}")
    yield place
    os.chdir("/")
    subprocess.run(["umount", "-l", str(place)], check=True)


def digests():
    """Of what is there, by path; the file that fills the disk, events and locks aside."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path().rglob("*")
        if path.is_file() and "filler" not in path.name and "tfevents" not in path.name
    }


def fill(disk, free):
    """Leave so many bytes of it."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(max(0, file.tell() // 4096 * 4096 - free // 4096 * 4096))


@pytest.mark.parametrize("state", ["full", "read-only"])
@pytest.mark.parametrize("case", CASES)
def test_a_disk_that_takes_nothing_is_named_in_one_line_and_nothing_is_lost(case, state, disk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, on_disk, room = CASES[case]
    for name in (LOGS, CHECKPOINTS, "out"):
        if name in on_disk:
            (disk / name).mkdir()
            Path(name).symlink_to(disk / name)
        else:
            Path(name).mkdir()
    write_pendulum("pendulum.pt")
    torch.save(actor_state(4, 1, scale=3.0), "expert.pt")
    Path("study.yaml").write_text(f"flags: --data.path pendulum.pt {FIT}\nrows: {{a: --model MSE}}\nseeds: 1\n")
    assert run(f"fit --data.path pendulum.pt --model MSE {FIT} --run old").status == 0
    before = digests()
    for free in room if state == "full" else (0,):
        if state == "full":
            fill(disk, free)
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        trial = run(command)
        assert trial.status not in (0, None), trial.output
        assert "Traceback" not in trial.output, trial.output
        lines = [line for line in trial.output.splitlines() if "error: " in line or "failed: " in line]
        assert lines, trial.output
        assert "No space left" in trial.output or "Read-only" in trial.output or "space" in trial.output, trial.output
        assert not trial.orphans()
        after = digests()
        for path, digest in before.items():
            assert after.get(path) == digest, path
        left = [path for path in after if path.name.endswith(".partial")]
        assert not left
        (disk / "filler").unlink(missing_ok=True) if state == "full" else None
        tell("disk", case=case, state=state, free_bytes=free, named=1)
    if state == "read-only":
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    again = run(command)
    assert again.status == 0, again.output
