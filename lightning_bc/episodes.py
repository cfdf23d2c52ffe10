"""Playing episodes: the one loop that every collection, evaluation and relabelling uses, and the banks of their seeds.

Three disjoint banks of episode seeds, the same for every run:

* below 1,000,000,000: collection, DAgger and learning in the environment;
* selection bank, 1,000,000,000 + i: curves during training, choice of checkpoints, tuning;
* test bank, 2,000,000,000 + i: final figures, and nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_bc.environments import Environments

SELECTION_BANK = 1_000_000_000
TEST_BANK = 2_000_000_000
TEST_EPISODES = 100
"""Every reported score is a mean over this many episodes of the test bank."""

Policy = Callable[[Tensor], Tensor]
"""Observations (batch, observation_dim) float32 to actions (batch, action_dim) in the environment's units."""


def selection_seeds(episodes: int) -> range:
    """Seeds of the first ``episodes`` episodes of the selection bank."""
    return range(SELECTION_BANK, SELECTION_BANK + episodes)


def test_seeds(episodes: int = TEST_EPISODES) -> range:  # noqa: PT028  # not a pytest function
    """Seeds of the first ``episodes`` episodes of the test bank."""
    return range(TEST_BANK, TEST_BANK + episodes)


test_seeds.__test__ = False  # type: ignore[attr-defined]  # the name is the bank's, not a pytest function


@dataclass(frozen=True)
class Episodes:
    """What was played, in the order of the seeds.

    Attributes:
        returns: undiscounted sum of rewards of each episode, (episodes,) float64.
        lengths: steps of each episode, (episodes,) int64.
        observations: (steps, observation_dim) float32, episode after episode; None unless recorded.
        actions: (steps, action_dim) float32, what was labelled, else what was played; None unless recorded.
        rewards: (steps,) float32; None unless recorded.
    """

    returns: np.ndarray
    lengths: np.ndarray
    observations: np.ndarray | None = None
    actions: np.ndarray | None = None
    rewards: np.ndarray | None = None


def play(
    policy: Policy,
    environments: Environments,
    seeds: Sequence[int],
    *,
    record: bool = False,
    label: Policy | None = None,
    device: torch.device | str = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> Episodes:
    """Play one episode for each seed and return what happened.

    The seeds queue for the sub-environments: whoever ends takes the next one, and when none is left it stands still, so
    each episode counts once and no step is played for nobody. Everything runs under a forked random state seeded from
    the seeds: training is not disturbed, and the same call gives the same episodes.

    Args:
        policy: chooses the actions that are played.
        environments: from :func:`lightning_bc.environments.make`.
        seeds: one seed an episode.
        record: keep observations, actions and rewards.
        label: gives the recorded actions in place of those played (an expert's answers, for example).
        device: where the policy computes.
        on_step: called after each step with the number of environment steps just played (progress bars).
    """
    seeds = [int(seed) for seed in seeds]
    num_envs, device = environments.num_envs, torch.device(device)
    returns = np.zeros(len(seeds))
    lengths = np.zeros(len(seeds), dtype=np.int64)
    record_of: list[tuple[np.ndarray, ...]] = []                    # (episode, observation, action, reward) rows
    if not seeds:
        return Episodes(returns, lengths)

    waiting = min(len(seeds), num_envs)                             # first seed that has no sub-environment yet
    episode = np.arange(num_envs)                                   # (num_envs,) which seed each one plays
    active = episode < waiting
    with _apart_from_training(seeds, device), torch.inference_mode():
        observations, _ = environments.reset(seed=[seeds[i] if i < waiting else seeds[0] for i in range(num_envs)])
        while (playing := int(active.sum())) > 0:
            everyone = playing == num_envs
            seen = torch.as_tensor(observations if everyone else observations[active], dtype=torch.float32)
            inputs = seen.to(device)                                # (playing, observation_dim)
            played = policy(inputs).cpu().numpy()                   # (playing, action_dim)
            if everyone:
                actions = played
            else:
                actions = np.zeros((num_envs, played.shape[1]), played.dtype)
                actions[active] = played
            observations, rewards, terminated, truncated, _ = environments.step(actions, None if everyone else active)
            now = episode if everyone else episode[active]
            earned = rewards if everyone else rewards[active]
            returns[now] += earned
            lengths[now] += 1
            if record:
                labelled = played if label is None else label(inputs).cpu().numpy()
                record_of.append((now.copy(), seen.numpy(), labelled, earned.astype(np.float32)))
            if on_step is not None:
                on_step(playing)

            ended = np.flatnonzero((terminated | truncated) & active)
            if len(ended):
                observations, waiting = _hand_out_seeds(environments, observations, ended, seeds, waiting, episode, active)

    if not record:
        return Episodes(returns, lengths)
    rows = [np.concatenate(column) for column in zip(*record_of, strict=True)]
    order = np.argsort(rows[0], kind="stable")                      # step by step -> episode after episode
    return Episodes(returns, lengths, *(column[order] for column in rows[1:]))


def _hand_out_seeds(
    environments: Environments,
    observations: np.ndarray,
    ended: np.ndarray,
    seeds: Sequence[int],
    waiting: int,
    episode: np.ndarray,
    active: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Start the next waiting episodes where one ended; update ``episode`` and ``active`` in place."""
    starting = ended[: len(seeds) - waiting]
    active[ended[len(starting) :]] = False
    if len(starting):
        episode[starting] = np.arange(waiting, waiting + len(starting))
        mask = np.zeros(len(active), dtype=bool)
        mask[starting] = True
        new_seeds: list[int | None] = [None] * len(active)
        for index in starting:
            new_seeds[index] = seeds[episode[index]]
        observations, _ = environments.reset(seed=new_seeds, options={"reset_mask": mask})
    return observations, waiting + len(starting)


@contextmanager
def forked_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Inside the block torch's generators (CPU, and the device's) start from ``seed``; after it they are as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.random.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def _apart_from_training(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """Inside the block torch's generators start from ``seeds`` and its CPU threads leave the cores to the physics.

    A policy's batch is small, so one thread is enough for it, and threads that wait for work would spin on the cores that
    the physics needs.
    """
    entropy = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)
    threads = torch.get_num_threads()
    with forked_random_state(entropy, device):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
