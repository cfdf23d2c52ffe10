"""Demonstrations of a robot that no Gymnasium environment stands for: everything that is known of it is in the file."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_bc.demonstrations.trajectories import Trajectories
from lightning_bc.environments import EnvironmentSpaces
from lightning_bc.errors import InputError
from lightning_bc.references import References

REFERENCES = References(math.nan, math.nan, "unknown: nothing is played without a simulator")

NARROWEST = 1e-3
"""Half of the range of an action that does not vary in the file, in shares of its magnitude, or of 1 where that is less."""


def spaces_of(
    files: Sequence[Trajectories],
    environment_id: str,
    low: Sequence[float] | None,
    high: Sequence[float] | None,
    scale: bool,
) -> EnvironmentSpaces:
    """Dimensions of the file, and bounds that are given or those of its actions.

    Args:
        files: the demonstrations, as read.
        environment_id: what the file says; may be empty.
        low: lower bounds of the actions, (action_dim,), or None for the least of the file.
        high: upper bounds, likewise.
        scale: whether the file's actions were recorded in [-1, 1], so that they say nothing of the bounds.

    Raises:
        InputError: bounds are missing, of another number than the actions, or not in order.
    """
    if not files:
        raise InputError("--data.path null: without a simulator (--rollouts.episodes 0) everything is the file's. Name it.")
    path, actions = ", ".join(made.origin.path for made in files), torch.cat([made.actions for made in files])
    if scale and (low is None or high is None):
        raise InputError(
            "--data.scale_actions true: brings actions to bounds that nothing says without a simulator. Give "
            "--data.action_low and --data.action_high."
        )
    lower, upper = _bound("action_low", low, actions.amin(dim=0)), _bound("action_high", high, actions.amax(dim=0))
    still = (lower == upper) & (low is None) & (high is None)
    width = np.where(still, NARROWEST * np.maximum(np.abs(lower), 1.0), 0.0).astype(np.float32)
    lower, upper = lower - width, upper + width
    if not (lower < upper).all():
        dimension = int(np.flatnonzero(~(lower < upper))[0])
        raise InputError(
            f"{path}: action bounds {lower[dimension]:g} to {upper[dimension]:g} in dimension {dimension} leave nothing to "
            "choose. Set --data.action_low and --data.action_high."
        )
    if low is None or high is None:
        rank_zero_only(print)(
            f"{path}: action bounds {_in_words(lower)} to {_in_words(upper)}, those of the file; set "
            "others with --data.action_low and --data.action_high"
        )
    return EnvironmentSpaces(environment_id or "the robot", files[0].observations.shape[1], {}, lower, upper, None, None)


def refuse_bounds(environment_id: str, low: Sequence[float] | None, high: Sequence[float] | None) -> None:
    """Raise InputError where bounds are given though there is an environment, whose bounds count."""
    for name, given in (("action_low", low), ("action_high", high)):
        if given is not None:
            raise InputError(
                f"--data.{name} {list(given)}: the bounds of {environment_id} count. Leave it away, or train without the "
                "environment, --rollouts.episodes 0."
            )


def check_held_out(held_out: Trajectories, fraction: float) -> None:
    """Raise InputError where no episodes are held out, by which alone such a run can be judged."""
    if len(held_out) == 0:
        why = "Set it above 0." if fraction == 0 else "Two episodes at least are needed."
        raise InputError(
            f"--data.validation_fraction {fraction:g}: without a simulator (--rollouts.episodes 0) a run is judged by its "
            f"loss on held-out episodes, and none are held out. {why}"
        )


def _in_words(bounds: np.ndarray) -> str:
    return f"[{', '.join(f'{bound:.4g}' for bound in bounds)}]"


def _bound(name: str, given: Sequence[float] | None, found: Tensor) -> np.ndarray:
    if given is None:
        return found.numpy().astype(np.float32)
    if len(given) != len(found) or not np.isfinite(given).all():
        raise InputError(f"--data.{name} {list(given)}: wanted {len(found)} finite numbers, one per action dimension.")
    return np.array(given, np.float32)
