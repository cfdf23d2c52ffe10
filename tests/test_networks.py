"""Function approximators against their equations."""

import copy
import functools
import inspect
import math
import pickle

import numpy as np
import pytest
import torch
from conftest import build_strategy, train
from torch.nn import functional as F

from lightning_bc.errors import InputError
from lightning_bc.networks import LSTM, MLP, InputSize, Network, ResidualMLP, SequenceNetwork, Transformer
from lightning_bc.strategies import MSE, FlowMatching, GaussianMixture, MeanFlow, strategies
from lightning_bc.strategies.outputs import refuse_other_sizes

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


@pytest.mark.parametrize("input_scale", [1.0, 0.1])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_equals_a_computation_in_numpy(activation, input_scale):
    torch.manual_seed(0)
    network = MLP(4, 3, (8, 6), activation, input_scale=input_scale)
    inputs = np.random.default_rng(0).standard_normal((10, 4))
    hidden = input_scale * inputs
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


SEQUENCE = {"LSTM": functools.partial(LSTM, width=16), "Transformer": functools.partial(Transformer, width=16, heads=2)}
each_sequence_network = pytest.mark.parametrize("network", SEQUENCE.values(), ids=SEQUENCE)


def test_an_input_size_is_the_number_and_says_what_stands_in_it():
    size = InputSize(3, 4, rest=5)
    assert size == 17
    assert (size.history, size.observation_dim) == (3, 4)
    assert InputSize.of(size) is size
    assert (InputSize.of(7), InputSize.of(7).history, InputSize.of(7).observation_dim) == (7, 1, 7)


def test_lstm_equals_its_equations_step_by_step():
    """Hochreiter 1997 with forget gates (Gers 2000), as torch writes them, and the head on the last state and the rest."""
    torch.manual_seed(0)
    network, inputs = LSTM(InputSize(3, 2, rest=1), 4, width=5), torch.randn(6, 7)
    weights = dict(network.lstm.named_parameters())
    hidden = cell = torch.zeros(6, 5)
    for observation in inputs[:, :6].unflatten(-1, (3, 2)).unbind(1):
        gates = observation @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]
        forgotten = hidden @ weights["weight_hh_l0"].T + weights["bias_hh_l0"]
        let_in, keep, new, let_out = (gates + forgotten).chunk(4, dim=1)
        cell = keep.sigmoid() * cell + let_in.sigmoid() * new.tanh()
        hidden = let_out.sigmoid() * cell.tanh()
    torch.testing.assert_close(network(inputs), network.head(torch.cat([hidden, inputs[:, 6:]], dim=1)))


def test_what_a_transformer_knows_after_an_observation_does_not_depend_on_later_ones():
    torch.manual_seed(0)
    network = Transformer(InputSize(5, 2), 1, width=16, heads=2, layers=2)
    stream = torch.randn(4, 5, 16)
    changed = stream.clone()
    changed[:, 3:] = torch.randn(4, 2, 16)
    read = functools.partial(network.encoder, mask=network.causal, is_causal=True)
    torch.testing.assert_close(read(stream)[:, :3], read(changed)[:, :3])
    assert (read(stream)[:, 3:] - read(changed)[:, 3:]).abs().amax((0, 2)).min() > 0.1
    with pytest.raises(InputError, match=r"--model.network.width 16: wanted a multiple of --model.network.heads, 3"):
        Transformer(InputSize(5, 2), 1, width=16, heads=3)


@pytest.mark.parametrize("network", [SEQUENCE["LSTM"], functools.partial(SEQUENCE["Transformer"], layers=1)], ids=SEQUENCE)
def test_the_order_of_what_was_seen_matters(network):
    """Of two layers the mask alone would tell it; one layer knows it by the positions."""
    torch.manual_seed(0)
    built, inputs = network(InputSize(4, 3), 2), 5 * torch.randn(5, 12)
    swapped = inputs.unflatten(-1, (4, 3))[:, [1, 0, 2, 3]].flatten(1)
    assert (built(inputs) - built(swapped)).abs().max() > 1e-5


