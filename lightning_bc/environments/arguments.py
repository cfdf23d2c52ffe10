"""Checks of what :class:`BatchedMujoco` and :class:`OneByOne` are given."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_bc.aliases import Infos, StateDict
from lightning_bc.environments.tasks import BoolArray
from lightning_bc.errors import InputError


def seeds_of(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    """One seed (or None) a sub-environment from the ``seed`` argument of ``reset``, by gymnasium's convention.

    Raises:
        ValueError: the number of seeds is not ``num_envs``.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, int | np.integer):
        return [int(seed) + index for index in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(f"There are {len(seed)} seeds; {num_envs} are needed, one a sub-environment.")
    return [None if one is None else int(one) for one in seed]


def reset_mask_of(options: Infos | None, num_envs: int) -> BoolArray | None:
    """The mask (num_envs,) in the ``options`` argument of ``reset``; None resets all.

    Raises:
        ValueError: the mask has another shape or type, or selects nothing.
    """
    if options is None or "reset_mask" not in options:
        return None
    mask: BoolArray = options["reset_mask"]
    check_mask("options['reset_mask']", mask, num_envs)
    if not mask.any():
        raise ValueError("options['reset_mask'] selects no sub-environment; leave it out to reset all.")
    return mask


def check_actions(actions: NDArray, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``actions`` has the shape (num_envs, action_dim)."""
    if actions.shape != shape:
        raise ValueError(f"actions have the shape {actions.shape}; {shape} (sub-environments, action_dim) is needed.")


def check_mask(name: str, mask: Any, num_envs: int) -> None:
    """Raise ValueError unless ``mask`` is an array of bool of shape (num_envs,)."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (num_envs,):
        found = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"{name} is {found}; a numpy array of bool of shape ({num_envs},) is needed.")


def check_at_least_one(name: str, number: int) -> None:
    """Raise ValueError if ``number`` is below 1."""
    if number < 1:
        raise ValueError(f"{name} is {number}; it must be 1 or more.")


def check_environment(state: StateDict, environment_id: str) -> None:
    """Raise InputError unless the saved ``state`` is of the environment ``environment_id``."""
    if state["environment_id"] != environment_id:
        raise InputError(
            f"The saved state is of {state['environment_id']}; these sub-environments are {environment_id}. "
            "Continue with the environment that the run began with."
        )
