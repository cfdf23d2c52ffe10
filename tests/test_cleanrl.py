"""Actors under CleanRL's names against the strategies that they come from, and what CleanRL's class cannot hold."""

import functools
import re

import pytest
import torch
from conftest import BUDGET, INTERACTIVE_BUDGET, build_strategy, fit, refused, write_pairs, write_pendulum
from learners import LEARNERS, each

from lightning_bc.cli import main
from lightning_bc.demonstrations.experts import CleanRLActor
from lightning_bc.networks import MLP
from lightning_bc.strategies import MSE, SAC, TD3, load_strategy
from lightning_bc.tools.cleanrl import cleanrl_state

EXPORT = ("export", "--format", "cleanrl")
TWO_LAYERS = " --model.network MLP --model.network.hidden_sizes [16,12]"


def observations(batch=200):
    return 2 * torch.randn(batch, 3, generator=torch.Generator().manual_seed(0))


def trained(cls):
    """With weights, statistics and bounds that no shortcut would survive."""
    strategy = build_strategy(cls, network=functools.partial(MLP, hidden_sizes=(32, 24), input_scale=0.5))
    with torch.no_grad():
        for parameter in strategy.actor.parameters():
            parameter += 0.15 * torch.randn_like(parameter)
    return strategy


@each([*LEARNERS, MSE])
def test_the_deterministic_actions_are_the_same(cls):
    strategy = trained(cls)
    actor = CleanRLActor(cleanrl_state(strategy))
    with torch.no_grad():
        wanted = strategy(observations(), deterministic=True)
        assert wanted.std(0).min() > 0.05
        torch.testing.assert_close(actor(observations(), deterministic=True), wanted, rtol=0, atol=1e-6)


@each([SAC, TD3, MSE])
def test_normalization_goes_into_the_first_layer(cls):
    strategy = trained(cls)
    strategy.border.fit(torch.tensor([5.0, -1.0, 0.3]) + torch.tensor([3.0, 0.2, 1.0]) * observations())
    actor = CleanRLActor(cleanrl_state(strategy))
    with torch.no_grad():
        wanted = strategy(observations(), deterministic=True)
        torch.testing.assert_close(actor(observations(), deterministic=True), wanted, rtol=0, atol=1e-5)


def test_sampled_actions_have_the_same_distribution():
    """Closer than any number of samples could show: the same noise gives the same actions."""
    strategy = trained(SAC)
    actor = CleanRLActor(cleanrl_state(strategy))
    with torch.no_grad():
        torch.manual_seed(1)
        wanted = strategy(observations(), deterministic=False)
        torch.manual_seed(1)
        torch.testing.assert_close(actor(observations(), deterministic=False), wanted, rtol=0, atol=1e-6)
        assert (wanted - strategy(observations(), deterministic=True)).std() > 0.1  # it is not the mean


def test_a_td3_actor_has_cleanrls_names_and_bounds():
    strategy = trained(TD3)
    state = cleanrl_state(strategy)
    shapes = {"fc1": (32, 3), "fc2": (24, 32), "fc_mu": (2, 24)}
    expected = {f"{layer}.weight": shape for layer, shape in shapes.items()}
    expected |= {f"{layer}.bias": shape[:1] for layer, shape in shapes.items()}
    expected |= {"action_scale": (2,), "action_bias": (2,)}
    assert {name: tuple(value.shape) for name, value in state.items()} == expected
    assert torch.equal(state["action_scale"], torch.tensor([1.5, 1.5]))
    assert torch.equal(state["action_bias"], torch.tensor([-0.5, 1.5]))
    far = 1e4 * observations()                                      # where tanh is on its bounds
    actions = CleanRLActor(state)(far)
    assert (((actions - state["action_bias"]) / state["action_scale"]).abs() > 0.999).float().mean() > 0.9


