"""Batches by index, from tensors that lie on the training device."""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.demonstrations.mixture import Mixture, permutation
from lightning_bc.demonstrations.windows import Windows
from lightning_bc.errors import InputError, takes_state

Batch = tuple[Tensor, ...]
"""(observations (batch, observation_dim), actions (batch, action_dim)); of windows as :meth:`Windows.cut` returns them."""


def batches_per_pass(pairs: int, batch_size: int, world_size: int = 1) -> int:
    """Batches of ``batch_size`` on each of ``world_size`` ranks that see each pair once."""
    # A rest with fewer pairs than ranks joins the batch before it: no rank may go without.
    return max(1, math.ceil((pairs - world_size + 1) / (batch_size * world_size)))


class Nothing:
    """An endless stream of empty batches, for strategies that draw for themselves."""

    def __iter__(self) -> Iterator[list[Batch]]:
        return itertools.repeat([])

    def extend(self, observations: Tensor, actions: Tensor, lengths: Tensor) -> None:
        """There is nothing to add to."""
        raise TypeError("no batches are served, so there is nothing to add to: train_dataloader() of pairs comes first")

    def pairs_until(self, position: int) -> int:
        """None were served."""
        return 0


class Batches:
    """Iterate over groups of batches of pairs, or of their windows, in an order that is a pure function of (seed, pass).

    Each pass is a permutation drawn on the tensors' device, cut into batches of ``batch_size``; the last one of a pass
    is smaller where the division leaves a rest, so no pair is dropped or seen twice in a pass, unless a ``mixture`` says
    so. One iteration serves ``num_batches`` and the next goes on from there, so an iteration may span many passes.

    An item is a list of ``group_size`` batches, fewer at the end of an iteration: a training step that takes as many
    optimizer steps pays the Trainer's cost once.

    Under distributed training each rank takes its share of each global batch.

    Args:
        observations: (pairs, observation_dim).
        actions: (pairs, action_dim), on the same device.
        batch_size: pairs per batch on each rank.
        seed: of the order.
        windows: cuts the window of each pair out of its episode; by default pairs are served.
        mixture: the files that the pairs are of, in shares; by default each pass has every pair once. Pairs that are added
            come once per pass beside it.
        rows: serves these pairs alone, (chosen,) int64; by default all. None can be added then.
        group_size: batches per item.
        num_batches: batches per iteration; by default one pass.
        stop: batch of the whole stream after which iterations end, or None for no end.
        rank: which share to serve.
        world_size: number of shares.
    """

    def __init__(
        self,
        observations: Tensor,
        actions: Tensor,
        batch_size: int,
        seed: int,
        *,
        windows: Windows | None = None,
        mixture: Mixture | None = None,
        rows: Tensor | None = None,
        group_size: int = 1,
        num_batches: int | None = None,
        stop: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.observations, self.actions, self.windows, self.mixture = observations, actions, windows, mixture
        self.rows = rows
        self.batch_size, self.seed, self.group_size, self.stop = batch_size, seed, group_size, stop
        self.rank, self.world_size = rank, world_size
        self.num_batches = num_batches or self.batches_per_pass
        self.position = 0                                           # in the stream of batches, over all passes
        self.extensions = 0                                         # how often pairs were added
        self._start = 0                                             # position at the last addition
        self._pairs_before_start = 0                                # pairs served until then
        self._drawn, self._order = (-1, -1), torch.empty(0)         # the pass that the order is of: additions, number

    def __len__(self) -> int:
        return math.ceil(self.num_batches / self.group_size)

    def __iter__(self) -> Iterator[list[Batch]]:
        end = self.position - self.position % self.num_batches + self.num_batches
        if self.stop is not None:
            end = min(end, self.stop)
        while self.position < end:
            served = self.position % self.num_batches
            size = min(self.group_size - served % self.group_size, end - self.position)
            first = self.position - self._start
            group = [self._served(*divmod(number, self.batches_per_pass)) for number in range(first, first + size)]
            self.position += size                                   # before the yield: a checkpoint counts this item
            yield group

    @property
    def batches_per_pass(self) -> int:
        """Batches that see each pair once."""
        return batches_per_pass(self.pairs, self.batch_size, self.world_size)

    @property
    def pairs(self) -> int:
        """Those of a pass."""
        return len(self.observations if self.rows is None else self.rows)

    def extend(self, observations: Tensor, actions: Tensor, lengths: Tensor) -> None:
        """Add episodes of ``lengths`` pairs (episodes,); from the next batch on, passes are over old and new pairs mixed."""
        self._pairs_before_start = self.pairs_until(self.position)
        self._start, self.extensions = self.position, self.extensions + 1
        self.observations = torch.cat([self.observations, observations])
        self.actions = torch.cat([self.actions, actions])
        if self.windows is not None:
            self.windows.extend(lengths)

    def pairs_until(self, position: int) -> int:
        """Pairs, counted again in each pass, that all ranks were served before ``position`` (since the last addition)."""
        passes, batches = divmod(position - self._start, self.batches_per_pass)
        return self._pairs_before_start + passes * self.pairs + batches * self.batch_size * self.world_size

    def permutation(self, pass_index: int) -> Tensor:
        """The order of a pass, (pairs,), counted from the last addition of pairs."""
        entropy = (self.seed, pass_index, self.extensions) if self.extensions else (self.seed, pass_index)
        pairs, device = self.pairs, self.observations.device
        order = permutation(pairs, entropy, device)
        if self.rows is not None:
            return self.rows[order]
        if self.mixture is None:
            return order
        rows = self.mixture.rows(pass_index, (self.seed, self.extensions), device)
        return torch.cat([rows, torch.arange(len(rows), pairs, device=device)])[order]

    def state_dict(self) -> StateDict:
        """Position in the stream of batches."""
        return {
            "position": self.position,
            "extensions": self.extensions,
            "start": self._start,
            "pairs_before_start": self._pairs_before_start,
        }

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from a position.

        Raises:
            InputError: the pairs were streamed from the disk, in another order.
        """
        if "streamed" in state:
            raise InputError(
                "this run was streamed from the disk when it began, and now its pairs are read into memory, in another "
                "order. Go on with --data.memory 0, or start a new run."
            )
        self.position, self.extensions = state["position"], state["extensions"]
        self._start, self._pairs_before_start = state["start"], state["pairs_before_start"]

    def _served(self, pass_index: int, batch: int) -> Batch:
        """This rank's share of one batch of a pass."""
        if self._drawn != (self.extensions, pass_index):
            self._drawn, self._order = (self.extensions, pass_index), self.permutation(pass_index)
        rows = self._order[self.share(batch)]
        if self.windows is None:
            return self.observations.index_select(0, rows), self.actions.index_select(0, rows)  # faster than [rows]
        return self.windows.cut(self.observations, self.actions, rows)

    def share(self, batch: int) -> slice:
        """Where in the order of a pass this rank's share of a batch lies."""
        size = self.batch_size * self.world_size
        stop = self.pairs if batch + 1 == self.batches_per_pass else (batch + 1) * size
        each, more = divmod(stop - batch * size, self.world_size)   # the first ranks have one more
        first = batch * size + self.rank * each + min(self.rank, more)
        return slice(first, first + each + (self.rank < more))
