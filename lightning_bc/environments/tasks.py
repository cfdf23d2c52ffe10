"""What a task adds to the physics: observation, reward, termination and the noise of the start state.

Gymnasium's MuJoCo environments (-v5, with their default arguments) over all sub-environments at once. Each method does
the same floating-point operations in the same order as gymnasium, so that the figures agree to the last bit. Only
InvertedDoublePendulum's reward may differ in the last bit: gymnasium squares single numbers by ``pow``, arrays by
multiplication.

Source of every constant: https://github.com/Farama-Foundation/Gymnasium/tree/main/gymnasium/envs/mujoco.

A class here is abstract or final. To add a task, write a final subclass of :class:`Task` that says its ``environment_id``,
here or in a package of your own: once it is imported, it is played.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


class ContactForces:
    """The contact forces and torques on each body, ``cfrc_ext``, (num_envs, bodies, 6).

    MuJoCo leaves ``cfrc_ext`` at zero unless a sensor asks for it, and gymnasium fills it by calling
    ``mj_rnePostConstraint`` after ``mj_step``. A sensor would not do here: Ant and Humanoid integrate by Runge-Kutta,
    and sensors are computed at its first stage, ``mj_rnePostConstraint`` after its last.
    """

    def __init__(self, batch: Batch) -> None:
        self.values: FloatArray = np.zeros((batch.nsim, batch.model.nbody, 6))
        self._batch = batch
        self._data = mujoco.MjData(batch.model)

    def update(self, rows: NDArray[np.intp]) -> None:
        """Compute the forces of the sub-environments ``rows``, which have just been stepped."""
        model, data = self._batch.model, self._data
        for row in rows.tolist():
            self._batch.get_data(row, data)
            mujoco.mj_rnePostConstraint(model, data)
            self.values[row] = data.cfrc_ext

    def clear(self, rows: NDArray[np.intp]) -> None:
        """Zero the forces of the sub-environments ``rows``, which have just been reset: ``mj_forward`` leaves zeros."""
        self.values[rows] = 0.0


TASKS: dict[str, type["Task"]] = {}
"""The tasks that batched physics can play, by environment id."""


class Task(ABC):
    """One task over all sub-environments of a batch.

    The arrays are live views: they change with every step of the batch. All methods answer for every sub-environment,
    also for those that were not stepped; the caller picks rows.

    Args:
        batch: the simulations.
        initial_positions: joint positions that the start-state noise is added to, (nq,).
        initial_velocities: joint velocities that the start-state noise is added to, (nv,).

    Attributes:
        environment_id: Gymnasium's id of the task; every final class has its own, and is found by it.
        can_terminate: whether an episode can end before the time limit.
        contact_forces: kept up to date by the caller after each step and reset; None where the task reads none.
    """

    environment_id: ClassVar[str]
    can_terminate: ClassVar[bool]
    contact_forces: ContactForces | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "environment_id" in vars(cls):
            TASKS[cls.environment_id] = cls

    def __init__(self, batch: Batch, initial_positions: FloatArray, initial_velocities: FloatArray) -> None:
        self.joint_positions: FloatArray = batch.bind("qpos")       # (num_envs, nq)
        self.joint_velocities: FloatArray = batch.bind("qvel")      # (num_envs, nv)
        self.initial_positions = initial_positions.copy()
        self.initial_velocities = initial_velocities.copy()

    def x_position(self) -> FloatArray:
        """The x position whose change per second is the ``x_velocity`` of :meth:`rewards`, (num_envs,), in metres."""
        return self.joint_positions[:, 0]

    def terminated(self) -> BoolArray:
        """Which sub-environments have reached a terminal state, (num_envs,). Here: none."""
        return np.zeros(len(self.joint_positions), dtype=np.bool_)

    @abstractmethod
    def observe(self, observations: FloatArray) -> None:
        """Write the observations into ``observations``, (num_envs, observation_dim)."""

    @abstractmethod
    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        """The rewards of the step just taken, (num_envs,).

        Args:
            actions: what was played, (num_envs, action_dim), contiguous. Its type counts: gymnasium sums the squares of
                float32 actions in float32.
            x_velocity: change of :meth:`x_position` per second over the step, (num_envs,).
            terminated: the answer of :meth:`terminated`.
        """

    @abstractmethod
    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw the joint positions (nq,) and velocities (nv,) that one episode starts from."""

    def _uniform_positions(self, generator: np.random.Generator, scale: float) -> FloatArray:
        return self.initial_positions + generator.uniform(-scale, scale, self.initial_positions.size)

    def _uniform_velocities(self, generator: np.random.Generator, scale: float) -> FloatArray:
        return self.initial_velocities + generator.uniform(-scale, scale, self.initial_velocities.size)

    def _normal_velocities(self, generator: np.random.Generator, scale: float) -> FloatArray:
        return self.initial_velocities + scale * generator.standard_normal(self.initial_velocities.size)


