"""The curve's own warning: a return that does not move."""

import math

import numpy as np
import pytest
from learners import warnings_of

from lightning_bc.callbacks import Rollouts


def points(*halves, steps=10_000, points_a_half=10):
    """A curve of (environment steps, normalized return), its halves around the given means."""
    noise = 0.01 * (-1.0) ** np.arange(points_a_half)
    returns = np.concatenate([mean + noise for mean in halves])
    return [(steps * number, value) for number, value in enumerate(returns)]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (points(0.04, 0.04), 1),
        (points(0.04, 0.02), 1),
        (points(0.0, 0.3, 0.3), 1),
        ([(number, 0.0) for number in range(0, 300_000, 100_000)], 0),
        (points(0.04, 0.04, steps=5_000), 0),
        (points(0.9, 0.9), 0),
        (points(math.nan, math.nan), 0),
        ([(10_000 * number, 0.01 * number) for number in range(50)], 0),
    ],
    ids=["flat", "falling", "flat after a rise", "few points", "few steps", "arrived", "no expert", "slow but steady"],
)
def test_a_return_that_does_not_move_is_warned_of_once(curve, expected):
    rollouts = Rollouts()
    messages = warnings_of(lambda point: rollouts._watch(*point), *curve)
    assert len(messages) == expected
    assert all("has not moved for 1" in message for message in messages)
    resumed = Rollouts()
    resumed.load_state_dict(rollouts.state_dict() | {"metrics": {"seconds": 2.0, "training_seconds": 1.0}})
    again = warnings_of(lambda point: resumed._watch(*point), *[(curve[-1][0] + steps, 0.0) for steps, _ in curve])
    assert again == [] or not expected
