"""What a return is measured against: the random policy and the expert on the test bank."""

import numpy as np
import torch
from torch import Tensor

from lightning_bc.demonstrations.experts import SHIPPED_EXPERTS, load_expert
from lightning_bc.demonstrations.trajectories import Origin
from lightning_bc.environments import environment_spaces, make
from lightning_bc.episodes import TEST_BANK, TEST_EPISODES, Policy, play
from lightning_bc.files import shipped
from lightning_bc.references import References


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


def references(environment_id: str, demonstrations: Origin | None) -> References:
    """As the demonstrations' files say.

    What it does not say, the random policy plays, and the mean return of the demonstrations stands in for the expert. Where
    that is not known either the shipped expert plays; where there is none its return is NaN.
    """
    origin = demonstrations or Origin("nowhere")
    random = _mean(origin.random_returns) if origin.random_returns else float(random_returns(environment_id).mean())
    if origin.expert_returns:
        return References(random, _mean(origin.expert_returns), "expert's mean action, 100 test-bank episodes")
    if origin.mean_return is not None:
        return References(random, origin.mean_return, "mean_reward of the data file (no expert at hand)")
    path = shipped(SHIPPED_EXPERTS / f"{environment_id}.pt")
    if not path.is_file():
        unsaid = "no demonstrations are read" if demonstrations is None else "the data file has no mean_reward or rewards"
        return References(random, float("nan"), f"unknown: {unsaid} and no expert is shipped")
    environments = make(environment_id, TEST_EPISODES)
    returns = play(load_expert(path, environment_id).player(), environments, TEST_BANK.seeds(TEST_EPISODES)).returns
    environments.close()
    return References(random, float(returns.mean()), "shipped expert's mean action, 100 test-bank episodes")


def _mean(returns: tuple[float, ...]) -> float:
    return float(torch.tensor(returns, dtype=torch.float64).mean())
