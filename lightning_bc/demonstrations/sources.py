"""Where the pairs of a run come from: files that are read into memory, or a folder of shards that stays on the disk."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_bc.demonstrations import memory, quality, several
from lightning_bc.demonstrations.action_noise import Noise, action_noise
from lightning_bc.demonstrations.batches import Batch, Batches
from lightning_bc.demonstrations.blocks import Blocks
from lightning_bc.demonstrations.fitting import (
    CPU,
    Budget,
    Wanted,
    beyond_bounds,
    check_fits,
    in_order_of_space,
    split,
    with_usual_episodes,
)
from lightning_bc.demonstrations.moments import Moments
from lightning_bc.demonstrations.readers import peek
from lightning_bc.demonstrations.serving import served
from lightning_bc.demonstrations.several import Joined
from lightning_bc.demonstrations.shards import Shards, bytes_per_pair, is_shards
from lightning_bc.demonstrations.streaming import StreamedBatches
from lightning_bc.demonstrations.trajectories import Trajectories
from lightning_bc.demonstrations.windows import Windows
from lightning_bc.environments import EnvironmentSpaces
from lightning_bc.errors import InputError
from lightning_bc.strategies.contract import Needs, Transitions

VALIDATION_BATCH = 65_536

ROWS_AT_ONCE = 2**20
"""Of which statistics are taken in float64."""


@dataclass(frozen=True)
class InMemory(Joined):
    """Files in memory.

    Attributes:
        every: one pair in so many steps of each episode is learnt from.
        device: where they are learnt from.
        shares: of each file in what is learnt from, or None.
    """

    every: int = 1
    device: torch.device = CPU
    shares: Sequence[float] | None = None

    @cached_property
    def training(self) -> Batch:
        """Observations and actions that are learnt from, on the device."""
        return self.split[0].pairs(self.every, self.device)

    @property
    def pairs(self) -> int:
        """How many are learnt from."""
        return len(self.training[0])

    @cached_property
    def observation_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training observations, (observation_dim,) each, summed in float64."""
        found = Moments.of_all([Moments.of(rows) for rows in self.training[0].split(ROWS_AT_ONCE)])
        return found.mean, found.deviation

    @property
    def transitions(self) -> Transitions:
        """The training pairs of which it is known where they led, on the device."""
        return Transitions(*(column.to(self.device) for column in self.split[0].transitions(self.every).columns))

    def check(self, wanted: Wanted) -> None:
        """Raise InputError where a strategy cannot learn from them in this way."""
        if self.shares is not None and wanted.needs is not Needs.PAIRS:
            raise InputError(
                f"--data.shares: {wanted.name} draws pairs by itself, each as often. Leave --data.shares away."
            )

    @cached_property
    def pairs_held_out(self) -> int:
        """How many are held out."""
        return len(self.split[1].rows(self.every))

    def held_out(self, wanted: Wanted, seed: int, sampled: int | None = None) -> Batches:
        """All the held-out pairs, or so many of them, evenly spaced; in large batches, all in one item."""
        made, rows = self.split[1], None
        if sampled is not None:
            rows = torch.arange(sampled, device=self.device) * self.pairs_held_out // sampled
        pairs = made.pairs(self.every, self.device)
        return served(pairs, made.lengths, wanted, VALIDATION_BATCH, seed, len(made), rows=rows)

    @property
    def noise(self) -> Noise:
        """Of their actions: of one file all of it, its copied episodes left aside; of several what is learnt from."""
        if len(self.files) > 1:
            return self._noise_of_training
        return action_noise(self.files[0], quality.Findings(self.files[0]).copies)

    @property
    def _noise_of_training(self) -> Noise:
        observations, actions = self.training
        return action_noise(Trajectories(observations, actions, torch.tensor([0])), copies=())

    def warn(self, hidden: Sequence[int]) -> None:
        """Warn of what may be wrong with them, but for ``hidden`` entries of observations."""
        for file in self.files:
            quality.warn(file, hidden)

    def batches(self, wanted: Wanted, batch_size: int, seed: int, group_size: int) -> Batches:
        """The training pairs in shuffled batches."""
        mixture = None if self.shares is None else self.mixture(self.shares, self.every)
        return served(
            self.training, self.split[0].lengths, wanted, batch_size, seed, group_size, mixture, trains=True
        )


