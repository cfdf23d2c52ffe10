"""Windows: what stands before and behind each pair, also at the ends of episodes, in shares of ranks and after a resume."""

import itertools

import pytest
import torch

from lightning_bc.demonstrations import Batches
from lightning_bc.demonstrations.windows import Windows

LENGTHS = (4, 1, 6, 2)
SHAPES = [(1, 4), (3, 1), (3, 5), (9, 9)]


def pairs_of(lengths, first_episode=0):
    """Pairs whose observation is (episode, step) and whose action is its negative."""
    rows = [(first_episode + episode, step) for episode, length in enumerate(lengths) for step in range(length)]
    observations = torch.tensor(rows, dtype=torch.float32)
    return observations, -observations


def batches_of(lengths=LENGTHS, history=3, horizon=5, batch_size=4, **options):
    observations, actions = pairs_of(lengths)
    windows = Windows(torch.tensor(lengths), history, horizon, observations.device)
    return Batches(observations, actions, batch_size, seed=0, windows=windows, **options)


def wanted(lengths, episode, step, history, horizon):
    """A window by plain lists: observations, actions, and which actions are within the episode."""
    last = lengths[episode] - 1
    seen = [(episode, max(0, step - ago)) for ago in reversed(range(history))]
    planned = [(-episode, -min(last, step + ahead)) for ahead in range(horizon)]
    return seen, planned, [step + ahead <= last for ahead in range(horizon)]


def assert_windows_are_right(batch, lengths, history, horizon):
    for observations, actions, within in zip(*batch, strict=True):
        episode, step = (int(x) for x in observations[-1])
        seen, planned, mask = wanted(lengths, episode, step, history, horizon)
        assert observations.tolist() == [list(map(float, row)) for row in seen]
        assert actions.tolist() == [list(map(float, row)) for row in planned]
        assert within.tolist() == mask


@pytest.mark.parametrize(("history", "horizon"), SHAPES)
def test_windows_stay_within_their_episode_and_repeat_its_ends(history, horizon):
    observations, actions = pairs_of(LENGTHS)
    windows = Windows(torch.tensor(LENGTHS), history, horizon, observations.device)
    batch = windows.cut(observations, actions, torch.arange(len(observations)))
    assert batch[0].shape == (13, history, 2)
    assert batch[1].shape == (13, horizon, 2)
    assert (batch[2].shape, batch[2].dtype) == ((13, horizon), torch.bool)
    assert_windows_are_right(batch, LENGTHS, history, horizon)


def test_windows_of_one_step_are_the_pairs():
    observations, actions = pairs_of(LENGTHS)
    windows = Windows(torch.tensor(LENGTHS), 1, 1, observations.device)
    seen, planned, within = windows.cut(observations, actions, torch.tensor([5, 0, 12]))
    assert torch.equal(seen[:, 0], observations[[5, 0, 12]])
    assert torch.equal(planned[:, 0], actions[[5, 0, 12]])
    assert within.all()


def test_batches_serve_the_window_of_each_pair_in_the_order_of_pairs():
    observations, actions = pairs_of(LENGTHS)
    pairs = Batches(observations, actions, 4, seed=0)
    for (with_windows,), (plain,) in zip(batches_of(), pairs, strict=True):
        assert torch.equal(with_windows[0][:, -1], plain[0])
        assert torch.equal(with_windows[1][:, 0], plain[1])
        assert_windows_are_right(with_windows, LENGTHS, 3, 5)


def test_added_episodes_have_windows_of_their_own():
    batches = batches_of(num_batches=100)
    stream = iter(batches)
    next(stream)
    observations, actions = pairs_of((3, 2), first_episode=len(LENGTHS))
    batches.extend(observations, actions, torch.tensor([3, 2]))
    served = [next(stream)[0] for _ in range(batches.batches_per_pass)]
    for batch in served:
        assert_windows_are_right(batch, (*LENGTHS, 3, 2), 3, 5)
    present = torch.cat([batch[0][:, -1] for batch in served]).tolist()
    assert sorted(present) == pairs_of((*LENGTHS, 3, 2))[0].tolist()


@pytest.mark.parametrize("extended", [False, True])
def test_resumed_stream_serves_the_very_same_windows(extended):
    def stream():
        batches = batches_of(num_batches=100)
        if extended:
            new = pairs_of((3, 2), first_episode=len(LENGTHS))
            batches.extend(*new, torch.tensor([3, 2]))
        return batches

    whole = stream()
    list(itertools.islice(whole, 5))
    state = whole.state_dict()
    expected = [batch for (batch,) in itertools.islice(whole, 7)]
    resumed = stream()
    resumed.load_state_dict(state)
    for batch, again in zip(expected, itertools.islice(resumed, 7), strict=True):
        assert all(torch.equal(*columns) for columns in zip(batch, again[0], strict=True))


def test_ranks_share_the_windows_that_one_process_would_serve():
    def rows(batch):
        return torch.cat([part.flatten(1) for part in batch], 1).tolist()

    alone = [rows(batch) for (batch,) in batches_of((4, 1, 5, 2), batch_size=6)]
    shares = [batches_of((4, 1, 5, 2), batch_size=2, rank=rank, world_size=3) for rank in range(3)]
    for whole, *parts in zip(alone, *shares, strict=True):
        assert sorted(itertools.chain.from_iterable(rows(batch) for (batch,) in parts)) == sorted(whole)
