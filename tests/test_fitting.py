"""What strategies want of demonstrations: windows without gaps, transitions, and to know where episodes end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_bc.demonstrations.fitting import (
    Budget,
    Wanted,
    check_wanted,
    in_bounds,
    in_order_of_space,
    split,
    with_usual_episodes,
)
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.environments import EnvironmentSpaces, environment_spaces
from lightning_bc.errors import InputError
from lightning_bc.strategies.contract import Needs

WINDOWS = Wanted("Diffusion", history=2, horizon=8)
TRANSITIONS = Wanted("GAIL", Needs.TRANSITIONS)


def made(lengths, **changes):
    """Demonstrations of Hopper-v5, which may end early."""
    observations, actions = torch.zeros(sum(lengths), 11), torch.zeros(sum(lengths), 3)
    return Trajectories(observations, actions, torch.tensor(lengths), origin=Origin("hopper.pt"), **changes)


def split_for(wanted, trajectories, **budget):
    spaces, budget = environment_spaces("Hopper-v5"), Budget(**budget)
    return split(with_usual_episodes(trajectories, spaces, budget.episode_length), spaces, wanted, budget)


def test_windows_have_no_gaps():
    words = r"--data\.subsample 3: Diffusion learns from windows .*history 2, horizon 8"
    with pytest.raises(InputError, match=words) as error:
        check_wanted(made((5, 5)), WINDOWS, 3)
    assert "\n" not in str(error.value)
    check_wanted(made((5, 5)), WINDOWS, 1)
    check_wanted(made((5, 5)), Wanted("MSE"), 3)


def test_demonstrations_without_a_transition_are_refused_to_those_who_learn_from_them():
    cut_off = made((1, 1, 1), terminated=torch.zeros(3, dtype=torch.bool))
    with pytest.raises(InputError, match=r"hopper\.pt: GAIL learns from transitions, and of none of the 3 training pairs"):
        check_wanted(cut_off, TRANSITIONS, 1)
    check_wanted(cut_off, Wanted("MSE"), 1)
    check_wanted(replace(cut_off, final_observations=torch.zeros(3, 11)), TRANSITIONS, 1)
    check_wanted(made((1, 2, 1)), TRANSITIONS, 3)


def test_each_process_has_a_pair():
    with pytest.raises(InputError, match=r"has 4 training pairs for 5 processes; wanted at least one for each"):
        check_wanted(made((7, 3)), Wanted("MSE", world_size=5), 3)
    check_wanted(made((7, 3)), Wanted("MSE", world_size=4), 3)


@pytest.mark.parametrize("wanted", [WINDOWS, TRANSITIONS], ids=["windows", "transitions"])
def test_where_episodes_end_must_be_known_to_cut_windows_and_transitions(wanted):
    unknown = made((20,), knows_episodes=False)
    with pytest.raises(InputError, match=r"--data\.episode_length N\.$"):  # and no other way out
        split_for(wanted, unknown)
    training, _ = split_for(wanted, unknown, episode_length=8)
    assert training.lengths.tolist() == [8, 8, 4]
    assert split_for(Wanted("MSE"), unknown)[0].lengths.tolist() == [20]


def test_inferred_terminations_are_told_to_those_who_learn_from_them(capsys):
    training, _ = split_for(TRANSITIONS, made((5, 1000, 7)))
    assert training.terminated.tolist() == [True, False, False]
    assert "hopper.pt: does not say which episodes terminated, so this is inferred" in capsys.readouterr().out
    split_for(Wanted("MSE"), made((5, 1000, 7)))
    assert capsys.readouterr().out == ""


def test_terminations_that_the_file_says_are_not_inferred(capsys):
    said = torch.tensor([False, True, True])
    training, _ = split_for(TRANSITIONS, made((5, 900, 7), terminated=said))
    assert training.terminated.tolist() == said.tolist()
    assert capsys.readouterr().out == ""


def test_an_episode_that_reaches_the_time_limit_is_cut_off_whatever_the_file_says(capsys):
    """imitation 1.0.1 writes terminal=True for both kinds of end (data/rollout.py, add_steps_and_auto_finish)."""
    training, _ = split_for(TRANSITIONS, made((5, 1000, 7), terminated=torch.ones(3, dtype=torch.bool)))
    assert training.terminated.tolist() == [True, False, True]
    assert "hopper.pt: 1 of 3 episodes that it calls terminated reach the time limit" in capsys.readouterr().out
    never = made((5, 1000, 7), terminated=torch.ones(3, dtype=torch.bool)).with_time_limits(None, can_terminate=False)
    assert not never.terminated.any()


def actions_of(environment_id, actions, **settings):
    spaces = environment_spaces(environment_id)
    actions = torch.tensor(actions).unsqueeze(1).expand(-1, spaces.action_dim)
    found = Trajectories(torch.zeros(len(actions), 2), actions, torch.tensor([len(actions)]), origin=Origin("mine.npz"))
    return in_bounds(found, spaces, **{"scale": False, "clip": False} | settings).actions[:, 0].tolist()


def test_actions_beyond_the_bounds_are_clipped_where_one_asks_for_it(capsys):
    with pytest.raises(InputError, match=r"mine\.npz: actions\[1\].*first of 2 of 3.*--data\.clip_actions true\.$"):
        actions_of("Hopper-v5", [0.5, 1.5, -7.0])
    assert actions_of("Hopper-v5", [0.5, 1.5, -7.0], clip=True) == [0.5, 1.0, -1.0]
    assert "mine.npz: actions of 2 of 3 pairs are clipped" in capsys.readouterr().out


def test_actions_recorded_in_minus_one_to_one_are_noticed_and_brought_to_the_bounds(recwarn):
    assert actions_of("Pendulum-v1", [0.5, -1.0]) == [0.5, -1.0]                 # bounds -2 to 2
    assert "mine.npz: all actions lie in [-1, 1]" in str(recwarn.pop().message)
    assert actions_of("Pendulum-v1", [0.5, -1.0], scale=True) == [1.0, -2.0]
    assert not recwarn.list
    with pytest.raises(InputError, match=r"--data\.scale_actions true\.$"):     # bounds -0.4 to 0.4
        actions_of("Humanoid-v5", [0.5, -1.0])
    assert actions_of("Humanoid-v5", [0.5, -1.0], scale=True) == pytest.approx([0.2, -0.4])


def spaces_of(parts, low, high):
    return EnvironmentSpaces("Reach-v0", sum(parts.values()), parts, np.float32(low), np.float32(high), None, None)


def test_actions_are_brought_to_bounds_that_are_not_around_zero():
    found = Trajectories(torch.zeros(3, 1), torch.tensor([[-1.0, -1], [0, 0], [1, 1]]), torch.tensor([3]))
    brought = in_bounds(found, spaces_of({"a": 1}, [0, -5], [4, -1]), scale=True, clip=False)
    assert brought.actions.tolist() == [[0, -5], [2, -3], [4, -1]]


def test_final_observations_are_brought_to_the_spaces_order_too():
    found = Trajectories(
        torch.tensor([[1.0, 2.0, 3.0]] * 2), torch.zeros(2, 1), torch.tensor([2]),
        final_observations=torch.tensor([[4.0, 5.0, 6.0]]), origin=Origin("mine.npz", observation_keys=("b", "a")),
    )  # fmt: skip
    ordered = in_order_of_space(found, spaces_of({"a": 1, "b": 2}, [-1], [1]))  # b has two columns, a the third
    assert ordered.observations.tolist() == [[3, 1, 2]] * 2
    assert ordered.final_observations.tolist() == [[6, 4, 5]]


def test_beginnings_are_learnt_from_and_whole_episodes_held_out():
    training, held_out = split_for(Wanted("MSE"), made((50,) * 10), episodes=10, validation_fraction=0.1, first_steps=7)
    assert training.lengths.tolist() == [7] * 9
    assert held_out.lengths.tolist() == [50]


def test_the_best_episodes_are_chosen_by_their_returns():
    lengths = (2, 3, 1, 4)
    rewards = torch.repeat_interleave(torch.tensor([1.0, 3.0, 2.0, -1.0]), torch.tensor(lengths))  # returns 2, 9, 2, -4
    found = replace(made(lengths, rewards=rewards), observations=torch.arange(10.0).unsqueeze(1).expand(-1, 11))
    best, _ = split_for(Wanted("MSE"), found, top_fraction=0.25)
    assert best.lengths.tolist() == [3]
    assert best.observations[:, 0].tolist() == [2, 3, 4]
    half, _ = split_for(Wanted("MSE"), found, top_fraction=0.75)
    assert half.lengths.tolist() == [2, 3, 1]
    assert half.terminated.tolist() == [True, True, True]           # inferred of the file, whose last episode is left out
    with pytest.raises(InputError, match=r"--data\.top_fraction 0\.5: hopper\.pt has no rewards"):
        split_for(Wanted("MSE"), made(lengths), top_fraction=0.5)
