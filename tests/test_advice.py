"""Without a method ``fit`` takes the configuration that suits the file's pairs, the one that ``inspect`` names."""

import pytest
import torch
import yaml
from conftest import refused, write_pairs

from lightning_bc.cli import main

LENGTHS = (1000,) * 48
OF_THE_POLE = {"observation_dim": 4, "action_dim": 1, "metadata": {"environment_id": "InvertedPendulum-v5"}}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def taken(capsys, *flags):
    """The strategy that ``fit`` takes."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["fit", *flags, "--print_config"])
    assert end.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)["model"]["class_path"].rpartition(".")[2]


def advised_by_inspect(capsys, path):
    capsys.readouterr()
    main(["inspect", path])
    return capsys.readouterr().out.splitlines()[-1].split("--config ")[1].split()[0]


def pairs_of(actions_of, lengths=LENGTHS):
    observations = torch.rand(sum(lengths) // 2, 4, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    return {"lengths": lengths, "observations": observations, "actions": actions_of(observations), **OF_THE_POLE}


def alike(observations):
    return observations[:, :1]


def noisy(observations):
    return alike(observations) + 0.1 * torch.randn(len(observations), 1, generator=torch.Generator().manual_seed(0))


def in_two_ways(observations):
    return torch.where(torch.arange(len(observations)) < len(observations) // 2, 1.0, -1.0).unsqueeze(1)


@pytest.mark.parametrize(
    ("actions_of", "lengths", "strategy", "config"),
    [
        (alike, LENGTHS, "MSE", "mse"),
        (alike, LENGTHS[:4], "Ensemble", "mse_ensemble"),
        (alike, LENGTHS[:1], "MSE", "mse"),
        (noisy, LENGTHS, "GaussianMixture", "gmm"),
        (noisy, LENGTHS[:4], "Ensemble", "mse_ensemble"),
        (in_two_ways, LENGTHS, "GaussianMixture", "gmm"),
        (in_two_ways, LENGTHS[:4], "GaussianMixture", "gmm"),
    ],
)
def test_few_pairs_and_several_ways_to_act_are_told(actions_of, lengths, strategy, config, capsys):
    path = write_pairs("mine.pt", **pairs_of(actions_of, lengths))
    assert taken(capsys, "--data.path", path) == strategy
    assert advised_by_inspect(capsys, path) == config


def test_what_is_left_of_the_file_counts(capsys):
    path = write_pairs("mine.pt", **pairs_of(alike))
    assert taken(capsys, f"--data.path={path}", "--data.episodes", "4") == "Ensemble"


def test_copies_are_left_aside_and_held_out_pairs_count_as_inspect_has_it(capsys):
    few = pairs_of(noisy, (1000,) * 2)
    copies = {name: few[name].repeat(25, 1) for name in ("observations", "actions")}
    path = write_pairs("copied.pt", **few | copies | {"lengths": (1000,) * 50})
    assert (taken(capsys, "--data.path", path), advised_by_inspect(capsys, path)) == ("GaussianMixture", "gmm")
    path = write_pairs("tenth.pt", **pairs_of(alike, (200,) * 10))   # of which one is held out
    assert (taken(capsys, "--data.path", path), advised_by_inspect(capsys, path)) == ("Ensemble", "mse_ensemble")


def test_a_run_without_a_method_is_resumed_by_the_same_command(capsys):
    path = write_pairs("mine.pt", **pairs_of(alike, (20,) * 12))
    command = ["fit", "--data.path", path, "--trainer.max_steps", "2", "--rollouts.episodes", "1"]
    main([*command, "--run", "it"])
    assert "method: mse, since pairs are very few (240)" in capsys.readouterr().out
    main([*command, "--run", "it"])
    assert "run it is finished" in capsys.readouterr().out
    main([*command, "--ckpt_path", "last"])
    assert "run it, resumed at optimizer step 2" in capsys.readouterr().out


def test_no_method_is_taken_for_what_is_not_there(capsys):
    assert refused(capsys, "fit", "--data.path", "nowhere.pt").startswith("error: nowhere.pt: no such demonstration file")
    assert refused(capsys, "fit", "--data.path", "").startswith("error: --data.path '': names no file")
    default = "data/HalfCheetah-v5-sampled-2400000.pt"              # which is collected for a method that is named
    assert refused(capsys, "fit", "--data.path", default).startswith("error: Name a ready configuration")
    assert refused(capsys, "fit", "--data.path", "null").startswith("error: Name a ready configuration")
