"""Threads that wait give up their core soon, unless the user has said how they wait."""

import os
import subprocess
import sys

import pytest

from lightning_bc.spinning import spin_briefly


@pytest.mark.parametrize(
    ("stated", "spins"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["nothing said", "a number", "a policy"],
)
def test_the_user_decides_first(stated, spins, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    spin_briefly()
    assert os.environ.get("GOMP_SPINCOUNT") == spins


def test_the_command_says_it_before_openmp_is_loaded(monkeypatch):
    """OpenMP reads it once, when torch loads it."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    watched = (
        "import runpy, sys, importlib.abc, os\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'torch': print('found', os.environ.get('GOMP_SPINCOUNT')); raise SystemExit\n"
        "sys.meta_path.insert(0, Watch())\n"
        "sys.argv = ['lightning_bc', 'fit']\n"
        "runpy.run_module('lightning_bc', run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", watched], capture_output=True, text=True)
    assert ended.stdout.strip() == "found 10000", ended.stderr
