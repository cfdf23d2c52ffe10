"""Batched physics: a Gymnasium VectorEnv on ``mujoco.batch``, which steps all sub-environments in C++ threads.

A step costs the physics and little else: no Python per sub-environment. The figures are those of gymnasium's own
environments (tests/test_environments.py compares them); tasks.py holds what a task adds to the physics.
"""

import os
from collections.abc import Sequence

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.spaces import flatdim
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.batch import Batch
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
from lightning_bc.environments.loading import quiet_model_loading
from lightning_bc.environments.tasks import TASKS, BoolArray, FloatArray, Task, task_of
from lightning_bc.errors import InputError, takes_state


class BatchedMujoco(VectorEnv[FloatArray, NDArray, NDArray]):
    """Many sub-environments of one MuJoCo task, stepped together.

    Observations, rewards, flags, start states and time limits are those of ``gymnasium.make(environment_id)`` with its
    default arguments. An episode that ends restarts in the same step (``AutoresetMode.SAME_STEP``): the observation
    returned is then the next episode's first, and ``infos["final_obs"]`` holds the last of the episode that ended.
    Gymnasium's other infos (parts of the reward, positions) are left out, for speed. Actions are not clipped, as in
    gymnasium: MuJoCo limits the controls itself, and the control cost counts the action as given.

    Args:
        environment_id: a key of :data:`lightning_bc.environments.TASKS`, or ``module:Id-v0`` of one.
        num_envs: number of sub-environments.
        threads: physics threads, by default one for each core that the process may use; never more than ``num_envs``.
            Results do not depend on it.

    Raises:
        ValueError: there is no batched task for ``environment_id``, or a number is below 1.
        TypeError: there is a task, but the environment is not one of MuJoCo.
    """

    restores_exactly = True
    """Whether :meth:`load_state_dict` continues episodes bit by bit where they were saved."""

    def __init__(self, environment_id: str, num_envs: int, threads: int | None = None) -> None:
        super().__init__()
        task = task_of(environment_id)
        if task is None:
            raise ValueError(
                f"There is no batched task for {environment_id!r}; there is one for {', '.join(sorted(TASKS))}. "
                "lightning_bc.environments.make also makes other environments."
            )
        check_at_least_one("num_envs", num_envs)
        if threads is not None:
            check_at_least_one("threads", threads)

        with quiet_model_loading():
            reference = gymnasium.make(environment_id)
        environment = reference.unwrapped
        if not isinstance(environment, MujocoEnv):
            raise TypeError(f"{task.__name__} is a task of {environment_id}, which is no MujocoEnv of gymnasium.")
        self.spec = reference.spec
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = environment.observation_space
        self.single_action_space = environment.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self.environment_id = environment_id
        self._substeps = environment.frame_skip
        self._seconds_per_step = environment.dt
        limit = None if reference.spec is None else reference.spec.max_episode_steps
        self._max_episode_steps = np.iinfo(np.int64).max if limit is None else limit
        threads = min(usable_cores() if threads is None else threads, num_envs)
        self._batch = Batch(environment.model, nsim=num_envs, nthread=threads, persistent=True)
        self._task: Task = task(self._batch, environment.init_qpos, environment.init_qvel)
        reference.close()

        observation_dim = flatdim(self.single_observation_space)
        self._controls: FloatArray = self._batch.bind("ctrl")       # (num_envs, action_dim), a view of the state
        self._observations: FloatArray = np.zeros((num_envs, observation_dim))
        self._scratch = np.zeros_like(self._observations)           # observations of which only some rows are wanted
        self._x_positions: FloatArray = np.zeros(num_envs)          # before the next step
        self._elapsed_steps = np.zeros(num_envs, dtype=np.int64)
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._all_rows = np.arange(num_envs)
        self._has_started = np.zeros(num_envs, dtype=np.bool_)
        self._all_have_started = False

    @property
    def observations(self) -> FloatArray:
        """The current observations, (num_envs, observation_dim): what the next actions answer. A copy."""
        return self._observations.copy()

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
        self._start_episodes(rows)
        return self._observations.copy(), {}

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
            object array (num_envs,), holds the last observation where ``infos["_final_obs"]`` is True.

        Raises:
            ValueError: ``actions`` or ``active`` has another shape or type.
            gymnasium.error.ResetNeeded: a sub-environment to step was never reset.
        """
        actions = np.ascontiguousarray(actions)                     # rewards sum along the contiguous last axis
        check_actions(actions, self._controls.shape)
        if active is not None:
            check_mask("active", active, self.num_envs)
            if active.all():
                active = None
        if not self._all_have_started:
            self._check_started(active)

        task, rows = self._task, None
        if active is None:
            self._controls[:] = actions
            self._elapsed_steps += 1
        else:
            rows = np.flatnonzero(active)
            self._controls[rows] = actions[rows]
            self._elapsed_steps[rows] += 1
        self._batch.step(rows, self._substeps)
        if task.contact_forces is not None:
            task.contact_forces.update(self._all_rows if rows is None else rows)

        x_positions = task.x_position()
        x_velocity = (x_positions - self._x_positions) / self._seconds_per_step
        terminated = task.terminated()
        rewards = task.rewards(actions, x_velocity, terminated)
        truncated = self._elapsed_steps >= self._max_episode_steps
        if active is None:
            self._x_positions[:] = x_positions
            task.observe(self._observations)
        else:
            # Rows that stand still keep what they had: after load_state_dict their derived fields are not computed yet.
            self._x_positions[rows] = x_positions[rows]
            task.observe(self._scratch)
            self._observations[rows] = self._scratch[rows]
            rewards = np.where(active, rewards, 0.0)
            terminated &= active                                    # truncated is False there: their time is not up

        ended = terminated | truncated
        if not ended.any():
            return self._observations.copy(), rewards, terminated, truncated, {}
        ended_rows = np.flatnonzero(ended)
        final_observations = np.full(self.num_envs, None, dtype=object)
        for row in ended_rows.tolist():
            final_observations[row] = self._observations[row].copy()
        self._start_episodes(ended_rows)
        infos = {"final_obs": final_observations, "_final_obs": ended}
        return self._observations.copy(), rewards, terminated, truncated, infos

    def state_dict(self) -> StateDict:
        """The whole state, of plain values and tensors, so that ``torch.load(..., weights_only=True)`` reads it."""
        return {
            "environment_id": self.environment_id,
            "simulations": torch.from_numpy(self._batch.state.copy()),              # (num_envs, mjSTATE_INTEGRATION)
            "x_positions": torch.from_numpy(self._x_positions.copy()),
            "observations": torch.from_numpy(self._observations.copy()),
            "elapsed_steps": torch.from_numpy(self._elapsed_steps.copy()),
            "has_started": torch.from_numpy(self._has_started.copy()),
            "generators": [generator.bit_generator.state for generator in self._generators],
        }

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where :meth:`state_dict` was called, in this or in another process.

        Raises:
            InputError: the state is of another environment, of another number of sub-environments, or of a model with
                another state size (another version of mujoco or gymnasium).
        """
        check_environment(state, self.environment_id)
        simulations: FloatArray = state["simulations"].cpu().numpy()
        if simulations.shape != self._batch.state.shape:
            raise InputError(
                f"The saved state is of (sub-environments, state size) {simulations.shape}; {self._batch.state.shape} "
                "is needed. Continue with the same number of sub-environments and the same versions of mujoco and "
                "gymnasium."
            )
        self._batch.state[:] = simulations
        self._x_positions[:] = state["x_positions"].cpu().numpy()
        self._observations[:] = state["observations"].cpu().numpy()
        self._elapsed_steps[:] = state["elapsed_steps"].cpu().numpy()
        self._has_started[:] = state["has_started"].cpu().numpy()
        self._all_have_started = bool(self._has_started.all())
        for generator, generator_state in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = generator_state

    def _start_episodes(self, rows: NDArray[np.intp]) -> None:
        """Reset the sub-environments ``rows`` with noise from their own generators."""
        task, batch = self._task, self._batch
        batch.reset(rows, stage=mujoco.mjtStage.mjSTAGE_NONE.value)
        for row in rows.tolist():
            positions, velocities = task.start_state(self._generators[row])
            task.joint_positions[row] = positions
            task.joint_velocities[row] = velocities
        batch.forward(rows)
        if task.contact_forces is not None:
            task.contact_forces.clear(rows)
        task.observe(self._scratch)
        self._observations[rows] = self._scratch[rows]
        self._x_positions[rows] = task.x_position()[rows]
        self._elapsed_steps[rows] = 0
        self._has_started[rows] = True
        self._all_have_started = bool(self._has_started.all())

    def _check_started(self, active: BoolArray | None) -> None:
        missing = ~self._has_started if active is None else active & ~self._has_started
        if missing.any():
            raise gymnasium.error.ResetNeeded(
                f"Sub-environment {int(np.flatnonzero(missing)[0])} was never reset. Call reset() before step()."
            )


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
