"""Gates: walls with two openings each, between which the mean of two good actions is a bad one. No physics.

At each of 8 steps stands a wall with the middle c, drawn uniformly from [-0.25, 0.25] for each wall, and two openings of
half-width 0.1 at c - 0.5 and c + 0.5. One observes where one stands, x (at first 0), the next wall's middle c, and the share
of walls that lie behind. The action is the displacement along the wall:

    x' = x + a,    passed where |x' - (c - 0.5)| < 0.1 or |x' - (c + 0.5)| < 0.1

Passing gives the reward 1; hitting the wall ends the episode, as passing the last one does. From anywhere in an opening to
the middle of the next one it is at most 1.6, and actions lie in [-3, 3]. The demonstrator (``experts/scripted.py``) tosses a
coin, which is not observed, for one opening and aims at its middle with the error Normal(0, 0.03). So

    E[a | o] = c - x + 0.5 (p_+ - p_-)

for the odds p of the openings: 0.4 from the edges of both where the coin is fair, 0.1 from the nearer one's at odds of 0.2
and 0.8. A policy that regresses the mean hits the first wall. A Normal with the demonstrations' mean and variance passes one
wall with probability 0.19 and all eight with 2e-6; the demonstrator passes all with 0.993.

In the variant in two dimensions x, c and a are vectors of two, and each wall has openings at c - (0.5, 0.5) and at
c + (0.5, 0.5), squares of half-width 0.1. A policy that draws the two dimensions independently of each other hits every
second wall.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from lightning_bc.aliases import StateDict
from lightning_bc.environments.arguments import (
    check_actions,
    check_at_least_one,
    check_environment,
    check_mask,
    reset_mask_of,
    seeds_of,
)
from lightning_bc.environments.tasks import BoolArray, FloatArray
from lightning_bc.errors import InputError, takes_state

WALLS = 8
OFFSET = 0.5
"""Of an opening's middle from the wall's."""
HALF_WIDTH = 0.1
"""Of an opening."""
LARGEST_MIDDLE = 0.25
LARGEST_ACTION = 3.0


@dataclass(frozen=True)
class GatesTask:
    """One variant.

    Attributes:
        dimensions: of the position, the walls' middles and the action.
        odds: share of demonstrations through the opening at c - 0.5, and through that at c + 0.5.
    """

    dimensions: int = 1
    odds: tuple[float, float] = (0.5, 0.5)


GATES = {"Gates-v0": GatesTask(), "GatesUneven-v0": GatesTask(odds=(0.2, 0.8)), "Gates2D-v0": GatesTask(dimensions=2)}
"""The variants by their id."""

for _id, _task in GATES.items():
    gymnasium.register(
        _id, "lightning_bc.environments.gates:Gates", kwargs={"dimensions": _task.dimensions}, max_episode_steps=WALLS
    )


def gates_of(environment_id: str) -> GatesTask | None:
    """The variant of the id, also of ``lightning_bc:Id-v0``; None if it is none."""
    module, _, name = environment_id.rpartition(":")
    return GATES.get(name) if module in ("", "lightning_bc", "lightning_bc.environments") else None


def opening_of(landed: NDArray, middles: NDArray) -> NDArray[np.int64]:
    """Which opening is passed: 0 for that at c - 0.5, 1 for that at c + 0.5, -1 for the wall, (steps,).

    Args:
        landed: where one is after the step, x + a, (steps, dimensions).
        middles: of the wall, (steps, dimensions).
    """
    missed = [np.abs(landed - (middles + offset)).max(axis=1) for offset in (-OFFSET, OFFSET)]
    return np.where(missed[0] < HALF_WIDTH, 0, np.where(missed[1] < HALF_WIDTH, 1, -1))


class _Courses:
    """Walkers on courses of their own, (number) of them.

    Attributes:
        positions: (number, dimensions).
        middles: of all walls, (number, WALLS + 1, dimensions); behind the last one stands a 0 in place of a wall.
        passed: how many walls each has passed, (number,).
    """

    def __init__(self, number: int, dimensions: int) -> None:
        self.positions: FloatArray = np.zeros((number, dimensions))
        self.middles: FloatArray = np.zeros((number, WALLS + 1, dimensions))
        self.passed = np.zeros(number, dtype=np.int64)

    @property
    def observations(self) -> FloatArray:
        """(number, 2 dimensions + 1)."""
        next_walls = self.middles[np.arange(len(self.passed)), self.passed]
        return np.column_stack([self.positions, next_walls, self.passed / WALLS])

    def start(self, row: int, generator: np.random.Generator) -> None:
        """Put a walker on a new course."""
        self.positions[row], self.passed[row] = 0.0, 0
        shape = self.middles[row, :WALLS].shape
        self.middles[row, :WALLS] = generator.uniform(-LARGEST_MIDDLE, LARGEST_MIDDLE, shape)

    def step(self, rows: NDArray[np.intp], actions: NDArray) -> tuple[BoolArray, BoolArray]:
        """Move ``rows`` by ``actions`` (rows, dimensions): who has passed the wall, and whose episode is over, (rows,)."""
        self.positions[rows] += actions
        has_passed = opening_of(self.positions[rows], self.middles[rows, self.passed[rows]]) >= 0
        self.passed[rows] += has_passed
        return has_passed, ~has_passed | (self.passed[rows] == WALLS)


def _spaces(dimensions: int) -> tuple[spaces.Box, spaces.Box]:
    """Of observations and actions."""
    observations = spaces.Box(-np.inf, np.inf, (2 * dimensions + 1,), np.float64)
    return observations, spaces.Box(-LARGEST_ACTION, LARGEST_ACTION, (dimensions,), np.float32)


class Gates(gymnasium.Env[NDArray, NDArray]):
    """One course, for ``gymnasium.make``; see the module.

    Args:
        dimensions: 1 or 2.
        render_mode: "rgb_array" for pictures of the first dimension, else None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, dimensions: int = 1, render_mode: str | None = None) -> None:
        self.observation_space, self.action_space = _spaces(dimensions)
        self.render_mode = render_mode
        self._course = _Courses(1, dimensions)
        self._path: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray, dict[str, Any]]:
        """Draw a new course."""
        super().reset(seed=seed)
        self._course.start(0, self.np_random)
        self._path = [0.0]
        return self._course.observations[0], {}

    def step(self, action: NDArray) -> tuple[NDArray, float, bool, bool, dict[str, Any]]:
        """Move by ``action`` (dimensions,)."""
        (has_passed,), (is_over,) = self._course.step(np.array([0]), np.asarray(action)[np.newaxis])
        self._path.append(float(self._course.positions[0, 0]))
        return self._course.observations[0], float(has_passed), bool(is_over), False, {}


    def render(self) -> NDArray[np.uint8]:
        """The walls from left to right, the path through them and where it stands, (400, 720, 3)."""
        picture = np.full((400, 720, 3), 255, dtype=np.uint8)
        for wall, middle in enumerate(self._course.middles[0, :WALLS, 0]):
            column = picture[:, 80 * (wall + 1) - 3 : 80 * (wall + 1) + 3]
            column[:] = 90
            for opening in (middle - OFFSET, middle + OFFSET):
                column[_row(opening + HALF_WIDTH) : _row(opening - HALF_WIDTH)] = 255
        steps = np.arange(len(self._path))
        along = np.linspace(0, steps[-1], 80 * steps[-1] + 1)
        for step, position in zip(along, np.interp(along, steps, self._path), strict=True):
            radius = 6 if step == steps[-1] else 1
            top, left = max(0, _row(position) - radius), max(0, round(80 * step) - radius)
            picture[top : top + 2 * radius + 1, left : left + 2 * radius + 1] = (40, 90, 200)
        return picture


