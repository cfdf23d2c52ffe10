"""The function approximators that strategies are built on, chosen by ``model.network.class_path``.

A strategy calls its network factory with (input_size, output_size); everything else (widths, depth, activation) is the
network's own and is set in YAML or by flags:

    --model.network ResidualMLP --model.network.width 512 --model.network.blocks 3
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

Activation = Literal["relu", "gelu", "silu", "tanh", "elu"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
}


class Network(nn.Module):
    """A function from (batch, input_size) to (batch, output_size); ``--help`` lists its subclasses.

    Attributes:
        settings: the arguments behind these two that it was built with, of which an exported policy builds it again.
    """

    settings: Mapping[str, Any] = {}


NetworkFactory = Callable[[int, int], Network]
"""Builds a network from input_size and output_size."""


class MLP(Network):
    """Multi-layer perceptron: linear layers with an activation between them.

    Three hidden layers rather than the usual two, and initial weights of a third of torch's usual size, both for few
    demonstrations. A network with small initial weights has to learn its features from the data; one with large initial
    weights stays close to its random initial features (rich and lazy learning: Chizat 2019,
    https://arxiv.org/abs/1812.07956), whose outputs away from the data are arbitrary. docs/action-models.md compares
    networks.

    Args:
        input_size: size of the input; the strategy sets it.
        output_size: size of the output; the strategy sets it.
        hidden_sizes: widths of the hidden layers.
        activation: nonlinearity after each hidden layer.
        initial_scale: what torch's initial weights are multiplied by.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_sizes: Sequence[int] = (256, 256, 256),
        activation: Activation = "relu",
        initial_scale: float = 0.3,
    ) -> None:
        super().__init__()
        self.settings = {"hidden_sizes": [*hidden_sizes], "activation": activation, "initial_scale": initial_scale}
        layers: list[nn.Module] = []
        sizes = [input_size, *hidden_sizes]
        for size_in, size_out in itertools.pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), _ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], output_size))
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    layer.weight *= initial_scale

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``inputs`` (batch, input_size) to (batch, output_size)."""
        return self.layers(inputs)


class ResidualMLP(Network):
    """Pre-activation residual network: h <- h + W2 act(W1 LayerNorm(h)), then LayerNorm and a linear output.

    Normalised residual blocks keep gradients alive in deep networks (He 2016, https://arxiv.org/abs/1603.05027; for
    control: Nauman 2024, "Bigger, Regularized, Optimistic", https://arxiv.org/abs/2405.16158).

    Args:
        input_size: size of the input; the strategy sets it.
        output_size: size of the output; the strategy sets it.
        width: size of the residual stream.
        blocks: number of residual blocks of two linear layers each.
        activation: nonlinearity inside each block.
    """

    def __init__(
        self, input_size: int, output_size: int, width: int = 256, blocks: int = 2, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        self.settings = {"width": width, "blocks": blocks, "activation": activation}
        self.embed = nn.Linear(input_size, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), _ACTIVATIONS[activation](), nn.Linear(width, width)
            )
            for _ in range(blocks)
        )
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, output_size))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``inputs`` (batch, input_size) to (batch, output_size)."""
        hidden = self.embed(inputs)                                 # (batch, width)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.output(hidden)


TIME_FEATURES = 16


def sinusoidal_features(time: Tensor) -> Tensor:
    """Sines and cosines of ``time`` in [0, 1], (batch,), at frequencies from 1/4 to 32 turns: (batch, TIME_FEATURES).

    A network tells neighbouring denoising steps apart more easily by these than by the bare number (Vaswani 2017,
    https://arxiv.org/abs/1706.03762).
    """
    frequencies = 2.0 ** torch.linspace(-2, 5, TIME_FEATURES // 2, device=time.device)
    angles = 2 * math.pi * frequencies * time.unsqueeze(-1)         # (batch, TIME_FEATURES / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
