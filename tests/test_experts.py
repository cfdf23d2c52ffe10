"""CleanRL's actors against their equations, and files that are no experts."""

import functools
import math

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, actor_state
from scipy import stats
from torch.nn import functional as F

from lightning_bc.demonstrations import load_expert
from lightning_bc.environments import make
from lightning_bc.episodes import TEST_BANK, play
from lightning_bc.errors import InputError

SHIPPED = REPOSITORY / "checkpoints/experts/HalfCheetah-v5.pt"


def saved(path, state):
    torch.save(state, path)
    return path


def reference_heads(state, observations):
    """Outputs of the heads, written anew after CleanRL's sac_continuous_action.py and td3_continuous_action.py."""
    hidden = F.relu(F.linear(observations, state["fc1.weight"], state["fc1.bias"]))
    hidden = F.relu(F.linear(hidden, state["fc2.weight"], state["fc2.bias"]))
    heads = [name for name in ("fc_mean", "fc_logstd", "fc_mu") if f"{name}.weight" in state]
    return {name: F.linear(hidden, state[f"{name}.weight"], state[f"{name}.bias"]) for name in heads}


def reference_deviation(raw):
    return torch.exp(-5 + 0.5 * (2 - -5) * (torch.tanh(raw) + 1))


# The deterministic action


def test_shipped_expert_equals_a_computation_of_its_own():
    state = torch.load(SHIPPED, weights_only=True)
    observations = 3 * torch.randn(1000, 17, generator=torch.Generator().manual_seed(0))
    wanted = torch.tanh(reference_heads(state, observations)["fc_mean"])  # HalfCheetah: scale 1, bias 0
    actions = load_expert(SHIPPED)(observations, deterministic=True)
    torch.testing.assert_close(actions, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["sac", "td3"])
@pytest.mark.parametrize("shape", [(1, 2), (2,)], ids=["buffers (1, action_dim)", "buffers (action_dim,)"])
def test_action_is_scaled_and_shifted_to_the_units_of_the_environment(tmp_path, algorithm, shape):
    state = actor_state(5, 2, algorithm, scale=[0.5, 2.0], bias=[0.1, -1.0])
    for name in ("action_scale", "action_bias"):
        state[name] = state[name].reshape(shape)
    actor = load_expert(saved(tmp_path / "actor.pt", state))
    observations = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    head = reference_heads(state, observations)["fc_mean" if algorithm == "sac" else "fc_mu"]
    wanted = torch.tensor([0.5, 2.0]) * torch.tanh(head) + torch.tensor([0.1, -1.0])
    torch.testing.assert_close(actor(observations, deterministic=True), wanted, rtol=0, atol=1e-6)
    assert (actor.observation_dim, actor.action_dim) == (5, 2)


# The sampled action


def test_sampled_actions_have_the_documented_tanh_normal_distribution(tmp_path):
    scale, bias, samples = torch.tensor([0.5, 2.0]), torch.tensor([0.1, -1.0]), 100_000
    state = actor_state(5, 2, scale=scale, bias=bias)
    actor = load_expert(saved(tmp_path / "actor.pt", state))
    observation = torch.randn(1, 5, generator=torch.Generator().manual_seed(1))
    heads = reference_heads(state, observation)
    mean, deviation = heads["fc_mean"][0].double(), reference_deviation(heads["fc_logstd"])[0].double()
    assert (mean.abs() + 5 * deviation < 4).all()  # else tanh saturates in float32 and arctanh cannot undo it

    torch.manual_seed(0)
    actions = actor(observation.expand(samples, 5), deterministic=False).double()
    before_tanh = torch.atanh((actions - bias) / scale)
    for dimension in range(2):
        values = before_tanh[:, dimension].numpy()
        m, s = mean[dimension].item(), deviation[dimension].item()
        assert abs(values.mean() - m) < 5 * s / math.sqrt(samples)
        assert abs(values.std() - s) < 5 * s / math.sqrt(2 * samples)
        assert stats.kstest(values, stats.norm(m, s).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(before_tanh.T)[0, 1]) < 5 / math.sqrt(samples)  # dimensions draw on their own


def test_shipped_experts_samples_spread_as_its_head_says():
    state = torch.load(SHIPPED, weights_only=True)
    actor, samples = load_expert(SHIPPED), 20_000
    observation = 0.1 * torch.randn(1, 17, generator=torch.Generator().manual_seed(0))
    heads = reference_heads(state, observation)
    mean, deviation = heads["fc_mean"][0], reference_deviation(heads["fc_logstd"])[0]
    torch.manual_seed(0)
    actions = actor(observation.expand(samples, 17), deterministic=False)
    for dimension in range(6):
        # compared where tanh has squashed both, because some of this actor's dimensions saturate
        quantiles = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
        borders = torch.tanh(mean[dimension] + deviation[dimension] * quantiles)
        inner = borders.abs() < 0.9999
        below = (actions[:, dimension, None] < borders).double().mean(0)
        wanted = torch.from_numpy(stats.norm.cdf(quantiles.numpy()))
        assert ((below - wanted).abs()[inner] < 5 * 0.5 / math.sqrt(samples)).all()


