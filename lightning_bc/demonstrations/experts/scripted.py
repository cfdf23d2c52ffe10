"""Scripted experts, for environments whose right action can be written down: functions as in callables.py.

Their samples are drawn from torch's generator, which :func:`lightning_bc.episodes.play` seeds.
"""

import numpy as np
import torch

from lightning_bc.environments import GATES
from lightning_bc.environments.gates import OFFSET

NOISE = 0.03
"""Standard deviation of the error with which an opening's middle is aimed at."""


def _through_gates(environment_id: str, observations: np.ndarray, deterministic: bool) -> np.ndarray:
    """Displacements (batch, dimensions) to an opening of the next wall.

    Args:
        environment_id: the variant.
        observations: (batch, 2 dimensions + 1).
        deterministic: the middle of the likelier opening, of equally likely ones of the upper one; else a sample.
    """
    task = GATES[environment_id]
    position, middle = observations[:, : task.dimensions], observations[:, task.dimensions : 2 * task.dimensions]
    if deterministic:
        side = np.full((len(observations), 1), 1.0 if task.odds[1] >= task.odds[0] else -1.0)
        return middle + OFFSET * side - position
    side = np.where(torch.rand(len(observations), 1).numpy() < task.odds[1], 1.0, -1.0)
    return middle + OFFSET * side - position + NOISE * torch.randn(len(observations), task.dimensions).numpy()


def gates(observations: np.ndarray, deterministic: bool = True) -> np.ndarray:
    """Of Gates-v0."""
    return _through_gates("Gates-v0", observations, deterministic)


def gates_uneven(observations: np.ndarray, deterministic: bool = True) -> np.ndarray:
    """Of GatesUneven-v0."""
    return _through_gates("GatesUneven-v0", observations, deterministic)


def gates_2d(observations: np.ndarray, deterministic: bool = True) -> np.ndarray:
    """Of Gates2D-v0."""
    return _through_gates("Gates2D-v0", observations, deterministic)


SCRIPTED_EXPERTS = {
    environment_id: f"{__name__}:{function.__name__}"
    for environment_id, function in (("Gates-v0", gates), ("GatesUneven-v0", gates_uneven), ("Gates2D-v0", gates_2d))
}
"""Their names, as ``--expert`` takes them, by the environment's id."""
