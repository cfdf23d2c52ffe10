"""Strategies with a history and a horizon: what they learn from, and what lies behind an episode's end."""

import pytest
import torch
from conftest import build_strategy

from lightning_bc.errors import InputError
from lightning_bc.strategies import ACT, MIP, MSE, Diffusion, FlowMatching, MeanFlow, strategies
from lightning_bc.strategies.offline.windows import mean_squared_error

CHUNKING = [ACT, MIP, MSE, Diffusion, FlowMatching, MeanFlow]


@pytest.mark.parametrize("cls", [cls for cls in CHUNKING if cls is not ACT])
def test_actions_behind_the_end_of_an_episode_are_not_learnt(cls):
    """The last layer's rows of an action that is never within the episode get no gradient, those of the others do."""
    strategy = build_strategy(cls, history=2, horizon=4, chunk=3)   # 4 actions of 2 dimensions
    observations, actions = torch.randn(6, 2, 3), torch.rand(6, 4, 2) - 0.5
    within = torch.arange(4) < torch.tensor([1, 2, 2, 2, 1, 1]).unsqueeze(1)
    strategy.loss(observations, actions, within)[0].backward()
    gradient = strategy.network.layers[-1].weight.grad              # (8, hidden)
    assert (gradient[:4].abs().sum(1) > 0).all()
    assert torch.equal(gradient[4:], torch.zeros_like(gradient[4:]))


def test_the_error_is_the_mean_over_the_actions_within():
    predictions, targets = torch.randn(5, 6), torch.randn(5, 6)     # a horizon of 3 actions of 2 dimensions
    within = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]]).bool()
    squares = [
        (predictions[row, 2 * step + d] - targets[row, 2 * step + d]) ** 2
        for row in range(5) for step in range(3) for d in range(2) if within[row, step]
    ]  # fmt: skip
    torch.testing.assert_close(mean_squared_error(predictions, targets, within), torch.stack(squares).mean())
    everywhere = torch.ones_like(within)
    torch.testing.assert_close(
        mean_squared_error(predictions, targets, everywhere), mean_squared_error(predictions, targets, None)
    )


@pytest.mark.parametrize("cls", CHUNKING)
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 1, 1), (1, 4, 2), (3, 4, 4)])
def test_a_policy_answers_with_its_chunk_within_the_bounds(cls, sizes):
    history, horizon, chunk = sizes
    strategy = build_strategy(cls, history=history, horizon=horizon, chunk=chunk)
    assert strategy.has_windows == (history > 1 or horizon > 1)
    observations = torch.randn(5, history, 3) if strategy.has_windows else torch.randn(5, 3)
    for deterministic in (True, False):
        actions = strategy(observations, deterministic)
        assert actions.shape == ((5, chunk, 2) if strategy.has_windows else (5, 2))
        assert (actions >= torch.tensor([-2.0, 0.0])).all()
        assert (actions <= torch.tensor([1.0, 3.0])).all()


@pytest.mark.parametrize("cls", CHUNKING)
def test_more_actions_than_are_learnt_cannot_be_played(cls):
    with pytest.raises(InputError, match=r"--model.chunk 5: wanted at most --model.horizon, 4"):
        build_strategy(cls, horizon=4, chunk=5)


def test_strategies_without_such_options_have_no_windows():
    for cls in strategies().values():
        assert (cls.history, cls.horizon, cls.chunk) == (1, 1, 1)
