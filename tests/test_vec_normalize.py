"""Observation statistics beside a policy against stable-baselines3's own VecNormalize, and pickles that are dangerous."""

import pickle

import gymnasium
import numpy as np
import pytest
import torch
from stable_models import model_of, refusal, saved

from lightning_bc.demonstrations import load_expert

vec_env = pytest.importorskip("stable_baselines3.common.vec_env")


def normalized(tmp_path, **options):
    """A model and its file, trained a little under VecNormalize, and the statistics of that."""
    environment = vec_env.VecNormalize(vec_env.DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")]), **options)
    model = model_of("PPO", environment, n_steps=64, batch_size=64).learn(64)
    model.save(tmp_path / "Pendulum-v1.zip")
    return model, tmp_path / "Pendulum-v1.zip", environment


@pytest.mark.parametrize("place", ["vecnormalize.pkl", "vec_normalize.pkl", "Pendulum-v1/vecnormalize.pkl"])
def test_observations_are_normalised_by_the_statistics_beside_the_file(tmp_path, place):
    model, path, environment = normalized(tmp_path, clip_obs=1.5, epsilon=0.25)
    (tmp_path / place).parent.mkdir(exist_ok=True)
    environment.save(tmp_path / place)
    observations = 3 * torch.randn(200, 3)
    wanted, _ = model.predict(environment.normalize_obs(observations.numpy()), deterministic=True)
    found = load_expert(path, "Pendulum-v1")(observations).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    without, _ = model.predict(observations.numpy(), deterministic=True)
    assert np.abs(found - without).max() > 0.1


def test_statistics_of_rewards_alone_change_nothing(tmp_path):
    model, path, environment = normalized(tmp_path, norm_obs=False)
    environment.save(tmp_path / "vecnormalize.pkl")
    observations = torch.randn(200, 3)
    wanted, _ = model.predict(observations.numpy(), deterministic=True)
    np.testing.assert_allclose(load_expert(path)(observations).numpy(), wanted, rtol=0, atol=1e-6)


def test_a_policy_whose_statistics_are_missing_is_refused(tmp_path):
    _, path, _ = normalized(tmp_path)
    message = refusal(path)
    assert "trained under VecNormalize" in message
    assert str(tmp_path / "vecnormalize.pkl") in message


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_statistics_are_not_run(tmp_path, payload, protocol):
    bomb, folder = payload
    model, path, environment = normalized(tmp_path, clip_obs=np.float32(1.5))
    statistics = tmp_path / "vecnormalize.pkl"
    environment.extra = bomb
    statistics.write_bytes(pickle.dumps(environment, protocol))
    observations = torch.randn(50, 3)
    wanted, _ = model.predict(environment.normalize_obs(observations.numpy()), deterministic=True)
    np.testing.assert_allclose(load_expert(path)(observations).numpy(), wanted, rtol=0, atol=1e-6)
    assert not folder.exists()
    pickle.loads(statistics.read_bytes())
    assert folder.exists()                                          # so the file was dangerous


def test_statistics_that_are_none_are_refused(tmp_path, payload):
    _, path = saved(tmp_path)
    statistics = vec_env.VecNormalize(vec_env.DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")]))
    statistics.obs_rms.mean = statistics.obs_rms.mean.astype(object)
    for content in (pickle.dumps(statistics), b"", b"nonsense", pickle.dumps({"mean": 0.0}), pickle.dumps(payload[0])):
        (tmp_path / "vecnormalize.pkl").write_bytes(content)
        assert "vecnormalize.pkl cannot be read" in refusal(path)
    assert not payload[1].exists()
