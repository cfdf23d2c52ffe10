"""What strategies want of demonstrations: windows without gaps, transitions, and to know where episodes end."""

from dataclasses import replace

import pytest
import torch

from lightning_bc.demonstrations.fitting import Budget, Wanted, check_wanted, split
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.environments import environment_spaces
from lightning_bc.errors import InputError
from lightning_bc.strategies.contract import Needs

WINDOWS = Wanted("Diffusion", history=2, horizon=8)
TRANSITIONS = Wanted("GAIL", Needs.TRANSITIONS)


def made(lengths, **changes):
    """Demonstrations of Hopper-v5, which may end early."""
    observations, actions = torch.zeros(sum(lengths), 11), torch.zeros(sum(lengths), 3)
    return Trajectories(observations, actions, torch.tensor(lengths), origin=Origin("hopper.pt"), **changes)


def split_for(wanted, trajectories, **budget):
    return split(trajectories, environment_spaces("Hopper-v5"), wanted, Budget(**budget))


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
    training, _ = split_for(TRANSITIONS, made((5, 1000, 7), terminated=said))
    assert training.terminated.tolist() == said.tolist()
    assert capsys.readouterr().out == ""
