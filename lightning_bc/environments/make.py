"""Environment id -> sub-environments to play in: in batches where that is possible, else gymnasium one by one."""

import difflib
import functools
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import NormalizeObservation, NormalizeReward
from numpy.typing import NDArray

from lightning_bc.environments.batched import BatchedMujoco
from lightning_bc.environments.gates import BatchedGates, gates_of
from lightning_bc.environments.loading import quiet_model_loading
from lightning_bc.environments.one_by_one import OneByOne, bounds_of
from lightning_bc.environments.tasks import TASKS, task_of
from lightning_bc.errors import InputError, raised_by
from lightning_bc.stopping import STOPPING

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

DEFAULT_LIMIT = 1000
"""Steps after which an episode is cut off in an environment without a time limit, unless ``limit_episodes`` says another."""

_limits: dict[str, int] = {}


class UnusableEnvironmentError(InputError):
    """The environment is unknown, lacks a dependency, or has actions that are not bounded vectors."""


@dataclass(frozen=True, eq=False)
class EnvironmentSpaces:
    """What goes in and out of one environment.

    Attributes:
        environment_id: as given.
        observation_dim: length of the (flattened) observation.
        observation_parts: of a Dict space, each key's share of that length, in the order in which they are flattened; empty
            for any other space.
        action_low: lower bounds of the actions, (action_dim,) float32, in the environment's units.
        action_high: upper bounds, likewise.
        max_episode_steps: the time limit; None where there is none.
        can_terminate: whether an episode can end before the time limit; None where that is unknown.
        contact_forces: the entries of an observation that the environment says are forces of contacts, as Ant-v5 and
            Humanoid-v5 do; empty where there are none, or nothing is said.
    """

    environment_id: str
    observation_dim: int
    observation_parts: Mapping[str, int]
    action_low: NDArray[np.float32]
    action_high: NDArray[np.float32]
    max_episode_steps: int | None
    can_terminate: bool | None
    contact_forces: Sequence[int] = ()

    @property
    def action_dim(self) -> int:
        """Length of the action."""
        return len(self.action_low)


Environments = BatchedMujoco | BatchedGates | OneByOne
"""What :func:`make` returns."""


def make(environment_id: str, num_envs: int, threads: int | None = None) -> Environments:
    """Make ``num_envs`` sub-environments that play the same task.

    Each class that this returns takes ``step(actions, active)`` and ``reset(seed=..., options={"reset_mask": ...})``,
    restarts an episode in the step that ends it, leaves its last observation in ``infos["final_obs"]``, and has
    ``environment_id``, ``observations``, ``state_dict``, ``load_state_dict`` and ``restores_exactly``: see
    :class:`BatchedMujoco`.

    Args:
        environment_id: a Gymnasium id such as ``HalfCheetah-v5``, or ``module:Id-v0`` to import its module first.
        num_envs: number of sub-environments.
        threads: physics threads of batched tasks, by default one for each core that the process may use.

    Raises:
        UnusableEnvironmentError: see there.
        ValueError: ``num_envs`` or ``threads`` is below 1.
    """
    environment_spaces(environment_id)                              # imports its module; raises where it cannot be used
    if task_of(environment_id) is not None:
        return BatchedMujoco(environment_id, num_envs, threads)
    if gates_of(environment_id) is not None:
        return BatchedGates(environment_id, num_envs)
    return OneByOne(environment_id, num_envs, episode_limit(environment_id))


def limit_episodes(environment_id: str, steps: int) -> None:
    """Have every episode of an environment without a time limit cut off after ``steps``, in the whole process.

    Raises:
        InputError: the environment has a time limit, of another length.
        UnusableEnvironmentError: the environment cannot be used.
    """
    if steps < 1:
        raise InputError(f"max_episode_steps {steps}: wanted at least 1.")
    own = environment_spaces(environment_id).max_episode_steps
    if own not in (None, steps):
        raise InputError(
            f"max_episode_steps {steps}: {environment_id} has a time limit of its own, {own} steps, which counts. Leave "
            "max_episode_steps away."
        )
    _limits[environment_id] = steps


def episode_limit(environment_id: str) -> int | None:
    """Steps after which episodes are cut off here, since the environment does not; None where it does.

    The first time that nobody has said how many, a warning does.
    """
    if environment_spaces(environment_id).max_episode_steps is not None:
        return None
    if environment_id not in _limits:
        warnings.warn(
            # whether its steps cut them off themselves before that, only playing shows
            f"{environment_id} states no time limit: episodes that do not end by themselves are cut off after "
            f"{DEFAULT_LIMIT} steps. Say how many with --rollouts.max_episode_steps in fit, with max_episode_steps in "
            "collect and evaluate.",
            stacklevel=2,
        )
        _limits[environment_id] = DEFAULT_LIMIT
    return _limits[environment_id]


def are_one(environment_ids: Collection[str]) -> bool:
    """Whether ids are of one environment: ``module:Id-v0`` is ``Id-v0``, whose module is imported first."""
    with_module = {one for one in environment_ids if ":" in one}
    return len({one.rpartition(":")[2] for one in environment_ids}) < 2 and len(with_module) < 2


def resolved(environment_id: str) -> str:
    """The id with its version: HalfCheetah is HalfCheetah-v5, the latest that is registered.

    Raises:
        UnusableEnvironmentError: the environment is unknown or lacks a dependency.
    """
    if environment_id.rpartition(":")[2] in gymnasium.registry:
        return environment_id
    environment = _make_one(environment_id)
    environment.close()
    module, colon, _ = environment_id.rpartition(":")
    return environment_id if environment.spec is None else f"{module}{colon}{environment.spec.id}"


