"""Expert x environments -> demonstrations."""

import shlex
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from lightning_bc import versions
from lightning_bc.bounds import PositiveInt
from lightning_bc.demonstrations.experts import (
    SHIPPED_EXPERTS,
    Expert,
    expert_file,
    expert_sha256,
    load_expert,
    shipped_expert,
)
from lightning_bc.demonstrations.readers import torch_file
from lightning_bc.demonstrations.reference_returns import random_returns
from lightning_bc.demonstrations.shards import is_shards
from lightning_bc.demonstrations.trajectories import Origin, Trajectories, joined, recorded
from lightning_bc.demonstrations.writing import ShardWriter, new_data, writing
from lightning_bc.environments import Environments, environment_spaces, episode_limit, limit_episodes, make, resolved
from lightning_bc.episodes import SELECTION_BANK, TEST_BANK, TEST_EPISODES, play
from lightning_bc.errors import InputError
from lightning_bc.files import owning, refuse_without_room, shipped
from lightning_bc.references import decimals_of

Actions = Literal["sampled", "deterministic", "exploratory"]

NUM_ENVS = 128
"""Sub-environments that play side by side: enough for the policy's batch to cost next to nothing per step."""


def collect(
    env: str,
    expert: str,
    output: str | None = None,
    pairs: int = 2_400_000,
    actions: Actions = "sampled",
    seed: int = 0,
    max_episode_steps: PositiveInt | None = None,
) -> Path:
    """Collect demonstrations: play an expert and write its (observation, action) pairs to a file.

    Args:
        env: Gymnasium environment id, for example HalfCheetah-v5.
        expert: the expert: the file of a CleanRL SAC or TD3 actor, a stable-baselines3 .zip or a checkpoint of this package,
            the name or a folder of a run, or the name of a function, package.module:function.
        output: .pt file to write, or a folder whose name ends in .shards, to which they are written as they are played;
            default data/ENV-ACTIONS-PAIRS.pt.
        pairs: how many pairs; the last episode is cut there.
        actions: "sampled" plays and records samples of the stochastic actor; "deterministic" plays and records its mean;
            "exploratory" plays samples and records the mean, which teaches recovery (Laskey 2017, DART,
            https://arxiv.org/abs/1703.09327; Zhang 2025, Action Chunking and Exploratory Data Collection).
        seed: of the first episode; episode i has seed + i.
        max_episode_steps: where the environment has no time limit, steps after which an episode is cut off; default 1000.

    Returns:
        What was written.

    Raises:
        InputError: if the expert cannot be loaded or does not fit the environment, or if the output exists or has another
            ending.
    """
    check_seed(pairs, seed)
    env, expert = resolved(env), expert_file(expert)
    if max_episode_steps is not None:
        limit_episodes(env, max_episode_steps)
    actor = load_expert(expert, env)
    path = new_data(output or default_path(env, actions, pairs))

    refuse_without_room(path, 4 * pairs * (actor.observation_dim + actor.action_dim + 1))
    with owning(path):
        started = time.perf_counter()
        with writing(path) if is_shards(path) else nullcontext(Rounds()) as kept:
            origin = demonstrate(actor, env, pairs, actions, seed, f"collecting {path.name}", kept.add)
            seconds = time.perf_counter() - started
            origin = replace(with_reference_returns(origin, actor, env), path=str(path))
            origin = replace(origin, expert=expert, expert_sha256=expert_sha256(expert))
            if isinstance(kept, ShardWriter):
                kept.close(origin)
            else:
                torch_file.write(path, kept.together(origin))
    expert_return, random_return = np.mean(origin.expert_returns), np.mean(origin.random_returns)
    decimals = decimals_of(abs(float(expert_return - random_return)))
    print(
        f"{path}: {pairs:,} pairs of {kept.episodes:,} episodes in {seconds:.0f} s "
        f"({pairs / seconds:,.0f} pairs/s). Return of the demonstrations {origin.mean_return or 0:.{decimals}f} +- "
        f"{origin.std_return or 0:.{decimals}f}; on the test bank the expert's mean action {expert_return:.{decimals}f}, "
        f"random actions {random_return:.{decimals}f}."
    )
    return path


def default_path(env: str, actions: str = "sampled", pairs: int = 2_400_000) -> str:
    """Where ``collect`` writes unless told otherwise: the name says what the file holds."""
    return f"data/{env}-{actions}-{pairs}.pt"


