"""The function approximators that strategies are built on, chosen by ``model.network.class_path``.

A strategy calls its network factory with (input_size, output_size); everything else (widths, depth, activation) is the
network's own and is set in YAML or by flags:

    --model.network ResidualMLP --model.network.width 512 --model.network.blocks 3

A network's input is one row of numbers, of which the last ``history`` observations stand first. MLP and ResidualMLP take the
row as it is; LSTM and Transformer read the observations as a sequence:

    --model.history 10 --model.network LSTM
"""

import inspect
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_bc.errors import InputError

Activation = Literal["relu", "gelu", "silu", "tanh", "elu"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
}


class InputSize(int):
    """Size of a network's input, and what it holds: ``history`` observations, the present one last, and the rest.

    Args:
        history: number of observations.
        observation_dim: size of each.
        rest: how many numbers follow.
    """

    history: int
    observation_dim: int

    def __new__(cls, history: int, observation_dim: int, rest: int = 0) -> "InputSize":
        """The whole number history observation_dim + rest."""
        size = super().__new__(cls, history * observation_dim + rest)
        size.history, size.observation_dim = history, observation_dim
        return size

    def __reduce__(self) -> tuple[type["InputSize"], tuple[int, int, int]]:
        """What copies and pickles are made of."""
        return type(self), (self.history, self.observation_dim, self - self.history * self.observation_dim)

    @classmethod
    def of(cls, size: int) -> "InputSize":
        """A plain number as one observation."""
        return size if isinstance(size, cls) else cls(1, size)


class Network(nn.Module):
    """A function from (batch, input_size) to (batch, output_size); ``--help`` lists its subclasses.

    Attributes:
        settings: the arguments behind these two that it was built with, of which an exported policy builds it again.
    """

    settings: Mapping[str, Any] = {}


NetworkFactory = Callable[[int, int], Network]
"""Builds a network from input_size, an :class:`InputSize` where it sees a history, and output_size."""


def networks() -> list[type[Network]]:
    """Every final network: those of this file, and those of a user that have been imported; not a strategy's own."""
    found, queue = [], Network.__subclasses__()
    while queue:
        cls = queue.pop(0)
        queue += cls.__subclasses__()
        found += [] if inspect.isabstract(cls) or cls.__module__.startswith("lightning_bc.strategies.") else [cls]
    return found


class MLP(Network):
    """Multi-layer perceptron: linear layers with an activation between them.

    Three hidden layers rather than the usual two, and initial weights smaller than torch's, both for few demonstrations. A
    network with small initial weights has to learn its features from the data; one with large initial weights stays close
    to its random initial features (rich and lazy learning: Chizat 2019, https://arxiv.org/abs/1812.07956), whose outputs
    away from the data are arbitrary. With weights that are smaller still (0.3), rare states are fitted late, and a Hopper
    falls in them. docs/action-models.md compares networks.

    Args:
        input_size: size of the input; the strategy sets it.
        output_size: size of the output; the strategy sets it.
        hidden_sizes: widths of the hidden layers.
        activation: nonlinearity after each hidden layer.
        initial_scale: what torch's initial weights are multiplied by.
        input_scale: what inputs are multiplied by. Below 1 the kinks of the first layer lie far from the data at first,
            where its biases put them, so that the network begins nearly linear and has to learn what is not.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_sizes: Sequence[int] = (256, 256, 256),
        activation: Activation = "relu",
        initial_scale: float = 0.6,
        input_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.settings = {
            "hidden_sizes": [*hidden_sizes],
            "activation": activation,
            "initial_scale": initial_scale,
            "input_scale": input_scale,
        }
        self.input_scale = input_scale
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
        return self.layers(inputs if self.input_scale == 1 else self.input_scale * inputs)


class ResidualMLP(Network):
    """Pre-activation residual network: h <- h + W2 act(W1 LayerNorm(h)).

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


