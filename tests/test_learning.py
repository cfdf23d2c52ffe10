"""Learning checks on the real task, of minutes each: pytest -m slow."""

import json
import shutil
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from conftest import REPOSITORY
from gymnasium.envs.classic_control import PendulumEnv

from lightning_bc.cli import main
from lightning_bc.demonstrations import collect
from lightning_bc.strategies import OfflineStrategy, strategies

pytestmark = pytest.mark.slow

EXPERT = REPOSITORY / "checkpoints" / "experts" / "HalfCheetah-v5.pt"
OFFLINE = [name for name, cls in strategies().items() if issubclass(cls, OfflineStrategy)]


@pytest.fixture(scope="module", params=["deterministic", "sampled"])
def demonstrations(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / f"{request.param}.pt"
    return collect("HalfCheetah-v5", str(EXPERT), str(path), pairs=400_000, actions=request.param)


@pytest.mark.parametrize("strategy", OFFLINE)
def test_every_strategy_clones_half_cheetah(strategy, demonstrations, tmp_path, monkeypatch):
    """A sixth of the full data and four passes: a collapsed policy stays under 0.1, a sound one passes 0.7."""
    monkeypatch.chdir(tmp_path)
    flags = "--trainer.max_steps 6000 --rollouts.eval_freq 600"
    main(["fit", "--model", strategy, "--data.path", str(demonstrations), *flags.split()])
    assert normalized() > 0.7


@pytest.mark.parametrize(("config", "least"), [("gail", 0.4), ("airl", 0.4), ("sac", 0.15)])
def test_every_strategy_that_acts_learns_half_cheetah(config, least, tmp_path, monkeypatch):
    """The first 50,000 environment steps; from the same trajectory, cloning comes to 0.18 on average."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EXPERT.parent, tmp_path / "checkpoints" / "experts")    # the scale of what reads no demonstrations
    flags = ["--config", str(REPOSITORY / "configs" / f"{config}.yaml"), "--model.total_environment_steps", "50000"]
    if config != "sac":
        path = collect("HalfCheetah-v5", str(EXPERT), "trajectory.pt", pairs=1000, actions="deterministic")
        flags += ["--data.path", str(path), "--data.validation_fraction", "0"]
    main(["fit", *flags])
    assert normalized() > least


class FarBounds(PendulumEnv):
    """A pendulum that takes torques of 2 at most, though its action space promises 200."""

    def __init__(self, **options):
        super().__init__(**options)
        self.action_space = gymnasium.spaces.Box(-200.0, 200.0, (1,), np.float32)


gymnasium.register("FarBounds-v0", FarBounds, max_episode_steps=200)


def swing_up(observations):
    """Full torque as the energy wants it, and a linear controller at the top: (pairs, 3) to (pairs, 1)."""
    cosine, sine, speed = observations.T
    energy = speed**2 / 6 + 5 * cosine - 5
    balancing = -12 * np.arctan2(sine, cosine) - 3.5 * speed
    is_near = (cosine > 0.9) & (np.abs(speed) < 3)
    return np.where(is_near, balancing, -2 * np.sign(speed * energy + 1e-9)).clip(-2, 2)[:, None].astype(np.float32)


@pytest.mark.parametrize("strategy", ["MSE", "GaussianMixture", "VAE", "Autoregressive", "FlowMatching", "Diffusion"])
def test_a_switching_expert_is_cloned_far_from_the_bounds(strategy, tmp_path, monkeypatch):
    """Deterministic and sampled: a code must not say what the observation says, nor bins be as wide as the bounds."""
    monkeypatch.chdir(tmp_path)
    path = collect("FarBounds-v0", "test_learning:swing_up", "pendulum.pt", pairs=20_000)
    flags = "--trainer.max_steps 10000 --rollouts.eval_freq 10000 --rollouts.workers 0"
    main(["fit", "--model", strategy, "--data.path", str(path), *flags.split()])
    assert normalized() > 0.95
    assert strategy == "MSE" or normalized("sampled_normalized") > 0.95


def normalized(name="normalized"):
    """What the only run here came to."""
    return json.loads(next(Path("lightning_logs").glob("*/results.json")).read_text())[name]