def collect_missing(env: str, path: str) -> None:
    """Collect the default file of ``env`` with the shipped expert, unless it is there.

    Raises:
        InputError: no expert is shipped.
    """
    if Path(path).exists():
        return
    expert = shipped_expert(env)
    if expert is None:
        missing = shipped(SHIPPED_EXPERTS / f"{env}.pt")
        raise InputError(
            f"{path}: no such file, and no expert for {env} is shipped to collect it with ({missing} is missing). "
            "Name your own demonstrations with --data.path, or collect them with\n"
            f"    python -m lightning_bc collect --env {shlex.quote(env)} --expert EXPERT.pt"
        )
    collect(env, expert, path)


def check_seed(pairs: int, seed: int) -> None:
    """Raise InputError unless so many episodes from ``seed`` on are kept for collection."""
    if pairs < 1:
        raise InputError(f"--pairs {pairs}: wanted at least 1.")
    if not 0 <= seed <= SELECTION_BANK.first - pairs:
        raise InputError(
            f"--seed {seed}: episode seeds from {SELECTION_BANK.first:,} on are kept for evaluation; wanted 0 to "
            f"{SELECTION_BANK.first - pairs:,}."
        )


class Rounds:
    """Episodes that are kept as they come, and joined at the end."""

    def __init__(self) -> None:
        self._rounds: list[Trajectories] = []

    @property
    def episodes(self) -> int:
        """How many."""
        return sum(len(played.lengths) for played in self._rounds)

    def add(self, played: Trajectories) -> None:
        """Keep some more."""
        self._rounds.append(played)

    def together(self, origin: Origin) -> Trajectories:
        """All of them."""
        return replace(joined(self._rounds), origin=origin)


def demonstrate(
    actor: Expert,
    env: str,
    pairs: int,
    actions: Actions,
    seed: int,
    title: str | None,
    keep: Callable[[Trajectories], None],
) -> Origin:
    """Play an actor until there are ``pairs``, in rounds of whole episodes; see :func:`collect`.

    Args:
        title: of the progress bar; None shows none.
        keep: takes what was played, round by round.

    Returns:
        What is known of all together.
    """
    longest = environment_spaces(env).max_episode_steps or episode_limit(env) or 1
    with (
        closing(make(env, NUM_ENVS)) as environments,
        tqdm(total=pairs, unit=" pairs", unit_scale=True, desc=title, mininterval=0.5, disable=title is None) as bar,
    ):
        returns = _play_until(pairs, actor, environments, longest, actions, seed, bar.update, keep)
    return Origin(
        path="memory",
        environment_id=env,
        actions=actions,
        seed=seed,
        max_episode_steps=episode_limit(env),
        versions=versions(),
        mean_return=float(np.mean(returns)),
        std_return=float(np.std(returns)),
    )


def with_reference_returns(origin: Origin, actor: Expert, env: str) -> Origin:
    """The same, and what random actions and the actor's deterministic ones earn on the test bank."""
    with closing(make(env, NUM_ENVS)) as environments:
        expert = play(actor.player(), environments, TEST_BANK.seeds(TEST_EPISODES)).returns
    random = tuple(random_returns(env).tolist())
    return replace(origin, random_returns=random, expert_returns=tuple(expert.tolist()))


def _play_until(
    pairs: int,
    actor: Expert,
    environments: Environments,
    longest: int,
    actions: Actions,
    seed: int,
    on_step: Callable[[int], Any],
    keep: Callable[[Trajectories], None],
) -> list[float]:
    """Play rounds of one episode per sub-environment until ``pairs`` are there; cut the last episode.

    Returns:
        The return of each episode that was not cut; of the first one in any case.
    """
    policy = actor.player(deterministic=actions == "deterministic")
    label = actor.player(replan=True) if actions == "exploratory" else None
    returns: list[float] = []
    filled = episodes = 0
    while filled < pairs:
        # About as many episodes as are still needed; before the first is known, the time limit stands for its length.
        mean_length = filled / episodes if episodes else longest
        wanted = min(environments.num_envs, max(1, int(np.ceil((pairs - filled) / mean_length))))
        first = seed + episodes
        played = play(policy, environments, range(first, first + wanted), record=True, label=label, on_step=on_step)
        keep(recorded(played).cut(pairs - filled))
        for length, episode_return in zip(played.lengths.tolist(), played.returns.tolist(), strict=True):
            filled += length
            if filled <= pairs or not returns:                      # an episode that was cut has no return
                returns.append(episode_return)
        episodes += wanted
    return returns
