"""The ensemble: members that know nothing of each other, and the action in their middle."""

import pytest
import torch
from conftest import build_strategy, linear_problem

from lightning_bc.strategies import Ensemble


@pytest.mark.parametrize("member", ["MSE", "Autoregressive"])
def test_each_member_learns_as_it_would_alone(member):
    batch, together = linear_problem(), build_strategy(Ensemble, member=member, members=2)
    together.loss(*batch)[0].backward()
    for one in together.members:
        alone = build_strategy(type(one))
        alone.load_state_dict({**alone.state_dict(), **one.state_dict()})
        alone.loss(*batch)[0].backward()
        for name, weight in alone.named_parameters():
            torch.testing.assert_close(2 * one.get_parameter(name).grad, weight.grad)
    weights = [next(one.network.parameters()) for one in together.members]
    assert (weights[0] != weights[1]).all()                         # they begin apart


@pytest.mark.parametrize(("members", "wanted"), [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)])
def test_it_plays_the_median_of_each_dimension(members, wanted, monkeypatch):
    strategy = build_strategy(Ensemble, member="MSE", members=members)
    first, second = [0.1, 0.3, 0.9, 0.5][:members], [0.1, 0.3, -0.9, 0.5][:members]
    for member, pair in zip(strategy.members, zip(first, second, strict=True), strict=True):
        monkeypatch.setattr(member, "act", lambda rows, _, pair=pair: torch.tensor([pair]).repeat(len(rows), 1))
    answers = strategy.act(torch.zeros(5, 3), deterministic=True)
    assert answers[:, 0].tolist() == pytest.approx([wanted] * 5)
    assert answers[:, 1].tolist() == pytest.approx([{3: 0.1, 4: 0.2}.get(members, wanted)] * 5)


def test_a_sample_is_one_members_in_all_dimensions(monkeypatch):
    strategy = build_strategy(Ensemble, member="MSE", members=3)
    for number, member in enumerate(strategy.members):
        monkeypatch.setattr(member, "act", lambda rows, _, number=number: torch.full((len(rows), 2), 0.1 * number))
    torch.manual_seed(0)
    answers = strategy.act(torch.zeros(3000, 3), deterministic=False)
    assert torch.equal(answers[:, 0], answers[:, 1])
    shares = torch.stack([(answers[:, 0] == 0.1 * number).float().mean() for number in range(3)])
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_the_network_is_evaluated_by_each_member():
    assert build_strategy(Ensemble, member="MSE", members=4).network_evaluations == 4
    ten = build_strategy(Ensemble, member="Diffusion", members=2)
    assert ten.network_evaluations == 2 * build_strategy(type(ten.members[0])).network_evaluations


def test_what_all_members_take_of_the_actions_is_said_once(capsys):
    strategy = build_strategy(Ensemble, member="MSE", members=3)
    strategy.fit_actions(torch.ones(10, 2))
    assert capsys.readouterr().out.count("lie on the bounds") == 1
    assert [float(member.squashing.range) for member in strategy.members] == pytest.approx([0.9] * 3)
