"""Demonstrations are written as one .pt file, or as a folder of shards."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_bc import files, texts
from lightning_bc.demonstrations.moments import Moments
from lightning_bc.demonstrations.readers import torch_file
from lightning_bc.demonstrations.shards import ENDING, FORMAT, INDEX, is_shards
from lightning_bc.demonstrations.trajectories import Origin, Trajectories, joined
from lightning_bc.errors import InputError

ENDINGS = (".pt", ENDING)

SHARD_STEPS = 2**18
"""After as many steps a shard is complete, with the episode that reaches them."""

STATED = (
    *("environment_id", "expert", "expert_sha256", "seed", "actions", "max_episode_steps"),
    *("versions", "observation_keys"),
)
"""What the index says of where demonstrations come from."""


def new_data(path: str | Path) -> Path:
    """``path`` as one to write demonstrations to, whose ending says in which form; see :func:`new_file`.

    Raises:
        InputError: something lies there, it has another ending, or its folder cannot be made.
    """
    if Path(path).suffix not in ENDINGS:
        raise InputError(f"{path}: wanted a file that ends in .pt, or a folder that ends in {ENDING}.")
    return files.new_file(path)


class ShardWriter:
    """Write episodes as they come; memory holds those of one shard.

    Args:
        folder: where the files go; it is there, and empty.
        shard_steps: after as many steps a shard is complete; default ``SHARD_STEPS``.
    """

    def __init__(self, folder: Path, shard_steps: int | None = None) -> None:
        self.folder, self.shard_steps = folder, shard_steps or SHARD_STEPS
        self.shards: list[dict[str, Any]] = []
        self.columns: tuple[bool, ...] = ()                         # which of the columns below there are
        self._waiting: list[Trajectories] = []

    @property
    def episodes(self) -> int:
        """How many were added."""
        return sum(shard["episodes"] for shard in self.shards) + sum(len(made.lengths) for made in self._waiting)

    def add(self, made: Trajectories) -> None:
        """Add episodes behind those that are there.

        Raises:
            InputError: it is not known where episodes end, or what is known of these is not what is known of the others.
        """
        if not made.knows_episodes:
            raise InputError(
                f"{made.origin.path}: has no episode_lengths, and a folder of shards holds whole episodes. Say with --env "
                "of which environment they are, if its episodes always last until its time limit, or write a .pt file."
            )
        columns = tuple(column is not None for column in (made.rewards, made.terminated, made.final_observations))
        if self.columns and columns != self.columns:
            raise InputError(
                f"{made.origin.path}: rewards, terminated and final_observations are {columns} there, and {self.columns} in "
                "the files before it. Shards need the same of all."
            )
        self.columns = columns
        self._waiting.append(made)
        while sum(map(len, self._waiting)) >= self.shard_steps:
            waiting = joined(self._waiting)
            episodes = int((waiting.lengths.cumsum(0) < self.shard_steps).sum()) + 1
            self._write(waiting.part(0, episodes))
            rest = waiting.part(episodes, len(waiting.lengths))
            self._waiting = [rest] if len(rest) else []

    def close(self, origin: Origin) -> None:
        """Write the last shard and the index, with what is known of the whole."""
        if self._waiting:
            self._write(joined(self._waiting))
            self._waiting = []
        stated = {name: getattr(origin, name) for name in STATED}
        index = {
            "format": FORMAT,
            "observation_dim": len(self.shards[0]["observations"]["mean"]),
            "action_dim": len(self.shards[0]["actions"]["mean"]),
            "has_rewards": self.columns[0],
            "metadata": {name: value for name, value in stated.items() if value is not None},
            "mean_reward": origin.mean_return,
            "std_reward": origin.std_return,
            "random_returns": list(origin.random_returns) or None,
            "expert_returns": list(origin.expert_returns) or None,
            "shards": self.shards,
        }
        texts.write_json(self.folder / INDEX, index, allow_nan=True)

    def _write(self, part: Trajectories) -> None:
        name, columns = f"{len(self.shards):05}", [part.observations, part.actions]
        if part.rewards is not None:
            columns.append(part.rewards.unsqueeze(1))
        episodes = {"lengths": part.lengths, "terminated": part.terminated, "final_observations": part.final_observations}
        rows_path, episodes_path = (self.folder / f"{name}.{kind}" for kind in ("rows.npy", "episodes.npz"))
        np.save(rows_path, torch.cat(columns, dim=1).numpy())
        arrays: dict[str, Any] = {key: value.numpy() for key, value in episodes.items() if value is not None}
        np.savez(episodes_path, **arrays)
        self.shards.append(
            {
                "name": name,
                "steps": len(part),
                "episodes": len(part.lengths),
                "rows_sha256": files.sha256(rows_path),
                "episodes_sha256": files.sha256(episodes_path),
                **{
                    key: {name: value.tolist() for name, value in list(vars(Moments.of(getattr(part, key))).items())[1:]}
                    for key in ("observations", "actions")
                },
            }
        )


@contextmanager
def writing(path: str | Path) -> Iterator[ShardWriter]:
    """Write a folder of shards whole or not at all; the block closes the writer."""
    with files.creating(path) as folder:
        yield ShardWriter(folder)


def write(path: str | Path, made: Trajectories) -> None:
    """Write trajectories whole or not at all; the counterpart of :func:`lightning_bc.demonstrations.read`."""
    if not is_shards(path):
        torch_file.write(path, made)
        return
    with writing(path) as writer:
        writer.add(made)
        writer.close(made.origin)
