"""Expert x environments -> demonstrations."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from lightning_bc import versions
from lightning_bc.demonstrations.experts import SHIPPED_EXPERTS, Expert, load_expert
from lightning_bc.demonstrations.reference_returns import random_returns
from lightning_bc.environments import Environments, environment_spaces, make
from lightning_bc.episodes import SELECTION_BANK, TEST_BANK, TEST_EPISODES, play
from lightning_bc.errors import InputError
from lightning_bc.files import new_file, sha256, write

Actions = Literal["sampled", "deterministic", "exploratory"]

NUM_ENVS = 128
"""Sub-environments that play side by side: enough for the policy's batch to cost next to nothing a step."""


def collect(
    env: str,
    expert: str,
    output: str | None = None,
    pairs: int = 2_400_000,
    actions: Actions = "sampled",
    seed: int = 0,
) -> Path:
    """Collect demonstrations: play an expert and write its (observation, action) pairs to a file.

    Args:
        env: Gymnasium environment id, for example HalfCheetah-v5.
        expert: file of the expert: a CleanRL SAC or TD3 actor, or a checkpoint of this package.
        output: file to write; default data/ENV-ACTIONS-PAIRS.pt.
        pairs: how many pairs; the last episode is cut there.
        actions: "sampled" plays and records samples of the stochastic actor; "deterministic" plays and records its mean;
            "exploratory" plays samples and records the mean, which teaches recovery (Laskey 2017, DART,
            https://arxiv.org/abs/1703.09327; Zhang 2025, Action Chunking and Exploratory Data Collection).
        seed: of the first episode; episode i has seed + i.

    Returns:
        The file written.

    Raises:
        InputError: if the expert cannot be loaded or does not fit the environment, or if the file exists.
    """
    if pairs < 1:
        raise InputError(f"--pairs {pairs}: wanted at least 1.")
    if not 0 <= seed <= SELECTION_BANK.first - pairs:
        raise InputError(
            f"--seed {seed}: episode seeds from {SELECTION_BANK.first:,} on are kept for evaluation; wanted 0 to "
            f"{SELECTION_BANK.first - pairs:,}."
        )
    actor = load_expert(expert)
    check_fits(actor, expert, env)
    path = new_file(output or default_path(env, actions, pairs))
    environments = make(env, NUM_ENVS)

    started = time.perf_counter()
    with tqdm(total=pairs, unit=" pairs", unit_scale=True, desc=f"collecting {path.name}", mininterval=0.5) as bar:
        longest = environment_spaces(env).max_episode_steps or 1
        content = _play_until(pairs, actor, environments, longest, actions, seed, bar.update)
    seconds = time.perf_counter() - started
    content |= {
        "random_returns": torch.from_numpy(random_returns(env)),
        "expert_returns": torch.from_numpy(play(actor.player(), environments, TEST_BANK.seeds(TEST_EPISODES)).returns),
        "metadata": {
            "environment_id": env,
            "expert": str(expert),
            "expert_sha256": sha256(expert),
            "seed": seed,
            "actions": actions,
            "versions": versions(),
        },
    }
    environments.close()
    write(path, content)
    print(
        f"{path}: {pairs:,} pairs of {len(content['episode_lengths']):,} episodes in {seconds:.0f} s "
        f"({pairs / seconds:,.0f} pairs/s). Return of the demonstrations {content['mean_reward']:.0f} +- "
        f"{content['std_reward']:.0f}; on the test bank the expert's mean action {content['expert_returns'].mean():.0f}, "
        f"random actions {content['random_returns'].mean():.0f}."
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
    expert = SHIPPED_EXPERTS / f"{env}.pt"
    if Path(path).exists():
        return
    if not expert.is_file():
        raise InputError(
            f"{path}: no such file, and no expert for {env} is shipped to collect it with ({expert} is missing). "
            "Name your own demonstrations with --data.path, or collect them with\n"
            f"    python -m lightning_bc collect --env {env} --expert EXPERT.pt"
        )
    collect(env, str(expert), path)


def check_fits(actor: Expert, expert: str, env: str) -> None:
    """Raise InputError unless the actor's dimensions are the environment's."""
    spaces = environment_spaces(env)
    for what, found, wanted in (
        ("observations", actor.observation_dim, spaces.observation_dim),
        ("actions", actor.action_dim, spaces.action_dim),
    ):
        if found != wanted:
            raise InputError(f"{expert}: is an expert for {found}-dimensional {what}; {env} has {wanted}-dimensional ones.")


def _play_until(
    pairs: int,
    actor: Expert,
    environments: Environments,
    longest: int,
    actions: Actions,
    seed: int,
    on_step: Callable[[int], Any],
) -> dict[str, Any]:
    """Play rounds of one episode a sub-environment until ``pairs`` are there; cut the last episode."""
    policy = actor.player(deterministic=actions == "deterministic")
    label = actor.player(replan=True) if actions == "exploratory" else None
    observations = np.empty((pairs, actor.observation_dim), np.float32)
    recorded = np.empty((pairs, actor.action_dim), np.float32)
    rewards = np.empty(pairs, np.float32)
    lengths: list[int] = []
    returns: list[float] = []
    filled = 0
    while filled < pairs:
        # About as many episodes as are still needed; before the first is known, the time limit stands for its length.
        mean_length = filled / len(lengths) if lengths else longest
        wanted = min(environments.num_envs, max(1, int(np.ceil((pairs - filled) / mean_length))))
        first = seed + len(lengths)
        played = play(policy, environments, range(first, first + wanted), record=True, label=label, on_step=on_step)
        for source, target in (
            (played.observations, observations),
            (played.actions, recorded),
            (played.rewards, rewards),
        ):
            assert source is not None
            target[filled : filled + len(source)] = source[: pairs - filled]
        for length, episode_return in zip(played.lengths, played.returns, strict=True):
            if filled < pairs:
                lengths.append(min(int(length), pairs - filled))
                if filled + length <= pairs or not returns:         # an episode that was cut has no return
                    returns.append(float(episode_return))
                filled += lengths[-1]
    return {
        "observations": torch.from_numpy(observations),
        "actions": torch.from_numpy(recorded),
        "rewards": torch.from_numpy(rewards),
        "episode_lengths": torch.tensor(lengths),
        "mean_reward": float(np.mean(returns)),
        "std_reward": float(np.std(returns)),
    }
