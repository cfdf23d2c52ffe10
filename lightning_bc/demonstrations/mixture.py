"""Several files in one stream of batches, each with its share: which of its pairs a pass has."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_bc.errors import InputError


@dataclass(frozen=True)
class Mixture:
    """The pairs of files that lie one after another, in given shares.

    A pass has as many pairs as there are, and of each file its quota, the share times that number. The pairs of a file come
    from an endless row of permutations of it, of which each pass takes the next quota: over any number of passes no pair of
    a file is seen more than once more often than another one of it.

    Attributes:
        sizes: pairs of each file.
        shares: of each file in every pass; they sum to 1.
    """

    sizes: tuple[int, ...]
    shares: tuple[float, ...]

    @property
    def pairs(self) -> int:
        """Pairs of all files, and of a pass."""
        return sum(self.sizes)

    @property
    def quotas(self) -> list[int]:
        """Pairs of each file in a pass, which sum to ``pairs``."""
        ends = np.rint(np.cumsum(self.shares) * self.pairs).astype(int)
        ends[-1] = self.pairs
        return np.diff(ends, prepend=0).tolist()

    def rows(self, pass_index: int, entropy: Sequence[int], device: torch.device) -> Tensor:
        """The rows of a pass, to be shuffled, (pairs,); a pure function of its arguments."""
        first_rows = np.cumsum((0, *self.sizes)).tolist()
        rows = []
        for file, (first, size, quota) in enumerate(zip(first_rows, self.sizes, self.quotas, strict=False)):
            start, stop = pass_index * quota, (pass_index + 1) * quota
            numbers = range(start // size, -(-stop // size))        # of the permutations that the pass takes from
            for number in sorted({*numbers[:1], *numbers[-1:]}):    # the others are taken whole, in any order
                # The last word is never 0, which tells them from the permutations of a whole pass: see Batches
                drawn = permutation(size, (*entropy, number, file, 1), device)
                rows.append(first + drawn[max(0, start - number * size) : stop - number * size])
            rows.append(first + torch.arange(size, device=device).repeat(max(0, len(numbers) - 2)))
        return torch.cat(rows)


def permutation(size: int, entropy: Sequence[int], device: torch.device) -> Tensor:
    """A permutation of ``size`` numbers, drawn on ``device``; a pure function of its arguments."""
    generator = torch.Generator(device)
    # Mixed into 32 bits, because torch's CPU generator takes no more of its seed and drops the rest in silence.
    generator.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
    return torch.randperm(size, generator=generator, device=device)


def check_shares(shares: Sequence[float], files: int) -> None:
    """Raise InputError unless there is one share per file, and they sum to 1."""
    given = f"--data.shares {list(shares)}"
    if len(shares) != files:
        raise InputError(f"{given}: {len(shares)} shares for {files} files in --data.path; each file needs one.")
    if abs(sum(shares) - 1) > 1e-6:
        raise InputError(f"{given}: sum to {sum(shares):g}, wanted 1.")
