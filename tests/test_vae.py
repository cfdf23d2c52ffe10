"""The conditional variational autoencoder against torch.distributions and against the density that it bounds."""

import functools

import pytest
import torch
from conftest import build_strategy
from torch.distributions import Independent, Normal, kl_divergence

from lightning_bc.networks import LSTM, Transformer
from lightning_bc.strategies import VAE


def small(**options):
    strategy = build_strategy(VAE, minimum_scale=0.3, **options)
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(7, strategy.observation_dim, generator=generator)
    actions = torch.rand(7, strategy.action_dim, generator=generator) * 1.8 - 0.9
    return strategy, observations, actions


def test_loss_equals_torch_distributions():
    strategy, observations, actions = small(latent_dim=3)
    before_tanh = strategy.squashing.unsquash(actions)
    mean, log_scale = strategy.encoder(torch.cat([observations, before_tanh], -1)).chunk(2, -1)
    posterior = Independent(Normal(mean, log_scale.exp()), 1)
    torch.manual_seed(5)
    code = posterior.rsample()
    likelihood = Independent(Normal(strategy.decode(observations, code), strategy.scale), 1)
    kl = kl_divergence(posterior, Independent(Normal(strategy.prior(observations), torch.ones(3)), 1))
    expected = (kl - likelihood.log_prob(before_tanh) + strategy.squashing.log_volume(actions)).mean()
    torch.manual_seed(5)
    loss, metrics = strategy.loss(observations, actions)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["kl"], kl.mean())


@torch.no_grad()
def test_the_loss_is_a_bound_of_the_negative_log_probability():
    """The density by summing over codes on a grid; the bound lies above it, and by less than the KL that it pays."""
    strategy, observations, actions = small(latent_dim=1)
    codes, expected = torch.linspace(-6, 6, 2001), strategy.prior(observations)
    decoded = torch.stack([strategy.decode(observations, expected + code) for code in codes])
    log_likelihood = Independent(Normal(decoded, strategy.scale), 1).log_prob(strategy.squashing.unsquash(actions))
    log_joint = log_likelihood + Normal(0, 1).log_prob(codes).unsqueeze(1)
    log_density = (log_joint.logsumexp(0) + (codes[1] - codes[0]).log() - strategy.squashing.log_volume(actions)).mean()
    torch.manual_seed(0)
    bound = torch.stack([strategy.loss(observations, actions)[0] for _ in range(2000)]).mean()
    assert -log_density - 0.01 < bound < -log_density + 2


@torch.no_grad()
def test_the_deterministic_action_is_the_decoding_of_highest_density():
    strategy, observations, _ = small(latent_dim=2, act_codes=9)
    for observation, action in zip(observations, strategy.act(observations, deterministic=True), strict=True):
        expected = strategy.prior(observation)
        decoded = torch.stack([strategy.decode(observation, expected + code) for code in strategy.codes])
        densities = [Independent(Normal(decoded, strategy.scale), 1).log_prob(one).exp().sum() for one in decoded]
        torch.testing.assert_close(action, decoded[int(torch.stack(densities).argmax())].tanh())
    strategy, observations, _ = small(act_codes=1)
    expected = strategy.decode(observations, strategy.prior(observations)).tanh()
    torch.testing.assert_close(strategy.act(observations, deterministic=True), expected)


def test_the_likeliest_code_is_so_by_distances_in_standard_deviations(monkeypatch):
    strategy = build_strategy(VAE, act_codes=5, minimum_scale=0.05)
    scale = torch.tensor([0.1, 10.0])
    strategy.raw_scale.data = (scale - 0.05).expm1().log()
    torch.testing.assert_close(strategy.scale, scale)
    decoded = torch.tensor([[2.0, 0.0], [2.5, 0.0], [0.0, -1.0], [0.0, 0.0], [0.0, 1.0]])  # two 5 sigma apart, three 0.1
    monkeypatch.setattr(strategy, "decode", lambda observations, code: decoded.repeat(len(code) // 5, 1))
    assert strategy.act(torch.zeros(3, 3), deterministic=True).tolist() == [[0.0, 0.0]] * 3


@torch.no_grad()
@pytest.mark.parametrize("network", [LSTM, Transformer])
def test_networks_that_read_a_sequence_decode_all_codes_at_once(network):
    strategy, observations, _ = small(network=functools.partial(network, width=16), act_codes=4)
    together = strategy.act(observations, deterministic=True)
    for number, one in enumerate(observations):
        torch.testing.assert_close(strategy.act(one[None], deterministic=True)[0], together[number])


@torch.no_grad()
def test_samples_spread_around_decoded_codes():
    strategy, observations, _ = small(latent_dim=2)
    torch.manual_seed(0)
    samples = strategy.act(observations[:1].expand(20_000, -1), deterministic=False).atanh()
    codes = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(3))
    means = strategy.decode(observations[:1].expand(20_000, -1), strategy.prior(observations[:1]) + codes)
    torch.testing.assert_close(samples.mean(0), means.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(samples.var(0), means.var(0) + strategy.scale.square(), atol=0.02, rtol=0)