class SequenceNetwork(Network, ABC):
    """What sequence networks share: the observations are read into ``width`` numbers, and an MLP maps these and the rest.

    Args:
        input_size: size of the input, and how many observations it begins with.
        output_size: size of the output.
        width: size of what the sequence is read into.
        hidden_sizes: of the MLP behind it.
    """

    def __init__(self, input_size: int, output_size: int, width: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        size = InputSize.of(input_size)
        self.history, self.observation_dim = size.history, size.observation_dim
        self.head = MLP(width + size - size.history * size.observation_dim, output_size, hidden_sizes)

    @abstractmethod
    def read(self, observations: Tensor) -> Tensor:
        """What is known after the last of ``observations`` (batch, history, observation_dim): (batch, width)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``inputs`` (batch, input_size) to (batch, output_size)."""
        seen = self.history * self.observation_dim
        observations = inputs[:, :seen].unflatten(-1, (self.history, self.observation_dim))
        return self.head(torch.cat([self.read(observations), inputs[:, seen:]], dim=-1))


class LSTM(SequenceNetwork):
    """Long short-term memory over the history. Hochreiter 1997, https://doi.org/10.1162/neco.1997.9.8.1735.

    With GaussianMixture the BC-RNN-GMM of Mandlekar 2021, https://arxiv.org/abs/2108.03298, with MSE the BC-RNN. There the
    state is carried on for 10 steps and then begins anew; here each step reads the last ``history`` observations from the
    beginning, so that every step sees as many.

    Args:
        input_size: size of the input; the strategy sets it.
        output_size: size of the output; the strategy sets it.
        width: size of the state.
        layers: number of layers, one above the other.
        hidden_sizes: widths of the hidden layers behind it.
    """

    def __init__(
        self, input_size: int, output_size: int, width: int = 256, layers: int = 1, hidden_sizes: Sequence[int] = (256,)
    ) -> None:
        super().__init__(input_size, output_size, width, hidden_sizes)
        self.settings = {"width": width, "layers": layers, "hidden_sizes": [*hidden_sizes]}
        self.lstm = nn.LSTM(self.observation_dim, width, layers, batch_first=True)

    def read(self, observations: Tensor) -> Tensor:
        """The last layer's output at the last observation."""
        outputs, _ = self.lstm(observations)                        # (batch, history, width)
        return outputs[:, -1]


def transformer_encoder(width: int, heads: int, layers: int) -> nn.TransformerEncoder:
    """Layers of attention and two linear layers each, LayerNorm before both, without dropout."""
    layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)


def learnt_tokens(number: int, width: int) -> nn.Parameter:
    """Learnt tokens or positions, (number, width)."""
    return nn.Parameter(0.02 * torch.randn(number, width))


class Transformer(SequenceNetwork):
    """Causal transformer over the history, with learnt positions. Vaswani 2017, https://arxiv.org/abs/1706.03762.

    With GaussianMixture the BC-Transformer of robomimic (https://robomimic.github.io), with ``--model.history 10`` as there.
    There every step of the window is a training target; here the last one is.

    Args:
        input_size: size of the input; the strategy sets it.
        output_size: size of the output; the strategy sets it.
        width: size of the stream.
        layers: number of layers of attention and two linear layers each, LayerNorm before both.
        heads: number of attention heads; they share the width.
        hidden_sizes: widths of the hidden layers behind it.
    """

    causal: Tensor

    def __init__(
        self,
        input_size: int,
        output_size: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        hidden_sizes: Sequence[int] = (256,),
    ) -> None:
        super().__init__(input_size, output_size, width, hidden_sizes)
        if width % heads:
            raise InputError(f"--model.network.width {width}: wanted a multiple of --model.network.heads, {heads}.")
        self.settings = {"width": width, "layers": layers, "heads": heads, "hidden_sizes": [*hidden_sizes]}
        self.embed = nn.Linear(self.observation_dim, width)
        self.positions = learnt_tokens(self.history, width)
        self.encoder = transformer_encoder(width, heads, layers)
        causal = nn.Transformer.generate_square_subsequent_mask(self.history)
        self.register_buffer("causal", causal, persistent=False)    # (history, history)

    def read(self, observations: Tensor) -> Tensor:
        """The stream behind the last layer at the last observation."""
        stream = self.embed(observations) + self.positions          # (batch, history, width)
        return self.encoder(stream, mask=self.causal, is_causal=True)[:, -1]


TIME_FEATURES = 16


def sinusoidal_features(time: Tensor) -> Tensor:
    """Sines and cosines of ``time`` in [0, 1], (batch,), at frequencies from 1/4 to 32 turns: (batch, TIME_FEATURES).

    A network tells neighbouring denoising steps apart more easily by these than by the bare number (Vaswani 2017,
    https://arxiv.org/abs/1706.03762).
    """
    frequencies = 2.0 ** torch.linspace(-2, 5, TIME_FEATURES // 2, device=time.device)
    angles = 2 * math.pi * frequencies * time.unsqueeze(-1)         # (batch, TIME_FEATURES / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
