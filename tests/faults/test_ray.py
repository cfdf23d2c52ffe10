"""Nodes of a Ray cluster, and the program that started the fits, killed at random instants: no fit is lost or done twice.

Fits that count stand for real ones, as in tests/test_ray_engine.py, but in the last trial.
"""

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, SMALL, assert_equal_weights, import_from, last_checkpoint
from test_ray_engine import FITS, begun, counting, processes_of_fits, scores
from test_report import BENCHMARK

from faults.trials import SHORT, Trial, instants, leftovers, run, sized, tell, working_folder
from lightning_bc.study.engine import run_all

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from lightning_bc.study import on_node  # noqa: E402
from lightning_bc.study.ray_engine import Ray  # noqa: E402

pytestmark = pytest.mark.faults

NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
SECONDS = 12.0
"""That six fits of 20 counts, 0.2 s each, take on two nodes from the first checkpoint on."""

DRIVER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from test_ray_engine import FITS, Ray, counting, run_all
Path("has-begun").touch()
engine = Ray(sys.argv[1], words=counting(20, 0.2), files=lambda fit: ["data/results.json"], every=0.1)
assert run_all(engine, FITS, len(FITS)) == []
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head and a second node, of one core each, on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**import_from(REPOSITORY), "RAY_USAGE_STATS_ENABLED": "0"}.items():
            patch.setenv(name, value)
        patch.setattr(on_node, "CACHE", tmp_path_factory.mktemp("node"))
        made = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        yield made
        if ray.is_initialized():
            ray.shutdown()
        made.shutdown()
        assert not processes_of_fits()


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BENCHMARK["write_run"](Path("made"), BENCHMARK["default_config"](), 0, 2, 0.5).write("data/results.json")


def assert_all_done_once():
    """All fits have ended as without a kill; how many of them were begun again, and how many of these from a checkpoint."""
    assert scores(FITS) == [20, 21, 22, 23, 24, 25]
    starts = [begun(fit) for fit in FITS]
    assert all(start[0] == 0 and start == sorted(start) and start[-1] < 20 for start in starts)
    assert not leftovers("lightning_logs")
    return sum(len(start) > 1 for start in starts), sum(start[-1] > 0 for start in starts)


def wait_for_a_checkpoint(goes_on=lambda: True):
    """Until the first one has come home."""
    while not list(Path("checkpoints").glob("*/last.ckpt")) and goes_on():
        time.sleep(0.05)


@pytest.mark.parametrize("number", range(sized(4)))
def test_a_node_killed_at_a_random_instant_loses_no_fit(number, cluster, in_a_folder, capsys):
    second = cluster.add_node(**NODE)
    if ray.is_initialized():
        ray.shutdown()
    engine = Ray(cluster.address, words=counting(20, 0.2), files=lambda fit: ["data/results.json"], every=0.1)
    instant = float(instants(sized(4), SECONDS, 21)[number])

    def kill():
        wait_for_a_checkpoint()
        time.sleep(instant)
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    assert run_all(engine, FITS, len(FITS)) == []
    killer.join()
    again, resumed = assert_all_done_once()
    assert processes_of_fits() == []
    lost = capsys.readouterr().out.count("lost its node")
    tell("Ray", case="a node killed", instant=round(instant, 1), fits_lost_a_node=lost, begun_again=again, resumed=resumed)


@pytest.mark.parametrize("number", range(sized(4)))
def test_a_driver_killed_at_a_random_instant_loses_no_fit(number, cluster, in_a_folder):
    command = [sys.executable, "-c", textwrap.dedent(DRIVER), cluster.address]
    driver = subprocess.Popen(command)
    while not Path("has-begun").exists():
        assert driver.poll() is None
        time.sleep(0.05)
    instant, from_then_on = float(instants(sized(4), SECONDS, 22)[number]), number % 2
    if from_then_on:
        wait_for_a_checkpoint(lambda: driver.poll() is None)
    time.sleep(instant)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert processes_of_fits() == []
    done = sum(Path(f"lightning_logs/{fit.name}/results.json").exists() for fit in FITS)
    subprocess.run(command, check=True, timeout=300)
    again, resumed = assert_all_done_once()
    assert again + done <= len(FITS)
    assert processes_of_fits() == []
    tell("Ray", case="the driver killed", instant=round(instant, 1), done=done, begun_again=again, resumed=resumed)


def test_a_study_on_ray_killed_with_its_own_cluster_ends_as_one_that_runs_here(tmp_path_factory):
    flags = f"{SMALL} {SHORT} --data.path pendulum.pt --trainer.max_steps 600"
    study = {"flags": flags, "rows": {"a": "--model MSE", "b": "--model VAE"}, "seeds": 1}
    with working_folder(tmp_path_factory) as folder, pytest.MonkeyPatch.context() as patch:
        Path("study.yaml").write_text(yaml.safe_dump(study))
        shutil.copytree(folder, folder.parent / "through", dirs_exist_ok=True)
        patch.chdir(folder.parent / "through")
        through = run("study study.yaml")
        assert through.status == 0, through.output
        wanted = {path.name: last_checkpoint(path.name) for path in Path("checkpoints").iterdir()}
        for number, instant in enumerate(instants(sized(3), 1.5 * through.seconds, 23)):
            shutil.copytree(folder, folder.parent / str(number))
            patch.chdir(folder.parent / str(number))
            trial = Trial(["study", "study.yaml", "--engine", "ray", "--cpus", "1"], anew=True).start()
            while "missing" not in trial.has_printed():
                assert not trial.has_ended(), trial.output
                time.sleep(0.05)
            time.sleep(instant)
            trial.send(signal.SIGKILL)
            trial.wait()
            assert not trial.orphans(30.0)
            before = {path.parent.name for path in Path("lightning_logs").glob("*/results.json")}
            again = Trial(["study", "study.yaml", "--engine", "ray", "--cpus", "1"], anew=True).start().wait(600)
            assert again.status == 0, again.output
            assert not again.orphans(30.0)
            resumed = 0
            for name, whole in wanted.items():
                assert_equal_weights(last_checkpoint(name), whole)
                here, there = (Path(where, "lightning_logs", name, "results.json") for where in (".", "../through"))
                assert json.loads(here.read_text())["returns"] == json.loads(there.read_text())["returns"]
                resumed += "resumed at optimizer step" in Path("lightning_logs", name, "output.txt").read_text()
            assert not leftovers()
            tell("Ray", case="a study with its cluster killed", killed=1, done_before=len(before), resumed=resumed)