def test_td3_has_nothing_to_sample(tmp_path):
    actor = load_expert(saved(tmp_path / "actor.pt", actor_state(5, 2, "td3")))
    observations = torch.randn(10, 5)
    assert torch.equal(actor(observations, deterministic=False), actor(observations, deterministic=True))


def test_cleanrls_td3_file_holds_the_actor_before_its_critics(tmp_path):
    state = actor_state(5, 2, "td3")
    torch.save((state, {"fc1.weight": torch.zeros(1)}, {}), tmp_path / "td3.cleanrl_model")
    alone = load_expert(saved(tmp_path / "actor.pt", state))
    observations = torch.randn(10, 5)
    assert torch.equal(load_expert(tmp_path / "td3.cleanrl_model")(observations), alone(observations))


def test_loading_and_answering_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    load_expert(SHIPPED)(torch.zeros(3, 17), deterministic=True)
    assert torch.equal(torch.get_rng_state(), before)


# How well it plays


def test_shipped_expert_scores_at_least_9500():
    policy = functools.partial(load_expert(SHIPPED), deterministic=True)
    environments = make("HalfCheetah-v5", 10)
    played = play(policy, environments, TEST_BANK.seeds(10))
    environments.close()
    assert played.returns.mean() >= 9500
    assert (played.lengths == 1000).all()


# Files that are no experts


def refusal(path):
    with pytest.raises(InputError) as caught:
        load_expert(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def without(key):
    return {name: value for name, value in actor_state(5, 2).items() if name != key}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        pytest.param(without("fc2.bias"), ["missing here: ['fc2.bias']"], id="missing layer"),
        pytest.param(without("action_scale"), ["missing here: ['action_scale']"], id="missing buffer"),
        pytest.param(without("fc_mean.weight"), ["'fc_mu.weight'", "'fc_logstd.bias'"], id="head of neither algorithm"),
        pytest.param(actor_state(5, 2) | {"fc9.bias": torch.zeros(2)}, ["unknown: ['fc9.bias']"], id="another layer"),
        pytest.param({"model": actor_state(5, 2)}, ["missing here", "unknown: ['model']"], id="wrapped in a dictionary"),
        pytest.param({}, ["missing here"], id="empty dictionary"),
        pytest.param([torch.zeros(3)], ["not an expert"], id="list"),
        pytest.param(actor_state(5, 2) | {"fc1.weight": torch.zeros(16)}, ["not an expert"], id="weight of rank 1"),
        pytest.param(actor_state(5, 2) | {"fc2.weight": torch.zeros(16, 9)}, ["not an expert"], id="layers that do not fit"),
        pytest.param(actor_state(5, 2) | {"action_scale": torch.ones(3)}, ["not an expert"], id="buffer of another size"),
        pytest.param(actor_state(5, 2) | {"fc1.bias": 1.0}, ["not an expert"], id="number for a tensor"),
    ],
)
def test_state_that_is_no_actor_is_refused_in_words(tmp_path, state, words):
    message = refusal(saved(tmp_path / "actor.pt", state))
    assert [word for word in words if word not in message] == []


def test_the_shipped_expert_of_another_environment_is_refused_though_its_dimensions_fit():
    with pytest.raises(InputError, match="is the shipped expert of HalfCheetah-v5, not of Walker2d-v5"):
        load_expert(SHIPPED, "Walker2d-v5")


def test_an_expert_of_ones_own_may_lie_beside_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints" / "experts"
    folder.mkdir(parents=True)
    saved(folder / "mysac.pt", actor_state(17, 6))
    monkeypatch.setattr("lightning_bc.demonstrations.experts.SHIPPED_EXPERTS", folder)
    assert load_expert("checkpoints/experts/mysac.pt", "HalfCheetah-v5").action_dim == 6


def test_missing_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    message = refusal(tmp_path / "nobody.pt")
    assert "no such expert file" in message
    assert "checkpoints/experts/HalfCheetah-v5.pt" in message


@pytest.mark.parametrize("content", [b"", b"not an actor\n" * 100], ids=["empty", "text"])
def test_file_that_is_no_torch_file_is_refused(tmp_path, content):
    path = tmp_path / "actor.pt"
    path.write_bytes(content)
    assert "Wanted: the state dict of a CleanRL SAC or TD3 actor" in refusal(path)


def test_pickled_object_is_refused_and_not_run(tmp_path, payload):
    bomb, folder = payload
    path = saved(tmp_path / "actor.pt", actor_state(5, 2) | {"fc1.weight": bomb})
    assert "Pickled objects are refused, not run" in refusal(path)
    assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists()  # so the file was dangerous