@functools.lru_cache
def environment_spaces(environment_id: str) -> EnvironmentSpaces:
    """The spaces, time limit and kind of ending of one environment; cached.

    Raises:
        UnusableEnvironmentError: the environment is unknown or lacks a dependency, or its actions are not vectors of
            numbers within finite bounds.
    """
    if not isinstance(environment_id, str):                         # from Python
        kind = "an environment" if isinstance(environment_id, gymnasium.Env) else f"a {type(environment_id).__name__}"
        raise UnusableEnvironmentError(f"environment_id: is {kind}, wanted its id, such as HalfCheetah-v5.")
    environment = _make_one(environment_id)
    observation_space, action_space, spec = environment.observation_space, environment.action_space, environment.spec
    environment.close()
    try:
        observation_dim = spaces.flatdim(observation_space)
    except (ValueError, NotImplementedError) as error:              # a Sequence, a Graph
        raise UnusableEnvironmentError(
            f"{environment_id} has the observation space {observation_space}; one of fixed size is needed. Register the "
            "environment with a gymnasium.ObservationWrapper around it that gives vectors."
        ) from error
    if observation_dim == 0:
        raise UnusableEnvironmentError(f"{environment_id} has the observation space {observation_space}, without numbers.")
    _warn_of_running_statistics(environment, environment_id)
    parts = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {}
    is_continuous = np.issubdtype(action_space.dtype, np.floating)
    if not isinstance(action_space, spaces.Box) or len(action_space.shape) != 1 or not is_continuous:
        raise UnusableEnvironmentError(
            f"{environment_id} has the action space {action_space}; a one-dimensional Box of continuous actions is "
            f"needed. Choose another environment, for example {', '.join(sorted(TASKS)[:3])}."
        )
    if not action_space.is_bounded():
        raise UnusableEnvironmentError(
            f"{environment_id} has action bounds from {action_space.low.min()} to {action_space.high.max()}; finite "
            "bounds are needed, because policies answer in [-1, 1] and are scaled to them. Give its action_space finite "
            "ones, or register it within gymnasium.wrappers.TransformAction(env, lambda action: action, Box(low, high))."
        )
    low, high = bounds_of(action_space)
    if (low >= high).any():
        dimension = int(np.flatnonzero(low >= high)[0])
        raise UnusableEnvironmentError(
            f"{environment_id} has equal action bounds, {low[dimension]:g}, in dimension {dimension} of its actions, so "
            "there is nothing to choose. Register the environment without that dimension."
        )
    for bounds in (low, high):
        bounds.flags.writeable = False                              # the cache hands the same arrays to everyone
    task = task_of(environment_id)
    if task is not None:
        can_terminate: bool | None = task.can_terminate
    elif gates_of(environment_id) is not None:
        can_terminate = True
    else:
        can_terminate = False if environment_id in NEVER_TERMINATE else None
    return EnvironmentSpaces(
        environment_id=environment_id,
        observation_dim=observation_dim,
        observation_parts=MappingProxyType({str(key): spaces.flatdim(part) for key, part in parts.items()}),
        action_low=low,
        action_high=high,
        max_episode_steps=None if spec is None else spec.max_episode_steps,
        can_terminate=can_terminate,
        contact_forces=_contact_forces(environment, observation_dim),
    )


def _contact_forces(environment: gymnasium.Env, observation_dim: int) -> Sequence[int]:
    """The entries that Gymnasium's robots call ``cfrc_ext``, where their parts are all of an observation."""
    parts = getattr(environment.unwrapped, "observation_structure", None)
    if not isinstance(parts, dict) or "cfrc_ext" not in parts:
        return ()
    sizes = {name: size for name, size in parts.items() if not name.startswith("skipped_")}  # not in an observation
    ends = dict(zip(sizes, accumulate(sizes.values()), strict=True))
    if sum(sizes.values()) != observation_dim:                      # a wrapper has changed it
        return ()
    return range(ends["cfrc_ext"] - sizes["cfrc_ext"], ends["cfrc_ext"])


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
    except (Exception, SystemExit) as error:                        # whatever the user's program raises
        STOPPING.look()
        raise UnusableEnvironmentError(
            f"{environment_id}: making it {raised_by(error)}. With --debug all of it is shown."
        ) from error


def _warn_of_running_statistics(environment: gymnasium.Env, environment_id: str) -> None:
    """Warn of wrappers that give an observation, or a return, another meaning with every step."""
    while isinstance(environment, gymnasium.Wrapper):
        if isinstance(environment, NormalizeObservation | NormalizeReward) and environment.update_running_mean:
            warnings.warn(
                f"{environment_id} has the wrapper {type(environment).__name__}, whose statistics begin anew in each "
                "sub-environment, change with every step and are in no checkpoint: scores and curves say little. Register "
                "the environment without it.",
                stacklevel=2,
            )
        environment = environment.env


def _nearest_ids(environment_id: str) -> str:
    """`` The nearest known ids are ...``, by spelling and without regard to case; batched tasks where none is near."""
    by_lower_case = {known.lower(): known for known in gymnasium.registry if known != environment_id}
    wanted = environment_id.rpartition(":")[2].strip().lower()
    nearest = [by_lower_case[key] for key in difflib.get_close_matches(wanted, by_lower_case, n=3, cutoff=0.6)]
    if nearest:
        return f" The nearest known ids are {', '.join(nearest)}."
    return f" Batched tasks are {', '.join(sorted(TASKS))}."
