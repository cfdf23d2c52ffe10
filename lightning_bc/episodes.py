"""Playing episodes: the one loop that every collection, evaluation and relabelling uses, and the banks of their seeds.

Three disjoint banks of episode seeds, the same for every run:

* below 1,000,000,000: collection, DAgger and learning in the environment;
* selection bank, 1,000,000,000 + i: curves during training, choice of checkpoints, tuning;
* test bank, 2,000,000,000 + i: final figures, and nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_bc.environments import Environments
from lightning_bc.errors import NotFiniteError


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

Policy = Callable[[Tensor], Tensor]
"""Observations (batch, observation_dim) float32 to actions (batch, action_dim) in the environment's units."""


class Player(ABC):
    """Who chooses actions in :func:`play`, and may remember, for each sub-environment, the episode that it plays."""

    @abstractmethod
    def begin(self, observations: Tensor, rows: Tensor, num_envs: int) -> None:
        """Forget what is remembered of some sub-environments, since episodes begin there.

        Args:
            observations: the first of these episodes, (beginning, observation_dim).
            rows: the sub-environments, (beginning,) int64.
            num_envs: how many sub-environments there are.
        """

    @abstractmethod
    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """Actions (playing, action_dim) for ``observations`` (playing, observation_dim) of sub-environments ``rows``."""


class Memoryless(Player):
    """Plays what a policy answers to the present observation.

    Args:
        policy: any :data:`Policy`.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def begin(self, observations: Tensor, rows: Tensor, num_envs: int) -> None:
        """There is nothing to forget."""

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """The policy's answer."""
        return self.policy(observations)


