"""What a return is measured against: the random policy and the expert on the test bank."""

import math

import numpy as np
import torch
from torch import Tensor

from lightning_bc.demonstrations.experts import load_expert, shipped_expert
from lightning_bc.demonstrations.trajectories import Origin
from lightning_bc.environments import environment_spaces, make
from lightning_bc.episodes import TEST_BANK, TEST_EPISODES, play
from lightning_bc.players import Policy
from lightning_bc.references import References

CLEARLY = 3.0
"""Standard errors by which the expert's return must be above that of random actions."""


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
    policy = random_policy(spaces.action_low, spaces.action_high)
    returns = play(policy, environments, TEST_BANK.seeds(TEST_EPISODES)).returns
    environments.close()
    return returns


def references(environment_id: str, demonstrations: Origin | None, error: float = math.nan) -> References:
    """As the demonstrations' files say.

    What it does not say, the random policy plays, and the mean return of the demonstrations stands in for the expert. Where
    that is not known either the shipped expert plays; where there is none its return is NaN. It is NaN too where the expert
    is not clearly better than random actions: no score can be normalized by a distance that is noise. ``error`` is the
    standard error of the mean return of the demonstrations, NaN where it is not known.
    """
    origin = demonstrations or Origin("nowhere")
    random = np.array(origin.random_returns) if origin.random_returns else random_returns(environment_id)
    if origin.expert_returns:
        expert = np.array(origin.expert_returns)
        return _scale(random, _mean(expert), standard_error(expert), f"expert's mean action, {_episodes(expert)}")
    if origin.mean_return is not None:
        return _scale(random, origin.mean_return, error, "mean return of the data file (no expert at hand)")
    name = shipped_expert(environment_id)
    if name is None:
        unsaid = "no demonstrations are read" if demonstrations is None else "the data file has no mean_reward or rewards"
        return References(_mean(random), math.nan, f"unknown: {unsaid} and no expert is shipped")
    environments = make(environment_id, TEST_EPISODES)
    expert = play(load_expert(name, environment_id).player(), environments, TEST_BANK.seeds(TEST_EPISODES)).returns
    environments.close()
    return _scale(random, _mean(expert), standard_error(expert), f"shipped expert's mean action, {_episodes(expert)}")


def standard_error(returns: np.ndarray) -> float:
    """Standard error of the mean of ``returns`` (episodes,); NaN where there are none."""
    return float(returns.astype(np.float64).std() / math.sqrt(len(returns))) if len(returns) else math.nan


def _scale(random: np.ndarray, expert: float, error: float, source: str) -> References:
    """The two returns as a scale, if the ``expert``'s, of that standard error, is clearly above that of ``random`` actions.

    Clearly is by three standard errors of the difference; an error that is not known (NaN) counts as none.
    """
    worst = _mean(random)
    if expert > worst + CLEARLY * math.hypot(standard_error(random), 0.0 if math.isnan(error) else error):
        return References(worst, expert, source)
    return References(
        worst,
        math.nan,
        f"no normalized score: the expert's return, {expert:.4g} ({source}), is not clearly above that of random actions, "
        f"{worst:.4g}",
    )


def _episodes(returns: np.ndarray) -> str:
    """How many there are and, by the measure of a policy's, how many of them failed."""
    failed = int(References(math.nan, _mean(returns), "").failed(returns).sum())
    return f"{len(returns)} test-bank episodes, {failed} of which failed"


def _mean(returns: np.ndarray) -> float:
    return float(returns.astype(np.float64).mean())
