"""Do demonstrations fit the environment, and what the strategy wants of them? Which of them are learnt from?"""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_bc.border import Border
from lightning_bc.demonstrations.trajectories import FEWEST_EPISODES_TO_HOLD_OUT, Trajectories
from lightning_bc.environments import EnvironmentSpaces, are_one
from lightning_bc.errors import InputError
from lightning_bc.strategies.contract import Needs

DEFAULT_ENVIRONMENT = "HalfCheetah-v5"
"""Whose demonstrations the default file holds."""

CPU = torch.device("cpu")
WAY_BACK = "If they were recorded in [-1, 1], bring them back with --data.scale_actions true."


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
        processes: how many of those that train are on this machine.
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
    processes: int = 1

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
            processes=trainer.num_devices,
        )

    @property
    def has_windows(self) -> bool:
        """Whether windows are served in place of pairs."""
        return self.needs is Needs.PAIRS and (self.history > 1 or self.horizon > 1)


@dataclass(frozen=True)
class Budget:
    """What of a file is learnt from: the flags of the same names, see :class:`Demonstrations`.

    ``must_hold_out`` holds episodes out however few they are.
    """

    episodes: int | None = None
    subsample: int = 1
    validation_fraction: float = 0.0
    episode_length: int | None = None
    top_fraction: float = 1.0
    must_hold_out: bool = False
    first_steps: int | None = None

    @property
    def takes_every_row(self) -> bool:
        """Whether every pair of the episodes that are not held out is learnt from."""
        every_episode = self.episodes is None and self.top_fraction == 1
        return every_episode and self.subsample == 1 and self.first_steps is None

    @property
    def takes_all(self) -> bool:
        """Whether every pair is learnt from, so that episodes do not matter."""
        return self.takes_every_row and self.validation_fraction == 0


def in_order_of_space(made: Trajectories, spaces: EnvironmentSpaces) -> Trajectories:
    """The same with the columns of observations in the order in which the environment's Dict space is flattened.

    Those of another space stay. What the columns are is said by the file's keys or by --data.observation_keys; where nothing
    says it, they are taken to be in the space's order, which is printed.
    """
    parts, keys = spaces.observation_parts, made.origin.observation_keys
    if not parts or made.observations.shape[1] != spaces.observation_dim or (keys and sorted(keys) != sorted(parts)):
        return made
    listed = ", ".join(f"{key} ({size})" for key, size in parts.items())
    if not keys:
        rank_zero_only(print)(
            f"{made.origin.path}: its columns of observations are taken to be {listed}, in this order, which is that of "
            f"{spaces.environment_id}; if they come in another one, name it with --data.observation_keys"
        )
        return made
    columns = torch.arange(spaces.observation_dim).split([parts[key] for key in keys])
    order = torch.cat([columns[keys.index(key)] for key in parts])
    rank_zero_only(print)(f"{made.origin.path}: observations of {spaces.environment_id} are {listed}, in this order")
    if order.equal(torch.arange(len(order))):
        return made
    return replace(
        made,
        observations=made.observations[:, order],
        final_observations=None if made.final_observations is None else made.final_observations[:, order],
        origin=replace(made.origin, observation_keys=tuple(parts)),
    )


def check_fits(made: Trajectories, spaces: EnvironmentSpaces) -> None:
    """Raise InputError unless they are of that environment: its id and its dimensions."""
    path, made_on, environment_id = made.origin.path, made.origin.environment_id, spaces.environment_id
    if made_on is not None and not are_one((made_on, environment_id)):
        raise InputError(
            f"{path}: holds demonstrations of {made_on}, and --env is {environment_id}. Leave --env away, or "
            "name demonstrations of that environment with --data.path."
        )
    note = f" The file was read as {made.origin.layout}." if made.origin.layout else ""
    note += f" The {made.origin.note}; name others with --data.observation_keys." if made.origin.note else ""
    if spaces.observation_parts and made.observations.shape[1] != spaces.observation_dim:
        parts = ", ".join(f"{part} ({size})" for part, size in spaces.observation_parts.items())
        note += f" Those of the environment are {parts}; of a Discrete entry each value has a column, 1 or 0."
    for key, tensor, wanted in (
        ("observations", made.observations, spaces.observation_dim),
        ("actions", made.actions, spaces.action_dim),
    ):
        if tensor.shape[1] != wanted:
            raise InputError(
                f"{path}: {key} have {tensor.shape[1]} dimensions, those of {environment_id} have {wanted}. "
                f"Name the file's environment with --env, or another file.{note}"
            )


