"""A warning of a return that does not move, for strategies that act while they learn."""

import warnings

import numpy as np

from lightning_bc.aliases import StateDict
from lightning_bc.errors import takes_state

STALLED_ENVIRONMENT_STEPS = 100_000
STALLED_POINTS = 10
STALLED_GAIN = 0.02
STALLED_RETURN = 0.5
"""Normalized, as the gain; a curve that is flat above it may have arrived."""


class Stalled:
    """Warn, once per run, of a return that has not moved for long.

    Looked at is the curve's end: STALLED_ENVIRONMENT_STEPS or STALLED_POINTS points, whichever is longer. It has not moved
    where the mean of its second half is under STALLED_RETURN and gains less than STALLED_GAIN on the first's.
    """

    def __init__(self) -> None:
        self.recent: list[tuple[float, float]] = []                 # environment steps, normalized return
        self.warned = False

    def state_dict(self) -> StateDict:
        """What was seen."""
        return {"recent": self.recent, "warned": self.warned}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from there."""
        self.recent, self.warned = state["recent"], state["warned"]

    def look(self, environment_steps: float, normalized_return: float) -> None:
        """Take in a point of the curve."""
        self.recent.append((environment_steps, normalized_return))
        steps, returns = np.array(self.recent).T
        if len(steps) < STALLED_POINTS or steps[-1] - steps[0] < STALLED_ENVIRONMENT_STEPS:
            return
        first = min(np.flatnonzero(steps <= steps[-1] - STALLED_ENVIRONMENT_STEPS)[-1], len(steps) - STALLED_POINTS)
        self.recent = self.recent[first:]
        before, after = np.array_split(returns[first:], 2)
        if not self.warned and after.mean() < STALLED_RETURN and after.mean() - before.mean() < STALLED_GAIN:
            self.warned = True
            warnings.warn(
                f"the return has not moved for {steps[-1] - steps[first]:,.0f} environment steps: normalized, it was "
                f"{before.mean():.2f} on average in the first half of them and {after.mean():.2f} in the second. Look at "
                "train/entropy and train/q_value in TensorBoard; another --seed_everything, --model.optimizer.lr or "
                "--model.updates_per_step may get it going.",
                stacklevel=2,
            )
