"""Batches of more pairs than memory holds: read from a folder of shards while those read before are trained on.

The N pairs lie on the disk in blocks of B successive steps. A pass takes the blocks in a random order, K of them at a time
into a buffer, whose K B pairs it shuffles; while they are trained on, a thread reads the next K blocks. How near is that to
a full shuffle of N pairs?

    possible orders         those in which no block is in two buffers: (N/B)! / (K!)^(N/(K B)) ways to fill the buffers, and
                            (K B)! orders of each, out of N!
    two pairs of one block  lie K B / 3 apart on average, N / 3 after a full shuffle
    two pairs of two blocks lie N / 3 apart on average, as after a full shuffle, up to a share of 1 / K
    in one batch            two given pairs of one block meet N / (K B) times as often as after a full shuffle

The order is a pure function of (seed, pass), so a run goes on in the midst of a pass: it reads the buffer that it was at.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.demonstrations.batches import Batch, Batches
from lightning_bc.demonstrations.blocks import Blocks
from lightning_bc.demonstrations.mixture import permutation
from lightning_bc.demonstrations.windows import Windows
from lightning_bc.errors import InputError, takes_state

_BLOCKS, _BUFFER = 2, 3
"""Last words of what permutations are drawn from; those of ``Batches`` and ``Mixture`` are others."""


@dataclass(frozen=True)
class Buffer:
    """Some blocks of a pass in memory.

    Attributes:
        start: how many pairs of the pass come before it.
        observations: of their steps and of those that windows reach, (steps, observation_dim).
        actions: (steps, action_dim).
        rows: the pairs in their order, (1, pairs) int64; for windows also the first and the last step of each one's episode.
    """

    start: int
    observations: Tensor
    actions: Tensor
    rows: Tensor

    @property
    def stop(self) -> int:
        """How many pairs of the pass come before its end."""
        return self.start + self.rows.shape[1]


class StreamedBatches(Batches):
    """As :class:`Batches` serves them, of pairs on the disk.

    Args:
        blocks: the pairs.
        batch_size: pairs per batch on each rank; every rank reads all blocks and takes its share of each batch.
        seed: of the order.
        device: where batches are served.
        windows: cuts the window of each pair out of its episode; by default pairs are served.
        group_size: batches per item.
        num_batches: batches per iteration; by default one pass.
        stop: batch of the whole stream after which iterations end, or None for no end.
        rank: which share to serve.
        world_size: number of shares.
    """

    def __init__(
        self,
        blocks: Blocks,
        batch_size: int,
        seed: int,
        *,
        device: torch.device,
        windows: Windows | None = None,
        group_size: int = 1,
        num_batches: int | None = None,
        stop: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.blocks, self.device = blocks, device
        super().__init__(
            torch.empty(0, 0),
            torch.empty(0, 0),
            batch_size,
            seed,
            windows=windows,
            group_size=group_size,
            num_batches=num_batches,
            stop=stop,
            rank=rank,
            world_size=world_size,
        )
        self._reader = ThreadPoolExecutor(1, "read shards")
        self._buffer: Buffer | None = None
        self._present = (-1, -1)                                    # which one that is: pass, number
        self._next: tuple[tuple[int, int], Future[Buffer]] | None = None
        self._order_of_blocks = (-1, np.empty(0, np.int64))
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def pairs(self) -> int:
        """Those of a pass."""
        return self.blocks.number

    @property
    def buffers(self) -> int:
        """Of a pass."""
        return -(-len(self.blocks) // self.blocks.per_buffer)

    def extend(self, observations: Tensor, actions: Tensor, lengths: Tensor) -> None:
        """Nothing can be added."""
        raise TypeError("batches from the disk are not added to")

    def state_dict(self) -> StateDict:
        """Position in the stream of batches, and that it is this one."""
        return super().state_dict() | {"streamed": [self.blocks.size, self.blocks.per_buffer]}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from a position.

        Raises:
            InputError: the pairs were in memory, in another order, or in other blocks.
        """
        super().load_state_dict({name: value for name, value in state.items() if name != "streamed"})
        sizes = [self.blocks.size, self.blocks.per_buffer]
        if state.get("streamed") != sizes:
            raise InputError(
                f"{self.blocks.shards.path}: was read into memory when this run began, or in other blocks, and is now "
                f"streamed in blocks of {sizes}, in another order. Raise --data.memory so that it fits, or start a new run."
            )

    def _served(self, pass_index: int, batch: int) -> Batch:
        share, parts = self.share(batch), list[Batch]()
        position = share.start
        while position < share.stop:
            buffer = self._holding(pass_index, position)
            rows = buffer.rows[:, position - buffer.start : share.stop - buffer.start]
            position += rows.shape[1]
            if self.windows is None:
                parts.append((buffer.observations[rows[0]], buffer.actions[rows[0]]))
            else:
                parts.append(self.windows.cut_between(buffer.observations, buffer.actions, *rows))
        return parts[0] if len(parts) == 1 else tuple(torch.cat(columns) for columns in zip(*parts, strict=True))

    def _holding(self, pass_index: int, position: int) -> Buffer:
        """The buffer that a pair of a pass is in, by its place in the order; the next one is then being read."""
        here = self._buffer
        if here is None or self._present[0] != pass_index or not here.start <= position < here.stop:
            starts = self._starts(pass_index)
            wanted = pass_index, int(np.searchsorted(starts, position, "right")) - 1
            here = self._buffer = None                              # so that no more than two are in memory
            number, reading = self._next or (None, None)
            here = reading.result() if reading is not None and number == wanted else self._read(*wanted)
            self._buffer, self._present = here, wanted
            following = divmod(pass_index * self.buffers + wanted[1] + 1, self.buffers)
            if self.stop is None or (following[0] * self.batches_per_pass < self.stop):
                self._next = following, self._reader.submit(self._read, *following)
        return here

    def _blocks_of(self, pass_index: int) -> np.ndarray:
        """The blocks in the order of a pass."""
        number, order = self._order_of_blocks
        if number != pass_index:
            order = permutation(len(self.blocks), (self.seed, pass_index, _BLOCKS), torch.device("cpu")).numpy()
            self._order_of_blocks = pass_index, order
        return order

    def _starts(self, pass_index: int) -> np.ndarray:
        """How many pairs of a pass come before each buffer, (buffers,)."""
        pairs = self.blocks.pairs[self._blocks_of(pass_index)]
        return np.cumsum(np.concatenate([[0], pairs]))[: len(pairs) : self.blocks.per_buffer]

    def _read(self, pass_index: int, number: int) -> Buffer:
        """Read a buffer of a pass, and shuffle its pairs.

        By NumPy: torch's kernels would take further threads for this one, and with more threads than cores OpenMP lets those
        that train sleep between kernels.
        """
        per_buffer = self.blocks.per_buffer
        chosen = np.sort(self._blocks_of(pass_index)[number * per_buffer : (number + 1) * per_buffer])
        before, behind = (0, 0) if self.windows is None else (len(self.windows.past) - 1, len(self.windows.future) - 1)
        steps = len(chosen) * (self.blocks.size + before + behind)
        dims = self.blocks.shards.index["observation_dim"], self.blocks.shards.index["action_dim"]
        observations, actions = (torch.empty(steps, size, pin_memory=self._stream is not None) for size in dims)
        pairs = [np.empty((3, 0), np.int64)]
        filled = 0
        for block in chosen.tolist():
            seen, done, rows = self.blocks.read(block, before, behind)
            observations.numpy()[filled : filled + len(seen)] = seen.numpy()
            actions.numpy()[filled : filled + len(done)] = done.numpy()
            pairs.append(rows + filled)
            filled += len(seen)
        used = 1 if self.windows is None else 3                     # pairs alone do not reach over an episode's ends
        rows_of_pairs = np.concatenate([rows[:used] for rows in pairs], axis=1)
        order = permutation(rows_of_pairs.shape[1], (self.seed, pass_index, number, _BUFFER), torch.device("cpu"))
        columns = observations[:filled], actions[:filled], torch.from_numpy(rows_of_pairs[:, order.numpy()])
        return Buffer(int(self._starts(pass_index)[number]), *self._on_device(columns))

    def _on_device(self, columns: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The same on the device, copied beside what it computes."""
        if self._stream is None:
            return columns if self.device.type == "cpu" else tuple(column.to(self.device) for column in columns)
        with torch.cuda.stream(self._stream):
            copied = tuple(column.to(self.device, non_blocking=True) for column in columns)
        self._stream.synchronize()
        for column in copied:
            column.record_stream(torch.cuda.default_stream(self.device))
        return copied
