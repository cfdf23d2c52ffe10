"""Environment id -> sub-environments to play in: batched physics where a task exists, else gymnasium one by one."""

import difflib
import functools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import FlattenObservation
from numpy.typing import NDArray

from lightning_bc.environments.batched import (
    BatchedMujoco,
    check_actions,
    check_mask,
    quiet_model_loading,
    reset_mask_of,
    seeds_of,
)
from lightning_bc.environments.tasks import TASKS, BoolArray, FloatArray
from lightning_bc.errors import InputError

NEVER_TERMINATE = frozenset(
    {
        "HalfCheetah-v4",
        "HumanoidStandup-v4",
        "HumanoidStandup-v5",
        "Pendulum-v1",
        "Pusher-v4",
        "Reacher-v4",
        "Swimmer-v4",
    }
)
"""Gymnasium's continuous environments without a batched task whose ``step`` always returns ``terminated=False``."""


class UnusableEnvironmentError(InputError):
    """The environment is unknown, lacks a dependency, or has actions that are not bounded vectors."""


@dataclass(frozen=True, eq=False)
class EnvironmentSpaces:
    """What goes in and out of one environment.

    Attributes:
        environment_id: as given.
        observation_dim: length of the (flattened) observation.
        action_low: lower bounds of the actions, (action_dim,) float32, in the environment's units.
        action_high: upper bounds, likewise.
        max_episode_steps: the time limit; None where there is none.
        can_terminate: whether an episode can end before the time limit; None where that is unknown.
    """

    environment_id: str
    observation_dim: int
    action_low: NDArray[np.float32]
    action_high: NDArray[np.float32]
    max_episode_steps: int | None
    can_terminate: bool | None

    @property
    def action_dim(self) -> int:
        """Length of the action."""
        return len(self.action_low)


def make(environment_id: str, num_envs: int, threads: int | None = None) -> "Environments":
    """Make ``num_envs`` sub-environments that play the same task.

    Either class that this returns takes ``step(actions, active)`` and ``reset(seed=..., options={"reset_mask": ...})``,
    restarts an episode in the step that ends it, leaves its last observation in ``infos["final_obs"]``, and has
    ``observations``, ``state_dict``, ``load_state_dict`` and ``restores_exactly``: see :class:`BatchedMujoco`.

    Args:
        environment_id: a Gymnasium id such as ``HalfCheetah-v5``, or ``module:Id-v0`` to import its module first.
        num_envs: number of sub-environments.
        threads: physics threads of batched tasks, by default one for each core that the process may use.

    Raises:
        UnusableEnvironmentError: see there.
        ValueError: ``num_envs`` or ``threads`` is below 1.
    """
    if environment_id in TASKS:
        return BatchedMujoco(environment_id, num_envs, threads)
    environment_spaces(environment_id)                              # raises where the environment cannot be used
    return OneByOne(environment_id, num_envs)


@functools.lru_cache
def environment_spaces(environment_id: str) -> EnvironmentSpaces:
    """The spaces, time limit and kind of ending of one environment; cached.

    Raises:
        UnusableEnvironmentError: the environment is unknown or lacks a dependency, or its actions are not vectors of
            numbers within finite bounds.
    """
    environment = _make_one(environment_id)
    observation_space, action_space, spec = environment.observation_space, environment.action_space, environment.spec
    environment.close()
    if not isinstance(action_space, spaces.Box) or len(action_space.shape) != 1:
        raise UnusableEnvironmentError(
            f"{environment_id} has the action space {action_space}; a one-dimensional Box of continuous actions is "
            f"needed. Choose another environment, for example {', '.join(list(TASKS)[:3])}."
        )
    if not action_space.is_bounded():
        raise UnusableEnvironmentError(
            f"{environment_id} has action bounds from {action_space.low.min()} to {action_space.high.max()}; finite "
            "bounds are needed, because policies answer in [-1, 1] and are scaled to them. Register the environment "
            "with gymnasium.wrappers.RescaleAction or ClipAction around it and finite bounds."
        )
    low, high = action_space.low.astype(np.float32), action_space.high.astype(np.float32)
    for bounds in (low, high):
        bounds.flags.writeable = False                              # the cache hands the same arrays to everyone
    if environment_id in TASKS:
        can_terminate: bool | None = TASKS[environment_id].can_terminate
    else:
        can_terminate = False if environment_id in NEVER_TERMINATE else None
    return EnvironmentSpaces(
        environment_id=environment_id,
        observation_dim=spaces.flatdim(observation_space),
        action_low=low,
        action_high=high,
        max_episode_steps=None if spec is None else spec.max_episode_steps,
        can_terminate=can_terminate,
    )


