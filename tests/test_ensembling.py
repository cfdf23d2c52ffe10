"""Temporal ensembling against the sum of its definition, in a plain loop with one episode at a time."""

import math
import pickle

import numpy as np
import pytest
import torch
from conftest import build_strategy, refused
from test_players import SEEDS, answer, plain

from lightning_bc.api import Policy
from lightning_bc.demonstrations.experts import exported
from lightning_bc.ensembling import Ensembling
from lightning_bc.environments import environment_spaces, make
from lightning_bc.episodes import play
from lightning_bc.errors import InputError
from lightning_bc.players import Memory
from lightning_bc.strategies import MSE
from lightning_bc.tools import export

TASK = "Hopper-v5"
ACTION_DIM = environment_spaces(TASK).action_dim


def averaged(act, chunk, coefficient):
    """A policy that remembers its answers, oldest first, and returns chunks of the one action that is to be played."""
    answers = []

    def policy(window):
        answers.append(act(window)[0].double())
        planned = [one[len(answers) - 1 - start] for start, one in enumerate(answers) if len(answers) - start <= chunk]
        weights = torch.tensor([math.exp(-coefficient * i) for i in range(len(planned))], dtype=torch.float64)
        return ((weights.unsqueeze(1) * torch.stack(planned)).sum(0) / weights.sum()).float()[None, None]

    return policy


def test_three_steps_by_hand():
    """Chunks of 2: step 0 plays 0; step 1 the mean of 10 (oldest, weight 1) and 1 (weight exp(-m)); step 2 of 11 and 2."""
    answers = iter([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0]])
    player = Ensembling(lambda seen: torch.tensor(next(answers)).view(1, 2, 1), 1, 2, coefficient=0.5)
    row, w = torch.tensor([0]), math.exp(-0.5)
    player.begin(torch.zeros(1, 1), row, 1)
    played = [player.act(torch.zeros(1, 1), row).item() for _ in range(3)]
    assert played == pytest.approx([0, (10 + w * 1) / (1 + w), (11 + w * 2) / (1 + w)])


@pytest.mark.parametrize("coefficient", [0.0, 0.01, 1.5])
def test_play_equals_a_plain_loop(coefficient):
    act = answer(4, ACTION_DIM)
    played = play(Ensembling(act, 3, 4, coefficient), make(TASK, 7), SEEDS, record=True)
    first = 0
    for seed, length in zip(SEEDS, played.lengths, strict=True):
        observations, actions, *_ = plain(TASK, seed, averaged(act, 4, coefficient), 3, 1)
        part = slice(first, first + min(10, length))                # a rounding error grows into another episode
        np.testing.assert_allclose(played.observations[part], observations[:10], atol=1e-3)
        np.testing.assert_allclose(played.actions[part], actions[:10], atol=1e-3)
        first += length
    assert len(set(played.lengths.tolist())) > 1


def test_returns_do_not_depend_on_the_number_of_sub_environments():
    act = answer(4, ACTION_DIM)
    returns = [play(Ensembling(act, 2, 4, 0.01), make(TASK, number), SEEDS).returns for number in (1, 7, 32)]
    for others in returns[1:]:
        np.testing.assert_array_equal(others, returns[0])


def chunking(**options):
    return build_strategy(MSE, 11, [-1.0] * 3, [1.0] * 3, history=2, horizon=5, chunk=4, temporal_ensembling=0.1, **options)


def test_a_strategy_plays_so_wherever_it_is_played(tmp_path):
    """Itself, in a worker (sent, frozen), from Python, and rebuilt from an exported folder."""
    strategy = chunking().eval()
    wanted = play(Ensembling(strategy, 2, 4, 0.1), make(TASK, 5), SEEDS, record=True)
    sent = pickle.loads(pickle.dumps(strategy.remembering(strategy.frozen())))
    exported.write(tmp_path, strategy, TASK, None, None)
    for player in (strategy.player(), Policy(strategy).player(), exported.load(tmp_path).player()):
        np.testing.assert_array_equal(play(player, make(TASK, 5), SEEDS).returns, wanted.returns)
    by_worker = play(sent, make(TASK, 5), SEEDS, record=True)
    np.testing.assert_allclose(by_worker.actions[:10], wanted.actions[:10], atol=1e-4)
    policy, length = Policy(strategy), wanted.lengths[0]
    for observation, action in zip(wanted.observations[:length], wanted.actions[:length], strict=True):
        np.testing.assert_allclose(policy(observation), action, atol=1e-6)


def test_labels_are_the_first_actions_of_new_chunks_and_every_step_costs_an_evaluation():
    strategy = chunking()
    labeller = strategy.player(replan=True)
    assert isinstance(labeller, Memory)
    assert not isinstance(labeller, Ensembling)
    assert labeller.chunk == 1
    assert strategy.network_evaluations == 1
    assert build_strategy(MSE, horizon=5, chunk=4).network_evaluations == 0.25


def test_what_cannot_be_averaged_is_refused(capsys):
    with pytest.raises(InputError, match=r"wanted --model\.chunk above 1"):
        build_strategy(MSE, horizon=5, temporal_ensembling=0.1)
    with pytest.raises(InputError, match=r"with chunks of 4 wanted at most 26\.7"):
        build_strategy(MSE, horizon=5, chunk=4, temporal_ensembling=30.0)
    assert "0 or more" in refused(capsys, "fit", "--model", "MSE", "--model.temporal_ensembling", "-1")


def test_graphs_are_refused_since_they_answer_with_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_load", lambda path: (None, chunking()))
    with pytest.raises(InputError, match="--onnx true: a graph answers with chunks") as error:
        export.export("last.ckpt", str(tmp_path / "policy"), onnx=True)
    assert "\n" not in str(error.value)
