"""Fits on a Ray cluster: what travels, and that no fit is lost with a node or with the program that started it.

A fit is replaced by a script that counts, saves each count as a checkpoint, and goes on from there; in all tests but one.
"""

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import BUDGET, REPOSITORY, import_from, write_pendulum
from test_report import BENCHMARK

from lightning_bc.cli import main
from lightning_bc.files import sha256
from lightning_bc.runs import folders
from lightning_bc.runs.curve import RETURN, read_curve
from lightning_bc.runs.plan import Fit, Study
from lightning_bc.runs.results import Results
from lightning_bc.study.engine import Local, run_all

ray = pytest.importorskip("ray")

from lightning_bc.study import on_node, ray_engine  # noqa: E402
from lightning_bc.study.ray_engine import Ray, files_of  # noqa: E402

COUNTING = """
import json, sys, time
from pathlib import Path
name, steps, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
logs, saved = Path("lightning_logs", name), Path("checkpoints", name)
saved.mkdir(parents=True, exist_ok=True)
last = saved / "last.ckpt"
step = int(last.read_text()) if last.exists() else 0
with (logs / "begun").open("a") as file:
    file.write(f"{step}\\n")
while step < steps:
    time.sleep(pause)
    step += 1
    (saved / ".last").write_text(str(step))
    (saved / ".last").replace(last)
content = json.loads(Path("data/results.json").read_text())
del content["checksum"]
(logs / ".results").write_text(json.dumps(content | {"score": step + int(name[-1])}))
(logs / ".results").replace(logs / "results.json")
"""

FITS = [Fit(("--model", "MSE", "--data.path", "x.pt"), seed) for seed in range(6)]


def counting(steps=3, pause=0.0):
    return lambda fit: ["-c", COUNTING, fit.name, str(steps), str(pause)]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(on_node, "CACHE", tmp_path / "node")


@pytest.fixture
def results():
    BENCHMARK["write_run"](Path("made"), BENCHMARK["default_config"](), 0, 2, 0.5).write("data/results.json")
    return lambda fit: ["data/results.json"]


def scores(fits):
    return [json.loads(Path(f"lightning_logs/{fit.name}/results.json").read_text())["score"] for fit in fits]


def begun(fit):
    return [int(line) for line in Path(f"lightning_logs/{fit.name}/begun").read_text().split()]


# What travels


def test_everything_that_a_configuration_names_below_the_folder_travels(monkeypatch):
    config = {
        "init_from": "checkpoints/other/last.ckpt",
        "env": "my_envs:Point-v0",
        "data": {"path": ["a.pt", "folder"]},
        "trainer": {"default_root_dir": "."},
    }
    monkeypatch.setattr(ray_engine, "_meaning", lambda flags: config)
    there = ["a.pt", "folder/b/c.npz", "my_envs.py", "checkpoints/other/last.ckpt", "mine.yaml"]
    for path in [*there, "unused.pt", "my_envs/data.bin", "checkpoints/other/best.ckpt"]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    outside = str(REPOSITORY / "setup.cfg")
    assert files_of(Fit(("--config", "mine.yaml", "--data.path", outside), 0)) == set(there)


def test_what_a_fit_means_without_saying_so_travels_too():
    write_pendulum("pendulum.pt")
    Path("mine.yaml").write_text("data: {path: pendulum.pt}\n")
    assert files_of(Fit(("--config", "mine.yaml", "--model", "MSE"), 0)) == {"mine.yaml", "pendulum.pt"}


def test_a_node_fetches_a_file_once_and_again_where_it_is_damaged(monkeypatch):
    fetched = []
    monkeypatch.setattr(ray, "get", lambda content: fetched.append(1) or content)
    Path("a.pt").write_bytes(b"demonstrations")
    content, digest = np.fromfile("a.pt", dtype=np.uint8), sha256(Path("a.pt"))
    paths = {on_node.cached(digest, content) for _ in range(3)}
    assert [path.read_bytes() for path in paths] == [b"demonstrations"]
    assert len(fetched) == 1
    next(iter(paths)).write_bytes(b"demonstrationz")
    assert on_node.cached(digest, content).read_bytes() == b"demonstrations"
    with pytest.raises(OSError, match="with another one"):
        on_node.cached("0" * 64, content)
    assert len(list(Path("node/data").iterdir())) == 1


