"""Function approximators against their equations."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_bc.networks import MLP, ResidualMLP

ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
}


@pytest.mark.parametrize(
    ("hidden_sizes", "layers"),
    [
        pytest.param((), [(5, 2)], id="linear"),
        pytest.param((7,), [(5, 7), (7, 2)], id="one hidden layer"),
        pytest.param((7, 3, 4), [(5, 7), (7, 3), (3, 4), (4, 2)], id="three hidden layers of different widths"),
    ],
)
def test_mlp_has_the_layers_asked_for_and_no_other_parameters(hidden_sizes, layers):
    network = MLP(5, 2, hidden_sizes)
    linear = [module for module in network.layers if isinstance(module, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == layers
    assert sum(p.numel() for p in network.parameters()) == sum(size_in * size_out + size_out for size_in, size_out in layers)
    assert len(network.layers) == 2 * len(layers) - 1  # an activation between the layers, none after the last


@pytest.mark.parametrize("initial_scale", [0.3, 2.0])
def test_initial_weights_and_not_biases_are_multiplied(initial_scale):
    torch.manual_seed(0)
    wanted = [torch.nn.Linear(5, 7), torch.nn.Linear(7, 2)]
    torch.manual_seed(0)
    network = MLP(5, 2, (7,), initial_scale=initial_scale)
    for layer, own in zip(wanted, (network.layers[0], network.layers[2]), strict=True):
        torch.testing.assert_close(own.weight, initial_scale * layer.weight)
        torch.testing.assert_close(own.bias, layer.bias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_equals_a_computation_in_numpy(activation):
    torch.manual_seed(0)
    network = MLP(4, 3, (8, 6), activation)
    inputs = np.random.default_rng(0).standard_normal((10, 4))
    hidden = inputs
    linear = [module for module in network.layers if isinstance(module, torch.nn.Linear)]
    for index, layer in enumerate(linear):
        hidden = hidden @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        if index < len(linear) - 1:
            hidden = ACTIVATIONS[activation](hidden)
    np.testing.assert_allclose(network.double()(torch.from_numpy(inputs)).detach().numpy(), hidden, atol=1e-12)


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_residual_mlp_equals_its_equation(blocks):
    torch.manual_seed(0)
    network = ResidualMLP(4, 3, width=8, blocks=blocks, activation="silu")
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)  # LayerNorm's own would be 1 and 0, which hides a forgotten one
    weights = dict(network.named_parameters())

    def norm(hidden, name):
        centred = hidden - hidden.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(hidden, name):
        return hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    inputs = torch.randn(10, 4)
    hidden = linear(inputs, "embed")
    for block in range(blocks):
        inside = F.silu(linear(norm(hidden, f"blocks.{block}.0"), f"blocks.{block}.1"))
        hidden = hidden + linear(inside, f"blocks.{block}.3")
    torch.testing.assert_close(network(inputs), linear(norm(hidden, "output.0"), "output.1"), rtol=1e-4, atol=1e-4)
    assert len(weights) == 2 + 6 * blocks + 4


def test_residual_mlp_keeps_gradients_alive_when_deep():
    torch.manual_seed(0)
    network = ResidualMLP(4, 1, width=16, blocks=50)
    network(torch.randn(32, 4)).sum().backward()
    assert network.embed.weight.grad.norm() > 1e-2
