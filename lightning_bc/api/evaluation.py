"""How well a policy plays: the one evaluator, for policies of this package and for functions of one's own."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal

import numpy as np
from torch import Tensor

from lightning_bc.api.policy import Policy, device_of, without_gradients
from lightning_bc.bounds import check_arguments
from lightning_bc.demonstrations.experts import Expert, check_fits
from lightning_bc.demonstrations.experts.callables import CallableExpert
from lightning_bc.environments import EnvironmentSpaces, environment_spaces, limit_episodes, make
from lightning_bc.episode_metrics import measure_all, recording_is_needed
from lightning_bc.episodes import SELECTION_BANK, TEST_BANK, TEST_EPISODES, play
from lightning_bc.errors import InputError
from lightning_bc.references import References
from lightning_bc.strategies import Strategy

Function = Callable[..., Any]
"""Observations (batch, observation_dim) float32 to actions (batch, action_dim) in the environment's units."""

Bank = Literal["test", "selection"]
MOST_EPISODES = 1_000_000
"""Of a bank, which holds a thousand times as many seeds."""

UNKNOWN = References(math.nan, math.nan, "unknown")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a policy's episodes say.

    Attributes:
        environment_id: where it played.
        deterministic: whether with its deterministic actions.
        bank: of episode seeds: "test" or "selection".
        returns: undiscounted return of each episode, in the order of the seeds, (episodes,) float64.
        lengths: steps of each episode, (episodes,) int64.
        references: the returns of random actions and of the expert; NaN where they are not known.
        metrics: every episode metric by its name, those below among them: see docs/metrics.md.
    """

    environment_id: str
    deterministic: bool
    bank: Bank
    returns: np.ndarray
    lengths: np.ndarray
    references: References
    metrics: dict[str, float]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the returns over episodes."""
        return float(self.returns.std())

    @property
    def normalized(self) -> float:
        """The mean return where random actions are 0 and the expert is 1; NaN where the references are not known."""
        return float(self.references.normalized(self.mean))

    @property
    def failed(self) -> float:
        """Share of episodes below half of the expert's return, 0 to 1; NaN where no expert is known."""
        return self.metrics["failed_episodes"]

    @property
    def decimals(self) -> int:
        """With how many decimals its returns are shown, 1 to 3."""
        return max(1, self.references.decimals(max(abs(self.mean), self.std)))

    def __str__(self) -> str:
        known = f", normalized {self.normalized:.3f}" if math.isfinite(self.normalized) else ""
        known += f", failed episodes {self.failed:.0%}" if math.isfinite(self.failed) else ""
        kind = "deterministic" if self.deterministic else "sampled"
        return (
            f"{self.environment_id}: return {self.mean:.{self.decimals}f} +- {self.std:.{self.decimals}f}{known} "
            f"({len(self.returns)} {self.bank}-bank episodes, {kind} actions)"
        )


def evaluate(
    policy: Policy | Expert | Function,
    environment_id: str | None = None,
    episodes: int = TEST_EPISODES,
    *,
    deterministic: bool = True,
    references: References | None = None,
    bank: Bank = "test",
    max_episode_steps: int | None = None,
) -> Evaluation:
    """Play episodes, as every score of this package is played, and say how well that went.

    Args:
        policy: what :func:`lightning_bc.load` returns, a strategy, an expert, or a function that answers the observations
            of several environments (batch, observation_dim), a float32 NumPy array, with actions (batch, action_dim) in the
            environment's units. A function remembers nothing: the rows of two calls need not be of the same episodes. If
            it has a parameter ``deterministic``, it is told whether its best answer or a sample is asked for.
        environment_id: Gymnasium id; default: that of a loaded policy.
        episodes: how many: the first of the bank.
        deterministic: the policy's best single answer in place of samples; most functions have only one answer.
        references: what returns are measured against, such as ``Demonstrations.references``; default: those that a loaded
            policy's checkpoint holds for this environment.
        bank: "test" for final figures alone; "selection" for all that is chosen by its outcome.
        max_episode_steps: where the environment has no time limit, steps after which an episode is cut off, here and in
            all that is played later in this process; default: as in the run of a loaded policy, else 1000.

    Raises:
        InputError: the environment is not known, does not fit the policy, or the policy's answers are no actions there.
    """
    check_arguments(evaluate, locals())
    if not isinstance(references, References | None):
        raise InputError(f"references: is a {type(references).__name__}; wanted those of Demonstrations or a loaded policy.")
    known = policy if isinstance(policy, Policy) else None
    if environment_id is None and known is not None and known.not_imported is not None:
        raise InputError(
            f"evaluate: {known.path} acts in {known.not_imported}, whose module is not imported for a file's sake. Give "
            f"environment_id={known.not_imported!r}."
        )
    if environment_id is None and (known is None or known.environment_id is None):
        raise InputError("evaluate: nothing says which environment the policy acts in. Give environment_id.")
    environment_id = environment_id or str(known and known.environment_id)
    if not 1 <= episodes <= MOST_EPISODES:
        raise InputError(f"episodes={episodes}: wanted 1 to {MOST_EPISODES:,}.")
    of_run = known if known is not None and known.environment_id == environment_id else None
    limit = max_episode_steps
    if limit is None and of_run is not None:
        limit = of_run.max_episode_steps
    if limit is not None:
        limit_episodes(environment_id, limit)
    if references is None:
        references = (of_run and of_run.references) or UNKNOWN
    seeds = (TEST_BANK if bank == "test" else SELECTION_BANK).seeds(episodes)
    actor = as_expert(policy, environment_spaces(environment_id))
    module = actor.strategy if isinstance(actor, Policy) else actor
    with closing(make(environment_id, min(episodes, TEST_EPISODES))) as environments, without_gradients(module):
        played = play(
            module.quick_player(deterministic) if isinstance(module, Strategy) else actor.player(deterministic),
            environments,
            seeds,
            record=recording_is_needed(environment_id),
            device=device_of(module),
        )
    metrics = measure_all(played, references)
    return Evaluation(environment_id, deterministic, bank, played.returns, played.lengths, references, metrics)


def as_expert(policy: Policy | Expert | Function, spaces: EnvironmentSpaces) -> Expert:
    """What plays episodes, of anything that can.

    Raises:
        InputError: it is of another environment's dimensions, or no policy at all.
    """
    if hasattr(policy, "player") and not isinstance(policy, type):
        expert: Any = policy
        name = str(getattr(policy, "path", None) or type(policy).__name__)
        check_fits(policy.strategy if isinstance(policy, Policy) else expert, name, spaces.environment_id)
        return expert
    if not callable(policy) or isinstance(policy, type):
        raise InputError(f"policy: is a {type(policy).__name__}; wanted what load returns, a strategy, or a function.")
    return CallableExpert(getattr(policy, "__name__", type(policy).__name__), _in_numpy(policy), spaces)


def _in_numpy(function: Function) -> Function:
    """The same with NumPy's arrays in place of torch's tensors as answers."""

    @wraps(function)                                                # whose parameters say whether it has samples
    def answer(*arguments: Any, **named: Any) -> Any:
        actions = function(*arguments, **named)
        return actions.detach().cpu().numpy() if isinstance(actions, Tensor) else actions

    return answer
