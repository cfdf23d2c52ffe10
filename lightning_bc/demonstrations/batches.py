"""Batches by index, from tensors that lie on the training device."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""(observations (batch, observation_dim), actions (batch, action_dim))"""


class Batches:
    """Iterate over (observations, actions) in an order that is a pure function of (seed, pass).

    Each pass is a permutation drawn on the tensors' device, cut into batches of ``batch_size``; the last one of a pass
    is smaller where the division leaves a rest, so no pair is dropped or seen twice in a pass. One iteration yields
    ``num_batches`` and the next goes on from there, so an iteration may span many passes, or a part of one.

    Under distributed training each rank takes its share of each global batch.

    Args:
        observations: (pairs, observation_dim).
        actions: (pairs, action_dim), on the same device.
        batch_size: pairs a batch on each rank.
        seed: of the order.
        num_batches: batches an iteration; by default one pass.
        rank: which share to serve.
        world_size: number of shares.
    """

    def __init__(
        self,
        observations: Tensor,
        actions: Tensor,
        batch_size: int,
        seed: int,
        num_batches: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.observations, self.actions = observations, actions
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        pairs, global_batch = len(observations), batch_size * world_size
        # A rest with fewer pairs than ranks joins the batch before it: no rank may go without.
        self.batches_per_pass = max(1, math.ceil((pairs - world_size + 1) / global_batch))
        self.num_batches = num_batches or self.batches_per_pass
        self.position = 0

    def __len__(self) -> int:
        return self.num_batches

    def permutation(self, index: int) -> Tensor:
        """The order of pass ``index``, (pairs,)."""
        generator = torch.Generator(self.observations.device)
        # Distinct (seed, pass) give distinct seeds: passes stay far below 2^32.
        generator.manual_seed((self.seed << 32) + index)
        return torch.randperm(len(self.observations), generator=generator, device=self.observations.device)

    def __iter__(self) -> Iterator[Batch]:
        global_batch = self.batch_size * self.world_size
        current, order = -1, torch.empty(0)
        for position in range(self.position, self.position - self.position % self.num_batches + self.num_batches):
            index, batch = divmod(position, self.batches_per_pass)
            if index != current:
                current, order = index, self.permutation(index)
            is_last = batch + 1 == self.batches_per_pass
            rows = order[batch * global_batch :] if is_last else order[batch * global_batch : (batch + 1) * global_batch]
            if self.world_size > 1:
                rows = rows.tensor_split(self.world_size)[self.rank]
            self.position = position + 1                            # before the yield: a checkpoint counts this batch
            yield self.observations[rows], self.actions[rows]

    def state_dict(self) -> dict[str, Any]:
        """Position in the stream of batches."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a position."""
        self.position = state["position"]
