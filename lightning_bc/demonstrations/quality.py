"""What may be wrong with demonstrations, found in their numbers: what ``fit`` warns of and ``inspect`` lists."""

import math
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_bc.demonstrations.trajectories import Trajectories

RARE = 0.001
"""Outlying values are at most this share of a dimension's, or one of them: what is more frequent is a part of the data."""

FAR = 20.0
"""Outlying values are so many times as far from the median as all others."""

FAR_FROM_CONSTANT = 1e6
"""The same where all others are equal, in units of their magnitude, at least 1: a signal may be rare (a contact)."""

HARM = 2.0
"""Outlying values together multiply the standard deviation, by which observations are divided, by at least this."""

COARSE = 0.01
"""Of a standard deviation: where float32 has larger steps at a dimension's magnitude, its values are rounded away."""

FEWEST_ROWS = 10
"""With fewer nothing is called an outlier."""


@dataclass(frozen=True)
class Outlier:
    """A value far from all others of its dimension.

    Attributes:
        row: of the pair.
        dimension: of the observation or action.
        value: as the file has it.
        inflation: by how much the dimension's outlying values together multiply its standard deviation.
    """

    row: int
    dimension: int
    value: float
    inflation: float


def outliers(columns: Tensor) -> list[Outlier]:
    """The outlying values of (pairs, dimensions), by dimension and row.

    A value is outlying if it is rare, far and harmful: of its dimension's values at most ``RARE`` lie more than ``FAR``
    times as far from the median as the farthest of the others, and they multiply the standard deviation by ``HARM`` or more.
    Heavy tails (velocities, forces) have no such gap; two modes, or a signal that is zero most of the time, are not rare or
    have a spread of their own.
    """
    return [outlier for dimension in range(columns.shape[1]) for outlier in _outliers(columns[:, dimension], dimension)]


def _outliers(column: Tensor, dimension: int) -> list[Outlier]:
    values = column.double()                                        # the squares of 1e30 are too large for float32
    pairs, few = len(values), max(1, int(RARE * len(values)))
    if pairs < FEWEST_ROWS:
        return []
    deviation, mean = torch.std_mean(values, correction=0)
    low, high = values.aminmax()
    # So far must the farthest be, for ``few`` to multiply the standard deviation by HARM: nearly all columns end here
    share_of_variance = 1 - 1 / HARM**2
    if max(high - mean, mean - low) < 0.999 * deviation * math.sqrt(share_of_variance * (pairs - few) / few):
        return []
    median = values.median()
    distances = (values - median).abs()
    spread = distances.kthvalue(pairs - few).values                 # the farthest of the others
    far = FAR * spread if spread > 0 else FAR_FROM_CONSTANT * median.abs().clamp(min=1)
    is_far = distances > far
    if not is_far.any():
        return []
    inflation = float(deviation / values[~is_far].std(correction=0))  # infinite where the others are equal
    rows = is_far.nonzero()[:, 0].tolist()
    return [Outlier(row, dimension, float(values[row]), inflation) for row in rows] if inflation >= HARM else []


@dataclass(frozen=True)
class Coarse:
    """A dimension of observations whose values float32 hardly tells apart.

    Attributes:
        dimension: of the observation.
        magnitude: its greatest absolute value.
        step: between two numbers of float32 there.
        deviation: standard deviation of the values as they are read.
    """

    dimension: int
    magnitude: float
    step: float
    deviation: float


def coarse_dimensions(made: Trajectories) -> list[Coarse]:
    """Where float32 has steps of more than ``COARSE`` standard deviations; of constants those that rounding has made so."""
    found = list[Coarse]()
    for dimension in range(made.observations.shape[1] if len(made) >= FEWEST_ROWS else 0):
        values = made.observations[:, dimension].double()
        largest, deviation = values.abs().max(), float(values.std(correction=0))
        step = 2.0 ** (int(torch.frexp(largest).exponent) - 24)
        varies = deviation > 0 or dimension in made.origin.rounded_away
        if varies and step > COARSE * deviation:
            found.append(Coarse(dimension, float(largest), step, deviation))
    return found


def constant_dimensions(columns: Tensor) -> list[int]:
    """The dimensions of (pairs, dimensions) in which all values are equal."""
    low, high = columns.aminmax(dim=0)
    return (low == high).nonzero()[:, 0].tolist()


