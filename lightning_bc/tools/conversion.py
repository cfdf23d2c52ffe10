"""The ``convert`` command: data files of any format as one file of our own."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from lightning_bc.demonstrations import Trajectories, peek, read, shards
from lightning_bc.demonstrations.quality import Findings
from lightning_bc.demonstrations.readers import torch_file
from lightning_bc.demonstrations.several import check_alike, judged, origin_of, paths_of, together
from lightning_bc.demonstrations.writing import new_data, writing
from lightning_bc.environments import environment_spaces
from lightning_bc.errors import InputError
from lightning_bc.tools.reading import AS_IT_IS, DataFlags, in_environment, read_of

COLUMNS = ("observations", "actions", "lengths", "rewards", "terminated", "final_observations")


def convert(files: list[str], output: str, env: str | None = None, data: DataFlags = AS_IT_IS) -> None:
    """Write data files of any format that ``fit --data.path`` takes as one, and check what was written.

    Args:
        files: files, folders or minari:DATASET_ID; several become one, the episodes of one after those of another.
        output: the .pt file to write, or the folder, whose name ends in .shards, for more pairs than memory holds; it must
            not exist.
        env: Gymnasium id of the environment; it is written down. Where a file does not say which of its episodes terminated
            or, in an environment that always plays to its time limit, where they end, this is inferred from it.
        data: what of each file is read, as ``fit`` has it.

    Raises:
        InputError: a file cannot be read, they do not fit each other or the environment, or the output exists.
    """
    path = new_data(output)                                         # refused before anything is read
    bar = tqdm(paths_of(files), desc="reading", unit=" files", delay=1, disable=None, leave=False)  # on a terminal alone
    started = time.perf_counter()
    if shards.is_shards(path):
        heads = _in_turn(path, bar, env, data)
        shards.Shards.at(path).check_sha256()
        words, left_out, rounding = "Every file is as it was written.", list[str](), list[str]()
        size = sum(file.stat().st_size for file in path.iterdir())
    else:
        heads = [part for file in bar for part in _read(file, env, data, whole=True)]
        check_alike(heads)
        made = together(heads, origin_of(judged(heads)))
        torch_file.write(path, made)
        started = time.perf_counter()
        _check_same(read(path), made)
        seconds = time.perf_counter() - started
        rounding = [f"{head.origin.path}: {words}" for head in heads if (words := Findings(head).rounding)]
        read_as = " read, in float32" if rounding else ""
        words = f"Read again in {seconds:.1f} s: every value is as it was{read_as}."
        left_out, size = _left_out(heads, made), path.stat().st_size
    pairs, episodes = sum(int(head.lengths.sum()) for head in heads), sum(len(head.lengths) for head in heads)
    known = f"{episodes:,} episodes" if all(head.knows_episodes for head in heads) else "unknown episodes"
    print(f"{path}: {pairs:,} pairs of {known}, {size / 1e6:,.1f} MB. {words}")
    for lost in rounding:
        print(lost)
    for name in left_out:
        print(f"{name} are left out: not every file has them")
    if heads[0].origin.environment_id is None:
        print("no file says of which environment it is; --env writes it down")


def _in_turn(path: Path, files: Iterable[str], env: str | None, data: DataFlags) -> list[Trajectories]:
    """Write ``files`` to a folder of shards one after another, and return of each file all but its steps."""
    heads: list[Trajectories] = []
    with writing(path) as writer:
        for file in files:
            parts: list[Trajectories] = []
            for part in _read(file, env, data, whole=False):
                parts.append(_without_steps(part))
                check_alike([*heads[:1], parts[-1]])
                writer.add(part)
            mean = origin_of(parts).mean_return
            heads.append(replace(together(parts, parts[0].origin), origin=replace(parts[0].origin, mean_return=mean)))
        writer.close(origin_of(heads))
    return heads


def _without_steps(made: Trajectories) -> Trajectories:
    """What is known of episodes, without their steps, and so small."""
    mean = judged([made])[0].mean_return
    return replace(
        made,
        observations=made.observations[:0].clone(),
        actions=made.actions[:0].clone(),
        rewards=None,
        final_observations=None,
        origin=replace(made.origin, mean_return=None if math.isnan(mean) else mean),
    )


def _read(file: str, env: str | None, data: DataFlags, whole: bool) -> Iterator[Trajectories]:
    """A file, with what the environment says where it is given; a folder of shards shard by shard, unless ``whole``."""
    spaces = None if env is None else environment_spaces(env)
    if shards.is_shards(file) and not whole:
        opened = shards.Shards.at(file)
        opened.check_sha256()
        parts: Iterator[Trajectories] = (in_environment(part, spaces) for part in opened.parts(peek(file)))
    else:
        parts = iter([read_of(file, spaces, data)])
    for made in parts:
        if env is None or spaces is None:
            yield made
            continue
        if made.terminated is None and made.knows_episodes:
            made = made.with_terminations_inferred(spaces.max_episode_steps, spaces.can_terminate)
        made = made.with_time_limits(spaces.max_episode_steps, spaces.can_terminate)
        yield replace(made, origin=replace(made.origin, environment_id=env))


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
