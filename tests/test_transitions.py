"""Transitions are cut from the demonstrations' episodes: what follows each pair, and where the task ended."""

import numpy as np
import pytest
import torch
from conftest import write_pairs

from lightning_bc.demonstrations import Demonstrations


def expected_transitions(lengths, limit, never_terminates, subsample, trained):
    """(episode, step, terminated) of each pair that has a successor."""
    rows = []
    for episode, length in enumerate(lengths[:trained]):
        for step in range(0, length, subsample):
            last = step == length - 1
            cut = never_terminates or length >= limit or episode == len(lengths) - 1
            if not (last and cut):
                rows.append((episode, step, float(last)))
    return rows


@pytest.mark.parametrize("subsample", [1, 3, 7])
@pytest.mark.parametrize(
    ("environment_id", "sizes", "lengths", "options", "trained"),
    [
        ("InvertedPendulum-v5", (4, 1), (10, 7, 1000, 1, 13, 7), {}, 6),
        ("InvertedPendulum-v5", (4, 1), (10, 7, 1000, 1, 13, 7), {"episodes": 4}, 4),
        ("InvertedPendulum-v5", (4, 1), (10, 7, 5) * 4, {}, 11),    # the last one is held out
        ("HalfCheetah-v5", (17, 6), (20, 20, 20, 9), {}, 4),
    ],
    ids=["all", "the first four", "one held out", "HalfCheetah"],
)
def test_transitions_are_those_of_the_episodes(environment_id, sizes, lengths, options, trained, subsample, tmp_path):
    path = write_pairs(tmp_path / "data.pt", lengths, *sizes)
    data = Demonstrations(path, environment_id, subsample=subsample, batch_size=1, **options)
    data.prepare_data()
    data.setup("fit")
    observations, actions, _, following, terminated = data.training_transitions.columns
    expected = expected_transitions(lengths, 1000, environment_id == "HalfCheetah-v5", subsample, trained)
    content = torch.load(path, weights_only=True)
    starts = np.cumsum([0, *lengths])
    rows = [starts[episode] + step for episode, step, _ in expected]
    assert observations[:, :2].tolist() == [[episode, step] for episode, step, _ in expected]
    assert torch.equal(observations, content["observations"][rows])
    assert torch.equal(actions, content["actions"][rows])
    assert terminated.tolist() == [last for _, _, last in expected]
    for row, (episode, step, last) in enumerate(expected):
        if last:
            assert not following[row].any()
        else:
            assert following[row, :2].tolist() == [episode, step + 1]
            assert torch.equal(following[row], content["observations"][rows[row] + 1])
