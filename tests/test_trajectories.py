"""Trajectories: which episodes, pairs and transitions are cut from them, and where they are said to have terminated."""

import pytest
import torch

from lightning_bc.demonstrations.trajectories import Trajectories, joined
from lightning_bc.errors import InputError

LENGTHS = (4, 1, 6, 2)


def made(lengths=LENGTHS, first_episode=0, **changes):
    """Episodes whose observation is (episode, step), whose action is its negative, and whose reward is the row's number."""
    rows = [(first_episode + episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    observations = torch.tensor(rows, dtype=torch.float32)
    columns = {"rewards": torch.arange(float(len(rows))), "lengths": torch.tensor(lengths)} | changes
    return Trajectories(observations=observations, actions=-observations, **columns)


def final(lengths=LENGTHS):
    """Final observations: (episode, length)."""
    return torch.tensor([(episode, length) for episode, length in enumerate(lengths)], dtype=torch.float32)


def steps(trajectories):
    return [tuple(map(int, row)) for row in trajectories.observations]


def test_return_of_an_episode_is_the_sum_of_its_rewards():
    trajectories = made()
    assert trajectories.returns.tolist() == [0 + 1 + 2 + 3, 4, 5 + 6 + 7 + 8 + 9 + 10, 11 + 12]
    assert trajectories.mean_return == sum(range(13)) / 4
    assert made(rewards=None).returns.isnan().all()


@pytest.mark.parametrize(
    ("lengths", "terminated", "known", "is_cut"),
    [
        ((4, 4, 4, 2), [False] * 4, {}, True),
        ((4, 4, 4, 4), [False] * 4, {"time_limit": 1000}, False),   # each was cut off there
        ((4, 4, 4, 2), [False, False, False, True], {}, False),
        ((3, 4, 2, 1), [True, False, True, False], {}, True),
        ((3, 4, 2, 1), [True, True, True, False], {}, False),       # it may have lasted until the time limit
        ((3, 4, 2, 1), [True, True, True, False], {"time_limit": 10}, True),
        ((4, 4, 4, 2), None, {"time_limit": 4}, False),             # it may have terminated
        ((4, 4, 4, 2), None, {"can_terminate": False}, True),
        ((2,), [False], {"time_limit": 4}, False),                  # there is no other
    ],
)
def test_a_last_episode_is_known_to_be_cut_off_early(lengths, terminated, known, is_cut):
    ends = None if terminated is None else torch.tensor(terminated)
    assert made(lengths, terminated=ends).last_is_cut(**known) is is_cut


def test_part_holds_whole_episodes_and_what_belongs_to_them():
    part = made(terminated=torch.tensor([True, False, True, False]), final_observations=final()).part(1, 3)
    assert steps(part) == [(1, 0), *((2, step) for step in range(6))]
    assert part.rewards.tolist() == [4, 5, 6, 7, 8, 9, 10]
    assert (part.lengths.tolist(), part.terminated.tolist()) == ([1, 6], [False, True])
    assert part.final_observations.tolist() == [[1, 1], [2, 6]]


def test_part_of_no_episode_is_empty():
    assert len(made().part(4, 4)) == len(made().part(4, 4).lengths) == 0


def test_every_kth_pair_counts_from_the_beginning_of_each_episode():
    observations, actions = made().pairs(3, torch.device("cpu"))
    assert observations.tolist() == [[0, 0], [0, 3], [1, 0], [2, 0], [2, 3], [3, 0]]
    assert torch.equal(actions, -observations)


@pytest.mark.parametrize("has_final", [True, False])
def test_beginnings_are_cut_off_where_they_end(has_final):
    terminated = torch.tensor([True, True, False, True])
    whole = made(terminated=terminated, final_observations=final() if has_final else None)
    cut = whole.beginnings(2)
    assert steps(cut) == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert torch.equal(cut.actions, -cut.observations)
    assert cut.rewards.tolist() == [0, 1, 4, 5, 6, 11, 12]
    assert cut.lengths.tolist() == [2, 1, 2, 2]
    assert cut.terminated.tolist() == [False, True, False, True]
    if has_final:
        assert cut.final_observations.tolist() == [[0, 2], [1, 1], [2, 2], [3, 2]]
        assert torch.equal(whole.final_observations, final())


@pytest.mark.parametrize(("length", "lengths"), [(5, [5, 5, 3]), (13, [13]), (100, [13]), (1, [1] * 13)])
def test_unknown_episodes_are_taken_to_be_of_one_length(length, lengths):
    cut = made((13,), knows_episodes=False).in_episodes_of(length)
    assert (cut.lengths.tolist(), cut.knows_episodes) == (lengths, True)


def test_more_episodes_than_there_are_cannot_be_used():
    with pytest.raises(InputError, match=r"--data\.episodes 5: memory holds 4 episodes"):
        made().held_out(5, 0.0)


@pytest.mark.parametrize(
    ("lengths", "episodes", "held_out"),
    [
        ((40, *[3] * 20, *[1] * 10), None, 11),                     # a tenth of 110 pairs
        ((500,) * 30, None, 2),                                     # 1000 pairs, and 0.01 of the episodes is one
        ((500,) * 300, None, 3),                                    # 0.01 of the episodes
        ((500,) * 30, 4, 1),                                        # a tenth of what is used, 200 pairs
        ((1, 100), None, 1),
    ],
)
def test_episodes_that_alone_judge_a_run_have_enough_pairs(lengths, episodes, held_out):
    trajectories = made(lengths)
    used = len(lengths) if episodes is None else episodes
    training, judging = trajectories.held_out(episodes, 0.01, 2, must_judge=True)
    assert (len(training.lengths), len(judging.lengths)) == (used - held_out, held_out)
    assert torch.equal(judging.observations, trajectories.part(used - held_out, used).observations)


# Termination


@pytest.mark.parametrize(
    ("time_limit", "can_terminate", "terminated"),
    [
        pytest.param(6, True, [True, True, False, False], id="shorter than the time limit"),
        pytest.param(6, None, [True, True, False, False], id="not known whether the environment terminates"),
        pytest.param(None, True, [True, True, True, False], id="no time limit"),
        pytest.param(6, False, [False] * 4, id="an environment that never terminates"),
    ],
)
def test_termination_is_inferred_for_all_but_the_last_episode(time_limit, can_terminate, terminated):
    assert made().with_terminations_inferred(time_limit, can_terminate).terminated.tolist() == terminated


def transitions_of(trajectories, every=1):
    columns = trajectories.transitions(every).columns
    return [tuple(torch.as_tensor(value).tolist() for value in row) for row in zip(*columns, strict=True)]


def wanted(trajectories, episode, step, following, terminated):
    row = int(trajectories.starts[episode]) + step
    return [episode, step], [-episode, -step], row, following, terminated


@pytest.mark.parametrize("has_final", [False, True])
@pytest.mark.parametrize("every", [1, 3])
def test_transitions_lead_where_the_episode_went(every, has_final):
    """Beside plain loops: within an episode to its next row, from a last row to the final observation where it is known."""
    ended = [True, False, False, True]
    trajectories = made(terminated=torch.tensor(ended), final_observations=final() if has_final else None)
    expected = []
    for episode, length in enumerate(LENGTHS):
        for step in range(0, length, every):
            if step < length - 1:
                expected.append(wanted(trajectories, episode, step, [episode, step + 1], 0))
            elif has_final or ended[episode]:
                following = [episode, length] if has_final else [0, 0]
                expected.append(wanted(trajectories, episode, step, following, float(ended[episode])))
    assert transitions_of(trajectories, every) == expected
    assert len(trajectories.transition_rows(every)) == len(expected)


def test_episodes_of_one_step_that_were_cut_off_have_no_transition():
    trajectories = made((1, 1, 1), terminated=torch.zeros(3, dtype=torch.bool))
    assert len(trajectories.transition_rows()) == 0


def test_observations_are_left_alone_by_transitions():
    trajectories = made(terminated=torch.ones(4, dtype=torch.bool), final_observations=final())
    trajectories.transitions()
    assert torch.equal(trajectories.observations, made().observations)


# Together, and cut


def test_joined_episodes_stand_one_after_another():
    ends = [torch.tensor([True, False, True, False]), torch.tensor([True, True])]
    parts = [
        made(terminated=ends[0], final_observations=final()),
        made((3, 2), first_episode=4, terminated=ends[1], final_observations=final((3, 2))),
    ]
    whole = joined(parts)
    assert steps(whole) == steps(made((*LENGTHS, 3, 2)))
    assert whole.lengths.tolist() == [*LENGTHS, 3, 2]
    assert whole.terminated.tolist() == [True, False, True, False, True, True]
    assert torch.equal(whole.final_observations, torch.cat([final(), final((3, 2))]))
    assert joined([made(), made(rewards=None)]).rewards is None


@pytest.mark.parametrize(
    ("kept", "lengths", "terminated", "last"),
    [
        pytest.param(13, [4, 1, 6, 2], [True] * 4, [3, 2], id="all"),
        pytest.param(100, [4, 1, 6, 2], [True] * 4, [3, 2], id="more than there are"),
        pytest.param(11, [4, 1, 6], [True] * 3, [2, 6], id="at an episode's end"),
        pytest.param(9, [4, 1, 4], [True, True, False], [2, 4], id="within an episode"),
        pytest.param(2, [2], [False], [0, 2], id="within the first"),
    ],
)
def test_episode_that_is_cut_did_not_terminate_and_led_to_the_row_behind_the_cut(kept, lengths, terminated, last):
    whole = made(terminated=torch.ones(4, dtype=torch.bool), final_observations=final())
    cut = whole.cut(kept)
    assert steps(cut) == steps(whole)[:kept]
    assert len(cut.actions) == len(cut.rewards) == len(cut)
    assert (cut.lengths.tolist(), cut.terminated.tolist()) == (lengths, terminated)
    assert cut.final_observations[-1].tolist() == last