def test_what_a_run_has_saved_comes_home_while_it_runs_and_the_rest_at_its_end(results, monkeypatch):
    monkeypatch.setattr(ray, "get", lambda content: content)
    fit, path = FITS[0], "data/results.json"
    files = {path: (sha256(Path(path)), np.fromfile(path, np.uint8))}
    folders = [f"lightning_logs/{fit.name}", f"checkpoints/{fit.name}"]
    before = {f"checkpoints/{fit.name}/last.ckpt": b"2", f"lightning_logs/{fit.name}/output.txt": b"before\n"}
    sent = list(on_node.run(counting(4, 0.5)(fit), files, before, folders, 0.02))
    assert [status for status, _ in sent] == [None] * (len(sent) - 1) + [0]
    checkpoints = [new[path] for _, new in sent if (path := f"checkpoints/{fit.name}/last.ckpt") in new]
    assert checkpoints == [b"3", b"4"]
    assert sum(f"lightning_logs/{fit.name}/results.json" in new for _, new in sent) == 1
    assert list(Path("node/runs").iterdir()) == []
    for _, new in sent:
        on_node.write_files(Path("home"), new)
    assert Path(f"home/lightning_logs/{fit.name}/begun").read_text() == "2\n"


def test_a_checkpoint_is_never_home_before_its_curve_nor_results_before_either(monkeypatch):
    for path in ("c/last.ckpt", "l/curve.csv", "l/results.json"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(path)
    order, replacing = [], on_node.replacing
    monkeypatch.setattr(on_node, "replacing", lambda path: order.append(path.name) or replacing(path))
    read = on_node.read_files(Path(), ["l/results.json", "l/curve.csv", "c/last.ckpt"])
    assert next(iter(read)) == "c/last.ckpt"
    on_node.write_files(Path("home"), read)
    assert order == ["curve.csv", "last.ckpt", "results.json"]


# A cluster's place is taken by functions of this process


class Nodes:
    """In place of Ray: tasks are run in this process, and a node dies with a task after some of its answers."""

    def __init__(self, monkeypatch, deaths):
        self.deaths = list(deaths)
        nodes = [{"Alive": True, "Resources": {"CPU": 3.5}}, {"Alive": False, "Resources": {"CPU": 8}}]
        functions = {"init": lambda *_, **__: None, "remote": self.remote, "nodes": lambda: nodes}
        functions |= dict.fromkeys(("put", "get"), lambda content: content)
        for name, function in functions.items():
            monkeypatch.setattr(ray, name, function)

    def remote(self, function):
        def call(*args):
            answers = self.deaths.pop(0) if self.deaths else None
            yield from itertools.islice(function(*args), answers)
            if answers is not None:
                raise ray.exceptions.NodeDiedError("died")

        task = type("Task", (), {"remote": staticmethod(call)})
        return type("Function", (), {"options": staticmethod(lambda **_: task)})


def test_a_fit_whose_node_dies_goes_on_from_the_checkpoint_that_came_home(results, monkeypatch, capsys):
    Nodes(monkeypatch, [0, 2])                                              # before the first checkpoint; after the second
    engine = Ray(words=counting(4, 0.5), files=results, every=0.1)
    assert engine.slots == 3
    assert run_all(engine, FITS[:1], 1) == []
    assert begun(FITS[0]) == [0, 2]
    assert scores(FITS[:1]) == [4]
    assert capsys.readouterr().out.count("lost its node") == 2


def test_a_fit_that_kills_its_nodes_is_given_up_and_one_that_fails_is_not_run_again(results, monkeypatch, capsys):
    Nodes(monkeypatch, [0] * 5)
    engine = Ray(words=counting(), files=results)
    assert run_all(engine, FITS[:1], 1) == FITS[:1]
    assert run_all(engine, FITS[1:2], 1) == []
    assert "its node died 5 times" in capsys.readouterr().err
    failing = Ray(words=lambda fit: ["-c", "print('no space left'); raise SystemExit(3)"], files=results)
    assert run_all(failing, FITS[2:3], 1) == FITS[2:3]
    assert "exit status 3; its last lines:\nno space left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--engine ray --jobs 2", "--jobs 2: goes with another engine"),
        ("--address here:1", "--address here:1: goes with another engine"),
        ("--engine ray --cpus 0", "--cpus 0 --gpus 0: wanted what a fit needs"),
        ("--engine ray --gpus 1", "no node of the cluster has as many"),
    ],
)
def test_what_no_cluster_can_run_is_refused(flags, words, monkeypatch, capsys):
    Nodes(monkeypatch, [])
    write_pendulum("pendulum.pt")
    Path("study.yaml").write_text("rows: {a: --model MSE --data.path pendulum.pt}")
    with pytest.raises(SystemExit):
        main(["study", "study.yaml", *flags.split()])
    assert words in capsys.readouterr().err


