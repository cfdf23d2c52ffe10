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

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from lightning_bc.aliases import StateDict
from lightning_bc.environments.side_by_side import SideBySide
from lightning_bc.environments.tasks import BoolArray, FloatArray
from lightning_bc.errors import InputError

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


class BatchedGates(SideBySide):
    """Many courses, walked together.

    Args:
        environment_id: a key of :data:`GATES`, or ``lightning_bc:Id-v0`` of one.
        num_envs: number of sub-environments.

    Raises:
        ValueError: ``num_envs`` is below 1, or there is no such variant.
    """

    def __init__(self, environment_id: str, num_envs: int) -> None:
        task = gates_of(environment_id)
        if task is None:
            raise ValueError(f"{environment_id!r} is none of {', '.join(GATES)}.")
        super().__init__(environment_id, num_envs, *_spaces(task.dimensions))
        self.spec = gymnasium.spec(environment_id.rpartition(":")[2])
        self._courses = _Courses(num_envs, task.dimensions)

    @property
    def observations(self) -> FloatArray:
        """The current observations, (num_envs, observation_dim): what the next actions answer. A copy."""
        return self._courses.observations

    def _start(self, rows: NDArray[np.intp]) -> None:
        for row in rows.tolist():
            self._courses.start(row, self._generators[row])

    def _advance(
        self, actions: NDArray, active: BoolArray | None, rows: NDArray[np.intp]
    ) -> tuple[FloatArray, BoolArray, BoolArray]:
        rewards, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, dtype=np.bool_)
        truncated = np.zeros(self.num_envs, dtype=np.bool_)
        steps_before = self._courses.passed[rows]                   # each step but an episode's last passes a wall
        rewards[rows], terminated[rows] = self._courses.step(rows, actions[rows])
        truncated[rows] = steps_before + 1 == WALLS                 # gymnasium's time limit
        return rewards, terminated, truncated

    def _state(self) -> StateDict:
        courses = self._courses
        arrays = {"positions": courses.positions, "middles": courses.middles, "passed": courses.passed}
        return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def _set_state(self, state: StateDict) -> None:
        found = len(state["has_started"])
        if found != self.num_envs:
            raise InputError(f"The saved state is of {found} sub-environments; {self.num_envs} are needed.")
        courses = self._courses
        for array, name in ((courses.positions, "positions"), (courses.middles, "middles"), (courses.passed, "passed")):
            array[:] = state[name].cpu().numpy()
