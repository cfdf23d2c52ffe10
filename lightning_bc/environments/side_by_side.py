"""What environments share whose sub-environments are stepped together by array operations: BatchedMujoco, BatchedGates."""

from abc import abstractmethod
from collections.abc import Sequence

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
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
from lightning_bc.environments.tasks import BoolArray, FloatArray
from lightning_bc.errors import takes_state


class SideBySide(VectorEnv[FloatArray, NDArray, NDArray]):
    """Many sub-environments, stepped together; each has a random generator of its own.

    An episode that ends restarts in the same step (``AutoresetMode.SAME_STEP``): the observation returned is then the next
    episode's first, and ``infos["final_obs"]`` holds the last of the episode that ended.

    Args:
        environment_id: as it was asked for.
        num_envs: number of sub-environments.
        observation_space: of one.
        action_space: of one.

    Raises:
        ValueError: ``num_envs`` is below 1.
    """

    restores_exactly = True
    """Whether :meth:`load_state_dict` continues episodes bit by bit where they were saved."""

    def __init__(
        self, environment_id: str, num_envs: int, observation_space: spaces.Space, action_space: spaces.Space
    ) -> None:
        super().__init__()
        check_at_least_one("num_envs", num_envs)
        self.environment_id, self.num_envs = environment_id, num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._action_shape = (num_envs, spaces.flatdim(action_space))
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._all_rows = np.arange(num_envs)
        self._has_started = np.zeros(num_envs, dtype=np.bool_)
        self._all_have_started = False

    @property
    @abstractmethod
    def observations(self) -> FloatArray:
        """The current observations, (num_envs, observation_dim): what the next actions answer. A copy."""

    @abstractmethod
    def _start(self, rows: NDArray[np.intp]) -> None:
        """Begin episodes in the sub-environments ``rows``, drawn from their own generators."""

    @abstractmethod
    def _advance(
        self, actions: NDArray, active: BoolArray | None, rows: NDArray[np.intp]
    ) -> tuple[FloatArray, BoolArray, BoolArray]:
        """Step the sub-environments ``rows``, those of the mask ``active``; all where that is None.

        Returns:
            rewards, terminated and truncated, (num_envs,); 0 and False for those that stand still.
        """

    def _unstable(self, rows: NDArray[np.intp]) -> BoolArray:
        """In which of the sub-environments ``rows`` the simulation was unstable in this episode, (num_envs,)."""
        return np.zeros(self.num_envs, dtype=np.bool_)

    @abstractmethod
    def _state(self) -> StateDict:
        """What :meth:`_set_state` goes on from, besides generators and which sub-environments have started."""

    @abstractmethod
    def _set_state(self, state: StateDict) -> None:
        """Go on from there.

        Raises:
            InputError: the state is of other sizes.
        """

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Infos | None = None
    ) -> tuple[FloatArray, Infos]:
        """Start new episodes.

        Args:
            seed: an integer s gives sub-environment i the start state that gymnasium gives the seed s + i; a sequence
                gives each its own; None, alone or in the sequence, continues that sub-environment's generator.
            options: ``{"reset_mask": mask}``, mask (num_envs,) of bool, resets only those sub-environments.

        Returns:
            The observations (num_envs, observation_dim), float64, of all sub-environments, and an empty dictionary.

        Raises:
            ValueError: the number of seeds, or the shape, type or content of the mask, is not as above.
        """
        seeds = seeds_of(seed, self.num_envs)
        mask = reset_mask_of(options, self.num_envs)
        rows = self._all_rows if mask is None else np.flatnonzero(mask)
        for row in rows.tolist():
            if (row_seed := seeds[row]) is not None:
                self._generators[row] = seeding.np_random(row_seed)[0]
        self._start(rows)
        self._has_started[rows] = True
        self._all_have_started = bool(self._has_started.all())
        return self.observations, {}

    def step(
        self, actions: NDArray, active: BoolArray | None = None
    ) -> tuple[FloatArray, FloatArray, BoolArray, BoolArray, Infos]:
        """Step the active sub-environments; the others stand still.

        Args:
            actions: (num_envs, action_dim), in the environment's units.
            active: which to step, (num_envs,) of bool; None for all. For the others the observation is repeated, the
                reward is 0, both flags are False, and the action is ignored.

        Returns:
            observations (num_envs, observation_dim), rewards (num_envs,) float64, terminated (num_envs,) and truncated
            (num_envs,), all new arrays; and infos, empty unless an episode ended. Then ``infos["final_obs"]``, an
            object array (num_envs,), holds the last observation where ``infos["_final_obs"]`` is True, and
            ``infos["unstable"]``, (num_envs,) of bool, says in which of these episodes the simulation was unstable.

        Raises:
            ValueError: ``actions`` or ``active`` has another shape or type.
            gymnasium.error.ResetNeeded: a sub-environment to step was never reset.
        """
        actions = np.ascontiguousarray(actions)                     # rewards sum along the contiguous last axis
        check_actions(actions, self._action_shape)
        if active is not None:
            check_mask("active", active, self.num_envs)
            if active.all():
                active = None
        if not self._all_have_started:
            self._check_started(active)
        rows = self._all_rows if active is None else np.flatnonzero(active)
        rewards, terminated, truncated = self._advance(actions, active, rows)
        observations = self.observations
        ended = terminated | truncated
        if not ended.any():
            return observations, rewards, terminated, truncated, {}
        final_observations = np.full(self.num_envs, None, dtype=object)
        ended_rows = np.flatnonzero(ended)
        for row in ended_rows.tolist():
            final_observations[row] = observations[row]
        infos = {"final_obs": final_observations, "_final_obs": ended, "unstable": self._unstable(ended_rows)}
        self._start(ended_rows)
        return self.observations, rewards, terminated, truncated, infos

    def state_dict(self) -> StateDict:
        """The whole state, of plain values and tensors, so that ``torch.load(..., weights_only=True)`` reads it."""
        return {
            "environment_id": self.environment_id,
            **self._state(),
            "has_started": torch.from_numpy(self._has_started.copy()),
            "generators": [generator.bit_generator.state for generator in self._generators],
        }

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where :meth:`state_dict` was called, in this or in another process.

        Raises:
            InputError: the state is of another environment, of another number of sub-environments, or of another size.
        """
        check_environment(state, self.environment_id)
        self._set_state(state)
        self._has_started[:] = state["has_started"].cpu().numpy()
        self._all_have_started = bool(self._has_started.all())
        for generator, generator_state in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = generator_state

    def _check_started(self, active: BoolArray | None) -> None:
        missing = ~self._has_started if active is None else active & ~self._has_started
        if missing.any():
            raise gymnasium.error.ResetNeeded(
                f"Sub-environment {int(np.flatnonzero(missing)[0])} was never reset. Call reset() before step()."
            )
