"""Demonstrations in a folder of shards, for more pairs than memory holds.

    NAME.shards/
        shards.json           the index: what is known of the whole, and each shard's files, SHA-256 and statistics
        00000.rows.npy        (steps, observation_dim + action_dim, and 1 with rewards) float32: each step's observation,
                              action and reward side by side, so that a run of steps is one piece of the file
        00000.episodes.npz    of its whole episodes: lengths (episodes,) int64, and where they are known terminated
                              (episodes,) bool and final_observations (episodes, observation_dim) float32
        00001.rows.npy ...

The rows are read piece by piece, so that no more of them than are asked for count as the process's own memory.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_bc import files, texts
from lightning_bc.demonstrations.moments import Moments
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError

INDEX = "shards.json"
ENDING = ".shards"
FORMAT = "lightning_bc shards 1"


STEPS_AT_ONCE = 2**16
"""Of which there are two copies while they are read."""


@dataclass(frozen=True)
class Shards:
    """A folder of shards, opened: its index alone is in memory, and what is read of it.

    Attributes:
        path: the folder.
        index: what its index holds, checked.
    """

    path: Path
    index: Mapping[str, Any]

    @classmethod
    def at(cls, path: str | Path) -> "Shards":
        """Open a folder: read its index, and look whether its files are there and have their sizes.

        Raises:
            InputError: the index cannot be read or lacks something, or a file is missing or has another size.
        """
        file = Path(path) / INDEX
        if not file.is_file():
            raise InputError(
                f"{path}: is no folder of shards: there is no {INDEX} in it. Collect or convert to it with --output {path}."
            )
        try:
            index = texts.checked_json_of(file)
            if index["format"] != FORMAT:
                raise InputError(f"{file}: its format is {index['format']!r}, wanted {FORMAT!r}")
            opened = cls(Path(path), index)
            names = [shard["name"] for shard in index["shards"]]
            is_good = names == [f"{number:05}" for number in range(len(names))] and all(
                isinstance(number, int) and number > 0
                for number in (index["observation_dim"], index["action_dim"], *opened.steps, *opened.episodes)
            )
            for key, size in (("observations", index["observation_dim"]), ("actions", index["action_dim"])):
                is_good &= opened.width > 0 and opened.moments(0, len(names), key).mean.shape == (size,)
        except InputError as error:
            raise InputError(f"{error}. Take another copy of it, or convert or collect it again.") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{file}: cannot be read ({reason}). Convert or collect it again.") from error
        if not is_good:
            raise InputError(
                f"{file}: its shards are not 00000, 00001, ... of at least one episode each, with statistics of as many "
                "dimensions as it states. Convert or collect it again."
            )
        for shard in index["shards"]:
            rows, wanted = opened._rows_of(shard["name"]), (shard["steps"], opened.width)
            if rows.shape != wanted or rows.dtype != np.float32:
                found = f"{rows.dtype} {rows.shape}"
                raise InputError(f"{rows.filename}: holds {found}, wanted float32 {wanted}. Take another copy of it.")
        return opened

    @property
    def width(self) -> int:
        """Numbers per step."""
        return self.index["observation_dim"] + self.index["action_dim"] + bool(self.index["has_rewards"])

    @property
    def steps(self) -> list[int]:
        """Of each shard."""
        return [shard["steps"] for shard in self.index["shards"]]

    @property
    def episodes(self) -> list[int]:
        """How many each shard has."""
        return [shard["episodes"] for shard in self.index["shards"]]

    @property
    def sha256(self) -> str:
        """One digest for all files, from those in the index."""
        digests = [shard[name] for shard in self.index["shards"] for name in ("rows_sha256", "episodes_sha256")]
        return files.sha256_of_all(digests)

    def moments(self, first: int, stop: int, key: str) -> Moments:
        """Of the shards from ``first`` to below ``stop``; of their observations or their actions."""
        parts = []
        for shard in self.index["shards"][first:stop]:
            columns = {name: torch.tensor(value, dtype=torch.float64) for name, value in shard[key].items()}
            parts.append(Moments(shard["steps"], **columns))
        return Moments.of_all(parts)

    @cached_property
    def _rows(self) -> list[tuple[Path, int]]:
        """Each shard's file of rows, and at which byte of it they begin."""
        mapped = [self._rows_of(shard["name"]) for shard in self.index["shards"]]
        return [(Path(str(rows.filename)), rows.offset) for rows in mapped]

    @cached_property
    def skeleton(self) -> Trajectories:
        """All episodes, of which observations and actions are on the disk alone: theirs here have no columns."""
        parts = [self._episodes_of(shard) for shard in self.index["shards"]]

        def together(name: str) -> Tensor | None:
            there = [part[name] for part in parts if name in part]
            return torch.from_numpy(np.concatenate(there)) if len(there) == len(parts) else None

        lengths, nothing = together("lengths"), torch.empty(sum(self.steps), 0)
        assert lengths is not None                                  # each shard was seen to have them
        return Trajectories(
            nothing,
            nothing,
            lengths,
            terminated=together("terminated"),
            final_observations=together("final_observations"),
            origin=Origin(str(self.path), sha256=self.sha256),
        )

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Copy the steps from ``start`` to below ``stop``, (stop - start, width)."""
        copied = np.empty((stop - start, self.width), np.float32)
        ends = np.cumsum(self.steps)
        for number in range(int(np.searchsorted(ends, start, "right")), int(np.searchsorted(ends, stop, "left")) + 1):
            first = int(ends[number]) - self.steps[number]
            here = slice(max(start, first), min(stop, int(ends[number])))
            if here.stop <= here.start:                             # where nothing is asked for
                continue
            file, offset = self._rows[number]
            piece = copied[here.start - start : here.stop - start].data.cast("B")
            try:
                with file.open("rb", buffering=0) as opened:
                    opened.seek(offset + (here.start - first) * copied.strides[0])
                    filled = opened.readinto(piece)
            except OSError as error:
                raise InputError(f"{file}: cannot be read ({error}). Take another copy of it.") from error
            if filled != len(piece):
                raise InputError(f"{file}: has been made shorter since it was opened. Take another copy of it.")
        return copied

    def columns(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor | None]:
        """Observations, actions and rewards of ``rows`` (steps, width)."""
        sizes = [self.index["observation_dim"], self.index["action_dim"]]
        parts = [torch.from_numpy(np.ascontiguousarray(part)) for part in np.split(rows, np.cumsum(sizes), axis=1)]
        return parts[0], parts[1], parts[2].squeeze(1) if self.index["has_rewards"] else None

    def whole(self, part: Trajectories, first_step: int) -> Trajectories:
        """A ``part`` of the skeleton with its steps, the first of which is the folder's ``first_step``."""
        observations = torch.empty(len(part), self.index["observation_dim"])
        actions, rewards = torch.empty(len(part), self.index["action_dim"]), torch.empty(len(part))
        for start in range(0, len(part), STEPS_AT_ONCE):
            stop = min(start + STEPS_AT_ONCE, len(part))
            columns = self.columns(self.rows(first_step + start, first_step + stop))
            observations[start:stop], actions[start:stop] = columns[:2]
            if columns[2] is not None:
                rewards[start:stop] = columns[2]
        has_rewards = self.index["has_rewards"]
        return replace(part, observations=observations, actions=actions, rewards=rewards if has_rewards else None)

    def parts(self, origin: Origin) -> Iterator[Trajectories]:
        """All episodes, shard by shard."""
        first, step = 0, 0
        for episodes, steps in zip(self.episodes, self.steps, strict=True):
            part = self.whole(self.skeleton.part(first, first + episodes), step)
            yield replace(part, origin=replace(origin, sha256=self.sha256))
            first, step = first + episodes, step + steps

    def check_sha256(self) -> None:
        """Raise InputError where a file is not what was written."""
        for shard in self.index["shards"]:
            for kind, name in (("rows.npy", "rows_sha256"), ("episodes.npz", "episodes_sha256")):
                file = self.path / f"{shard['name']}.{kind}"
                if files.sha256(file) != shard[name]:
                    raise InputError(f"{file}: is damaged: its SHA-256 is not the one in {INDEX}. Take another copy of it.")

    def _rows_of(self, name: str) -> np.memmap:
        file = self.path / f"{name}.rows.npy"
        try:
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
        except Exception as error:                                  # of a damaged header there are many kinds
            raise InputError(f"{file}: cannot be read ({error}). Take another copy of it.") from error
        assert isinstance(mapped, np.memmap)
        return mapped

    def _episodes_of(self, shard: Mapping[str, Any]) -> dict[str, np.ndarray]:
        file = self.path / f"{shard['name']}.episodes.npz"
        try:
            with np.load(file, allow_pickle=False) as content:
                found = {name: content[name] for name in ("lengths", "terminated", "final_observations") if name in content}
        except Exception as error:                                  # zipfile has many kinds
            raise InputError(f"{file}: cannot be read ({error}). Take another copy of it.") from error
        kinds = {"lengths": (np.int64, 1), "terminated": (np.bool_, 1), "final_observations": (np.float32, 2)}
        for name, array in found.items():
            if array.dtype != kinds[name][0] or array.ndim != kinds[name][1] or len(array) != shard["episodes"]:
                raise InputError(f"{file}: {name} holds {array.dtype} {array.shape}. Take another copy of it.")
        if "lengths" not in found or (found["lengths"] <= 0).any() or found["lengths"].sum() != shard["steps"]:
            raise InputError(f"{file}: its lengths do not sum to {shard['steps']} steps. Take another copy of it.")
        return found


def is_shards(path: str | Path) -> bool:
    """Whether a folder of shards lies, or is to be written, at ``path``."""
    return Path(path).suffix == ENDING or (Path(path) / INDEX).is_file()


def sha256(path: str | Path) -> str:
    """SHA-256 of demonstrations: of a file, or of all files of a folder of shards as its index has them."""
    return Shards.at(path).sha256 if is_shards(path) else files.sha256(path)


def bytes_per_pair(index: Mapping[str, Any]) -> int:
    """Of an observation and an action in memory."""
    return 4 * (index["observation_dim"] + index["action_dim"])
