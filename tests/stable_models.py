"""Models of stable-baselines3 and their files, which several test files read."""

import gymnasium
import numpy as np
import pytest
import torch

from lightning_bc.demonstrations import load_expert
from lightning_bc.errors import InputError

OFF_POLICY = {"SAC", "TQC", "TD3", "DDPG"}
SMALL = {"net_arch": [16, 8]}


class Box(gymnasium.Env):
    """An environment of four observed numbers and two actions, whose bounds are asymmetric."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
    action_space = gymnasium.spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 3.25], np.float32))

    def reset(self, **_):
        return np.zeros(4, np.float32), {}

    def step(self, action):
        return np.zeros(4, np.float32), 0.0, False, False, {}


def algorithm(name):
    return getattr(pytest.importorskip("sb3_contrib" if name == "TQC" else "stable_baselines3"), name)


def model_of(name, environment=None, policy="MlpPolicy", **options):
    """An untrained model whose weights are random everywhere, also where it begins with small or constant ones."""
    options = ({"buffer_size": 10} if name in OFF_POLICY else {}) | options
    options["policy_kwargs"] = dict(options.get("policy_kwargs", SMALL))  # it adds to them
    model = algorithm(name)(policy, environment or Box(), seed=0, device="cpu", **options)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in model.policy.parameters():
            weights.copy_(0.6 * torch.randn(weights.shape))
    return model


def saved(tmp_path, name="SAC", **options):
    model, path = model_of(name, **options), tmp_path / "model.zip"
    model.save(path)
    return model, path


def observations_of(batch=500, scale=2.0):
    return scale * torch.randn(batch, 4, generator=torch.Generator().manual_seed(1))


def refusal(path, environment_id=None):
    with pytest.raises(InputError) as caught:
        load_expert(path, environment_id)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)
