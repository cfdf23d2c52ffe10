"""Playing episodes: the one loop that every collection, evaluation and relabelling uses, and the banks of their seeds.

Three disjoint banks of episode seeds, the same for every run:

* below 1,000,000,000: collection, DAgger and learning in the environment;
* selection bank, 1,000,000,000 + i: curves during training, choice of checkpoints, tuning;
* test bank, 2,000,000,000 + i: final figures, and nothing else.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from lightning_bc.environments import Environments
from lightning_bc.errors import InputError, NotFiniteError
from lightning_bc.players import ArrayPolicy, Memoryless, Player, Policy
from lightning_bc.stopping import STOPPING


@dataclass(frozen=True)
class SeedBank:
    """Seeds ``first``, ``first + 1``, ... of episodes."""

    first: int

    def seeds(self, episodes: int) -> range:
        """Those of the first ``episodes`` episodes."""
        return range(self.first, self.first + episodes)


SELECTION_BANK = SeedBank(1_000_000_000)
TEST_BANK = SeedBank(2_000_000_000)
TEST_EPISODES = 100
"""Every reported score is a mean over this many episodes of the test bank."""

@dataclass(frozen=True)
class Episodes:
    """What was played, in the order of the seeds.

    Attributes:
        returns: undiscounted sum of rewards of each episode, (episodes,) float64.
        lengths: steps of each episode, (episodes,) int64.
        terminated: whether each ended in a terminal state, rather than at its time limit, (episodes,) bool.
        observations: (steps, observation_dim) float32, episode after episode; None unless recorded.
        actions: (steps, action_dim) float32, what was labelled, else what was played; None unless recorded.
        rewards: (steps,) float32; None unless recorded.
        final_observations: those after each episode's last step, (episodes, observation_dim) float32; None unless recorded.
        environment_id: where they were played.
        unstable: whether MuJoCo warned in each that the simulation is unstable, (episodes,) bool; None where nothing says.
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    observations: np.ndarray | None = None
    actions: np.ndarray | None = None
    rewards: np.ndarray | None = None
    final_observations: np.ndarray | None = None
    environment_id: str = ""
    unstable: np.ndarray | None = None


def play(
    policy: Policy | Player,
    environments: Environments,
    seeds: Sequence[int],
    *,
    record: bool = False,
    label: Policy | Player | None = None,
    device: torch.device | str = "cpu",
    on_step: Callable[[int], None] | None = None,
) -> Episodes:
    """Play one episode per seed and return what happened.

    The seeds queue for the sub-environments: a sub-environment whose episode ends takes the next seed; when no seed is
    left it is not stepped any more, so every episode counts once. Everything runs under a forked random state seeded from
    the seeds: training is not disturbed, and the same call gives the same episodes.

    Args:
        policy: chooses the actions that are played.
        environments: from :func:`lightning_bc.environments.make`.
        seeds: one seed per episode.
        record: keep observations, actions, rewards and what followed each episode's last step.
        label: gives the recorded actions in place of those played (an expert's answers, for example).
        device: where the policy computes.
        on_step: called after each step with the number of environment steps just played (progress bars).

    Raises:
        NotFiniteError: an action is no finite number.
        InputError: an observation, or a return, is none.
    """
    seeds = [int(seed) for seed in seeds]
    num_envs = environments.num_envs
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=np.int64)
    has_terminated, unstable = np.zeros(len(seeds), dtype=bool), np.zeros(len(seeds), dtype=bool)
    steps: list[tuple[np.ndarray, ...]] = []                        # (episode, observation, action, reward) rows
    final: np.ndarray | None = None                                 # (episodes, observation_dim)
    if not seeds:
        return Episodes(returns, lengths, has_terminated, environment_id=environments.environment_id)
    players = [_Asked(who, num_envs, torch.device(device)) for who in (policy, label) if who is not None]

    waiting = min(len(seeds), num_envs)                             # first seed that has no sub-environment yet
    episode = np.arange(num_envs)                                   # (num_envs,) which seed each one plays
    beginning = rows = np.arange(waiting)                           # sub-environments that are stepped, (playing,)
    active: np.ndarray | None = None if waiting == num_envs else episode < waiting  # the same as a mask; None for all
    earned = np.zeros(num_envs)                                     # in each one's episode so far
    begun = np.zeros(num_envs, dtype=np.int64)                      # after how many calls of step it began
    with _apart_from_training(seeds, torch.device(device)), torch.inference_mode():
        observations, _ = environments.reset(seed=[seeds[i] if i < waiting else seeds[0] for i in range(num_envs)])
        for step in itertools.count():
            STOPPING.look()
            seen = np.asarray(observations if active is None else observations[rows], np.float32)
            for player in players if len(beginning) else ():
                player.begin(np.asarray(observations[beginning], np.float32), beginning)
            played, *labelled = [player.act(seen, rows) for player in players]
            for answers in (played, *labelled):
                if not math.isfinite(answers.sum()):
                    _refuse(answers, seen, step - begun[rows], [seeds[i] for i in episode[rows]])
            if active is None:
                actions = played                                    # (num_envs, action_dim)
            else:
                actions = np.zeros((num_envs, played.shape[1]), played.dtype)
                actions[rows] = played
            observations, rewards, terminated, truncated, infos = environments.step(actions, active)
            earned += rewards                                       # 0 where nothing was stepped
            if record:
                answers = np.asarray(labelled[0] if labelled else played, np.float32)  # a policy may compute in float64
                steps.append((episode[rows], seen, answers, rewards[rows].astype(np.float32)))
            if on_step is not None:
                on_step(len(rows))

            beginning = rows[:0]
            if "final_obs" in infos:
                ended = np.flatnonzero(terminated | truncated)
                finished = episode[ended]
                returns[finished], lengths[finished] = earned[ended], step + 1 - begun[ended]
                earned[ended], begun[ended] = 0, step + 1
                has_terminated[finished] = terminated[ended]
                if "unstable" in infos:
                    unstable[finished] = infos["unstable"][ended]
                if record:
                    final = np.zeros((len(seeds), seen.shape[1]), np.float32) if final is None else final
                    final[finished] = np.stack(infos["final_obs"][ended])
                beginning, over = np.split(ended, [len(seeds) - waiting])
                if len(over):
                    rows = np.setdiff1d(rows, over)
                    active = np.isin(np.arange(num_envs), rows)
                if not len(rows):
                    break
                if len(beginning):
                    observations = _begin(environments, beginning, seeds, waiting, episode)
                    waiting += len(beginning)

    if not np.isfinite(returns).all():
        number = int(np.flatnonzero(~np.isfinite(returns))[0])
        raise InputError(
            f"the return of the episode with seed {seeds[number]} is {returns[number]}: so was a reward. Have the "
            "environment give finite numbers."
        )
    environment_id = environments.environment_id
    if not record:
        return Episodes(returns, lengths, has_terminated, environment_id=environment_id, unstable=unstable)
    columns = [np.concatenate(column) for column in zip(*steps, strict=True)]
    order = np.argsort(columns[0], kind="stable")                   # step by step -> episode after episode
    observations, actions, rewards = (column[order] for column in columns[1:])
    return Episodes(returns, lengths, has_terminated, observations, actions, rewards, final, environment_id, unstable)


