"""What a policy acts in: batched MuJoCo physics, Gates, or any Gymnasium environment with continuous actions."""

from lightning_bc.environments.batched import BatchedMujoco, usable_cores
from lightning_bc.environments.gates import GATES, BatchedGates, GatesTask, gates_of
from lightning_bc.environments.loading import quiet_model_loading
from lightning_bc.environments.make import (
    Environments,
    EnvironmentSpaces,
    UnusableEnvironmentError,
    are_one,
    environment_spaces,
    episode_limit,
    limit_episodes,
    make,
    resolved,
)
from lightning_bc.environments.tasks import TASKS, Task

__all__ = [
    "GATES",
    "TASKS",
    "BatchedGates",
    "BatchedMujoco",
    "EnvironmentSpaces",
    "Environments",
    "GatesTask",
    "Task",
    "UnusableEnvironmentError",
    "are_one",
    "environment_spaces",
    "episode_limit",
    "gates_of",
    "limit_episodes",
    "make",
    "quiet_model_loading",
    "resolved",
    "usable_cores",
]