class OneByOne(VectorWrapper):
    """Gymnasium's SyncVectorEnv with the interface of :class:`BatchedMujoco`: for environments without a batched task.

    Observations are flattened to vectors where they are anything else. The state of such environments cannot be saved:
    :meth:`load_state_dict` starts new episodes, and warns of it.

    Args:
        environment_id: the environment, checked by :func:`environment_spaces`.
        num_envs: number of sub-environments.

    Raises:
        ValueError: ``num_envs`` is below 1.
    """

    restores_exactly = False
    """Episodes restart when a saved state is loaded."""

    env: SyncVectorEnv

    def __init__(self, environment_id: str, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; it must be 1 or more.")
        with quiet_model_loading():
            environments = gymnasium.make_vec(
                environment_id,
                num_envs,
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
                wrappers=[FlattenObservation],
            )
        super().__init__(environments)
        self._environment_id = environment_id
        shape = (num_envs, spaces.flatdim(self.single_observation_space))
        self._observations: NDArray = np.zeros(shape, self.single_observation_space.dtype)
        self._steps = 0                                             # environment steps, so that each save seeds anew

    @property
    def observations(self) -> NDArray:
        """The current observations, (num_envs, observation_dim): what the next actions answer. A copy."""
        return self._observations.copy()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray, dict[str, Any]]:
        """Start new episodes; arguments, returns and errors as :meth:`BatchedMujoco.reset`.

        Other entries of ``options`` than the mask go to the environments.
        """
        seeds = seeds_of(seed, self.num_envs)
        mask = reset_mask_of(options, self.num_envs)
        others = {key: value for key, value in (options or {}).items() if key != "reset_mask"}
        for index, environment in enumerate(self.env.envs):
            if mask is None or mask[index]:
                self._observations[index], _ = environment.reset(seed=seeds[index], options=others or None)
        return self._observations.copy(), {}

    def step(
        self, actions: NDArray, active: BoolArray | None = None
    ) -> tuple[NDArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Step the active sub-environments; arguments, returns and errors as :meth:`BatchedMujoco.step`."""
        actions = np.asarray(actions)
        check_actions(actions, (self.num_envs, spaces.flatdim(self.single_action_space)))
        if active is not None:
            check_mask("active", active, self.num_envs)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        final_observations = np.full(self.num_envs, None, dtype=object)
        for index, environment in enumerate(self.env.envs):
            if active is not None and not active[index]:
                continue
            observation, rewards[index], terminated[index], truncated[index], _ = environment.step(actions[index])
            self._steps += 1
            if terminated[index] or truncated[index]:
                final_observations[index] = np.array(observation, self._observations.dtype)
                observation, _ = environment.reset()
            self._observations[index] = observation
        ended = terminated | truncated
        infos = {"final_obs": final_observations, "_final_obs": ended} if ended.any() else {}
        return self._observations.copy(), rewards, terminated, truncated, infos

    def state_dict(self) -> dict[str, Any]:
        """Seeds to start new episodes from, of plain values: these environments cannot save more."""
        seeds = [
            int(np.random.SeedSequence((abs(entropy), self._steps)).generate_state(1)[0])
            for entropy in self.env.np_random_seed
        ]
        return {"environment_id": self._environment_id, "seeds": seeds, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start new episodes from the saved seeds, and warn that the saved ones are lost.

        Raises:
            ValueError: the state is of another environment or of another number of sub-environments.
        """
        if state["environment_id"] != self._environment_id:
            raise ValueError(
                f"The saved state is of {state['environment_id']}; these sub-environments are {self._environment_id}. "
                "Continue with the environment that the run began with."
            )
        warnings.warn(
            f"{self._environment_id} cannot save its state: its {self.num_envs} episodes in progress restart from new "
            "start states, so the run continues, but not bit by bit as if it had never stopped.",
            UserWarning,
            stacklevel=2,
        )
        self.reset(seed=state["seeds"])
        self._steps = state["steps"]


Environments = BatchedMujoco | OneByOne
"""What :func:`make` returns."""


def _make_one(environment_id: str) -> gymnasium.Env:
    """``gymnasium.make``, with errors that say what to do."""
    try:
        with quiet_model_loading():
            return gymnasium.make(environment_id)
    except gymnasium.error.DependencyNotInstalled as error:
        raise UnusableEnvironmentError(f"{environment_id} lacks a dependency: {error}") from error
    except ImportError as error:
        raise UnusableEnvironmentError(
            f"{environment_id} cannot be imported: {error}{_nearest_ids(environment_id)}"
        ) from error
    except gymnasium.error.Error as error:
        raise UnusableEnvironmentError(
            f"{environment_id!r} is not an environment that Gymnasium can make: {error}{_nearest_ids(environment_id)} "
            "An environment of another package needs its module: module:Id-v0."
        ) from error


def _nearest_ids(environment_id: str) -> str:
    """`` The nearest known ids are ...``, by spelling and without regard to case; batched tasks where none is near."""
    by_lower_case = {known.lower(): known for known in gymnasium.registry if known != environment_id}
    wanted = environment_id.rpartition(":")[2].strip().lower()
    nearest = [by_lower_case[key] for key in difflib.get_close_matches(wanted, by_lower_case, n=3, cutoff=0.6)]
    if nearest:
        return f" The nearest known ids are {', '.join(nearest)}."
    return f" Batched tasks are {', '.join(TASKS)}."
