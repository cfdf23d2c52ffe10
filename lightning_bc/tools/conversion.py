"""The ``convert`` command: data files of any format as one file of our own."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from tqdm import tqdm

from lightning_bc.api.collection import write_demonstrations
from lightning_bc.demonstrations import Trajectories, read
from lightning_bc.demonstrations.several import check_alike, origin_of, paths_of, together
from lightning_bc.environments import environment_spaces
from lightning_bc.errors import InputError
from lightning_bc.files import new_pt_file
from lightning_bc.tools.reading import AS_IT_IS, DataFlags, read_of

COLUMNS = ("observations", "actions", "lengths", "rewards", "terminated", "final_observations")


def convert(files: list[str], output: str, env: str | None = None, data: DataFlags = AS_IT_IS) -> None:
    """Write data files of any format that ``fit --data.path`` takes as one .pt file, and check what was written.

    Args:
        files: files, folders or minari:DATASET_ID; several become one, the episodes of one after those of another.
        output: the .pt file to write; it must not exist.
        env: Gymnasium id of the environment; it is written down. Where a file does not say which of its episodes terminated
            or, in an environment that always plays to its time limit, where they end, this is inferred from it.
        data: what of each file is read, as ``fit`` has it.

    Raises:
        InputError: a file cannot be read, they do not fit each other or the environment, or the output exists.
    """
    path = new_pt_file(output)                                      # refused before anything is read
    bar = tqdm(paths_of(files), desc="reading", unit=" files", delay=1, disable=None, leave=False)  # on a terminal alone
    parts = [_read(file, env, data) for file in bar]
    check_alike(parts)
    made = together(parts, origin_of(parts))
    write_demonstrations(path, made)
    started = time.perf_counter()
    _check_same(read(path), made)
    known = f"{len(made.lengths):,} episodes" if made.knows_episodes else "unknown episodes"
    print(
        f"{path}: {len(made):,} pairs of {known}, {path.stat().st_size / 1e6:,.1f} MB. Read again in "
        f"{time.perf_counter() - started:.1f} s: every value is as it was."
    )
    for name in _left_out(parts, made):
        print(f"{name} are left out: not every file has them")
    if made.origin.environment_id is None:
        print("no file says of which environment it is; --env writes it down")


def _read(file: str, env: str | None, data: DataFlags) -> Trajectories:
    """A file, with what the environment says, where it is given."""
    if env is None:
        return read_of(file, None, data)
    spaces = environment_spaces(env)
    made = read_of(file, spaces, data)
    if made.terminated is None and made.knows_episodes:
        made = made.with_terminations_inferred(spaces.max_episode_steps, spaces.can_terminate)
    return replace(made, origin=replace(made.origin, environment_id=env))


def _left_out(parts: Sequence[Trajectories], made: Trajectories) -> list[str]:
    """The columns that some of the files have and what was ``made`` of them has not."""
    lacking = [name for name in COLUMNS if getattr(made, name) is None]
    return [name for name in lacking if any(getattr(part, name) is not None for part in parts)]


def _check_same(read: Trajectories, written: Trajectories) -> None:
    """Raise InputError unless every value that was written is read."""
    for name in COLUMNS:
        one, other = getattr(read, name), getattr(written, name)
        if (one is None) != (other is None) or (one is not None and not torch.equal(one, other)):
            raise InputError(f"{read.origin.path}: its {name} are not those that were written. Check the disk.")
