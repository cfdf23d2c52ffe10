"""The ensemble: members that know nothing of each other, and their mean action."""

import pytest
import torch
from conftest import build_strategy, linear_problem

from lightning_bc.strategies import MSE, VAE, Diffusion, Ensemble, GaussianProcess


@pytest.mark.parametrize("member", ["MSE", "Autoregressive"])
def test_each_member_learns_as_it_would_alone(member):
    batch, together = linear_problem(), build_strategy(Ensemble, members=[member, member])
    together.loss(*batch)[0].backward()
    for one in together.members:
        alone = build_strategy(type(one))
        alone.load_state_dict({**alone.state_dict(), **one.state_dict()})
        alone.loss(*batch)[0].backward()
        for name, weight in alone.named_parameters():
            torch.testing.assert_close(2 * one.get_parameter(name).grad, weight.grad)
    weights = [next(one.network.parameters()) for one in together.members]
    assert (weights[0] != weights[1]).all()                         # they begin apart


def test_it_plays_the_mean_of_what_its_members_would_play(monkeypatch):
    strategy = build_strategy(Ensemble, members=["MSE"] * 3)
    for member, pair in zip(strategy.members, ([0.1, -0.5], [0.3, 5.0], [0.8, 0.1]), strict=True):
        monkeypatch.setattr(member, "act", lambda rows, _, pair=pair: torch.tensor([pair]).repeat(len(rows), 1))
    wanted = torch.tensor([[0.4, 0.2]]).repeat(5, 1)                # each within the bounds
    torch.testing.assert_close(strategy.act(torch.zeros(5, 3), deterministic=True), wanted)


def test_a_sample_is_one_members_in_all_dimensions(monkeypatch):
    strategy = build_strategy(Ensemble, members=["MSE"] * 3)
    for number, member in enumerate(strategy.members):
        monkeypatch.setattr(member, "act", lambda rows, _, number=number: torch.full((len(rows), 2), 0.1 * number))
    torch.manual_seed(0)
    answers = strategy.act(torch.zeros(3000, 3), deterministic=False)
    assert torch.equal(answers[:, 0], answers[:, 1])
    shares = torch.stack([(answers[:, 0] == 0.1 * number).float().mean() for number in range(3)])
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_the_networks_of_all_members_are_evaluated():
    alone = sum(build_strategy(cls).network_evaluations for cls in (MSE, Diffusion, GaussianProcess, VAE))
    members = ["MSE", "Diffusion", "GaussianProcess", "VAE"]
    assert build_strategy(Ensemble, members=members).network_evaluations == alone


def test_a_member_that_answers_by_pairs_is_conditioned_and_settled():
    """Its first 10 pairs alone, also where a frozen policy or a checkpoint is made of it."""
    observations, actions = linear_problem()
    strategy = build_strategy(Ensemble, members=["MSE", "GaussianProcess"])
    process = strategy.members[1]
    process.answers_by = 10
    strategy.condition(observations, actions)
    assert process.network.pending is not None
    strategy.settle()
    assert process.network.pending is None
    torch.testing.assert_close(process.network.points[:10], observations[:10].double())
    assert process.network.used == 10


def test_all_members_take_what_they_need_to_know_of_the_actions():
    strategy = build_strategy(Ensemble, members=["MSE"] * 3)
    strategy.fit_actions(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
    assert [float(member.squashing.range) for member in strategy.members] == pytest.approx([0.9] * 3)


def test_it_acts_with_what_its_members_act_with():
    strategy = build_strategy(Ensemble, members=["VAE", "MSE"])
    kept = strategy.acting_weights()
    assert not any("encoder" in name for name in kept)
    assert any("encoder" in name for name in strategy.state_dict())
    for number, member in enumerate(strategy.members):
        assert {f"members.{number}.{name}" for name in member.acting_weights()} < kept.keys()
