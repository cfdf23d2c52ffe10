"""What a policy acts in: batched MuJoCo physics, or any Gymnasium environment with continuous actions."""

from lightning_bc.environments.batched import BatchedMujoco
from lightning_bc.environments.loading import quiet_model_loading
from lightning_bc.environments.make import (
    Environments,
    EnvironmentSpaces,
    UnusableEnvironmentError,
    environment_spaces,
    episode_limit,
    limit_episodes,
    make,
    resolved,
)
from lightning_bc.environments.tasks import TASKS, Task

__all__ = [
    "TASKS",
    "BatchedMujoco",
    "EnvironmentSpaces",
    "Environments",
    "Task",
    "UnusableEnvironmentError",
    "environment_spaces",
    "episode_limit",
    "limit_episodes",
    "make",
    "quiet_model_loading",
    "resolved",
]
