"""Who chooses actions while episodes are played, and what of an episode it remembers."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Policy = Callable[[Tensor], Tensor]
"""Observations (batch, observation_dim) float32 to actions (batch, action_dim) in the environment's units."""


class ArrayPolicy(ABC):
    """A policy that computes on the CPU and takes arrays: on the way through tensors a small policy would spend its time."""

    @abstractmethod
    def answer(self, observations: np.ndarray) -> np.ndarray:
        """Actions (batch, action_dim) for ``observations`` (batch, observation_dim) float32."""

    def __call__(self, observations: Tensor) -> Tensor:
        """The same of tensors."""
        return torch.from_numpy(self.answer(observations.numpy()))


class Player(ABC):
    """Who chooses actions in :func:`play`, and may remember, for each sub-environment, the episode that it plays."""

    @abstractmethod
    def begin(self, observations: Tensor, rows: Tensor, num_envs: int) -> None:
        """Forget what is remembered of some sub-environments, since episodes begin there.

        Args:
            observations: the first of these episodes, (beginning, observation_dim).
            rows: the sub-environments, (beginning,) int64.
            num_envs: how many sub-environments there are.
        """

    @abstractmethod
    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """Actions (playing, action_dim) for ``observations`` (playing, observation_dim) of sub-environments ``rows``."""


class Memoryless(Player):
    """Plays what a policy answers to the present observation.

    Args:
        policy: any :data:`Policy`.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def begin(self, observations: Tensor, rows: Tensor, num_envs: int) -> None:
        """There is nothing to forget."""

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """The policy's answer."""
        return self.policy(observations)


class Memory(Player):
    """Shows a policy the last ``history`` observations of the episode, and plays the ``chunk`` actions that it answers.

    Before an episode's first observation stands that observation again. A new answer is asked for when the last one has
    been played to its end.

    Args:
        policy: (batch, history, observation_dim) to (batch, horizon, action_dim), in the environment's units.
        history: how many observations it sees, the present one last.
        chunk: how many of its actions are played, at most horizon.
    """

    def __init__(self, policy: Policy, history: int, chunk: int) -> None:
        self.policy, self.history, self.chunk = policy, history, chunk
        self._seen = self._answers = torch.empty(0)                 # (num_envs, history or chunk, dim)
        self._left = torch.empty(0, dtype=torch.int64)              # (num_envs,) actions not yet played

    def begin(self, observations: Tensor, rows: Tensor, num_envs: int) -> None:
        """Fill the history with the first observation."""
        if len(self._left) != num_envs:
            self._seen = observations.new_zeros(num_envs, self.history, observations.shape[1])
            self._answers = torch.empty(0)
            self._left = torch.zeros(num_envs, dtype=torch.int64, device=observations.device)
        self._seen[rows], self._left[rows] = observations.unsqueeze(1), 0

    def _look(self, observations: Tensor, rows: Tensor) -> Tensor:
        """What is seen with the present ``observations``, (playing, history, observation_dim)."""
        seen = torch.cat([self._seen[rows, 1:], observations.unsqueeze(1)], dim=1)
        self._seen[rows] = seen
        return seen

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """The next action of the last answer; of a new one, where that has been played."""
        seen = self._look(observations, rows)
        asking = self._left[rows] == 0
        if asking.any():
            answers = self.policy(seen[asking])[:, : self.chunk]    # (asking, chunk, action_dim)
            if len(self._answers) == 0:
                self._answers = answers.new_zeros(len(self._left), *answers.shape[1:])
            self._answers[rows[asking]], self._left[rows[asking]] = answers, self.chunk
        actions = self._answers[rows, self.chunk - self._left[rows]]
        self._left[rows] -= 1
        return actions
