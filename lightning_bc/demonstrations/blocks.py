"""The pairs of a folder of shards in blocks of successive steps, which are read one by one."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lightning_bc.demonstrations.moments import Moments
from lightning_bc.demonstrations.shards import Shards
from lightning_bc.errors import InputError

BLOCK_BYTES = 2**18
BUFFER_BYTES = 2**27
"""Of the observations and actions in a block and in a buffer. Two buffers are in memory."""

SAMPLE_PAIRS = 2**18
"""In as many pairs, of blocks spread evenly over all, strategies look for what they need to know of the actions."""


@dataclass(frozen=True)
class Blocks:
    """The pairs of the first episodes of a folder, in blocks of successive steps.

    Attributes:
        shards: the folder.
        lengths: steps of each of these episodes, (episodes,) int64.
        every: one pair in so many steps of each episode; from its first on.
        size: steps per block.
        per_buffer: blocks per buffer.
    """

    shards: Shards
    lengths: np.ndarray
    every: int
    size: int
    per_buffer: int

    @classmethod
    def of(cls, shards: Shards, lengths: Tensor, every: int) -> "Blocks":
        """In sizes that depend on the dimensions alone, so that the order is the same on every machine."""
        size = max(1, BLOCK_BYTES // (4 * shards.width))
        return cls(shards, lengths.numpy(), every, size, max(1, BUFFER_BYTES // (4 * shards.width) // size))

    def __len__(self) -> int:
        """Blocks."""
        return -(-self.steps // self.size)

    @cached_property
    def ends(self) -> np.ndarray:
        """The step behind each episode, (episodes,)."""
        return self.lengths.cumsum()

    @property
    def steps(self) -> int:
        """Of all episodes."""
        return int(self.ends[-1])

    @cached_property
    def pairs(self) -> np.ndarray:
        """Of each block, (blocks,)."""
        edges = np.minimum(np.arange(len(self) + 1) * self.size, self.steps)
        of_episodes = -(-self.lengths // self.every)
        episodes = np.minimum(np.searchsorted(self.ends, edges, "right"), len(self.ends) - 1)
        within = -(-(edges - self.ends[episodes] + self.lengths[episodes]) // self.every)
        return np.diff(of_episodes.cumsum()[episodes] - of_episodes[episodes] + within)

    @cached_property
    def number(self) -> int:
        """Of all pairs."""
        return int(self.pairs.sum())

    def read(self, block: int, before: int = 0, behind: int = 0) -> tuple[Tensor, Tensor, np.ndarray]:
        """A block, and as many steps ``before`` and ``behind`` it as windows of its pairs reach.

        Returns:
            Observations and actions, (steps, dimensions) each; and of each of its pairs which of these steps it is, and the
            first and the last one of its episode, before the block or behind it maybe, (3, pairs).

        Raises:
            InputError: a value is not finite, or a file cannot be read.
        """
        start, stop = block * self.size, min((block + 1) * self.size, self.steps)
        first = max(0, start - before)
        rows = self.shards.rows(first, min(self.steps, stop + behind))
        observations, actions, _ = self.shards.columns(rows)
        if not np.isfinite(rows).all():
            step = first + int((~np.isfinite(rows)).any(axis=1).argmax())
            raise InputError(f"{self.shards.path}: step {step} holds a value that is not finite. Take another copy of it.")
        steps = np.arange(start, stop)
        episodes = np.searchsorted(self.ends, steps, "right")
        begin = self.ends[episodes] - self.lengths[episodes]
        kept = (steps - begin) % self.every == 0
        return observations, actions, np.stack([steps, begin, self.ends[episodes] - 1])[:, kept] - first

    def sample(self) -> tuple[Tensor, Tensor]:
        """Observations and actions of blocks that are spread evenly, always the same ones."""
        number = min(len(self), max(1, SAMPLE_PAIRS // self.size))
        parts = [self.read(block) for block in np.linspace(0, len(self) - 1, number).astype(int).tolist()]
        chosen = [(observations[rows[0]], actions[rows[0]]) for observations, actions, rows in parts]
        return torch.cat([one for one, _ in chosen]), torch.cat([other for _, other in chosen])

    def moments(self) -> Moments:
        """Of the pairs' observations: those of whole shards from the index, of the others in one pass over them."""
        ends, whole = np.cumsum(self.shards.steps), 0
        if self.every == 1:
            whole = int(np.searchsorted(ends, self.steps, "right"))
        parts = [self.shards.moments(0, whole, "observations")] if whole else []
        first = int(ends[whole - 1]) if whole else 0
        if self.every == 1:
            for start in range(first, self.steps, self.size):
                rows = self.shards.rows(start, min(start + self.size, self.steps))
                parts.append(Moments.of(self.shards.columns(rows)[0]))
        else:
            read = (self.read(block) for block in range(len(self)))
            parts += [Moments.of(observations[rows[0]]) for observations, _, rows in read if rows.size]
        return Moments.of_all(parts)
