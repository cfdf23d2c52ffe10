"""A checkpoint that another version has made is refused in one line, not with a traceback."""

import importlib
import inspect
import pkgutil
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch
from conftest import BUDGET, INTERACTIVE_BUDGET, fit, refused

import lightning_bc
from lightning_bc.errors import OtherVersionError

LOADS = ("load_state_dict", "on_load_checkpoint")


def going_on():
    """Every method of the package that goes on from saved state, with its class."""
    found = {}
    for info in pkgutil.walk_packages(lightning_bc.__path__, "lightning_bc."):
        if info.name.endswith(".__main__"):
            continue
        for cls in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(cls) and cls.__module__.startswith("lightning_bc."):
                found |= {f"{cls.__qualname__}.{name}": (cls, name) for name in LOADS if name in vars(cls)}
    return found


def test_every_method_that_goes_on_from_saved_state_refuses_one_without_entries():
    methods = going_on()
    assert {"Checkpoints.load_state_dict", "Replay.load_state_dict", "Rollouts.on_load_checkpoint"} <= methods.keys()
    refusing = []
    for words, (cls, name) in methods.items():
        method, built = getattr(cls, name), type("Built", (cls,), {"__getattr__": lambda *_: MagicMock()})
        if inspect.isabstract(built):
            built.__abstractmethods__ = frozenset()
        others = [None] * (len(inspect.signature(method).parameters) - 2)   # the Trainer and the module, for callbacks
        try:
            method(built.__new__(built), *others, {})
        except OtherVersionError:
            refusing.append(words)
    assert len(refusing) > len(methods) / 2                         # the others need no entry


@pytest.mark.parametrize(
    ("strategy", "flags", "entries", "words"),
    [
        ("MSE", BUDGET, ("callbacks", "Checkpoints", "best_merit"), "lacks best_merit, which Checkpoints goes on from"),
        ("SAC", INTERACTIVE_BUDGET, ("interaction", "watch"), "lacks watch, which "),
    ],
)
def test_a_run_of_another_version_does_not_go_on(strategy, flags, entries, words, data, capsys):
    run = fit(data, strategy, flags)
    path = Path("checkpoints", run, "last.ckpt")
    content = torch.load(path, weights_only=True)
    part = content
    for name in entries[:-1]:
        part = part[name]
    del part[entries[-1]]
    torch.save(content, path)
    longer = ["--trainer.max_steps", "6"] if strategy == "MSE" else ["--model.total_environment_steps", "60"]
    error = refused(capsys, "fit", "--run", run, *longer, "--trainer.enable_progress_bar", "false")
    assert f"--ckpt_path {path}: {words}" in error
    assert "another version of lightning_bc has made this checkpoint" in error
    assert "--model.init_from" in error
