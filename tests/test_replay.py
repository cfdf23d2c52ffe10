"""Replay against lists: the last transitions and no others, drawn uniformly."""

import pytest
import torch
from scipy import stats

from lightning_bc.border import Border
from lightning_bc.strategies.contract import Transitions
from lightning_bc.strategies.online.replay import Replay, joined, normalised

OBSERVATION_DIM, ACTION_DIM = 3, 2


def numbered(first, count):
    """Transitions that are recognised by their reward, each field a function of it."""
    number = torch.arange(first, first + count, dtype=torch.float32)
    columns = torch.arange(1.0, 4.0)
    return Transitions(
        observations=number.unsqueeze(-1) * columns,
        actions=number.unsqueeze(-1) + columns[:ACTION_DIM],
        rewards=number,
        next_observations=-number.unsqueeze(-1) * columns,
        terminated=number % 2,
    )


def filled(capacity, *counts):
    replay, first = Replay(capacity, OBSERVATION_DIM, ACTION_DIM), 0
    for count in counts:
        replay.add(numbered(first, count))
        first += count
    return replay


def held(replay, draws=2000):
    """The numbers that sampling finds."""
    torch.manual_seed(0)
    return set(replay.sample(draws).rewards.int().tolist())


@pytest.mark.parametrize(
    "counts", [(4,), (10,), (4, 4, 4), (7, 10), (3, 25), (25, 3), (1,) * 13, (10, 10, 1), (23, 23)], ids=str
)
def test_replay_holds_the_last_transitions_and_no_others(counts):
    replay, total = filled(10, *counts), sum(counts)
    assert len(replay) == min(total, 10)
    assert held(replay) == set(range(max(0, total - 10), total))


def test_the_oldest_gives_way_first_also_after_more_than_fits_was_added_at_once():
    replay = filled(10, 3, 25)
    for newest in range(28, 45):
        replay.add(numbered(newest, 1))
        assert held(replay) == set(range(newest - 9, newest + 1))


def test_the_fields_of_a_sample_belong_together():
    sample = filled(50, 30, 45).sample(200)
    expected = [numbered(int(number), 1) for number in sample.rewards]
    assert [tuple(column.shape) for column in vars(sample).values()] == [(200, 3), (200, 2), (200,), (200, 3), (200,)]
    for name, column in vars(sample).items():
        assert torch.equal(column, torch.cat([getattr(one, name) for one in expected])), name


def test_replay_keeps_copies():
    replay, given = Replay(10, OBSERVATION_DIM, ACTION_DIM), numbered(5, 1)
    replay.add(given)
    given.observations.zero_()
    replay.sample(4).observations.zero_()
    assert torch.equal(replay.sample(1).observations, numbered(5, 1).observations)


@pytest.mark.parametrize("counts", [(20,), (13, 20)], ids=["full", "wrapped"])
def test_sampling_is_uniform(counts):
    torch.manual_seed(0)
    replay = filled(20, *counts)
    drawn = torch.bincount(replay.sample(20_000).rewards.long(), minlength=sum(counts))[-20:]
    assert drawn.sum() == 20_000
    assert stats.chisquare(drawn.numpy()).pvalue > 0.01


@pytest.mark.parametrize("counts", [(6,), (10,), (7, 8), (3, 25)], ids=["partly filled", "full", "wrapped", "all at once"])
def test_a_restored_replay_goes_on_identically(counts, tmp_path):
    original, restored = filled(10, *counts), Replay(10, OBSERVATION_DIM, ACTION_DIM)
    torch.save(original.state_dict(), tmp_path / "replay.pt")
    restored.load_state_dict(torch.load(tmp_path / "replay.pt", weights_only=True))
    first = sum(counts)
    for count in (0, 1, 4, 30, 2):
        samples = []
        for replay in (original, restored):
            replay.add(numbered(first, count))
            torch.manual_seed(count)
            samples.append(replay.sample(50))
        assert all(torch.equal(a, b) for a, b in zip(*(vars(sample).values() for sample in samples), strict=True))
        first += count
    assert len(original) == len(restored) == 10


def test_a_saved_state_does_not_change_with_the_replay():
    replay = filled(10, 10)
    state = replay.state_dict()
    replay.add(numbered(10, 5))
    assert sorted(state["rows"][:, OBSERVATION_DIM + ACTION_DIM].tolist()) == list(range(10))


def test_what_does_not_fit_a_replay_raises():
    replay = filled(10, 5)
    with pytest.raises(RuntimeError):
        Replay(10, OBSERVATION_DIM, ACTION_DIM).sample(1)           # nothing is there
    with pytest.raises(RuntimeError):
        Replay(10, OBSERVATION_DIM + 1, ACTION_DIM).add(numbered(0, 2))
    with pytest.raises(RuntimeError):
        replay.add(mismatched())
    for capacity in (4, 20):
        with pytest.raises(RuntimeError):
            Replay(capacity, OBSERVATION_DIM, ACTION_DIM).load_state_dict(filled(10, 7, 6).state_dict())
    assert held(replay) == set(range(5))


def mismatched():
    """Transitions with one reward too few."""
    whole = numbered(0, 4)
    return Transitions(whole.observations, whole.actions, whole.rewards[1:], whole.next_observations, whole.terminated)


def test_agents_see_normalised_observations_and_all_else_as_it_was_stored():
    border, batch = Border(OBSERVATION_DIM, [-1.0, -1.0], [1.0, 1.0]), numbered(1, 5)
    border.mean.fill_(2.0)
    border.scale.copy_(torch.tensor([1.0, 2.0, 4.0]))
    seen = normalised(batch, border)
    torch.testing.assert_close(seen.observations, (batch.observations - 2) / torch.tensor([1.0, 2.0, 4.0]))
    torch.testing.assert_close(seen.next_observations, (batch.next_observations - 2) / torch.tensor([1.0, 2.0, 4.0]))
    for name in ("actions", "rewards", "terminated"):
        assert torch.equal(getattr(seen, name), getattr(batch, name))


def test_joined_transitions_stand_one_behind_the_other():
    both = joined(numbered(0, 3), numbered(3, 4))
    for name, column in vars(numbered(0, 7)).items():
        assert torch.equal(getattr(both, name), column), name