def in_bounds(made: Trajectories, spaces: EnvironmentSpaces, scale: bool, clip: bool) -> Trajectories:
    """The same with actions in the environment's units and within its bounds.

    Args:
        made: demonstrations of that environment.
        spaces: of the environment.
        scale: whether the actions were recorded in [-1, 1], and are brought to the bounds.
        clip: whether actions beyond the bounds are moved to them, as an environment does that clips what it is given.

    Raises:
        InputError: an action is beyond the bounds, and nothing is said of what to do.
    """
    path = made.origin.path
    low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
    if scale:
        border = Border(spaces.observation_dim, low.tolist(), high.tolist())
        made = replace(made, actions=border.unscaled(made.actions))
    elif seem_scaled(made, spaces):
        rank_zero_only(warnings.warn)(
            f"{path}: all actions lie in [-1, 1], and those of {spaces.environment_id} in {low.tolist()} to "
            f"{high.tolist()}. {WAY_BACK}"
        )
    outside = beyond_bounds(made.actions, spaces).any(dim=1)
    if not outside.any():
        return made
    number, first = int(outside.sum()), int(outside.nonzero()[0])
    if clip:
        rank_zero_only(print)(f"{path}: actions of {number} of {len(made)} pairs are clipped to the bounds")
        return replace(made, actions=made.actions.clamp(low, high))
    way_back = " " + WAY_BACK if not scale and made.actions.abs().max() <= 1 else ""
    raise InputError(
        f"{path}: actions[{first}] = {[round(a, 4) for a in made.actions[first].tolist()]} is outside the bounds of "
        f"{spaces.environment_id}, {low.tolist()} to {high.tolist()} (first of {number} of {len(made)}). If the environment "
        f"clipped them while they were recorded, do the same with --data.clip_actions true.{way_back}"
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
    if wanted.world_size > 1 and (pairs := len(training.rows(subsample))) < wanted.world_size:
        raise InputError(
            f"{training.origin.path}: has {pairs} training pairs for {wanted.world_size} processes; wanted at least one for "
            "each. Set --trainer.devices 1."
        )


def split(
    made: Trajectories, spaces: EnvironmentSpaces, wanted: Wanted, budget: Budget
) -> tuple[Trajectories, Trajectories]:
    """The episodes to train on, and those held out, maybe none; where episodes terminated is known in both.

    Raises:
        InputError: episodes matter and are not known, or there are fewer than asked for.
    """
    _refuse_unknown_episodes(made, spaces, wanted, budget)
    if made.terminated is None:
        made = made.with_terminations_inferred(spaces.max_episode_steps, spaces.can_terminate)
        if wanted.needs is Needs.TRANSITIONS:
            rank_zero_only(print)(
                f"{made.origin.path}: does not say which episodes terminated, so this is inferred: those shorter than the "
                "time limit did, the last one did not"
            )
    else:
        limited = made.with_time_limits(spaces.max_episode_steps, spaces.can_terminate)
        said, made = made.terminated, limited
        at_limit = 0 if limited.terminated is None else int((said & ~limited.terminated).sum())
        if at_limit and wanted.needs is Needs.TRANSITIONS:
            rank_zero_only(print)(
                f"{made.origin.path}: {at_limit} of {len(said)} episodes that it calls terminated reach the time limit, "
                "or are of an environment that never terminates; they are taken for cut off"
            )
    if budget.top_fraction < 1:                                     # after the inference: it is of the file's last episode
        made = _best(made, budget.top_fraction)
    fewest = 2 if budget.must_hold_out else FEWEST_EPISODES_TO_HOLD_OUT
    training, held_out = made.held_out(budget.episodes, budget.validation_fraction, fewest, budget.must_hold_out)
    return training if budget.first_steps is None else training.beginnings(budget.first_steps), held_out


def _best(made: Trajectories, fraction: float) -> Trajectories:
    """That share of the episodes, at least one, which have the highest returns, in the file's order."""
    if made.rewards is None or not made.knows_episodes:
        lacking = "rewards" if made.rewards is None else "episode_lengths"
        raise InputError(f"--data.top_fraction {fraction}: {made.origin.path} has no {lacking}, so no returns of episodes.")
    number = max(1, round(fraction * len(made.lengths)))
    return made.chosen(made.returns.topk(number).indices.sort().values)


def _refuse_unknown_episodes(made: Trajectories, spaces: EnvironmentSpaces, wanted: Wanted, budget: Budget) -> None:
    """Raise InputError where something depends on episodes and they are not known."""
    if budget.must_hold_out and not made.knows_episodes:
        raise InputError(
            f"{made.origin.path}: has no episode_lengths, and whole episodes are held out to judge the run by. Say how long "
            "they are with --data.episode_length N."
        )
    strategy_asks = wanted.needs is Needs.TRANSITIONS or wanted.has_windows
    if made.knows_episodes or (budget.takes_all and not strategy_asks):
        return
    way_out = "" if strategy_asks else ", or take all pairs as they are with --data.validation_fraction 0"
    raise InputError(
        f"{made.origin.path}: has no episode_lengths, and episodes of {spaces.environment_id} may end early. Say how "
        f"long they are with --data.episode_length N{way_out}."
    )


def with_usual_episodes(made: Trajectories, spaces: EnvironmentSpaces, length: int | None = None) -> Trajectories:
    """The same in episodes of ``length`` where they are not known; by default of the time limit, if none ends before it."""
    if length is None and spaces.can_terminate is False:
        length = spaces.max_episode_steps
    return made if made.knows_episodes or length is None else made.in_episodes_of(length)


def beyond_bounds(actions: Tensor, spaces: EnvironmentSpaces) -> Tensor:
    """Which of the ``actions`` (pairs, action_dim) are beyond the bounds, but for float32 rounding of an affine map."""
    low, high = torch.tensor(spaces.action_low), torch.tensor(spaces.action_high)
    tolerance = 1e-5 * (high - low)
    return (actions < low - tolerance) | (actions > high + tolerance)


def seem_scaled(made: Trajectories, spaces: EnvironmentSpaces) -> bool:
    """Whether all actions lie in [-1, 1] though the bounds are wider, in a file that ``collect`` has not written."""
    is_wider = bool((spaces.action_low < -1).all() and (spaces.action_high > 1).all())
    return is_wider and made.origin.versions is None and bool(made.actions.abs().max() <= 1)  # ``collect`` records units
