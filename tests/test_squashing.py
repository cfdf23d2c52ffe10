"""Actions before the tanh, against numpy and torch.distributions."""

import math

import numpy as np
import pytest
import torch
from conftest import BUDGET, build_strategy, fit
from torch.distributions.transforms import TanhTransform

from lightning_bc.files import write
from lightning_bc.strategies import GaussianProcess, OfflineStrategy, strategies
from lightning_bc.strategies.offline.squashing import SATURATED_RANGE, Squashing

SATURATED = torch.tensor([[-1.0], [1.0], [0.2], [0.9]])
SQUASHING = [name for name, cls in strategies().items() if issubclass(cls, OfflineStrategy) and name != "Autoregressive"]


def fitted(actions):
    """A squashing chosen by ``actions``, in double precision."""
    squashing = Squashing()
    squashing.fit(actions)
    return squashing.double()


def test_unsquash_inverts_the_tanh():
    squashing, actions = fitted(torch.zeros(1, 7)), torch.linspace(-0.999, 0.999, 1001, dtype=torch.float64).reshape(-1, 7)
    torch.testing.assert_close(squashing.unsquash(actions).tanh(), actions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(squashing.unsquash(actions).numpy(), np.arctanh(actions.numpy()), atol=1e-12)


@pytest.mark.parametrize("actions", [torch.zeros(1, 1), SATURATED], ids=["inner", "saturated"])
def test_what_is_unsquashed_comes_back(actions):
    squashing, actions = fitted(actions), torch.linspace(-0.999, 0.999, 1001, dtype=torch.float64)
    torch.testing.assert_close(squashing(squashing.unsquash(actions)), actions, rtol=0, atol=1e-12)
    largest = squashing.unsquash(torch.tensor([-9.0, 9.0], dtype=torch.float64))
    assert torch.equal(squashing.bounded(torch.tensor([-9.0, 9.0], dtype=torch.float64)), largest)


def test_log_volume_equals_torch_distributions():
    squashing, before = fitted(torch.zeros(1, 7)), torch.linspace(-3.7, 3.7, 1001, dtype=torch.float64).reshape(-1, 7)
    reference = TanhTransform().log_abs_det_jacobian(before, before.tanh()).sum(-1)
    torch.testing.assert_close(squashing.log_volume(before.tanh()), reference, rtol=1e-9, atol=1e-9)
    single = Squashing().log_volume(before.tanh().float())
    torch.testing.assert_close(single, reference.float(), rtol=1e-4, atol=1e-3)


def test_log_volume_is_that_of_the_map_where_actions_saturate():
    squashing, u = fitted(SATURATED), torch.linspace(-1.4, 1.4, 50, dtype=torch.float64)
    jacobian = torch.func.vmap(torch.func.grad(squashing))(u)
    torch.testing.assert_close(squashing.log_volume(squashing(u).unsqueeze(-1)), jacobian.log())


def test_actions_on_and_beyond_the_bounds_count_as_a_thousandth_within():
    bounds, within = torch.tensor([[-1.0, 1.0, -7.0, 7.0]]), torch.tensor([[-0.999, 0.999, -0.999, 0.999]])
    squashing = Squashing()
    assert torch.equal(squashing.unsquash(bounds), squashing.unsquash(within))
    assert torch.equal(squashing.log_volume(bounds), squashing.log_volume(within))
    wanted = torch.tensor([[-3.8002, 3.8002, -3.8002, 3.8002]])
    torch.testing.assert_close(squashing.unsquash(bounds), wanted, rtol=0, atol=1e-3)
    assert squashing.log_volume(bounds).isfinite().all()


@pytest.mark.parametrize(("on_bounds", "moves"), [(1, False), (3, True)], ids=["one of two hundred", "three"])
def test_bounds_move_in_where_more_than_a_hundredth_of_the_actions_lie_on_them(on_bounds, moves):
    actions = torch.linspace(-0.5, 0.5, 100).unsqueeze(1).repeat(1, 2)
    actions[:on_bounds, 0] = 1.0
    assert float(fitted(actions).range) == pytest.approx(SATURATED_RANGE if moves else 1.0)


def test_an_action_that_stays_on_its_bound_moves_none():
    actions = torch.linspace(-0.5, 0.5, 100).unsqueeze(1).repeat(1, 3)
    actions[:, 1] = 1.0
    assert fitted(actions).is_plain
    assert fitted(actions[:, 1:2]).is_plain


@pytest.mark.parametrize("strategy", ["MSE", "Ensemble", "Autoregressive"])
def test_bounds_that_move_are_said_once(strategy, data, capsys):
    """By how many members there may be, and not at all by what does not squash."""
    columns = torch.load(data)
    columns["actions"] = torch.tensor([3.0, 1.0, -3.0]).repeat(40).unsqueeze(1)
    write(data, columns)
    fit(data, strategy, BUDGET + (" --model.members [MSE,Gaussian]" if strategy == "Ensemble" else ""))
    said = capsys.readouterr().out.count("of their numbers lie on the bounds")
    assert said == (strategy != "Autoregressive")


@torch.no_grad()
def put_outputs_on_the_bounds(strategy):
    """Whatever is observed, the actor says arctanh(c) and a little more."""
    for parameter in strategy.actor.parameters():
        parameter.zero_()
    if isinstance(strategy, GaussianProcess):
        strategy.network.weights.zero_()
        bias = strategy.center
    else:
        *_, last = (module for module in strategy.actor.modules() if isinstance(module, torch.nn.Linear))
        bias = last.bias
    bias.fill_(math.atanh(SATURATED_RANGE) + 1e-4)


@pytest.mark.parametrize("name", SQUASHING)
def test_every_strategy_can_play_the_bounds_of_actions_that_saturate(name):
    """Outputs of arctanh(c) and more are the bound, which a policy reaches that need not be infinitely sure."""
    members = {"members": ["MSE", "GaussianProcess"]} if name == "Ensemble" else {}  # autoregressive ones do not squash
    strategy = build_strategy(strategies()[name], **members)
    strategy.fit_actions(SATURATED.expand(4, 2))
    for one in getattr(strategy, "members", [strategy]):
        put_outputs_on_the_bounds(one)
    wanted = torch.tensor([[1.0, 3.0]])                             # build_strategy's upper bounds
    torch.testing.assert_close(strategy(torch.zeros(1, 3)), wanted, rtol=0, atol=0.05)
