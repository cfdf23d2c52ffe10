"""What exists only while a strategy acts and learns."""

from collections import deque

import numpy as np
import torch
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.border import Border
from lightning_bc.environments import Environments
from lightning_bc.errors import DivergedError, InputError, takes_state
from lightning_bc.strategies.base import Metrics
from lightning_bc.strategies.contract import Metric, Transitions
from lightning_bc.strategies.online.replay import Replay

EPISODES = 10
"""Of so many episodes, the last ones, return and length are logged."""

FEWEST_THAT_RESTART = 4
"""Of so many sub-environments, a quarter may break off episodes."""


class Interaction:
    """What exists while a strategy trains: its sub-environments, its replay, and what was measured last.

    Args:
        environments: that are stepped together.
        replay: where what happens is stored.
        border: between the environments' units and the learner's.
        device: where the learner computes.
        starts_every: steps within which an episode begins; where none has, one is begun: see ``_begin_anew``.
    """

    logs = {
        "episode_return": Metric("reward", f"mean return of the last {EPISODES} episodes that the learner ended, exploring"),
        "episode_length": Metric("environment steps", "mean number of steps in the same episodes"),
    }

    def __init__(
        self,
        environments: Environments,
        replay: Replay,
        border: Border,
        device: torch.device,
        starts_every: int | None = None,
    ) -> None:
        self.environments, self.replay, self.border, self.device = environments, replay, border, device
        self.measured: Metrics = {}                                 # the last of each: not all come with every update
        self.starts_every = starts_every
        self._so_far = np.zeros((environments.num_envs, 2))         # return and length of the episodes under way
        self._ended: deque[tuple[float, float]] = deque(maxlen=EPISODES)

    @property
    def observations(self) -> Tensor:
        """Where the sub-environments stand, in their units, (num_envs, observation_dim)."""
        return self._tensor(self.environments.observations)

    def step(self, scaled: Tensor, optimizer_steps: int) -> None:
        """Play ``scaled`` actions (num_envs, action_dim) in [-1, 1], and store what happened.

        Raises:
            DivergedError: the learner's actions are not finite.
            InputError: what the environment answers is not.
        """
        observations = self.observations
        played = self.border.unscaled(scaled).cpu().numpy()
        following, rewards, terminated, truncated, infos = self.environments.step(played)
        for ended in np.flatnonzero(terminated | truncated):        # what followed, not the next episode's first
            following[ended] = infos["final_obs"][ended]
        if not np.isfinite(played).all():
            raise DivergedError(optimizer_steps, f"the learner's action is {played[~np.isfinite(played)][0]}")
        for name, values in (("reward", rewards), ("observation", following)):
            if not np.isfinite(values).all():
                raise InputError(
                    f"the environment's {name} is {values[~np.isfinite(values)][0]}, at optimizer step {optimizer_steps:,}. "
                    "Have it give finite numbers."
                )
        columns = (self._tensor(column) for column in (rewards, following, terminated))
        self.replay.add(Transitions(observations, scaled, *columns))
        self._count(rewards, terminated | truncated)
        self._begin_anew()

    def state_dict(self) -> StateDict:
        """What an exact resume needs."""
        return {
            "replay": self.replay.state_dict(),
            "environments": self.environments.state_dict(),
            "measured": self.measured,
            "episodes": {"so_far": self._so_far.tolist(), "ended": [*self._ended]},
        }

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from there."""
        self.replay.load_state_dict(state["replay"])
        self.environments.load_state_dict(state["environments"])
        self.measured = {name: value.to(self.device) for name, value in state["measured"].items()}
        if "episodes" in state:                                     # a run that began before they were counted goes on
            if self.environments.restores_exactly:                  # else other episodes have begun
                self._so_far[:] = state["episodes"]["so_far"]
            self._ended.extend(state["episodes"]["ended"])

    def _count(self, rewards: np.ndarray, ended: np.ndarray) -> None:
        self._so_far += np.stack([rewards, np.ones_like(rewards)], axis=1)
        if ended.any():
            self._ended.extend(map(tuple, self._so_far[ended].tolist()))
            self._so_far[ended] = 0
            means = torch.tensor([*self._ended], device=self.device).mean(0)
            self.measured |= dict(zip(self.logs, means, strict=True))

    def _begin_anew(self) -> None:
        """Break off an episode where none has begun for ``starts_every`` steps: of a quarter of them the longest.

        A learner that has stopped failing sees how episodes begin once in their length, all sub-environments at about the
        same time, and forgets it in between. The other sub-environments play to the end.
        """
        lengths = self._so_far[:, 1]
        quarter = lengths[: len(lengths) // FEWEST_THAT_RESTART]
        if self.starts_every is not None and quarter.size and lengths.min() >= self.starts_every:
            longest = np.arange(len(lengths)) == quarter.argmax()
            self.environments.reset(options={"reset_mask": longest})
            self._so_far[longest] = 0                               # neither ended nor counted

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)