class _Asked:
    """Who is asked for actions in :func:`play`, with arrays.

    Args:
        who: a policy, or a player.
        num_envs: how many sub-environments there are.
        device: where it computes.
    """

    def __init__(self, who: Policy | Player, num_envs: int, device: torch.device) -> None:
        self._player = who if isinstance(who, Player) else Memoryless(who)
        policy = self._player.policy if isinstance(self._player, Memoryless) else None
        self._answer = policy.answer if isinstance(policy, ArrayPolicy) else None
        self._num_envs, self._device = num_envs, device

    def begin(self, observations: np.ndarray, rows: np.ndarray) -> None:
        """Episodes begin in the sub-environments ``rows`` (beginning,), with ``observations``."""
        self._player.begin(self._tensor(observations), self._tensor(rows), self._num_envs)

    def act(self, observations: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Actions (playing, action_dim) for ``observations`` (playing, observation_dim) float32 of ``rows`` (playing,)."""
        if self._answer is not None:
            return self._answer(observations)
        return self._player.act(self._tensor(observations), self._tensor(rows)).cpu().numpy()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def _refuse(answers: np.ndarray, observations: np.ndarray, steps: np.ndarray, seeds: Sequence[int]) -> None:
    """Refuse actions of which some are not finite; where the observation was none, that is why.

    Args:
        answers: (playing, action_dim).
        observations: to which these are the answers, (playing, observation_dim).
        steps: of each episode so far, (playing,).
        seeds: of the episodes, (playing,).
    """
    wrong = np.flatnonzero(~np.isfinite(answers).all(axis=1))
    if not len(wrong):
        return                                                      # finite numbers whose sum is not
    row = int(wrong[0])
    when = f"in step {steps[row] + 1} of the episode with seed {seeds[row]}"
    if not np.isfinite(observations[row]).all():
        raise InputError(
            f"the environment's observation is {observations[row].tolist()}, {when}. Have it give finite numbers."
        )
    raise NotFiniteError(
        f"the policy's action is {answers[row].tolist()}, {when}, for the observation {observations[row].tolist()}; wanted "
        "finite numbers."
    )


def _begin(
    environments: Environments, beginning: np.ndarray, seeds: Sequence[int], waiting: int, episode: np.ndarray
) -> np.ndarray:
    """Begin the next waiting episodes in the sub-environments ``beginning``; update ``episode`` in place."""
    episode[beginning] = np.arange(waiting, waiting + len(beginning))
    mask = np.zeros(len(episode), dtype=bool)
    mask[beginning] = True
    new_seeds = [seeds[episode[index]] if chosen else None for index, chosen in enumerate(mask)]
    observations, _ = environments.reset(seed=new_seeds, options={"reset_mask": mask})
    return observations


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
def single_threaded() -> Iterator[None]:
    """Inside the block torch's and NumPy's products are computed by the thread that asks for them.

    A policy's batch is small, so one thread is enough for it, and threads that wait for work would spin on the cores that
    the physics needs. With another number of threads OpenBLAS rounds otherwise: then worker processes, which have one, would
    play otherwise than the process that trains.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _blas().limit(limits=1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def _apart_from_training(seeds: Sequence[int], device: torch.device) -> Iterator[None]:
    """Inside the block torch's generators start from ``seeds``, and the cores are left to the physics."""
    entropy = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1)
    with forked_random_state(entropy, device), single_threaded():
        yield
