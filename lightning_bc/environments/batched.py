"""Batched physics: a Gymnasium VectorEnv on ``mujoco.batch``, which steps all sub-environments in C++ threads.

A step costs the physics and little else: no Python per sub-environment. The figures are those of gymnasium's own
environments (tests/test_environments.py compares them); tasks.py holds what a task adds to the physics.
"""

import os

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.spaces import flatdim
from mujoco.batch import Batch
from numpy.typing import NDArray

from lightning_bc.aliases import StateDict
from lightning_bc.environments.arguments import (
    check_at_least_one,
)
from lightning_bc.environments.loading import quiet_model_loading, stop_clock, was_unstable
from lightning_bc.environments.side_by_side import SideBySide
from lightning_bc.environments.tasks import TASKS, BoolArray, FloatArray, Task, task_of
from lightning_bc.errors import InputError


class BatchedMujoco(SideBySide):
    """Many sub-environments of one MuJoCo task, stepped together.

    Observations, rewards, flags, start states and time limits are those of ``gymnasium.make(environment_id)`` with its
    default arguments. Gymnasium's other infos (parts of the reward, positions) are left out, for speed. Actions are not
    clipped, as in gymnasium: MuJoCo limits the controls itself, and the control cost counts the action as given.

    Args:
        environment_id: a key of :data:`lightning_bc.environments.TASKS`, or ``module:Id-v0`` of one.
        num_envs: number of sub-environments.
        threads: physics threads, by default one for each core that the process may use; never more than ``num_envs``.
            Results do not depend on it.

    Raises:
        ValueError: there is no batched task for ``environment_id``, or a number is below 1.
        TypeError: there is a task, but the environment is not one of MuJoCo.
    """

    def __init__(self, environment_id: str, num_envs: int, threads: int | None = None) -> None:
        task = task_of(environment_id)
        if task is None:
            raise ValueError(
                f"There is no batched task for {environment_id!r}; there is one for {', '.join(sorted(TASKS))}. "
                "lightning_bc.environments.make also makes other environments."
            )
        if threads is not None:
            check_at_least_one("threads", threads)

        stop_clock()
        with quiet_model_loading():
            reference = gymnasium.make(environment_id)
        environment = reference.unwrapped
        if not isinstance(environment, MujocoEnv):
            raise TypeError(f"{task.__name__} is a task of {environment_id}, which is no MujocoEnv of gymnasium.")
        super().__init__(environment_id, num_envs, environment.observation_space, environment.action_space)
        self.spec = reference.spec
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
        self._looked_at: mujoco.MjData | None = None                # of an episode that ends

    @property
    def observations(self) -> FloatArray:
        """The current observations, (num_envs, observation_dim): what the next actions answer. A copy."""
        return self._observations.copy()

    def _advance(
        self, actions: NDArray, active: BoolArray | None, rows: NDArray[np.intp]
    ) -> tuple[FloatArray, BoolArray, BoolArray]:
        task = self._task
        if active is None:
            self._controls[:] = actions
            self._elapsed_steps += 1
        else:
            self._controls[rows] = actions[rows]
            self._elapsed_steps[rows] += 1
        self._batch.step(None if active is None else rows, self._substeps)
        if task.contact_forces is not None:
            task.contact_forces.update(rows)

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
        return rewards, terminated, truncated

    def _unstable(self, rows: NDArray[np.intp]) -> BoolArray:
        found = np.zeros(self.num_envs, dtype=np.bool_)
        for row in rows.tolist():
            self._looked_at = self._batch.get_data(row, self._looked_at)
            found[row] = was_unstable(self._looked_at)
        return found

    def _state(self) -> StateDict:
        return {
            "simulations": torch.from_numpy(self._batch.state.copy()),              # (num_envs, mjSTATE_INTEGRATION)
            "x_positions": torch.from_numpy(self._x_positions.copy()),
            "observations": torch.from_numpy(self._observations.copy()),
            "elapsed_steps": torch.from_numpy(self._elapsed_steps.copy()),
        }

    def _set_state(self, state: StateDict) -> None:
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

    def _start(self, rows: NDArray[np.intp]) -> None:
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


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