def copied_episodes(made: Trajectories) -> list[int]:
    """The numbers of the episodes that equal an earlier one in every observation and action."""
    seen: dict[tuple[int, bytes], list[slice]] = defaultdict(list)
    copies = []
    spans = zip(made.starts.tolist(), made.lengths.tolist(), strict=True)
    for episode, (start, length) in enumerate(spans):
        rows = slice(start, start + length)
        alike = seen[length, made.observations[start + length // 2].numpy().tobytes()]
        if any(
            torch.equal(made.observations[rows], made.observations[other])
            and torch.equal(made.actions[rows], made.actions[other])
            for other in alike
        ):
            copies.append(episode)
        else:
            alike.append(rows)
    return copies


def groups_of_equal(rows: Tensor) -> Tensor:
    """For each of the ``rows`` (n, dimensions) float32 the number of its group, (n,): equal rows share one.

    Rows are compared by a 64-bit sum of their bits, times odd random numbers each.
    """
    bits = (rows + 0.0).contiguous().view(torch.int32)              # -0.0 becomes 0.0
    draws = np.random.default_rng(0).integers(-(2**62), 2**62, rows.shape[1]) * 2 + 1
    sums = torch.zeros(len(rows), dtype=torch.int64)
    for dimension, factor in enumerate(draws.tolist()):             # overflow wraps around, as it should
        sums += (bits[:, dimension].to(torch.int64) + 2**33) * factor
    return torch.unique(sums, return_inverse=True)[1]


@dataclass(frozen=True)
class Findings:
    """What may be wrong with the demonstrations ``made``, each looked for once."""

    made: Trajectories

    @cached_property
    def outlying_observations(self) -> list[Outlier]:
        """See :func:`outliers`."""
        return outliers(self.made.observations)

    @cached_property
    def rounding(self) -> str:
        """What is lost in :func:`coarse_dimensions`, in words; empty where nothing is."""
        if not (dimensions := coarse_dimensions(self.made)):
            return ""
        one = dimensions[0]
        others = f" (first of {len(dimensions)} dimensions)" if len(dimensions) > 1 else ""
        return (
            f"observations are rounded away in dimension {one.dimension}{others}: its values, up to {one.magnitude:.6g}, "
            f"have steps of {one.step:g} in float32, and their standard deviation is {one.deviation:.3g}. Subtract the "
            "dimension's offset, in the environment and in the file."
        )

    @cached_property
    def copies(self) -> list[int]:
        """See :func:`copied_episodes`; none where it is not known where episodes end."""
        return copied_episodes(self.made) if self.made.knows_episodes else []

    def concerns(self, hidden: Sequence[int] = ()) -> list[str]:
        """What ``fit`` warns of, a line each, with what to do; ``hidden`` entries of observations may be as they are."""
        made, path, found = self.made, self.made.origin.path, list[str]()
        if values := [value for value in self.outlying_observations if value.dimension not in hidden]:
            first = values[0]
            by_dimension = {value.dimension: value.inflation for value in values}
            others = f" (first of {len(values)}, in {len(by_dimension)} dimensions)" if len(values) > 1 else ""
            found.append(
                f"{path}: observations[{first.row}] holds {first.value:g} in dimension {first.dimension}{others}, far from "
                "all other values. Observations are divided by their standard deviation, which this makes "
                f"{first.inflation:.3g} times as large: what the dimension says may be lost. Mend or remove such rows, "
                "which python -m lightning_bc inspect lists; or, where they are right, as forces of contacts, do without: "
                f"--data.hidden_dimensions [{','.join(map(str, by_dimension))}]."
            )
        if self.rounding:
            found.append(f"{path}: {self.rounding}")
        if len(made) >= FEWEST_ROWS and len(constant_dimensions(made.actions)) == made.actions.shape[1]:
            found.append(
                f"{path}: the actions of all {len(made)} pairs are equal, so that a policy learns to play this one, "
                "whatever it sees. Write the actions that the expert played."
            )
        if len(made) > len(made.lengths) and (copies := self.copies):
            found.append(
                f"{path}: {len(copies)} of {len(made.lengths)} episodes are copies of earlier ones (the first is episode "
                f"{copies[0]}). They count twice, and a held-out copy says nothing of new episodes. Remove them, or hold "
                "nothing out with --data.validation_fraction 0."
            )
        return found


@rank_zero_only
def warn(made: Trajectories, hidden: Sequence[int] = ()) -> None:
    """Warn of what :class:`Findings` says of ``made``, but for ``hidden`` entries of observations."""
    for concern in Findings(made).concerns(hidden):
        warnings.warn(concern, stacklevel=2)
