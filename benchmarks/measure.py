"""What the parts share: two things that take turns, and the row of the table that comes of it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lightning_bc.acting import freeze
from lightning_bc.demonstrations import load_expert
from lightning_bc.environments import BatchedMujoco, environment_spaces
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.strategies import Strategy

ENVIRONMENT = "HalfCheetah-v5"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where training is measured, as ``fit`` chooses; what plays is on the CPU."""
EXPERT = Path(__file__).parents[1] / "checkpoints" / "experts" / f"{ENVIRONMENT}.pt"


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        rounds: how often each pair takes turns.
        quick: measure as little as shows that everything runs.
        long: also how cost grows.
        folder: for files, empty at first.
        imitation: the Python of an environment with imitation.
    """

    rounds: int
    quick: bool
    long: bool
    folder: Path
    imitation: Path | None = None

    def sized(self, full: int, quick: int) -> int:
        """``full``, or ``quick`` where that is wanted."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Row:
    """Of a table.

    Attributes:
        what: was measured.
        beside: what stood beside it; empty for nothing.
        ours: in ``unit``.
        other: what stood beside it, in ``unit``.
        unit: of both.
        ratios: of speed, one per round: 2 is twice as fast.
    """

    what: str
    beside: str
    ours: float
    other: float
    unit: str
    ratios: tuple[float, ...]


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes, with what it leaves to the GPU."""
    wait()
    started = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - started


def wait() -> None:
    """For what the GPU still has to do."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def race(ours: Callable[[], float], other: Callable[[], float], rounds: int) -> list[tuple[float, float]]:
    """The seconds that both answer with, per round: they take turns to begin, and one round before warms up."""
    found = []
    for number in range(rounds + 1):
        if number % 2:
            first = ours()
            found.append((first, other()))
        else:
            second = other()
            found.append((ours(), second))
    return found[1:]


def rate(what: str, beside: str, amount: float, unit: str, found: list[tuple[float, float]]) -> Row:
    """The row of two that each do ``amount`` of something in the seconds ``found``: so many per second."""
    ours, other = (amount / statistics.median(column) for column in zip(*found, strict=True))
    return Row(what, beside, ours, other, unit, tuple(theirs / own for own, theirs in found))


def duration(what: str, beside: str, found: list[tuple[float, float]], scale: float = 1, unit: str = "s") -> Row:
    """The row of two that take the seconds ``found``; ``scale`` of the unit are a second."""
    ours, other = (scale * statistics.median(column) for column in zip(*found, strict=True))
    return Row(what, beside, ours, other, unit, tuple(theirs / own for own, theirs in found))


def untrained(cls: type[Strategy]) -> Strategy:
    """A strategy of the default size for the environment."""
    spaces = environment_spaces(ENVIRONMENT)
    return cls(spaces.observation_dim, spaces.action_low.tolist(), spaces.action_high.tolist()).eval()


def gait(environments: BatchedMujoco) -> np.ndarray:
    """What the shipped expert does in the first episodes of the selection bank: (steps, num_envs, action_dim) float32."""
    policy = freeze(load_expert(str(EXPERT), ENVIRONMENT), (environment_spaces(ENVIRONMENT).observation_dim,))
    seeds = SELECTION_BANK.seeds(environments.num_envs)
    actions = play(policy, environments, seeds, record=True).actions
    assert actions is not None                                      # recorded
    return actions.reshape(environments.num_envs, -1, actions.shape[1]).transpose(1, 0, 2).copy()
