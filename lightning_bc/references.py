"""What a return is measured against: the returns of random actions and of the expert."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lightning_bc.aliases import StateDict


def decimals_of(scale: float) -> int:
    """Decimals with which returns are shown: four figures of their ``scale``, and at most three decimals."""
    return int(np.clip(3 - math.floor(math.log10(scale)), 0, 3)) if 0 < scale < math.inf else 0


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

    random_return: float = field(
        metadata={"unit": "reward", "meaning": "mean return of uniformly random actions on the test bank"}
    )
    expert_return: float = field(
        metadata={
            "unit": "reward",
            "meaning": "mean return of the expert's mean action there, or the file's `mean_reward`, or null",
            "nullable": True,
        }
    )
    expert_source: str = field(metadata={"unit": "", "meaning": "which of the two, in words"})

    @property
    def has_expert(self) -> bool:
        """Whether an expert's return is known; without one, normalized returns are NaN."""
        return not math.isnan(self.expert_return)

    def decimals(self, typical: float) -> int:
        """Decimals of a return: see :func:`decimals_of`.

        The scale is the distance between random and expert, and without an expert a ``typical`` return.
        """
        return decimals_of(abs(self.expert_return - self.random_return) if self.has_expert else abs(typical))

    def normalized(self, episode_return: Any) -> Any:
        """Bring a return (a number or an array) to the scale where random is 0 and the expert 1."""
        return (episode_return - self.random_return) / (self.expert_return - self.random_return)

    def unnormalized(self, normalized: Any) -> Any:
        """The return behind a value of that scale."""
        return self.random_return + (self.expert_return - self.random_return) * normalized

    def failed(self, episode_returns: np.ndarray) -> np.ndarray:
        """Which episodes failed: return under half of the expert's, or no finite number, (episodes,) bool.

        Where the expert's return is negative (Pendulum), "half" means as far below it: under 1.5 times the expert's.
        """
        good = episode_returns >= self.expert_return - abs(self.expert_return) / 2
        return ~(good & np.isfinite(episode_returns))

    @classmethod
    def from_dict(cls, values: StateDict) -> "References":
        """Those that :meth:`as_dict` has given."""
        return cls(values["random_return"], values["expert_return"], values["expert_source"])

    def as_dict(self) -> StateDict:
        """Plain values, for checkpoints and results.json."""
        return asdict(self)
