"""Environments without a batched task: gymnasium's own, stepped one after another."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import FlattenObservation, TimeLimit
from numpy.typing import NDArray

from lightning_bc.aliases import Infos, StateDict
from lightning_bc.environments.arguments import (
    check_actions,
    check_at_least_one,
    check_environment,
    check_mask,
    reset_mask_of,
    seeds_of,
)
from lightning_bc.environments.loading import quiet_model_loading, was_unstable
from lightning_bc.environments.tasks import BoolArray, FloatArray
from lightning_bc.errors import ExitedError, InputError, raised_by, takes_state
from lightning_bc.stopping import STOPPING


class _Flattened(FlattenObservation):
    """Observations as vectors, of the size that their space says."""

    def __init__(self, env: gymnasium.Env, environment_id: str) -> None:
        super().__init__(env)
        self._id, self._space, self._shape = environment_id, env.observation_space, self.observation_space.shape

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[NDArray, Infos]:
        """Start an episode: its first observation, and what else the environment says."""
        answer: Any = self.env.reset(seed=seed, options=options)
        if not isinstance(answer, tuple) or len(answer) != 2:
            found = f"a tuple of {len(answer)}" if isinstance(answer, tuple) else f"a value of type {type(answer).__name__}"
            raise InputError(
                f"{self._id}: its reset returns {found}, wanted (observation, info). Have it return observation, {{}}."
            )
        return self.observation(answer[0]), answer[1]

    def observation(self, observation: Any) -> NDArray:
        """One observation as a vector."""
        flat: Any = spaces.flatten(self._space, observation)
        if flat.shape != self._shape:
            space, found, wanted = self._space, flat.shape, self._shape
            if isinstance(space, spaces.Box):
                found, wanted = np.shape(observation), space.shape
            raise InputError(f"{self._id}: gave an observation of shape {found}, its space says {wanted}")
        return flat


def bounds_of(space: spaces.Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lower and upper bounds, (action_dim,) each; those that float32 does not hold are rounded inwards."""
    low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    return (
        np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low),
        np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high),
    )


