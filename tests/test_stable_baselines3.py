"""Actors of stable-baselines3's files against that package, and files that are refused or dangerous."""

import base64
import io
import json
import math
import pickle
import zipfile

import gymnasium
import numpy as np
import pytest
import torch
from scipy import stats
from stable_models import SMALL, Box, algorithm, model_of, observations_of, refusal, saved
from torch import nn

from lightning_bc.demonstrations import load_expert

pytest.importorskip("stable_baselines3")


def rewritten(path, change):
    """The file again, after ``change`` of its contents, name to bytes."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    change(contents)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def with_data(path, **changes):
    def change(contents):
        contents["data"] = json.dumps(json.loads(contents["data"]) | changes).encode()

    return rewritten(path, change)


# Actions


@pytest.mark.parametrize("name", ["SAC", "TQC", "TD3", "DDPG", "PPO", "A2C"])
def test_deterministic_actions_are_those_of_stable_baselines3(tmp_path, name):
    model, path = saved(tmp_path, name)
    observations = observations_of()
    wanted, _ = model.predict(observations.numpy(), deterministic=True)
    expert = load_expert(path)
    np.testing.assert_allclose(expert(observations).numpy(), wanted, rtol=0, atol=1e-6)
    assert (expert.observation_dim, expert.action_dim) == (4, 2)
    assert len(np.unique(wanted)) > 100                             # else the bounds alone are compared


@pytest.mark.parametrize("name", ["SAC", "TQC", "PPO", "A2C"])
def test_sampled_actions_have_the_distribution_of_stable_baselines3(tmp_path, name):
    model, path = saved(tmp_path, name)
    observation, samples = observations_of(1, 0.5), 20_000
    torch.manual_seed(0)
    actions = load_expert(path)(observation.expand(samples, 4), deterministic=False).numpy()
    wanted, _ = model.predict(observation.expand(samples, 4).numpy(), deterministic=False)
    for dimension in range(2):
        assert stats.ks_2samp(actions[:, dimension], wanted[:, dimension]).pvalue > 1e-3
        assert actions[:, dimension].std() > 0.1
    assert abs(np.corrcoef(actions.T)[0, 1] - np.corrcoef(wanted.T)[0, 1]) < 10 / math.sqrt(samples)


def test_td3_has_nothing_to_sample(tmp_path):
    expert = load_expert(saved(tmp_path, "TD3")[1])
    assert torch.equal(expert(observations_of(), deterministic=False), expert(observations_of()))


@pytest.mark.parametrize("name", ["SAC", "TD3", "PPO"])
@pytest.mark.parametrize("options", [{"activation_fn": cls} for cls in (nn.ReLU, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.GELU)])
def test_the_activation_is_read_from_the_text_beside_the_pickle(tmp_path, name, options):
    model, path = saved(tmp_path, name, policy_kwargs=SMALL | options)
    wanted, _ = model.predict(observations_of().numpy(), deterministic=True)
    np.testing.assert_allclose(load_expert(path)(observations_of()).numpy(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SAC", {"net_arch": []}),
        ("TD3", {"net_arch": [8]}),
        ("PPO", {"net_arch": {"pi": [8, 8, 8], "vf": [4]}, "log_std_init": -2.0, "ortho_init": False}),
        ("SAC", {"n_critics": 1, "optimizer_class": torch.optim.SGD, "share_features_extractor": True}),
    ],
)
def test_other_architectures_are_read(tmp_path, name, options):
    model, path = saved(tmp_path, name, policy_kwargs=options)
    wanted, _ = model.predict(observations_of().numpy(), deterministic=True)
    np.testing.assert_allclose(load_expert(path)(observations_of()).numpy(), wanted, rtol=0, atol=1e-6)


def test_bounds_are_exactly_the_environments_where_it_is_known(tmp_path):
    environment = gymnasium.make("Humanoid-v5")                     # 0.4 has no short binary form
    model = model_of("TD3", environment)
    model.save(tmp_path / "model.zip")
    expert = load_expert(tmp_path / "model.zip", "Humanoid-v5")
    assert torch.equal(expert.action_high, torch.from_numpy(environment.action_space.high))
    assert expert.observation_dim == environment.observation_space.shape[0]


def test_without_bounds_as_text_the_environment_is_needed(tmp_path):
    model = model_of("SAC", "Pendulum-v1")
    model.save(tmp_path / "model.zip")
    path = with_data(tmp_path / "model.zip", action_space={":type:": "<class 'gymnasium.spaces.box.Box'>"})
    assert "does not hold the action bounds" in refusal(path)
    observations = torch.randn(100, 3)
    wanted, _ = model.predict(observations.numpy(), deterministic=True)
    np.testing.assert_allclose(load_expert(path, "Pendulum-v1")(observations).numpy(), wanted, rtol=0, atol=1e-6)


# Files that are dangerous or damaged


def test_pickles_in_the_data_are_not_opened(tmp_path, payload):
    bomb, folder = payload
    model, path = saved(tmp_path, "SAC")
    pickled = base64.b64encode(pickle.dumps(bomb)).decode()

    def change(contents):
        data = json.loads(contents["data"])
        objects = [value for value in data.values() if isinstance(value, dict) and ":serialized:" in value]
        assert len(objects) > 3
        for value in objects:
            value[":serialized:"] = pickled
        contents["data"] = json.dumps(data).encode()

    rewritten(path, change)
    wanted, _ = model.predict(observations_of().numpy(), deterministic=True)
    np.testing.assert_allclose(load_expert(path)(observations_of()).numpy(), wanted, rtol=0, atol=1e-6)
    assert not folder.exists()
    with pytest.raises(Exception):                                  # noqa: B017, PT011
        algorithm("SAC").load(path)
    assert folder.exists()                                          # so the file was dangerous


def test_a_policy_that_is_a_program_is_refused_and_not_run(tmp_path, payload):
    bomb, folder = payload
    _, path = saved(tmp_path)

    def change(contents):
        state = torch.load(io.BytesIO(contents["policy.pth"]), weights_only=True)
        buffer = io.BytesIO()
        torch.save(state | {"actor.mu.weight": bomb}, buffer)
        contents["policy.pth"] = buffer.getvalue()

    assert "Pickled objects are refused, not run" in refusal(rewritten(path, change))
    assert not folder.exists()


def test_damaged_and_foreign_archives_are_refused(tmp_path):
    _, path = saved(tmp_path)
    whole = path.read_bytes()
    assert "lacks" not in refusal(rewritten(path, lambda contents: contents.pop("data")))
    path.write_bytes(whole)
    assert "cannot be read" in refusal(rewritten(path, lambda contents: contents.update(data=b"{")))
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as an expert" in refusal(path)
    path.write_bytes(whole)
    assert "without a policy.pth" in refusal(rewritten(path, lambda contents: contents.pop("policy.pth")))
    path.write_bytes(whole)
    position = whole.index(b"policy.pth") + 5000
    path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
    assert "is damaged: policy.pth in it" in refusal(path)


# Policies that are not read


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        pytest.param("SAC", {"use_sde": True}, ["gSDE", "use_sde"], id="gSDE, off-policy"),
        pytest.param("PPO", {"use_sde": True}, ["gSDE", "use_sde"], id="gSDE, on-policy"),
        pytest.param("PPO", {"environment": "CartPole-v1"}, ["action_space", "Discrete", "Box"], id="discrete actions"),
        pytest.param("PPO", {"policy_kwargs": {"activation_fn": nn.PReLU}}, ["unknown"], id="activation with weights"),
        pytest.param("SAC", {"policy_kwargs": {"activation_fn": nn.Softshrink}}, ["Softshrink", "ReLU"], id="activation"),
    ],
)
def test_other_policies_are_refused_by_name(tmp_path, name, options, words):
    message = refusal(saved(tmp_path, name, **options)[1])
    assert [word for word in words if word not in message] == []


class Image(Box):
    observation_space = gymnasium.spaces.Box(0, 255, (36, 36, 3), np.uint8)


class Named(Box):
    observation_space = gymnasium.spaces.Dict({"place": Box.observation_space})


@pytest.mark.parametrize("name", ["TD3", "PPO"])
@pytest.mark.parametrize(
    ("environment", "policy", "word"), [(Image, "CnnPolicy", "CNN"), (Named, "MultiInputPolicy", "Dict")]
)
def test_policies_of_images_and_dictionaries_are_refused_by_name(tmp_path, name, environment, policy, word):
    assert word in refusal(saved(tmp_path, name, environment=environment(), policy=policy)[1])


def test_recurrent_policies_are_refused_by_name(tmp_path):
    contrib = pytest.importorskip("sb3_contrib")
    model = contrib.RecurrentPPO("MlpLstmPolicy", Box(), device="cpu", policy_kwargs={"lstm_hidden_size": 8})
    model.save(tmp_path / "model.zip")
    assert "a recurrent policy" in refusal(tmp_path / "model.zip")


def test_policies_and_extractors_of_ones_own_are_refused_by_name(tmp_path):
    from stable_baselines3.common.torch_layers import FlattenExtractor
    from stable_baselines3.sac.policies import SACPolicy

    class Halved(FlattenExtractor):
        def forward(self, observations):
            return super().forward(observations) / 2

    class OwnPolicy(SACPolicy):
        pass

    path = saved(tmp_path, "SAC", policy_kwargs=SMALL | {"features_extractor_class": Halved})[1]
    assert "features_extractor_class=" in refusal(path)
    assert "Halved" in refusal(path)
    assert "policy_class" in refusal(saved(tmp_path, "SAC", policy=OwnPolicy)[1])
    load_expert(saved(tmp_path, "SAC", policy_kwargs=SMALL | {"features_extractor_class": FlattenExtractor})[1])


# The environment


def test_a_file_of_another_environment_is_refused_with_both(tmp_path):
    path = saved(tmp_path)[1]
    for environment_id, dimension in (("Hopper-v5", 11), ("Swimmer-v5", 8)):  # three actions; two, as many as its own
        message = refusal(path, environment_id)
        assert f"is an expert for 4-dimensional observations; {environment_id} has {dimension}-dimensional ones" in message
        assert "\n" not in message
    assert "2-dimensional actions; InvertedPendulum-v5 has 1-dimensional" in refusal(path, "InvertedPendulum-v5")


def test_other_action_bounds_than_the_environments_are_refused(tmp_path):
    environment = gymnasium.wrappers.RescaleAction(gymnasium.make("Pendulum-v1"), np.float32(-1), np.float32(1))
    model_of("SAC", environment).save(tmp_path / "model.zip")
    message = refusal(tmp_path / "model.zip", "Pendulum-v1")
    assert "low bounds [-1.0]; Pendulum-v1 has [-2.0]" in message
