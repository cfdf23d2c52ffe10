"""Two good ways to act: what is multimodal does either, the others what lies between. Strategies are found by themselves."""

import copy
import functools
import math

import pytest
import torch
from conftest import build_strategy, train

from lightning_bc.strategies import (
    ACT,
    Autoregressive,
    Diffusion,
    Ensemble,
    FlowMatching,
    GaussianMixture,
    GaussianProcess,
    OfflineStrategy,
    strategies,
)

OFFLINE = {name: cls for name, cls in strategies().items() if issubclass(cls, OfflineStrategy)}
MULTIMODAL = {name: cls for name, cls in OFFLINE.items() if cls.multimodal}
UNIMODAL = {name: cls for name, cls in OFFLINE.items() if not cls.multimodal and cls is not ACT}  # any action is a median
HUMP = 0.6
STEPS = {"GaussianProcess": 100, "MeanFlow": 1250}
"""Of training, of those that need other than 750."""


def two_humps(pairs):
    """Actions near +0.6 or -0.6, whichever comes, shifted a little by the observation."""
    observations = torch.randn(pairs, 1)
    side = torch.randint(0, 2, (pairs, 1)) * 2 - 1
    return observations, HUMP * side + 0.05 * observations + 0.05 * torch.randn(pairs, 1)


@functools.cache
def trained_on_two_humps(cls):
    """A strategy of this class that has learnt them."""
    members = {"members": ["Autoregressive", "FlowMatching"]} if cls is Ensemble else {}  # it is multimodal where these are
    strategy = build_strategy(cls, observation_dim=1, action_low=[-1.0], action_high=[1.0], hidden_sizes=(64, 64), **members)
    if cls is GaussianProcess:                                      # which from little noise takes them for a rough function
        torch.nn.init.zeros_(strategy.network.log_noise)
    torch.manual_seed(0)
    train(strategy, lambda: two_humps(512), steps=STEPS.get(cls.__name__, 750))
    return strategy


@pytest.mark.parametrize("cls", UNIMODAL.values(), ids=UNIMODAL)
def test_one_action_for_two_humps_lies_between_them(cls):
    strategy, observations = trained_on_two_humps(cls), torch.linspace(-1, 1, 50)[:, None]
    with torch.inference_mode():
        actions = strategy(observations, deterministic=True)
    assert actions.abs().max() < HUMP / 2


SLOW = dict.fromkeys(("MeanFlow", "Ensemble"), pytest.mark.slow)


@pytest.mark.parametrize("cls", [pytest.param(cls, marks=SLOW.get(name, ()), id=name) for name, cls in MULTIMODAL.items()])
def test_samples_lie_on_both_humps(cls):
    strategy, samples = trained_on_two_humps(cls), 4000
    torch.manual_seed(0)
    with torch.inference_mode():
        actions = strategy(0.5 * torch.randn(samples, 1), deterministic=False)
    on_left = ((actions + HUMP).abs() < 0.4).double().mean()
    on_right = ((actions - HUMP).abs() < 0.4).double().mean()
    binomial_tolerance = 3 * math.sqrt(0.25 / samples)
    assert on_left > 0.45 - binomial_tolerance
    assert on_right > 0.45 - binomial_tolerance


@pytest.mark.parametrize("cls", [GaussianMixture, Autoregressive], ids=lambda cls: cls.__name__)
def test_the_likeliest_action_lies_on_a_hump(cls):
    strategy, observations = trained_on_two_humps(cls), torch.linspace(-1, 1, 50)[:, None]
    with torch.inference_mode():
        actions = strategy(observations, deterministic=True)
    assert ((actions.abs() - HUMP).abs() < 0.2).all()


@pytest.mark.parametrize("cls", [Diffusion, FlowMatching], ids=lambda cls: cls.__name__)
def test_the_noise_at_the_start_decides_for_a_hump(cls):
    """The upper half of the noise is the right hump, though noise is turned down on the way (noise scale 0.3)."""
    strategy, noises = copy.deepcopy(trained_on_two_humps(cls)), torch.tensor([[-1.5], [-1.0], [1.0], [1.5]])
    strategy.noise_scale, strategy.start_noise = 0.3, noises.repeat(50, 1)
    observations = torch.linspace(-1, 1, 50)[:, None].repeat_interleave(4, dim=0)
    with torch.inference_mode():
        actions = strategy(observations, deterministic=True)
    assert ((actions - HUMP * strategy.start_noise.sign()).abs() < 0.2).all()