class OneByOne(VectorWrapper):
    """Gymnasium's SyncVectorEnv with the interface of :class:`BatchedMujoco`: for environments without a batched task.

    Observations are flattened to vectors where they are anything else. The state of such environments cannot be saved:
    :meth:`load_state_dict` starts new episodes, and warns of it.

    Args:
        environment_id: the environment, checked by :func:`lightning_bc.environments.environment_spaces`.
        num_envs: number of sub-environments.
        max_episode_steps: steps after which an episode is cut off where the environment has no time limit itself.

    Raises:
        ValueError: ``num_envs`` is below 1.
    """

    restores_exactly = False
    """Episodes restart when a saved state is loaded."""

    env: SyncVectorEnv

    def __init__(self, environment_id: str, num_envs: int, max_episode_steps: int | None = None) -> None:
        check_at_least_one("num_envs", num_envs)
        limit = [] if max_episode_steps is None else [partial(TimeLimit, max_episode_steps=max_episode_steps)]
        with quiet_model_loading():
            environments = gymnasium.make_vec(
                environment_id,
                num_envs,
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
                wrappers=[*limit, partial(_Flattened, environment_id=environment_id)],
            )
        super().__init__(environments)
        self.environment_id = environment_id
        action_space: Any = environments.single_action_space        # a Box, as was checked
        self._bounds = bounds_of(action_space)
        shape = (num_envs, spaces.flatdim(self.single_observation_space))
        self._observations: NDArray = np.zeros(shape, self.single_observation_space.dtype)
        self._steps = 0                                             # environment steps, so that each save seeds anew

    @property
    def observations(self) -> NDArray:
        """The current observations, (num_envs, observation_dim): what the next actions answer. A copy."""
        return self._observations.copy()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Infos | None = None
    ) -> tuple[NDArray, Infos]:
        """Start new episodes; arguments, returns and errors as :meth:`BatchedMujoco.reset`.

        Other entries of ``options`` than the mask go to the environments.
        """
        seeds = seeds_of(seed, self.num_envs)
        mask = reset_mask_of(options, self.num_envs)
        others = {key: value for key, value in (options or {}).items() if key != "reset_mask"}
        for index, environment in enumerate(self.env.envs):
            if mask is None or mask[index]:
                with self._told("reset"):
                    self._observations[index], _ = environment.reset(seed=seeds[index], options=others or None)
        return self._observations.copy(), {}

    def step(
        self, actions: NDArray, active: BoolArray | None = None
    ) -> tuple[NDArray, FloatArray, BoolArray, BoolArray, Infos]:
        """Step the active sub-environments; arguments, returns and errors as :meth:`BatchedMujoco.step`.

        Actions are clipped to the bounds, beyond which a policy's scale and bias may round.
        """
        actions = np.asarray(actions)
        check_actions(actions, (self.num_envs, spaces.flatdim(self.single_action_space)))
        actions = actions.clip(*self._bounds)
        if active is not None:
            check_mask("active", active, self.num_envs)
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, np.bool_), np.zeros(self.num_envs, np.bool_)
        unstable, final_observations = np.zeros(self.num_envs, np.bool_), np.full(self.num_envs, None, dtype=object)
        for index, environment in enumerate(self.env.envs):
            if active is not None and not active[index]:
                continue
            with self._told("step"):
                observation, reward, terminated[index], truncated[index], _ = environment.step(actions[index])
            rewards[index] = self._number(reward)
            self._steps += 1
            if terminated[index] or truncated[index]:
                simulation = getattr(environment.unwrapped, "data", None)
                unstable[index] = isinstance(simulation, mujoco.MjData) and was_unstable(simulation)
                with self._told("an observation"):
                    final_observations[index] = np.array(observation, self._observations.dtype)
                with self._told("reset"):
                    observation, _ = environment.reset()
            with self._told("an observation"):
                self._observations[index] = observation
        ended = terminated | truncated
        infos = {"final_obs": final_observations, "_final_obs": ended, "unstable": unstable} if ended.any() else {}
        return self._observations.copy(), rewards, terminated, truncated, infos

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Inside the block, whatever the environment raises, which is a program of the user's, is said in one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            words = f"{self.environment_id}: {what} {raised_by(error)}"
            raise InputError(f"{words}. With --debug all of it is shown.") from error
        except SystemExit as error:
            STOPPING.look()                                         # it may be how the environment answers a signal
            raise ExitedError(f"{self.environment_id}: {what} {raised_by(error)}.") from error

    def _number(self, reward: Any) -> float:
        """A reward, also one in an array of one element, as environments that compute in batches give it."""
        if np.size(reward) != 1:
            raise InputError(
                f"{self.environment_id}: gave a reward of shape {np.shape(reward)}; one number is needed. Put a "
                "gymnasium.RewardWrapper around it that sums it."
            )
        return np.asarray(reward, dtype=float).item()

    def state_dict(self) -> StateDict:
        """Seeds to start new episodes from, of plain values: these environments cannot save more."""
        seeds = [
            int(np.random.SeedSequence((abs(entropy), self._steps)).generate_state(1)[0])
            for entropy in self.env.np_random_seed
        ]
        return {"environment_id": self.environment_id, "seeds": seeds, "steps": self._steps}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Start new episodes from the saved seeds, and warn that the saved ones are lost.

        Raises:
            InputError: the state is of another environment or of another number of sub-environments.
        """
        check_environment(state, self.environment_id)
        warnings.warn(
            f"{self.environment_id} cannot save its state: its {self.num_envs} episodes in progress restart from new "
            "start states, so the run continues, but not bit by bit as if it had never stopped.",
            UserWarning,
            stacklevel=2,
        )
        self.reset(seed=state["seeds"])
        self._steps = state["steps"]
