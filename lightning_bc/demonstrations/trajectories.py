"""Episodes as data: what readers return, ``collect`` writes, DAgger adds, and pairs and transitions are cut from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_bc.episodes import Episodes
from lightning_bc.errors import InputError
from lightning_bc.strategies.contract import Transitions

FEWEST_EPISODES_TO_HOLD_OUT = 10
PAIRS_THAT_JUDGE = 1000


@dataclass(frozen=True)
class Origin:
    """Where demonstrations come from, as far as their file says it.

    Attributes:
        path: the file, for messages.
        sha256: of the file; of a Minari dataset, of its observations and actions; empty where the arrays were not read.
        environment_id: Gymnasium id of the environment that was played.
        expert: file of the expert that played, or package.module:function.
        expert_sha256: of that file, or of the file of that module.
        actions: which of the expert's actions were played and recorded: see ``collect``.
        seed: of the first episode.
        max_episode_steps: steps after which episodes were cut off, where the environment has no time limit itself.
        versions: of the packages that played.
        mean_return: mean return of the demonstrator's episodes.
        std_return: standard deviation of these returns.
        random_returns: returns of uniformly random actions on the test bank; empty where they are not known.
        expert_returns: returns of the expert's mean action on the test bank; empty where they are not known.
        observation_keys: what is side by side in observations, in this order; None where they are one array of which nothing
            says more.
        note: what of the file was read, where its format leaves that open; for people.
        layout: how the file is arranged and which of its names were read; for people.
        rounded_away: dimensions of observations that vary in the file, and not any more in float32.
    """

    path: str
    sha256: str = ""
    environment_id: str | None = None
    expert: str | None = None
    expert_sha256: str | None = None
    actions: str | None = None
    seed: int | None = None
    max_episode_steps: int | None = None
    versions: Mapping[str, str] | None = None
    mean_return: float | None = None
    std_return: float | None = None
    random_returns: tuple[float, ...] = ()
    expert_returns: tuple[float, ...] = ()
    observation_keys: tuple[str, ...] | None = None
    note: str = ""
    layout: str = field(default="", compare=False)
    rounded_away: tuple[int, ...] = field(default=(), compare=False)


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Episodes, one after another.

    Attributes:
        observations: those acted on, (steps, observation_dim) float32.
        actions: (steps, action_dim) float32, in the environment's units.
        lengths: steps of each episode, (episodes,) int64; one episode of all steps where ``knows_episodes`` is False.
        rewards: (steps,) float32, or None.
        terminated: whether each episode ended in a terminal state, rather than being cut off, (episodes,) bool; None where
            nothing says so.
        final_observations: those after each episode's last step, (episodes, observation_dim) float32, or None.
        origin: where they come from.
        knows_episodes: whether it is known where episodes end.
    """

    observations: Tensor
    actions: Tensor
    lengths: Tensor
    rewards: Tensor | None = None
    terminated: Tensor | None = None
    final_observations: Tensor | None = None
    origin: Origin = field(default=Origin("memory"))
    knows_episodes: bool = True

    def __len__(self) -> int:
        """Steps."""
        return len(self.observations)

    @property
    def returns(self) -> Tensor:
        """Undiscounted return of each episode, (episodes,) float64; NaN without rewards."""
        if self.rewards is None:
            return torch.full((len(self.lengths),), math.nan, dtype=torch.float64)
        return torch.stack([rewards.sum() for rewards in self.rewards.double().split(self.lengths.tolist())])

    @property
    def mean_return(self) -> float:
        """What the origin says, else the mean of the returns; NaN where it is not known what each episode returned."""
        if self.origin.mean_return is not None:
            return self.origin.mean_return
        return float(self.returns.mean()) if self.knows_episodes else math.nan

    def last_is_cut(self, time_limit: int | None = None, can_terminate: bool | None = None) -> bool:
        """Whether the last of several episodes is known to be cut off early, as where a recording was stopped.

        It did not terminate, and is shorter than each other one that did not; if there is none, than the time limit.

        Args:
            time_limit: steps after which the environment cuts an episode off; None where that is not known.
            can_terminate: whether the environment terminates at all; None where that is not known.
        """
        terminated = self.terminated
        if terminated is None and can_terminate is False:
            terminated = torch.zeros_like(self.lengths, dtype=torch.bool)
        if terminated is None or terminated[-1] or not self.knows_episodes or len(self.lengths) < 2:
            return False
        others = self.lengths[:-1][~terminated[:-1]]
        whole = int(others.min()) if len(others) else time_limit
        return whole is not None and int(self.lengths[-1]) < whole

    @property
    def starts(self) -> Tensor:
        """The row of each episode's first step, (episodes,)."""
        return self.lengths.cumsum(0) - self.lengths

    @property
    def last_rows(self) -> Tensor:
        """The row of each episode's last step, (episodes,)."""
        return self.lengths.cumsum(0) - 1

    # What is learnt from

    def rows(self, every: int = 1) -> Tensor:
        """The rows of each episode's first step and of every k-th after it."""
        if every == 1:
            return torch.arange(len(self))
        return _rows_of(self.starts, self.lengths, every)

    def pairs(self, every: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Observations and actions of every k-th step of each episode, on ``device``."""
        rows = slice(None) if every == 1 else self.rows(every)      # a slice copies nothing
        return self.observations[rows].to(device), self.actions[rows].to(device)

    def transition_rows(self, every: int = 1) -> Tensor:
        """Those of :meth:`rows` of which it is known where they led.

        The last step of an episode that terminated is one, that of an episode that was cut off only where its final
        observation is known.
        """
        rows = self.rows(every)
        if self.final_observations is not None or self.terminated is None:
            return rows
        return rows[~torch.isin(rows, self.last_rows[~self.terminated])]

    def transitions(self, every: int = 1) -> Transitions:
        """Every k-th step of each episode of which it is known where it led.

        Zeros stand for the final observation of an episode that terminated, where it is not known.
        """
        if self.terminated is None:
            raise TypeError("transitions are cut after terminations are known: see with_terminations_inferred")
        rows, last_rows = self.transition_rows(every), self.last_rows
        following = self.observations[(rows + 1).clamp(max=len(self) - 1)]
        ends = torch.isin(rows, last_rows)
        if self.final_observations is None:
            following = following * ~ends.unsqueeze(-1)
        else:
            following[ends] = self.final_observations[torch.isin(last_rows, rows)]
        return Transitions(
            observations=self.observations[rows],
            actions=self.actions[rows],
            rewards=torch.zeros(len(rows)) if self.rewards is None else self.rewards[rows],
            next_observations=following,
            terminated=torch.isin(rows, last_rows[self.terminated]).float(),
        )

    # Other trajectories made of these

    def beginnings(self, steps: int) -> "Trajectories":
        """The first ``steps`` steps of each episode, which is cut off there."""
        lengths = self.lengths.clamp(max=steps)
        rows, is_cut = _rows_of(self.starts, lengths), self.lengths > steps
        final = self.final_observations
        if final is not None:
            final = final.clone()
            final[is_cut] = self.observations[(self.starts + lengths)[is_cut]]
        return self._at(rows, lengths, None if self.terminated is None else self.terminated & ~is_cut, final)

    def part(self, first: int, stop: int) -> "Trajectories":
        """The episodes from ``first`` to below ``stop``; nothing is copied."""
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths.cumsum(0)])
        return self._of_episodes(slice(int(ends[first]), int(ends[stop])), slice(first, stop))

    def chosen(self, episodes: Tensor) -> "Trajectories":
        """The episodes of these numbers, (episodes,) int64, in their order."""
        return self._of_episodes(_rows_of(self.starts[episodes], self.lengths[episodes]), episodes)

    def _of_episodes(self, rows: Tensor | slice, episodes: Tensor | slice) -> "Trajectories":
        """The ``rows`` of whole ``episodes``."""
        terminated, final = (None if one is None else one[episodes] for one in (self.terminated, self.final_observations))
        return self._at(rows, self.lengths[episodes], terminated, final)

    def _at(
        self, rows: Tensor | slice, lengths: Tensor, terminated: Tensor | None, final: Tensor | None
    ) -> "Trajectories":
        """The ``rows``, in episodes of which the rest is said."""
        return replace(
            self,
            observations=self.observations[rows],
            actions=self.actions[rows],
            lengths=lengths,
            rewards=None if self.rewards is None else self.rewards[rows],
            terminated=terminated,
            final_observations=final,
        )

    def held_out(
        self, episodes: int | None, fraction: float, fewest: int = FEWEST_EPISODES_TO_HOLD_OUT, must_judge: bool = False
    ) -> tuple["Trajectories", "Trajectories"]:
        """The episodes to train on, and those held out: a ``fraction`` of the first ``episodes``, the last of them.

        At least one is held out, and one is trained on; below ``fewest`` episodes none is held out. Where they alone
        ``must_judge`` a run, they are so many that they have ``PAIRS_THAT_JUDGE`` pairs, or a tenth of all that there are.

        Raises:
            InputError: if there are fewer episodes than asked for.
        """
        found = len(self.lengths)
        used = found if episodes is None else episodes
        if used > found:
            raise InputError(
                f"--data.episodes {used}: {self.origin.path} holds {found} episodes. Ask for as many or fewer."
            )
        held_out = 0
        if fraction > 0 and used >= fewest:
            lengths = self.lengths[:used]
            wanted = min(PAIRS_THAT_JUDGE, int(lengths.sum()) // 10) if must_judge else 0
            enough = 1 + int((lengths.flip(0).cumsum(0) < wanted).sum())
            held_out = min(max(enough, round(used * fraction)), used - 1)
        return self.part(0, used - held_out), self.part(used - held_out, used)

    def in_episodes_of(self, length: int) -> "Trajectories":
        """The same steps in episodes of ``length``; the last one may be shorter.

        If no step was terminal, none of them terminated.
        """
        lengths = torch.full((math.ceil(len(self) / length),), length)
        lengths[-1] = len(self) - length * (len(lengths) - 1)
        never = self.terminated is not None and not self.terminated.any()
        return replace(
            self,
            lengths=lengths,
            terminated=torch.zeros(len(lengths), dtype=torch.bool) if never else None,
            final_observations=self.final_observations if len(lengths) == 1 else None,
            knows_episodes=True,
        )

    def with_terminations_inferred(self, time_limit: int | None, can_terminate: bool | None) -> "Trajectories":
        """The same episodes, where one shorter than the time limit terminated.

        The last one counts as cut off, since ``collect`` cuts it where it has enough pairs; and so do all where the
        environment never terminates.

        Args:
            time_limit: steps after which the environment cuts an episode off; None where it does not.
            can_terminate: whether the environment terminates at all; None where that is not known.
        """
        terminated = torch.full_like(self.lengths, can_terminate is not False, dtype=torch.bool)
        if time_limit is not None:
            terminated &= self.lengths < time_limit
        terminated[-1] = False
        return replace(self, terminated=terminated)

    def with_time_limits(self, time_limit: int | None, can_terminate: bool | None) -> "Trajectories":
        """The same episodes, of which those that reach the time limit are cut off, whatever the file says.

        imitation, and what was written after the Gym of old, marks both kinds of end alike.

        Args:
            time_limit: steps after which the environment cuts an episode off; None where it does not.
            can_terminate: whether the environment terminates at all; None where that is not known.
        """
        if self.terminated is None or not self.knows_episodes:
            return self
        ended = torch.full_like(self.terminated, can_terminate is not False)
        if time_limit is not None:
            ended &= self.lengths < time_limit
        return replace(self, terminated=self.terminated & ended)

    def cut(self, steps: int) -> "Trajectories":
        """The first ``steps`` steps; the episode that they end in is cut off there."""
        if steps >= len(self):
            return self
        episodes = int((self.starts < steps).sum())
        kept = self.part(0, episodes)
        removed = len(kept) - steps
        if removed == 0:
            return kept
        lengths, terminated, final = kept.lengths.clone(), kept.terminated, kept.final_observations
        lengths[-1] -= removed
        if terminated is not None:
            terminated = torch.cat([terminated[:-1], torch.zeros(1, dtype=torch.bool)])
        if final is not None:
            final = torch.cat([final[:-1], kept.observations[steps : steps + 1]])
        return kept._at(slice(steps), lengths, terminated, final)


def _rows_of(starts: Tensor, lengths: Tensor, every: int = 1) -> Tensor:
    """The rows of episodes that start at ``starts`` and have ``lengths``, both (episodes,): each one's every k-th."""
    spans = zip(starts.tolist(), lengths.tolist(), strict=True)
    return torch.cat([torch.arange(start, start + length, every) for start, length in spans])


def recorded(played: Episodes) -> Trajectories:
    """What :func:`lightning_bc.episodes.play` recorded."""
    if played.observations is None or played.actions is None or played.rewards is None or played.final_observations is None:
        raise TypeError("these episodes were not recorded: play with record=True")
    return Trajectories(
        observations=torch.from_numpy(played.observations),
        actions=torch.from_numpy(played.actions),
        lengths=torch.from_numpy(played.lengths),
        rewards=torch.from_numpy(played.rewards),
        terminated=torch.from_numpy(played.terminated),
        final_observations=torch.from_numpy(played.final_observations),
    )


def joined(parts: Sequence[Trajectories]) -> Trajectories:
    """Recorded episodes of several rounds, one after another; the origin is the first one's."""

    def together(columns: Sequence[Tensor | None]) -> Tensor | None:
        there = [column for column in columns if column is not None]
        return torch.cat(there) if len(there) == len(columns) else None

    return replace(
        parts[0],
        observations=torch.cat([part.observations for part in parts]),
        actions=torch.cat([part.actions for part in parts]),
        lengths=torch.cat([part.lengths for part in parts]),
        rewards=together([part.rewards for part in parts]),
        terminated=together([part.terminated for part in parts]),
        final_observations=together([part.final_observations for part in parts]),
    )