def test_the_file_is_an_expert_with_cleanrls_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = fit(write_pendulum("pendulum.pt"), "SAC", INTERACTIVE_BUDGET + TWO_LAYERS)
    checkpoint = f"checkpoints/{run}/last.ckpt"
    main([*EXPORT, "--ckpt_path", checkpoint, "--output", "new/expert.pt"])
    state = torch.load("new/expert.pt", weights_only=True)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "fc1.weight": (16, 4),
        "fc1.bias": (16,),
        "fc2.weight": (12, 16),
        "fc2.bias": (12,),
        "fc_mean.weight": (1, 12),
        "fc_mean.bias": (1,),
        "fc_logstd.weight": (1, 12),
        "fc_logstd.bias": (1,),
        "action_scale": (1,),
        "action_bias": (1,),
    }
    assert all(value.dtype == torch.float32 for value in state.values())
    seen = torch.randn(50, 4)
    wanted = load_strategy(checkpoint)(seen)
    torch.testing.assert_close(CleanRLActor(state)(seen), wanted, rtol=0, atol=1e-6)
    capsys.readouterr()
    main(["collect", "--env", "InvertedPendulum-v5", "--expert", "new/expert.pt", "--pairs", "50", "--output", "again.pt"])
    assert "50 pairs" in capsys.readouterr().out

    before = (tmp_path / "new/expert.pt").read_bytes()
    error = refused(capsys, *EXPORT, "--ckpt_path", checkpoint, "--output", "new/expert.pt")
    assert "exists and is not overwritten" in error
    assert (tmp_path / "new/expert.pt").read_bytes() == before
    assert "its folder cannot be made" in refused(capsys, *EXPORT, "--ckpt_path", checkpoint, "--output", "again.pt/e.pt")


@pytest.mark.parametrize(
    ("strategy", "flags", "words"),
    [
        ("MSE", " --model.network MLP --model.network.hidden_sizes [8,8,8]", "exactly two hidden layers"),
        ("MSE", " --model.network MLP --model.network.hidden_sizes [8]", "exactly two hidden layers"),
        ("MSE", TWO_LAYERS + " --model.network.activation gelu", "of ReLU"),
        ("MSE", " --model.network ResidualMLP --model.network.width 8", "exactly two hidden layers"),
        ("MSE", TWO_LAYERS + " --model.squash false", "MSE with squash: true"),
        ("Gaussian", TWO_LAYERS, "Gaussian chooses its actions otherwise"),
    ],
    ids=["three layers", "one layer", "other activation", "residual", "not squashed", "other strategy"],
)
def test_what_cleanrls_class_cannot_hold_is_refused(strategy, flags, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    checkpoint = f"checkpoints/{fit(write_pendulum('pendulum.pt'), strategy, BUDGET + flags)}/last.ckpt"
    error = refused(capsys, *EXPORT, "--ckpt_path", checkpoint, "--output", "expert.pt")
    assert checkpoint in error
    assert words in error
    assert not (tmp_path / "expert.pt").exists()


def test_an_actor_that_rounds_otherwise_than_the_policy_is_refused(tmp_path, monkeypatch, capsys):
    """The first layer takes 100,000 + x as it is, of which float32 keeps less of x than the policy's x."""
    monkeypatch.chdir(tmp_path)
    observations = torch.randn(120, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([1e5, 0.0, 0.0, 0.0])
    about = {"metadata": {"environment_id": "InvertedPendulum-v5"}, "observations": observations}
    run = fit(write_pairs("far.pt", (10,) * 12, 4, 1, **about), "MSE", BUDGET + TWO_LAYERS)
    error = refused(capsys, *EXPORT, "--ckpt_path", run, "--output", "expert.pt")
    assert re.search(r"up to 0\.0\d+ from the policy's.* wanted at most 1e-05.* use --format folder", error)
    assert not (tmp_path / "expert.pt").exists()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, capsys):
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    error = refused(capsys, *EXPORT, "--ckpt_path", str(tmp_path / "other.pt"), "--output", str(tmp_path / "expert.pt"))
    assert "is not a checkpoint that lightning_bc has saved" in error
