"""What SECURITY.md promises: files that are read choose neither code nor places, whichever command reads them."""

import gc
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, fit, refused, write_pendulum

from lightning_bc.cli import main

COMMANDS = {
    "resume": "fit --model MSE --data.path pendulum.pt --ckpt_path bomb.pt",
    "init_from": "fit --model MSE --data.path pendulum.pt --model.init_from bomb.pt",
    "validate": "validate --ckpt_path bomb.pt",
    "test": "test --ckpt_path bomb.pt",
    "play": "play --ckpt_path bomb.pt --output video.mp4",
    "export": "export --ckpt_path bomb.pt --output actor.pt",
    "expert": "collect --env InvertedPendulum-v5 --expert bomb.pt --output pairs.pt",
    "data": "fit --model MSE --env InvertedPendulum-v5 --data.path bomb.pt",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A whole checkpoint of a short run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("run"))
        run = fit(write_pendulum("pendulum.pt"))
        return torch.load(f"checkpoints/{run}/last.ckpt", weights_only=True)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_checkpoint_with_an_object_in_it_is_refused_and_not_run(command, checkpoint, payload, data, capsys):
    bomb, folder = payload
    torch.save(checkpoint | {"epoch": bomb}, "bomb.pt")
    error = refused(capsys, *command.split())
    assert "bomb.pt" in error
    assert "Traceback" not in error
    assert not folder.exists()
    torch.load("bomb.pt", weights_only=False)
    assert folder.exists()                                          # so the file was dangerous


@pytest.mark.parametrize("run", ["../elsewhere", "a/b", "/tmp/elsewhere", ""])
def test_a_checkpoint_cannot_say_where_results_are_written(run, checkpoint, data, capsys):
    torch.save(checkpoint | {"run": run}, "moved.ckpt")
    before = set(Path().rglob("*"))
    assert "moved.ckpt" in refused(capsys, "test", "--ckpt_path", "moved.ckpt")
    assert set(Path().rglob("*")) == before


@pytest.mark.parametrize("name", ["os.system", "torch.nn.Linear", "lightning_bc.cli.main"])
def test_a_checkpoint_cannot_name_a_class_that_is_no_strategy(name, checkpoint, data, capsys):
    hyper_parameters = checkpoint["hyper_parameters"] | {"_class_path": name}
    torch.save(checkpoint | {"hyper_parameters": hyper_parameters, "strategy": name}, "other.ckpt")
    assert "other.ckpt" in refused(capsys, "export", "--ckpt_path", "other.ckpt", "--output", "actor.pt")
    assert not Path("actor.pt").exists()


@pytest.mark.parametrize("command", ["test", "validate", "fit", "export --output a.pt"])
@pytest.mark.parametrize("network", ["canary.run", {"class_path": "canary.Network"}])
def test_a_checkpoint_cannot_have_a_module_imported(command, network, checkpoint, data, capsys, monkeypatch):
    Path("canary.py").write_text("from pathlib import Path\nPath('imported').touch()\ndef run(*sizes): ...\n")
    monkeypatch.syspath_prepend(".")
    config = checkpoint["config"] | {"model": {"class_path": "MSE", "init_args": {"network": network}}}
    hyper_parameters = checkpoint["hyper_parameters"] | {"network": network}
    torch.save(checkpoint | {"config": config, "hyper_parameters": hyper_parameters}, "other.ckpt")
    with pytest.warns(UserWarning, match="config") if "export" not in command else nullcontext():
        assert "canary" in refused(capsys, *command.split(), "--ckpt_path", "other.ckpt")
    assert not Path("imported").exists()


OWN = """
from pathlib import Path

from lightning_bc.strategies import MSE

Path("imported").touch()


class Own(MSE):
    pass
"""


def test_a_strategy_of_ones_own_is_imported_only_where_the_runs_own_configuration_names_it(
    checkpoint, data, capsys, monkeypatch
):
    Path("own_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(".")
    hyper_parameters = checkpoint["hyper_parameters"] | {"_class_path": "own_module.Own"}
    config = checkpoint["config"] | {"model": {"class_path": "own_module.Own"}}
    torch.save(checkpoint | {"strategy": "Own", "hyper_parameters": hyper_parameters, "config": config}, "own.ckpt")
    export = ("export", "--ckpt_path", "own.ckpt", "--output", "policy")
    assert "import the module that defines it first" in refused(capsys, *export)
    own = Path("lightning_logs", checkpoint["run"], "config.yaml")
    own.parent.mkdir(parents=True, exist_ok=True)
    for named in ("class_path: own_module.Other", "class_path: MSE", "class_path: 3"):
        own.write_text(f"model:\n  {named}\n")
        assert "import the module that defines it first" in refused(capsys, *export)
    assert not Path("imported").exists()

    own.write_text("model:\n  class_path: no_such_module.Own\n")
    error = refused(capsys, *export)
    assert str(own) in error
    assert "no_such_module cannot be imported here" in error

    own.write_text("model:\n  class_path: own_module.Own\n")
    main([*export])
    assert Path("policy/policy.json").is_file()
    del sys.modules["own_module"]
    gc.collect()                                                    # tests that follow find the strategies of the package


def test_every_test_that_is_named_exists():
    words = (REPOSITORY / "SECURITY.md").read_text()
    named = [part for part in words.split("`") if part.startswith("tests/")]
    assert named
    assert all((REPOSITORY / name).is_file() for name in named)