def task_of(environment_id: str) -> type[Task] | None:
    """The task of ``environment_id``, also of ``module:Id-v0`` whose module has been imported; None if there is none."""
    return TASKS.get(environment_id.rpartition(":")[2])


class HalfCheetah(Task):
    """reward = x_velocity - 0.1 |action|^2; never terminates."""

    environment_id = "HalfCheetah-v5"
    can_terminate = False

    def observe(self, observations: FloatArray) -> None:
        observations[:, :8] = self.joint_positions[:, 1:]
        observations[:, 8:] = self.joint_velocities

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        return x_velocity - 0.1 * _squared_norm(actions)

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return self._uniform_positions(generator, 0.1), self._normal_velocities(generator, 0.1)


class Hopper(Task):
    """reward = x_velocity + healthy - 0.001 |action|^2.

    Healthy: height above 0.7 m, |pitch| below 0.2 rad, every other coordinate within (-100, 100).
    """

    environment_id = "Hopper-v5"
    can_terminate = True

    def terminated(self) -> BoolArray:
        height, pitch = self.joint_positions[:, 1], self.joint_positions[:, 2]
        within = (np.abs(self.joint_positions[:, 2:]) < 100.0).all(axis=1)
        within &= (np.abs(self.joint_velocities) < 100.0).all(axis=1)
        return ~(within & (height > 0.7) & (height < np.inf) & (np.abs(pitch) < 0.2))

    def observe(self, observations: FloatArray) -> None:
        observations[:, :5] = self.joint_positions[:, 1:]
        np.clip(self.joint_velocities, -10.0, 10.0, out=observations[:, 5:])

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        return (x_velocity + ~terminated) - 1e-3 * _squared_norm(actions)

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return self._uniform_positions(generator, 5e-3), self._uniform_velocities(generator, 5e-3)


class Walker2d(Task):
    """reward = x_velocity + healthy - 0.001 |action|^2. Healthy: height in (0.8, 2.0) m and |pitch| below 1 rad."""

    environment_id = "Walker2d-v5"
    can_terminate = True

    def terminated(self) -> BoolArray:
        height, pitch = self.joint_positions[:, 1], self.joint_positions[:, 2]
        return ~((height > 0.8) & (height < 2.0) & (np.abs(pitch) < 1.0))

    def observe(self, observations: FloatArray) -> None:
        observations[:, :8] = self.joint_positions[:, 1:]
        np.clip(self.joint_velocities, -10.0, 10.0, out=observations[:, 8:])

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        return (x_velocity + ~terminated) - 1e-3 * _squared_norm(actions)

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return self._uniform_positions(generator, 5e-3), self._uniform_velocities(generator, 5e-3)


class Ant(Task):
    """reward = x_velocity + healthy - 0.5 |action|^2 - 0.0005 |contact forces clipped to [-1, 1]|^2.

    Healthy: torso height in [0.2, 1.0] m and a finite state. The velocity is that of the torso body.
    """

    environment_id = "Ant-v5"
    can_terminate = True

    def __init__(self, batch: Batch, initial_positions: FloatArray, initial_velocities: FloatArray) -> None:
        super().__init__(batch, initial_positions, initial_velocities)
        self.contact_forces = ContactForces(batch)
        self._forces = self.contact_forces.values.reshape(batch.nsim, -1)  # a view: the world's forces, then 13 bodies'
        self._torso_x = batch.bind("xpos")[:, 1, 0]

    def x_position(self) -> FloatArray:
        # mj_step leaves body positions one substep behind the joints; gymnasium measures this position.
        return self._torso_x

    def terminated(self) -> BoolArray:
        height = self.joint_positions[:, 2]
        finite = np.isfinite(self.joint_positions).all(axis=1) & np.isfinite(self.joint_velocities).all(axis=1)
        return ~(finite & (height >= 0.2) & (height <= 1.0))

    def observe(self, observations: FloatArray) -> None:
        observations[:, :13] = self.joint_positions[:, 2:]
        observations[:, 13:27] = self.joint_velocities
        np.clip(self._forces[:, 6:], -1.0, 1.0, out=observations[:, 27:])

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        contact_cost = 5e-4 * _squared_norm(np.clip(self._forces, -1.0, 1.0))
        return (x_velocity + ~terminated) - (0.5 * _squared_norm(actions) + contact_cost)

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return self._uniform_positions(generator, 0.1), self._normal_velocities(generator, 0.1)


