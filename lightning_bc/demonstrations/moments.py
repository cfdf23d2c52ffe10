"""Mean, spread and range of columns, of parts and of all of them together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Statistics of columns, (dimensions,) each, float64: of several parts, they are those of the whole."""

    count: int
    mean: Tensor
    squares: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, columns: Tensor) -> "Moments":
        """Of (rows, dimensions), with the squared deviations from the mean summed."""
        values = columns.double()
        mean = values.mean(dim=0)
        low, high = values.aminmax(dim=0)
        return cls(len(values), mean, (values - mean).square().sum(dim=0), low, high)

    @classmethod
    def of_all(cls, parts: Sequence["Moments"]) -> "Moments":
        """Of all parts together (Chan 1979, Updating formulae and a pairwise algorithm for computing sample variances)."""
        count = sum(part.count for part in parts)
        mean = torch.stack([part.mean * part.count for part in parts]).sum(dim=0) / count
        squares = torch.stack([part.squares + part.count * (part.mean - mean).square() for part in parts]).sum(dim=0)
        low, high = (torch.stack([getattr(part, name) for part in parts]) for name in ("low", "high"))
        return cls(count, mean, squares, low.amin(dim=0), high.amax(dim=0))

    @property
    def deviation(self) -> Tensor:
        """Standard deviation, (dimensions,)."""
        return (self.squares / self.count).sqrt()