def _row(position: float) -> int:
    """Of the picture, in which positions from -2 to 2 lie."""
    return round(float(np.clip(200 - 100 * position, 0, 399)))


class BatchedGates(VectorEnv[FloatArray, NDArray, NDArray]):
    """Many courses, walked together, with the interface of :class:`BatchedMujoco`.

    Args:
        environment_id: a key of :data:`GATES`, or ``lightning_bc:Id-v0`` of one.
        num_envs: number of sub-environments.

    Raises:
        ValueError: ``num_envs`` is below 1, or there is no such variant.
    """

    restores_exactly = True
    """Whether :meth:`load_state_dict` continues episodes bit by bit where they were saved."""

    def __init__(self, environment_id: str, num_envs: int) -> None:
        super().__init__()
        task = gates_of(environment_id)
        if task is None:
            raise ValueError(f"{environment_id!r} is none of {', '.join(GATES)}.")
        check_at_least_one("num_envs", num_envs)
        self.environment_id, self.num_envs = environment_id, num_envs
        self.spec = gymnasium.spec(environment_id.rpartition(":")[2])
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space, self.single_action_space = _spaces(task.dimensions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._courses = _Courses(num_envs, task.dimensions)
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._has_started = np.zeros(num_envs, dtype=np.bool_)

    @property
    def observations(self) -> FloatArray:
        """The current observations, (num_envs, observation_dim): what the next actions answer. A copy."""
        return self._courses.observations

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start new episodes; arguments, returns and errors as :meth:`BatchedMujoco.reset`."""
        seeds = seeds_of(seed, self.num_envs)
        mask = reset_mask_of(options, self.num_envs)
        for row in range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist():
            if (row_seed := seeds[row]) is not None:
                self._generators[row] = seeding.np_random(row_seed)[0]
            self._start_episode(row)
        return self._courses.observations, {}

    def step(
        self, actions: NDArray, active: BoolArray | None = None
    ) -> tuple[FloatArray, FloatArray, BoolArray, BoolArray, dict[str, Any]]:
        """Step the active sub-environments; arguments, returns and errors as :meth:`BatchedMujoco.step`."""
        actions = np.asarray(actions)
        check_actions(actions, self._courses.positions.shape)
        if active is not None:
            check_mask("active", active, self.num_envs)
        rows = np.arange(self.num_envs) if active is None else np.flatnonzero(active)
        if not self._has_started[rows].all():
            first = rows[~self._has_started[rows]][0]
            raise gymnasium.error.ResetNeeded(f"Sub-environment {first} was never reset. Call reset() before step().")
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        steps_before = self._courses.passed[rows]                   # each step but an episode's last passes a wall
        rewards[rows], terminated[rows] = self._courses.step(rows, actions[rows])
        truncated[rows] = steps_before + 1 == WALLS                 # gymnasium's time limit
        ended = terminated | truncated
        if not ended.any():
            return self._courses.observations, rewards, terminated, truncated, {}
        observations = self._courses.observations
        final_observations = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(ended).tolist():
            final_observations[row] = observations[row]
            self._start_episode(row)
        infos = {"final_obs": final_observations, "_final_obs": ended}
        return self._courses.observations, rewards, terminated, truncated, infos

    def state_dict(self) -> StateDict:
        """The whole state, of plain values and tensors, so that ``torch.load(..., weights_only=True)`` reads it."""
        return {
            "environment_id": self.environment_id,
            "positions": torch.from_numpy(self._courses.positions.copy()),
            "middles": torch.from_numpy(self._courses.middles.copy()),
            "passed": torch.from_numpy(self._courses.passed.copy()),
            "has_started": torch.from_numpy(self._has_started.copy()),
            "generators": [generator.bit_generator.state for generator in self._generators],
        }

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Continue exactly where :meth:`state_dict` was called, in this or in another process.

        Raises:
            InputError: the state is of another environment or of another number of sub-environments.
        """
        check_environment(state, self.environment_id)
        found = len(state["has_started"])
        if found != self.num_envs:
            raise InputError(f"The saved state is of {found} sub-environments; {self.num_envs} are needed.")
        courses = self._courses
        for array, name in ((courses.positions, "positions"), (courses.middles, "middles"), (courses.passed, "passed")):
            array[:] = state[name].cpu().numpy()
        self._has_started[:] = state["has_started"].cpu().numpy()
        for generator, generator_state in zip(self._generators, state["generators"], strict=True):
            generator.bit_generator.state = generator_state

    def _start_episode(self, row: int) -> None:
        self._courses.start(row, self._generators[row])
        self._has_started[row] = True