class Humanoid(Task):
    """reward = 1.25 x_velocity + 5 healthy - 0.1 |control|^2 - min(5e-7 |contact forces|^2, 10).

    Healthy: torso height in (1, 2) m. The velocity is that of the centre of mass.
    """

    environment_id = "Humanoid-v5"
    can_terminate = True

    def __init__(self, batch: Batch, initial_positions: FloatArray, initial_velocities: FloatArray) -> None:
        super().__init__(batch, initial_positions, initial_velocities)
        self.contact_forces = ContactForces(batch)
        self._forces = self.contact_forces.values.reshape(batch.nsim, -1)  # a view
        self._controls: FloatArray = batch.bind("ctrl")
        self._body_x = batch.bind("xipos")[:, :, 0]                 # (num_envs, bodies)
        self._body_masses: FloatArray = batch.model.body_mass.copy()
        self._inertias = batch.bind("cinert").reshape(batch.nsim, -1)
        self._body_velocities = batch.bind("cvel").reshape(batch.nsim, -1)
        self._actuator_forces: FloatArray = batch.bind("qfrc_actuator")

    def x_position(self) -> FloatArray:
        # mj_step leaves body positions one substep behind the joints; gymnasium measures this position.
        return _sum_in_order(self._body_masses * self._body_x) / self._body_masses.sum()

    def terminated(self) -> BoolArray:
        height = self.joint_positions[:, 2]
        return ~((height > 1.0) & (height < 2.0))

    def observe(self, observations: FloatArray) -> None:
        observations[:, :22] = self.joint_positions[:, 2:]
        observations[:, 22:45] = self.joint_velocities
        observations[:, 45:175] = self._inertias[:, 10:]            # 13 bodies, without the world's row
        observations[:, 175:253] = self._body_velocities[:, 6:]
        observations[:, 253:270] = self._actuator_forces[:, 6:]     # without the root's six free coordinates
        observations[:, 270:] = self._forces[:, 6:]

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        # gymnasium takes the controls in float64 here, not the actions as given.
        contact_cost = np.minimum(5e-7 * _squared_norm(self._forces), 10.0)
        return (1.25 * x_velocity + 5.0 * ~terminated) - (0.1 * _squared_norm(self._controls) + contact_cost)

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return self._uniform_positions(generator, 1e-2), self._uniform_velocities(generator, 1e-2)


class Swimmer(Task):
    """reward = x_velocity - 0.0001 |action|^2; never terminates."""

    environment_id = "Swimmer-v5"
    can_terminate = False

    def observe(self, observations: FloatArray) -> None:
        observations[:, :3] = self.joint_positions[:, 2:]
        observations[:, 3:] = self.joint_velocities

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        return x_velocity - 1e-4 * _squared_norm(actions)

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return self._uniform_positions(generator, 0.1), self._uniform_velocities(generator, 0.1)


class Reacher(Task):
    """reward = -|fingertip - target| - |action|^2; never terminates. The target is drawn in a disk of radius 0.2 m."""

    environment_id = "Reacher-v5"
    can_terminate = False

    def __init__(self, batch: Batch, initial_positions: FloatArray, initial_velocities: FloatArray) -> None:
        super().__init__(batch, initial_positions, initial_velocities)
        body_positions = batch.bind("xpos")
        self._fingertip = body_positions[:, batch.model.body("fingertip").id]
        self._target = body_positions[:, batch.model.body("target").id]

    def observe(self, observations: FloatArray) -> None:
        angles = self.joint_positions[:, :2]
        observations[:, 0:2] = np.cos(angles)
        observations[:, 2:4] = np.sin(angles)
        observations[:, 4:6] = self.joint_positions[:, 2:]
        observations[:, 6:8] = self.joint_velocities[:, :2]
        observations[:, 8:] = (self._fingertip - self._target)[:, :2]

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        return -_distance(self._fingertip, self._target) - _squared_norm(actions)

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        positions = self._uniform_positions(generator, 0.1)
        while True:
            target = generator.uniform(-0.2, 0.2, 2)
            if np.linalg.norm(target) < 0.2:
                break
        positions[-2:] = target
        velocities = self._uniform_velocities(generator, 0.005)
        velocities[-2:] = 0.0
        return positions, velocities


