"""ACT: its loss against torch's distributions, what counts of a chunk, and what it plays."""

import pytest
import torch
from conftest import build_strategy, train
from torch.distributions import Independent, Normal, kl_divergence

from lightning_bc.errors import InputError
from lightning_bc.strategies import ACT, VAE

SIZES = {"history": 2, "horizon": 4, "chunk": 3}


def windows(pairs=6):
    generator = torch.Generator().manual_seed(0)
    within = torch.arange(4) < torch.randint(1, 5, (pairs, 1), generator=generator)
    return torch.randn(pairs, 2, 3, generator=generator), torch.rand(pairs, 4, 2, generator=generator) - 0.5, within


def test_loss_is_the_absolute_error_within_the_episode_and_beta_times_torchs_divergence():
    strategy, (observations, actions, within) = build_strategy(ACT, kl_weight=0.3, **SIZES), windows()
    torch.manual_seed(1)
    loss, metrics = strategy.loss(observations, actions, within)
    torch.manual_seed(1)
    mean, log_scale = strategy.encoder(observations, strategy.squashing.unsquash(actions), within)
    posterior = Independent(Normal(mean, log_scale.exp()), 1)
    chunks = strategy.network(observations, posterior.base_dist.mean + log_scale.exp() * torch.randn_like(mean))
    errors = (chunks.unflatten(1, (4, 2)) - strategy.squashing.unsquash(actions)).abs()
    wanted = torch.stack([errors[row, step].mean() for row in range(6) for step in range(4) if within[row, step]]).mean()
    kl = kl_divergence(posterior, Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)).mean()
    torch.testing.assert_close(metrics["absolute_error"], wanted.detach())
    torch.testing.assert_close(metrics["style_kl"], kl.detach())
    torch.testing.assert_close(loss, wanted + 0.3 * kl)


@pytest.mark.parametrize("cls", [ACT, VAE])
def test_a_code_as_wide_as_no_data_make_it_has_a_finite_price(cls, monkeypatch):
    strategy = build_strategy(cls)
    width = 2 * strategy.latent_dim
    wide = torch.full((6, width), 200.0)
    outputs = wide.chunk(2, dim=-1) if cls is ACT else wide
    monkeypatch.setattr(strategy.encoder, "forward", lambda *_: outputs)
    assert strategy.loss(torch.randn(6, 3), torch.rand(6, 2) - 0.5)[0].isfinite()


def test_actions_behind_the_end_of_an_episode_change_nothing():
    strategy, (observations, actions, within) = build_strategy(ACT, **SIZES), windows()
    changed = torch.where(within.unsqueeze(-1), actions, -actions)
    losses = []
    for chunk in (actions, changed):
        torch.manual_seed(1)
        losses.append(strategy.loss(observations, chunk, within)[0])
    torch.testing.assert_close(*losses)
    torch.manual_seed(1)
    assert (strategy.loss(observations, -actions, within)[0] - losses[0]).abs() > 1e-3


@torch.no_grad()
def test_it_acts_with_the_style_0_and_samples_it_from_the_prior():
    strategy, (observations, _, _) = build_strategy(ACT, **SIZES), windows()
    zeros = torch.zeros(6, strategy.latent_dim)
    wanted = strategy.network(observations, zeros).tanh().unflatten(1, (4, 2))[:, :3]
    assert torch.equal(strategy.act(observations, deterministic=True), wanted)
    torch.manual_seed(1)
    sampled = strategy.act(observations, deterministic=False)
    torch.manual_seed(1)
    wanted = strategy.network(observations, torch.randn_like(zeros)).tanh().unflatten(1, (4, 2))[:, :3]
    assert torch.equal(sampled, wanted)
    assert not any(name.startswith("encoder.") for name in strategy.acting_weights())


@pytest.mark.slow
def test_a_cheap_style_tells_two_ways_apart_and_an_expensive_one_is_not_used():
    """Of two chunks in turn, -0.5 and 0.5 throughout: one bit of style, log 2 nat, saves an absolute error of 0.5."""
    used = {}
    for beta in (0.01, 10.0):
        strategy = build_strategy(ACT, 1, [-1.0], [1.0], horizon=3, chunk=3, kl_weight=beta, latent_dim=2)
        torch.manual_seed(0)
        side = torch.tensor([-1.0, 1.0]).repeat(8)[:, None, None].expand(16, 3, 1)
        train(strategy, lambda side=side: (torch.zeros(16, 1, 1), (0.5 * side).tanh()), steps=120)
        used[beta] = strategy.loss(torch.zeros(16, 1, 1), (0.5 * side).tanh())[1]
    assert used[0.01]["style_kl"] > 0.5
    assert used[0.01]["absolute_error"] < 0.25
    assert used[10.0]["style_kl"] < 0.02
    assert used[10.0]["absolute_error"] > 0.4


def test_a_width_that_heads_cannot_share_is_refused():
    with pytest.raises(InputError, match=r"--model.width 10: wanted a multiple of --model.heads, 4"):
        build_strategy(ACT, width=10)
