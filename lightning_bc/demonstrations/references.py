"""What a return is measured against: the random policy and the expert on the test bank."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_bc.demonstrations.experts import SHIPPED_EXPERTS, load_expert
from lightning_bc.environments import environment_spaces, make
from lightning_bc.episodes import TEST_EPISODES, Policy, play, test_seeds


@dataclass(frozen=True)
class References:
    """The two returns that fix the scale of scores.

        normalized = (return - random_return) / (expert_return - random_return)

    so 0 is the random policy and 1 the expert playing its mean action.

    Attributes:
        random_return: mean return of uniformly random actions.
        expert_return: mean return of the expert's mean action; without an expert, the data file's ``mean_reward``; NaN
            where neither is known.
        expert_source: which of the two it is, in words, for tables and messages.
    """

    random_return: float
    expert_return: float
    expert_source: str

    @property
    def has_expert(self) -> bool:
        """Whether an expert's return is known; without one, normalized returns are NaN."""
        return not math.isnan(self.expert_return)

    def normalized(self, episode_return: Any) -> Any:
        """Bring a return (a number or an array) to the scale where random is 0 and the expert 1."""
        return (episode_return - self.random_return) / (self.expert_return - self.random_return)

    def unnormalized(self, normalized: Any) -> Any:
        """The return behind a value of that scale."""
        return self.random_return + (self.expert_return - self.random_return) * normalized

    def failed(self, episode_returns: np.ndarray) -> np.ndarray:
        """Which episodes failed: return under half of the expert's, (episodes,) bool.

        Where the expert's return is negative (Pendulum), "half" means as far below it: under 1.5 times the expert's.
        """
        return episode_returns < self.expert_return - abs(self.expert_return) / 2

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for checkpoints and results.json."""
        return asdict(self)


def random_policy(low: np.ndarray, high: np.ndarray) -> Policy:
    """Actions drawn uniformly between the bounds ``low`` and ``high`` (action_dim,), whatever is observed."""
    low_tensor, high_tensor = torch.tensor(low), torch.tensor(high)

    def act(observations: Tensor) -> Tensor:
        draws = torch.rand(len(observations), len(low_tensor))      # (batch, action_dim)
        return low_tensor + (high_tensor - low_tensor) * draws

    return act


def random_returns(environment_id: str) -> np.ndarray:
    """Returns of uniformly random actions on the test bank, (100,)."""
    spaces = environment_spaces(environment_id)
    environments = make(environment_id, TEST_EPISODES)
    returns = play(random_policy(spaces.action_low, spaces.action_high), environments, test_seeds()).returns
    environments.close()
    return returns


def references_without_file(environment_id: str) -> References:
    """Where no demonstrations say it: the random policy and the shipped expert play; without an expert its return is NaN."""
    random, path = float(random_returns(environment_id).mean()), SHIPPED_EXPERTS / f"{environment_id}.pt"
    if not path.is_file():
        return References(random, float("nan"), "unknown: no demonstrations are read and no expert is shipped")
    environments = make(environment_id, TEST_EPISODES)
    returns = play(load_expert(path), environments, test_seeds()).returns
    environments.close()
    return References(random, float(returns.mean()), "shipped expert's mean action, 100 test-bank episodes")
