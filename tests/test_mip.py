"""The minimal iterative policy against what its two regressions are known to find; all of it before the tanh."""

import pytest
import torch
from conftest import build_strategy, train

from lightning_bc.strategies import MIP

MEAN, SCALE, TIME = 0.1, 0.2, 0.9


def one_dimensional(**options):
    return build_strategy(MIP, observation_dim=1, action_low=[-1.0], action_high=[1.0], **options)


def perfect_second(observations, near):
    """E[u | t* u + (1 - t*) e] for u ~ Normal(MEAN, SCALE)."""
    variance = (TIME * SCALE) ** 2 + (1 - TIME) ** 2
    return MEAN + TIME * SCALE**2 / variance * (near - TIME * MEAN)


def test_loss_is_least_at_both_conditional_means(monkeypatch):
    """The least value is Var(u) of the first and Var(u | t* u + (1 - t*) e) of the second; a shift costs its square more."""
    strategy = one_dimensional(second_time=TIME)
    actions = (MEAN + SCALE * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))).tanh()
    least = SCALE**2 + SCALE**2 * (1 - TIME) ** 2 / ((TIME * SCALE) ** 2 + (1 - TIME) ** 2)
    for first_shift, second_shift in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5)):
        monkeypatch.setattr(strategy, "first", lambda seen, by=first_shift: torch.full_like(seen, MEAN + by))
        monkeypatch.setattr(strategy, "second", lambda seen, near, by=second_shift: perfect_second(seen, near) + by)
        torch.manual_seed(1)
        loss = float(strategy.loss(torch.zeros(len(actions), 1), actions)[0])
        assert loss == pytest.approx(least + first_shift**2 + second_shift**2, rel=0.01)


@torch.no_grad()
def test_it_acts_by_two_evaluations_of_which_the_second_sees_the_first():
    strategy, seen = build_strategy(MIP, second_time=TIME), []
    strategy.network.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    observations = torch.randn(4, 3)
    actions = strategy.act(observations, deterministic=True)
    (first_input, first), (second_input, second) = seen
    torch.testing.assert_close(first_input, torch.cat([observations, torch.zeros(4, 3)], dim=1))
    torch.testing.assert_close(second_input, torch.cat([observations, TIME * first, torch.ones(4, 1)], dim=1))
    assert torch.equal(actions, second.tanh())
    assert torch.equal(strategy.act(observations, deterministic=False), actions)


def test_from_between_two_humps_the_second_evaluation_leads_towards_one_of_them():
    """Its minimiser is h tanh(h x / s^2), x = near / t* and s = (1 - t*) / t*."""
    time, hump = 0.75, 0.6
    strategy, near = one_dimensional(second_time=time, hidden_sizes=(64, 64)), torch.linspace(-0.7, 0.7, 15)[:, None]
    torch.manual_seed(0)
    train(strategy, lambda: (torch.randn(512, 1), (hump * torch.randn(512, 1).sign()).tanh()), steps=750)
    with torch.no_grad():
        wanted = hump * (hump * near / ((1 - time) / time) ** 2).tanh()
        assert strategy.first(torch.zeros(1, 1)).abs() < 0.1
        assert (strategy.second(torch.zeros(15, 1), time * near) - wanted).abs().max() < 0.1
