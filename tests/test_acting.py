"""A frozen policy answers as ``forward`` does, up to rounding; what cannot be frozen is left as it is."""

import functools
import pickle
import warnings

import pytest
import torch
from conftest import BUDGET, build_strategy, curve, fit
from torch.nn import functional as F

from lightning_bc import frozen as frozen_module
from lightning_bc.acting import CannotBeFrozenError, freeze
from lightning_bc.networks import LSTM, MLP, ResidualMLP, Transformer
from lightning_bc.strategies import strategies

CHOOSE = {"Autoregressive", "GaussianMixture", "VAE"}
"""These choose among actions, and may choose another one where two are equally likely but for rounding."""


def difference(strategy, batch):
    """Of each row, in float32 steps of the bounds, (batch,)."""
    shape = (batch, *([strategy.history] if strategy.has_windows else []), strategy.observation_dim)
    observations = 2 * torch.randn(shape, generator=torch.Generator().manual_seed(batch))
    with torch.inference_mode():
        wanted, found = strategy(observations), strategy.frozen()(observations)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    return ((found - wanted).abs() / strategy.border.action_scale).flatten(1).amax(1)


@pytest.mark.parametrize("batch", [1, 5, 50])
@pytest.mark.parametrize("name", strategies())
def test_a_frozen_policy_answers_as_forward_does(name, batch):
    strategy = build_strategy(strategies()[name]).eval()
    with torch.no_grad():
        for parameter in strategy.parameters():                     # weights of a size that training leads to
            parameter += 0.3 * torch.randn(parameter.shape) * parameter.std().nan_to_num(0.1)
    found = difference(strategy, batch)
    assert (found < 2e-5).float().mean() >= (0.9 if name in CHOOSE else 1)


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("name", ["Diffusion", "FlowMatching", "MIP", "MeanFlow", "ACT"])
def test_windows(name, batch):
    strategy = build_strategy(strategies()[name], history=3, horizon=4, chunk=2).eval()
    assert difference(strategy, batch).max() < 2e-5


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "tanh", "elu"])
@pytest.mark.parametrize("network", [MLP, ResidualMLP])
def test_every_network_can_be_frozen(network, activation):
    strategy = build_strategy(strategies()["MSE"], network=functools.partial(network, activation=activation)).eval()
    assert difference(strategy, 5).max() < 2e-5