class Memory(Player):
    """Shows a policy the last ``history`` observations of the episode, and plays the ``chunk`` actions that it answers.

    Before an episode's first observation stands that observation again. A new answer is asked for when the last one has
    been played to its end.

    Args:
        policy: (batch, history, observation_dim) to (batch, horizon, action_dim), in the environment's units.
        history: how many observations it sees, the present one last.
        chunk: how many of its actions are played, at most horizon.
    """

    def __init__(self, policy: Policy, history: int, chunk: int) -> None:
        self.policy, self.history, self.chunk = policy, history, chunk
        self._seen = self._answers = torch.empty(0)                 # (num_envs, history or chunk, dim)
        self._left = torch.empty(0, dtype=torch.int64)              # (num_envs,) actions not yet played

    def begin(self, observations: Tensor, rows: Tensor, num_envs: int) -> None:
        """Fill the history with the first observation."""
        if len(self._left) != num_envs:
            self._seen = observations.new_zeros(num_envs, self.history, observations.shape[1])
            self._answers = torch.empty(0)
            self._left = torch.zeros(num_envs, dtype=torch.int64, device=observations.device)
        self._seen[rows], self._left[rows] = observations.unsqueeze(1), 0

    def _look(self, observations: Tensor, rows: Tensor) -> Tensor:
        """What is seen with the present ``observations``, (playing, history, observation_dim)."""
        seen = torch.cat([self._seen[rows, 1:], observations.unsqueeze(1)], dim=1)
        self._seen[rows] = seen
        return seen

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """The next action of the last answer; of a new one, where that has been played."""
        seen = self._look(observations, rows)
        asking = self._left[rows] == 0
        if asking.any():
            answers = self.policy(seen[asking])[:, : self.chunk]    # (asking, chunk, action_dim)
            if len(self._answers) == 0:
                self._answers = answers.new_zeros(len(self._left), *answers.shape[1:])
            self._answers[rows[asking]], self._left[rows[asking]] = answers, self.chunk
        actions = self._answers[rows, self.chunk - self._left[rows]]
        self._left[rows] -= 1
        return actions


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
    """

    returns: np.ndarray
    lengths: np.ndarray
    terminated: np.ndarray
    observations: np.ndarray | None = None
    actions: np.ndarray | None = None
    rewards: np.ndarray | None = None
    final_observations: np.ndarray | None = None
    environment_id: str = ""


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
        NotFiniteError: an action or a return is no finite number.
    """
    seeds = [int(seed) for seed in seeds]
    num_envs, device = environments.num_envs, torch.device(device)
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=np.int64)
    has_terminated = np.zeros(len(seeds), dtype=bool)
    steps: list[tuple[np.ndarray, ...]] = []                        # (episode, observation, action, reward) rows
    final: np.ndarray | None = None                                 # (episodes, observation_dim)
    if not seeds:
        return Episodes(returns, lengths, has_terminated, environment_id=environments.environment_id)
    players = [who if isinstance(who, Player) else Memoryless(who) for who in (policy, label) if who is not None]

    waiting = min(len(seeds), num_envs)                             # first seed that has no sub-environment yet
    episode = np.arange(num_envs)                                   # (num_envs,) which seed each one plays
    active = episode < waiting
    with _apart_from_training(seeds, device), torch.inference_mode():
        observations, _ = environments.reset(seed=[seeds[i] if i < waiting else seeds[0] for i in range(num_envs)])
        beginning = np.flatnonzero(active)
        rows = torch.from_numpy(beginning).to(device)               # sub-environments that are stepped, (playing,)
        while (playing := int(active.sum())) > 0:
            for player in players if len(beginning) else ():
                player.begin(_tensor(observations[beginning]).to(device), torch.from_numpy(beginning).to(device), num_envs)
            everyone = playing == num_envs
            seen = _tensor(observations if everyone else observations[active])
            inputs = seen.to(device)                                # (playing, observation_dim)
            played, *labelled = (player.act(inputs, rows).cpu().numpy() for player in players)
            for answers in (played, *labelled):
                if not np.isfinite(answers.sum()):
                    now = episode[active]
                    _refuse(answers, seen.numpy(), lengths[now], [seeds[i] for i in now])
            if everyone:
                actions = played                                    # (num_envs, action_dim)
            else:
                actions = np.zeros((num_envs, played.shape[1]), played.dtype)
                actions[active] = played
            observations, rewards, terminated, truncated, infos = environments.step(actions, None if everyone else active)
            now = episode if everyone else episode[active]
            earned = rewards if everyone else rewards[active]
            returns[now] += earned
            lengths[now] += 1
            if record:
                steps.append((now.copy(), seen.numpy(), labelled[0] if labelled else played, earned.astype(np.float32)))
            if on_step is not None:
                on_step(playing)

            ended = np.flatnonzero((terminated | truncated) & active)
            beginning = ended[: len(seeds) - waiting]
            if len(ended):
                has_terminated[episode[ended]] = terminated[ended]
                if record:
                    final = np.zeros((len(seeds), seen.shape[1]), np.float32) if final is None else final
                    final[episode[ended]] = np.stack(infos["final_obs"][ended])
                active[ended[len(beginning) :]] = False
                rows = torch.from_numpy(np.flatnonzero(active)).to(device)
            if len(beginning):
                observations = _begin(environments, beginning, seeds, waiting, episode)
                waiting += len(beginning)

    if not np.isfinite(returns).all():
        number = int(np.flatnonzero(~np.isfinite(returns))[0])
        raise NotFiniteError(f"the return of the episode with seed {seeds[number]} is {returns[number]}: so was a reward.")
    if not record:
        return Episodes(returns, lengths, has_terminated, environment_id=environments.environment_id)
    columns = [np.concatenate(column) for column in zip(*steps, strict=True)]
    order = np.argsort(columns[0], kind="stable")                   # step by step -> episode after episode
    observations, actions, rewards = (column[order] for column in columns[1:])
    return Episodes(returns, lengths, has_terminated, observations, actions, rewards, final, environments.environment_id)


def _refuse(answers: np.ndarray, observations: np.ndarray, steps: np.ndarray, seeds: Sequence[int]) -> None:
    """Refuse actions of which some are not finite.

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
        raise NotFiniteError(f"the environment's observation is {observations[row].tolist()}, {when}.")
    raise NotFiniteError(
        f"the policy's action is {answers[row].tolist()}, {when}, for the observation {observations[row].tolist()}; wanted "
        "finite numbers."
    )


def _tensor(observations: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(observations, np.float32))    # as_tensor(dtype) takes several times as long


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