class Pusher(Task):
    """reward = -|object - goal| - 0.1 |action|^2 - 0.5 |object - fingertips|; never terminates.

    The object is drawn in a rectangle left of the goal, at least 0.17 m away from it.
    """

    environment_id = "Pusher-v5"
    can_terminate = False

    def __init__(self, batch: Batch, initial_positions: FloatArray, initial_velocities: FloatArray) -> None:
        super().__init__(batch, initial_positions, initial_velocities)
        body_positions = batch.bind("xpos")
        self._fingertips = body_positions[:, batch.model.body("tips_arm").id]
        self._object = body_positions[:, batch.model.body("object").id]
        self._goal = body_positions[:, batch.model.body("goal").id]

    def observe(self, observations: FloatArray) -> None:
        observations[:, :7] = self.joint_positions[:, :7]
        observations[:, 7:14] = self.joint_velocities[:, :7]
        observations[:, 14:17] = self._fingertips
        observations[:, 17:20] = self._object
        observations[:, 20:] = self._goal

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        distance_to_goal = _distance(self._object, self._goal)
        distance_to_object = _distance(self._object, self._fingertips)
        return (-distance_to_goal - 0.1 * _squared_norm(actions)) - 0.5 * distance_to_object

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        while True:
            position = np.array([generator.uniform(-0.3, 0.0), generator.uniform(-0.2, 0.2)])
            if np.linalg.norm(position) > 0.17:
                break
        positions = self.initial_positions.copy()
        positions[-4:-2] = position
        positions[-2:] = 0.0                                        # the goal
        velocities = self._uniform_velocities(generator, 0.005)
        velocities[-4:] = 0.0
        return positions, velocities


class InvertedPendulum(Task):
    """reward = 1 until the pole leans by more than 0.2 rad, which terminates."""

    environment_id = "InvertedPendulum-v5"
    can_terminate = True

    def terminated(self) -> BoolArray:
        finite = np.isfinite(self.joint_positions).all(axis=1) & np.isfinite(self.joint_velocities).all(axis=1)
        return ~finite | (np.abs(self.joint_positions[:, 1]) > 0.2)

    def observe(self, observations: FloatArray) -> None:
        observations[:, :2] = self.joint_positions
        observations[:, 2:] = self.joint_velocities

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        return (~terminated).astype(np.float64)

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return self._uniform_positions(generator, 0.01), self._uniform_velocities(generator, 0.01)


class InvertedDoublePendulum(Task):
    """reward = 10 healthy - (0.01 x^2 + (z - 2)^2) - (0.001 w_1^2 + 0.005 w_2^2).

    (x, z) is the tip of the upper pole in metres, w the angular velocities of the poles in rad/s. Healthy: z above 1 m.
    """

    environment_id = "InvertedDoublePendulum-v5"
    can_terminate = True

    def __init__(self, batch: Batch, initial_positions: FloatArray, initial_velocities: FloatArray) -> None:
        super().__init__(batch, initial_positions, initial_velocities)
        tip = batch.bind("site_xpos")
        self._tip_x, self._tip_z = tip[:, 0, 0], tip[:, 0, 2]
        self._constraint_forces: FloatArray = batch.bind("qfrc_constraint")

    def terminated(self) -> BoolArray:
        return self._tip_z <= 1.0

    def observe(self, observations: FloatArray) -> None:
        angles = self.joint_positions[:, 1:]
        observations[:, 0] = self.joint_positions[:, 0]
        observations[:, 1:3] = np.sin(angles)
        observations[:, 3:5] = np.cos(angles)
        np.clip(self.joint_velocities, -10.0, 10.0, out=observations[:, 5:8])
        np.clip(self._constraint_forces[:, 0], -10.0, 10.0, out=observations[:, 8])

    def rewards(self, actions: NDArray, x_velocity: FloatArray, terminated: BoolArray) -> FloatArray:
        lower, upper = self.joint_velocities[:, 1], self.joint_velocities[:, 2]
        distance_penalty = 0.01 * self._tip_x**2 + (self._tip_z - 2.0) ** 2
        velocity_penalty = 1e-3 * lower**2 + 5e-3 * upper**2
        return 10.0 * ~terminated - distance_penalty - velocity_penalty

    def start_state(self, generator: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        return self._uniform_positions(generator, 0.1), self._normal_velocities(generator, 0.1)


def _squared_norm(rows: NDArray) -> NDArray:
    """Sum of squares of each row, in the rows' own type. Along the contiguous axis: the order of a lone row's sum."""
    return np.square(rows).sum(axis=-1)


def _sum_in_order(rows: FloatArray) -> FloatArray:
    """Sum of each row from left to right, as ``np.einsum`` adds; ``sum(axis=-1)`` would add in pairs."""
    return np.ascontiguousarray(rows.T).sum(axis=0)


def _distance(first: FloatArray, second: FloatArray) -> FloatArray:
    """Euclidean distance of each row. ``np.vecdot`` and ``np.linalg.norm`` of one vector share their dot product."""
    difference = first - second
    return np.sqrt(np.vecdot(difference, difference))