@pytest.mark.parametrize("activation", ["silu", "gelu", "tanh", "elu"])
def test_far_observations_are_answered_without_a_warning(activation):
    strategy = build_strategy(strategies()["MSE"], network=functools.partial(MLP, activation=activation)).eval()
    far = 1e4 * torch.randn(*strategy.zero_observations(5).shape, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = strategy.frozen()(far)
    torch.testing.assert_close(found, strategy(far).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", [LSTM, Transformer])
def test_sequence_networks(network):
    strategy = build_strategy(strategies()["MSE"], network=functools.partial(network, width=16), history=5).eval()
    assert difference(strategy, 5).max() < 2e-5


@pytest.mark.parametrize("name", strategies())
def test_constants_at_the_results_size_change_no_bit(monkeypatch, name):
    strategy = build_strategy(strategies()[name]).eval()
    wide, narrow = strategy.frozen(), strategy.frozen()
    for batch in (1, 5, 9, 5):
        observations = torch.randn(*strategy.zero_observations(batch).shape, generator=torch.Generator().manual_seed(batch))
        monkeypatch.setattr(frozen_module, "FEW", 100)
        found = wide(observations)
        monkeypatch.setattr(frozen_module, "FEW", 0)
        assert torch.equal(found, narrow(observations))


def test_a_frozen_policy_keeps_the_weights_of_its_moment_and_can_be_sent():
    strategy = build_strategy(strategies()["Gaussian"]).eval()
    frozen, observations = strategy.frozen(), torch.randn(5, 3)
    before = frozen(observations)
    with torch.no_grad():
        for parameter in strategy.parameters():
            parameter += 1
    assert torch.equal(frozen(observations), before)
    sent = pickle.dumps(frozen)
    assert b"lightning_bc.strategies" not in sent
    assert torch.equal(pickle.loads(sent)(observations), before)
    weights = sum(parameter.numel() for parameter in strategy.parameters())
    assert len(sent) < 4 * weights + 10_000
    assert not torch.equal(strategy.frozen()(observations), before)


def attention(asking, asked, told, mask=None, dropout=0.0):
    asking, asked, told = (x[:, None, :, None] for x in (asking, asked, told))  # (batch, 1 head, 4, 1)
    return F.scaled_dot_product_attention(asking, asked, told, mask, dropout).flatten(1)


FUNCTIONS = {
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "logsumexp": lambda x: x.logsumexp(-1, keepdim=True) + x.logsumexp((0, 1)).expand(len(x), 1),
    "sums": lambda x: torch.stack([x.sum(-1), x.mean(-1), x.amax(-1), x.sum(1)], dim=-1),
    "whole numbers": lambda x: x - x.argmax(-1, keepdim=True) / 3 + x.long(),
    "gather": lambda x: x.gather(-1, x.argsort(-1)) + x.T.contiguous().T.gather(1, x.argmax(-1, keepdim=True)),
    "cuts": lambda x: torch.cat([x[:, 1:], x.chunk(2, dim=-1)[1], *x.split([1, 3], dim=-1)], dim=-1),
    "shapes": lambda x: (x.unsqueeze(1) - x.unsqueeze(2)).flatten(1).unflatten(-1, (2, -1)).transpose(0, 1)[1],
    "shapes and back": lambda x: (x @ torch.eye(4)).view(-1, 2, 2).relu().unsqueeze(1).flatten(1) + x.view(-1, 4, 1)[..., 0],
    "transposed and back": lambda x: x.view(-1, 2, 2).mT.flatten(1).view(-1, 2, 2).mT.flatten(1) + x.T.reshape(-1, 4),
    "layer norm": lambda x: F.layer_norm(x, (4,), x.new_ones(4) / 3, x.new_ones(4)) + F.layer_norm(x, (4,)),
    "layer norm over two": lambda x: F.layer_norm(x.view(-1, 1, 2, 2), (2, 2), x.new_ones(2, 2) / 3).flatten(1),
    "by number": lambda x: x + torch.arange(len(x)).unsqueeze(-1) / x.shape[0],
    "products": lambda x: torch.bmm(x.view(len(x), 2, 2), x.view(-1, 2, 2).mT).flatten(1) + x @ torch.ones(4, 4),
    "without NumPy": lambda x: x.cumsum(-1) + torch.special.ndtr(x) + F.hardswish(x),
    "used twice": lambda x: (y := x @ torch.eye(4) + torch.addmm(torch.ones(4), x, torch.eye(4))).relu() + y,
    "attention, of which one asks nobody": lambda x: attention(x, x, x, torch.ones(4, 4, dtype=torch.bool).tril(-1)),
    "masks": lambda x: torch.where(x > 0, x, -x) * (x > 0.5),
    "the rest": lambda x: x.sigmoid() ** 2 + 2 ** x.clamp(max=1) - (3 - x).abs().sqrt().lerp(x, 0.3) + (1 + x * x).log(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_torchs_own(name):
    frozen = freeze(FUNCTIONS[name], (4,))
    for batch in (1, 2, 9, 1):
        observations = torch.randn(batch, 4, generator=torch.Generator().manual_seed(batch))
        wanted = FUNCTIONS[name](observations)
        torch.testing.assert_close(frozen(observations), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (lambda x: x + torch.randn_like(x), "draws random numbers"),
        (lambda x: attention(x, x, x, dropout=0.5), "draws random"),
        (lambda x: torch.zeros_like(x).copy_(x), "writes into a tensor"),
        (lambda x: x if x.sum() > 0 else -x, "decides by numbers"),
        (lambda x: x[x > 0], "decides by numbers"),
        (lambda x: x if len(x) > 2 else -x, "calls other kernels"),
        (lambda x: x * (len(x) / 7), "number that depends on"),
        (lambda x: x + torch.from_numpy(x.numpy() ** 2), "outside of torch"),
    ],
)
def test_what_is_no_list_of_calls_is_refused(policy, reason):
    with pytest.raises(CannotBeFrozenError, match=reason):
        freeze(policy, (4,))


def test_the_curve_of_a_strategy_that_cannot_be_frozen_is_played_with_forward(data, capsys, monkeypatch):
    cls = strategies()["MSE"]
    act = cls.act
    monkeypatch.setattr(cls, "act", lambda self, *args, **named: act(self, *args, **named).mul_(1.0))
    run = fit(data, flags=f"{BUDGET} --rollouts.workers 2")
    assert "MSE cannot be sent to another process: it writes into a tensor" in capsys.readouterr().out
    assert len(curve(run)) == 3