# Clusters


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one core each on this machine; the processes of all fits end with them."""
    from ray.cluster_utils import Cluster

    for name, value in import_from(REPOSITORY).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    options = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=options | {"include_dashboard": False})
    cluster.second = cluster.add_node(**options)
    yield cluster
    if ray.is_initialized():
        ray.shutdown()
    cluster.shutdown()
    assert not processes_of_fits()


def processes_of_fits():
    """Processes whose command names one of the fits, once they had 10 s to end."""
    for _ in range(100):
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        found = [words for words in commands if any(fit.name.encode() in words for fit in FITS)]
        if not found:
            return []
        time.sleep(0.1)
    return found


def kill_second_node(cluster, fits):
    """Once the first two of ``fits``, which run side by side, have both sent a checkpoint, and some time more."""

    def kill():
        while not all(Path(f"checkpoints/{fit.name}/last.ckpt").exists() for fit in fits[:2]):
            time.sleep(0.05)
        time.sleep(random.random())
        cluster.remove_node(cluster.second, allow_graceful=False)

    threading.Thread(target=kill).start()


@pytest.mark.slow
def test_no_fit_is_lost_with_a_node(cluster, results, capsys):
    engine = Ray(cluster.address, words=counting(20, 0.2), files=results, every=0.1)
    assert engine.slots == 2
    kill_second_node(cluster, FITS)
    assert run_all(engine, FITS, len(FITS)) == []
    assert scores(FITS) == [20, 21, 22, 23, 24, 25]
    assert capsys.readouterr().out.count("lost its node") == 1
    starts = [begun(fit) for fit in FITS]
    assert sorted(map(len, starts)) == [1, 1, 1, 1, 1, 2]                   # one has been resumed
    assert all(start[-1] > 0 for start in starts if len(start) == 2)
    assert engine.slots == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_fit_is_lost_with_the_program_that_started_it(number, cluster, results):
    program = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_ray_engine import FITS, Ray, counting, run_all
        engine = Ray({cluster.address!r}, words=counting(20, 0.2), files=lambda fit: ["data/results.json"], every=0.1)
        assert run_all(engine, FITS, len(FITS)) == []
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not Path(f"checkpoints/{FITS[2].name}/last.ckpt").exists():
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(number)
    assert ("StoppedError" in first.communicate(timeout=60)[1]) == (number == signal.SIGTERM)
    assert processes_of_fits() == []
    subprocess.run(command, check=True)
    assert scores(FITS) == [20, 21, 22, 23, 24, 25]
    starts = [begun(fit) for fit in FITS]
    assert all(start[0] == 0 and start == sorted(start) for start in starts)
    assert any(start[-1] > 0 for start in starts)
    assert [0] in starts[:2]                                                # what was done is not run again


@pytest.mark.slow
def test_real_fits_end_as_they_do_here_although_a_node_dies(cluster, tmp_path, monkeypatch, capsys):
    data = write_pendulum(tmp_path / "pendulum.pt")
    study = f"flags: {BUDGET} --trainer.max_steps 20 --data.path pendulum.pt\nseeds: 1\n"
    study += "rows: {a: --model MSE, b: --model VAE}\n"
    ends = []
    for place in ("here", "there"):
        Path(tmp_path, place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        Path("study.yaml").write_text(study)
        shutil.copy(data, "pendulum.pt")
        fits = Study.read("study.yaml").fits
        if place == "there":
            kill_second_node(cluster, fits)
        assert run_all(Local(1) if place == "here" else Ray(cluster.address, every=0.1), fits, 2) == []
        results = [Results.read(folders.results_path(fit.name)) for fit in fits]
        curves = [read_curve(Path(f"lightning_logs/{fit.name}/curve.csv"))[RETURN].tolist() for fit in fits]
        ends.append(([result.returns for result in results], [result.optimizer_steps for result in results], curves))
    assert ends[0] == ends[1]
    printed = "".join(Path(f"lightning_logs/{fit.name}/output.txt").read_text() for fit in fits)
    assert capsys.readouterr().out.count("lost its node") == printed.count("resumed at optimizer step") == 1
