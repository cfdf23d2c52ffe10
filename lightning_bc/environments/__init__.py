"""What a policy acts in: batched MuJoCo physics, or any Gymnasium environment with continuous actions."""

from lightning_bc.environments.batched import BatchedMujoco
from lightning_bc.environments.make import (
    Environments,
    EnvironmentSpaces,
    UnusableEnvironmentError,
    environment_spaces,
    make,
)
from lightning_bc.environments.tasks import TASKS

__all__ = [
    "TASKS",
    "BatchedMujoco",
    "EnvironmentSpaces",
    "Environments",
    "UnusableEnvironmentError",
    "environment_spaces",
    "make",
]