def before_last(pairs=64, history=3):
    """Windows of observations that do not depend on each other; the action is the one before the last, of variance 1/12."""
    seen = torch.rand(pairs, history, 1) - 0.5
    return seen, seen[:, -2:-1], torch.ones(pairs, 1, dtype=torch.bool)


def error(strategy, observations, actions):
    with torch.no_grad():
        return float((strategy.act(observations, deterministic=True).flatten() - actions.flatten()).square().mean())


@pytest.mark.parametrize(
    ("cls", "network"),
    [(MSE, "LSTM"), (MSE, "Transformer"), (GaussianMixture, "LSTM"), (FlowMatching, "Transformer")],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_strategy_with_a_history_reads_what_is_not_in_the_present_observation(cls, network):
    strategy = build_strategy(cls, 1, [-1.0], [1.0], network=SEQUENCE[network], history=3)
    torch.manual_seed(0)
    train(strategy, before_last, learning_rate=1e-2)
    observations, actions, _ = before_last(1000)
    assert error(strategy, observations, actions) < 0.1 / 12


def test_without_a_history_it_cannot_be_read():
    strategy = build_strategy(MSE, 1, [-1.0], [1.0])
    torch.manual_seed(0)
    train(strategy, lambda: [x[:, -1] for x in before_last()[:2]])
    observations, actions, _ = before_last(1000)
    assert error(strategy, observations[:, -1], actions) > 0.8 / 12


@each_sequence_network
def test_mean_flow_refuses_networks_that_have_no_derivative_in_forward_mode(network):
    with pytest.raises(InputError, match="MeanFlow differentiates its network in forward mode"):
        build_strategy(MeanFlow, network=network, history=3)


def test_settings_build_every_network_again():
    for cls in (MLP, ResidualMLP, LSTM, Transformer):
        network = cls(InputSize(3, 4), 2)
        assert isinstance(network, Network)
        again = cls(InputSize(3, 4), 2, **network.settings)
        assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}
        assert isinstance(network, SequenceNetwork) == (cls in (LSTM, Transformer))


def test_the_size_of_an_input_is_copied_with_what_it_holds():
    size = InputSize(3, 4, 5)
    for copied in (copy.deepcopy(size), pickle.loads(pickle.dumps(size))):
        assert (copied, copied.history, copied.observation_dim) == (17, 3, 4)


class Watched(torch.nn.Module):
    """Batch normalisation, noise and a layer that is never to train; ``missing`` of its outputs are."""

    def __init__(self, input_size, output_size, missing=0):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.BatchNorm1d(input_size), torch.nn.Dropout(0.5), torch.nn.Linear(input_size, output_size - missing)
        )
        self.layers[1].eval()

    def forward(self, inputs):
        return self.layers(inputs + 1e-3 * torch.randn_like(inputs))


TAKING_NETWORKS = {
    name: cls
    for name, cls in strategies().items()
    if "network" in inspect.signature(cls).parameters and name != "MeanFlow"  # which refuses most networks of one's own
}


@pytest.mark.parametrize("cls", TAKING_NETWORKS.values(), ids=TAKING_NETWORKS)
def test_a_network_that_answers_with_too_few_numbers_is_refused(cls):
    wrong = build_strategy(cls, network=functools.partial(Watched, missing=1))
    with pytest.raises(InputError, match=r"Watched: the network answers .* with \(2, \d+\), wanted \(2, \d+\)"):
        wrong.setup("fit")

    right = build_strategy(cls, network=Watched)
    before, weights = torch.get_rng_state(), copy.deepcopy(right.state_dict())
    refuse_other_sizes(right, right.hparams)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in right.state_dict().items())
    assert right.actor.training
    assert not right.actor.layers[1].training


def test_a_network_that_does_not_take_zeros_is_left_alone():
    class Failing(torch.nn.Linear):
        def forward(self, inputs):
            raise RuntimeError("not now")

    strategy = build_strategy(MSE, network=Failing)
    refuse_other_sizes(strategy, strategy.hparams)