@dataclass(frozen=True)
class OnDisk(InMemory):
    """A folder of shards of which the held-out episodes alone are in memory: see :mod:`..streaming`."""

    blocks: Blocks | None = None

    @cached_property
    def training(self) -> Batch:
        """Of the observations and actions that are learnt from a fixed sample, spread evenly, on the device."""
        observations, actions = self._blocks.sample()
        return observations.to(self.device), actions.to(self.device)

    @property
    def pairs(self) -> int:
        """How many are learnt from."""
        return self._blocks.number

    @cached_property
    def observation_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of all training observations, (observation_dim,) each."""
        found = self._blocks.moments()
        return found.mean.to(self.device), found.deviation.to(self.device)

    def check(self, wanted: Wanted) -> None:
        """Raise InputError where a strategy cannot learn from them in this way."""
        if wanted.needs is Needs.TRANSITIONS:
            raise InputError(f"{self.files[0].origin.path}: {wanted.name} needs all of it in memory. {WAY_OUT}")

    @property
    def noise(self) -> Noise:
        """Of the actions of the sample."""
        return self._noise_of_training

    def warn(self, hidden: Sequence[int]) -> None:
        """Outlying values and copies are not looked for."""

    def batches(self, wanted: Wanted, batch_size: int, seed: int, group_size: int) -> Batches:
        """The training pairs in shuffled batches."""
        nothing = torch.empty(0, dtype=torch.int64)
        return StreamedBatches(
            self._blocks,
            batch_size,
            seed,
            device=self.device,
            windows=Windows(nothing, wanted.history, wanted.horizon, wanted.device) if wanted.has_windows else None,
            group_size=group_size,
            num_batches=wanted.max_steps if wanted.max_epochs is None else None,
            stop=wanted.max_steps,
            rank=wanted.rank,
            world_size=wanted.world_size,
        )

    @property
    def _blocks(self) -> Blocks:
        assert self.blocks is not None
        return self.blocks


WAY_OUT = "It is to be streamed, since it is larger than --data.memory: raise that, or take less with --data.episodes."


def on_disk(
    path: str, spaces: EnvironmentSpaces, wanted: Wanted, budget: Budget, refused: Sequence[str]
) -> OnDisk:
    """A folder of shards that stays on the disk.

    Args:
        path: the folder.
        spaces: of the environment.
        wanted: by the Trainer and its strategy.
        budget: what of it is learnt from.
        refused: flags that are set and need all of it in memory.

    Raises:
        InputError: it does not fit the environment, or something is asked for that needs all of it in memory.
    """
    if refused:
        raise InputError(f"{path}: {', '.join(refused)} need all of it in memory. {WAY_OUT}")
    shards = Shards.at(path)
    probe = extremes(path)
    check_fits(probe, spaces)
    if not torch.equal(in_order_of_space(probe, spaces).observations, probe.observations):
        raise InputError(f"{path}: its observations are in another order than that of {spaces.environment_id}. {WAY_OUT}")
    if beyond_bounds(probe.actions, spaces).any():
        reach = f"{probe.actions[0].tolist()} to {probe.actions[1].tolist()}"
        raise InputError(
            f"{path}: its actions reach from {reach}, beyond the bounds of {spaces.environment_id}. --data.clip_actions "
            f"needs all of it in memory. {WAY_OUT}"
        )
    skeleton = replace(shards.skeleton, origin=probe.origin)
    training, held_out = split(skeleton, spaces, wanted, budget)
    held_out = shards.whole(held_out, len(training)) if len(held_out) else held_out
    blocks = Blocks.of(shards, training.lengths, budget.subsample)
    return OnDisk([skeleton], [(training, held_out)], budget.subsample, wanted.device, None, blocks)


def extremes(path: str) -> Trajectories:
    """Two steps that stand for a folder of shards: with its least and its greatest actions; observations count columns."""
    shards = Shards.at(path)
    found, columns = shards.moments(0, len(shards.steps), "actions"), torch.arange(shards.index["observation_dim"])
    return Trajectories(
        columns.float().expand(2, -1),
        torch.stack([found.low, found.high]).float(),
        torch.tensor([2]),
        origin=replace(peek(path), sha256=shards.sha256),
    )


@dataclass(frozen=True)
class Reading:
    """How the files of a run are read: the flags of the same names, see :class:`Demonstrations`."""

    paths: Sequence[str]
    observation_keys: tuple[str, ...]
    scale_actions: bool
    clip_actions: bool
    shares: Sequence[float] | None
    memory: float | None

    @property
    def is_folder_of_shards(self) -> bool:
        """Whether that is all, so that it need not be in memory."""
        return len(self.paths) == 1 and is_shards(self.paths[0])

    def without_spaces(self) -> Sequence[Trajectories]:
        """What says of which dimensions and bounds the files are."""
        if self.is_folder_of_shards:
            return [extremes(self.paths[0])]
        return self._as_read

    @cached_property
    def _as_read(self) -> Sequence[Trajectories]:
        return several.read_all(self.paths, self.observation_keys, [])

    def material(
        self, spaces: EnvironmentSpaces, wanted: Wanted, budget: Budget, teaches: bool, has_simulator: bool
    ) -> InMemory:
        """The pairs, in memory or on the disk.

        Args:
            spaces: of the environment.
            wanted: by the Trainer and its strategy.
            budget: what of the files is learnt from.
            teaches: whether a callback adds pairs while learning.
            has_simulator: whether the spaces are those of an environment.

        Raises:
            InputError: the files cannot be read, do not fit, or are to be streamed and something forbids it.
        """
        if self._is_streamed(budget.episodes, wanted):
            given = {
                "--data.scale_actions": self.scale_actions,
                "--data.clip_actions": self.clip_actions,
                "--data.observation_keys": self.observation_keys,
                "--data.top_fraction": budget.top_fraction < 1,
                "--data.first_steps": budget.first_steps is not None,
                "DAgger, whose pairs join them,": teaches,
            }
            return on_disk(self.paths[0], spaces, wanted, budget, [name for name, is_given in given.items() if is_given])
        keys = [*spaces.observation_parts] if has_simulator else []
        read = several.read_all(self.paths, self.observation_keys, keys) if has_simulator else self._as_read
        files = several.in_units(read, spaces, self.scale_actions, self.clip_actions)
        files = [with_usual_episodes(file, spaces, budget.episode_length) for file in files]
        splits = [split(file, spaces, wanted, budget) for file in files]
        return InMemory(files, splits, budget.subsample, wanted.device, self.shares)

    def _is_streamed(self, episodes: int | None, wanted: Wanted) -> bool:
        """Whether the pairs, of so many ``episodes`` or of all, stay on the disk; it is said."""
        if not self.is_folder_of_shards:
            return False
        shards = Shards.at(self.paths[0])
        pairs = sum(shards.steps) if episodes is None else int(shards.skeleton.lengths[:episodes].sum())
        size = pairs * bytes_per_pair(shards.index)
        most = memory.for_pairs(wanted.device, wanted.processes) if self.memory is None else self.memory * 1e9
        where = "streamed from the disk" if size > most else "read into memory"
        limit = f"{memory.SHARE} of what there is" if self.memory is None else "--data.memory"
        may = f"{most / 1e9:.3g} GB may be taken ({limit})"
        rank_zero_only(print)(f"{self.paths[0]}: {pairs:,} pairs of {size / 1e9:.3g} GB are {where}; {may}")
        return size > most
