"""What the returns of the episodes say."""

import math

from lightning_bc.episode_metrics import episode_metric
from lightning_bc.episodes import Episodes
from lightning_bc.references import References


@episode_metric(unit="reward", meaning="mean R = (1/N) sum_i R_i")
def return_mean(episodes: Episodes, references: References) -> float:
    """The mean, which is a run's score on the test bank."""
    return float(episodes.returns.mean())


@episode_metric(unit="reward", meaning="sqrt((1/N) sum_i (R_i - mean R)^2)")
def return_std(episodes: Episodes, references: References) -> float:
    """Standard deviation over episodes: how steady the policy is."""
    return float(episodes.returns.std())


@episode_metric(unit="reward", meaning="min_i R_i")
def return_min(episodes: Episodes, references: References) -> float:
    """The worst episode."""
    return float(episodes.returns.min())


@episode_metric(unit="reward", meaning="max_i R_i; over these episodes, not over time")
def return_max(episodes: Episodes, references: References) -> float:
    """The best episode."""
    return float(episodes.returns.max())


@episode_metric(unit="1", meaning="(mean R - random_return) / (expert_return - random_return)")
def normalized_return(episodes: Episodes, references: References) -> float:
    """The mean on the scale where random actions are 0 and the expert is 1; NaN where no expert is known."""
    return float(references.normalized(episodes.returns.mean()))


@episode_metric(
    unit="share, 0 to 1", meaning="(1/N) times the number of i with R_i < expert_return - abs(expert_return) / 2"
)
def failed_episodes(episodes: Episodes, references: References) -> float:
    """The share of episodes below half of the expert's return; NaN where no expert is known."""
    return float(references.failed(episodes.returns).mean()) if references.has_expert else math.nan


@episode_metric(unit="environment steps", meaning="(1/N) sum_i T_i")
def episode_length(episodes: Episodes, references: References) -> float:
    """The mean number of steps."""
    return float(episodes.lengths.mean())
