"""The ensemble of critics against plain layers."""

import pytest
import torch
from torch.nn import functional as F

from lightning_bc.strategies.online.critics import Critics

OBSERVATION_DIM, ACTION_DIM = 3, 2


def test_each_critic_is_a_plain_network_of_its_slices():
    torch.manual_seed(0)
    critics = Critics(OBSERVATION_DIM + ACTION_DIM, hidden_sizes=(16, 8), members=3)
    observations, actions = torch.randn(20, OBSERVATION_DIM), torch.randn(20, ACTION_DIM)
    values = critics(observations, actions)
    assert values.shape == (3, 20)
    for member in range(3):
        hidden = torch.cat([observations, actions], dim=-1)
        for layer, size in enumerate((16, 8)):
            hidden = F.linear(hidden, critics.weights[layer][member].T, critics.biases[layer][member, 0])
            hidden = F.relu(F.layer_norm(hidden, (size,)))
        expected = F.linear(hidden, critics.weights[-1][member].T, critics.biases[-1][member, 0])
        torch.testing.assert_close(values[member], expected[:, 0])


def test_critics_begin_apart_and_learn_apart():
    torch.manual_seed(0)
    critics = Critics(OBSERVATION_DIM + ACTION_DIM, members=3)
    observations, actions = torch.randn(20, OBSERVATION_DIM), torch.randn(20, ACTION_DIM)
    values = critics(observations, actions)
    assert len({tuple(row.tolist()) for row in values}) == 3
    gradients = torch.autograd.grad(values[1].sum(), list(critics.parameters()))
    for gradient in gradients:
        assert gradient[1].any()
        assert not gradient[0].any()
        assert not gradient[2].any()


def test_weights_begin_as_those_of_linear_layers():
    torch.manual_seed(0)
    critics = Critics(50, hidden_sizes=(256,), members=2)
    linear = torch.nn.Linear(50, 256)
    for ours, theirs in ((critics.weights[0], linear.weight), (critics.biases[0], linear.bias)):
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.02)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)
