"""Do demonstrations fit the environment, and what the strategy wants of them? Which of them are learnt from?"""

from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_bc.demonstrations.trajectories import Trajectories
from lightning_bc.environments import EnvironmentSpaces
from lightning_bc.errors import InputError
from lightning_bc.strategies.contract import Needs

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Wanted:
    """What a Trainer and its strategy want of their data; without a Trainer, pairs on the CPU.

    Attributes:
        name: of the strategy, for messages.
        needs: what it learns from.
        history: observations per window.
        horizon: actions per window.
        device: where it learns.
        rank: which share of each batch.
        world_size: number of shares.
        max_steps: optimizer steps after which training ends, or None.
        max_epochs: epochs after which it ends, or None.
        fits: whether the data are wanted for ``fit``.
    """

    name: str = "the strategy"
    needs: Needs = Needs.PAIRS
    history: int = 1
    horizon: int = 1
    device: torch.device = CPU
    rank: int = 0
    world_size: int = 1
    max_steps: int | None = None
    max_epochs: int | None = None
    fits: bool = False

    @classmethod
    def by(cls, trainer: Trainer | None) -> "Wanted":
        """As set in ``trainer`` and declared by its strategy."""
        if trainer is None:
            return cls()
        strategy: Any = trainer.lightning_module
        return cls(
            name=type(strategy).__name__,
            needs=strategy.needs,
            history=strategy.history,
            horizon=strategy.horizon,
            device=trainer.strategy.root_device,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
            max_steps=trainer.max_steps if trainer.max_steps > 0 else None,
            max_epochs=trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else None,
            fits=trainer.state.fn == "fit",
        )

    @property
    def has_windows(self) -> bool:
        """Whether windows are served in place of pairs."""
        return self.needs is Needs.PAIRS and (self.history > 1 or self.horizon > 1)


@dataclass(frozen=True)
class Budget:
    """What of a file is learnt from: the flags of the same names, see :class:`Demonstrations`."""

    episodes: int | None = None
    subsample: int = 1
    validation_fraction: float = 0.0
    episode_length: int | None = None

    @property
    def takes_all(self) -> bool:
        """Whether every pair is learnt from, so that episodes do not matter."""
        return self.episodes is None and self.validation_fraction == 0 and self.subsample == 1


def check_fits(made: Trajectories, spaces: EnvironmentSpaces) -> None:
    """Raise InputError unless they are of that environment: its id, its dimensions, and actions within its bounds."""
    path, made_on, environment_id = made.origin.path, made.origin.environment_id, spaces.environment_id
    if made_on is not None and made_on != environment_id:
        raise InputError(
            f"{path}: holds demonstrations of {made_on}, and --env is {environment_id}. Leave --env away, or "
            "name demonstrations of that environment with --data.path."
        )
    note = f" The {made.origin.note}; for others, give one array: see docs/your-data.md." if made.origin.note else ""
    for key, tensor, wanted in (
        ("observations", made.observations, spaces.observation_dim),
        ("actions", made.actions, spaces.action_dim),
    ):
        if tensor.shape[1] != wanted:
            raise InputError(
                f"{path}: {key} have {tensor.shape[1]} dimensions, those of {environment_id} have {wanted}. "
                f"Say with --env which environment the file is of.{note}"
            )
    low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
    tolerance = 1e-5 * (high - low)                                 # float32 rounding of an affine map
    outside = ((made.actions < low - tolerance) | (made.actions > high + tolerance)).any(dim=1)
    if outside.any():
        first = int(outside.nonzero()[0])
        raise InputError(
            f"{path}: actions[{first}] = {[round(a, 4) for a in made.actions[first].tolist()]} is outside the "
            f"bounds of {environment_id}, {low.tolist()} to {high.tolist()} (first of {int(outside.sum())}). "
            "Actions are expected in the environment's units, as they were played: clip them, or scale them back."
        )


def check_wanted(training: Trajectories, wanted: Wanted, subsample: int) -> None:
    """Raise InputError unless a strategy can learn what it wants from every k-th step of the ``training`` episodes."""
    if wanted.has_windows and subsample > 1:
        raise InputError(
            f"--data.subsample {subsample}: {wanted.name} learns from windows of successive steps (history "
            f"{wanted.history}, horizon {wanted.horizon}). Leave --data.subsample away, or set both to 1."
        )
    if wanted.needs is Needs.TRANSITIONS and training.final_observations is None and training.lengths.max() == 1:
        raise InputError(
            f"{training.origin.path}: {wanted.name} learns from transitions, and of none of the {len(training)} training "
            "pairs it is known what was observed after it. Give longer episodes, or the final_observations of each episode."
        )


def split(
    made: Trajectories, spaces: EnvironmentSpaces, wanted: Wanted, budget: Budget
) -> tuple[Trajectories, Trajectories]:
    """The episodes to train on, and those held out, maybe none; where episodes terminated is known in both.

    Raises:
        InputError: episodes matter and are not known, or there are fewer than asked for.
    """
    made = _with_episodes(made, spaces, wanted, budget)
    if made.terminated is None:
        made = made.with_terminations_inferred(spaces.max_episode_steps, spaces.can_terminate)
        if wanted.needs is Needs.TRANSITIONS:
            rank_zero_only(print)(
                f"{made.origin.path}: does not say which episodes terminated, so this is inferred: those shorter than the "
                "time limit did, the last one did not"
            )
    return made.held_out(budget.episodes, budget.validation_fraction)


def _with_episodes(made: Trajectories, spaces: EnvironmentSpaces, wanted: Wanted, budget: Budget) -> Trajectories:
    """Demonstrations whose episodes are known, unless nothing depends on them."""
    if made.knows_episodes:
        return made
    length = budget.episode_length
    if length is None and spaces.can_terminate is False:
        length = spaces.max_episode_steps
    if length is not None:
        return made.in_episodes_of(length)
    strategy_asks = wanted.needs is Needs.TRANSITIONS or wanted.has_windows
    if budget.takes_all and not strategy_asks:
        return made
    way_out = "" if strategy_asks else ", or take all pairs as they are with --data.validation_fraction 0"
    raise InputError(
        f"{made.origin.path}: has no episode_lengths, and episodes of {spaces.environment_id} may end early. Say how "
        f"long they are with --data.episode_length N{way_out}."
    )
