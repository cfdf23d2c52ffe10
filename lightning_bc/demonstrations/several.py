"""Several files as one set of demonstrations: which fit each other, and what is known of them together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only

from lightning_bc.aliases import StateDict
from lightning_bc.demonstrations.fitting import check_fits, in_bounds, in_order_of_space
from lightning_bc.demonstrations.mixture import Mixture
from lightning_bc.demonstrations.readers import peek, read
from lightning_bc.demonstrations.reference_returns import standard_error
from lightning_bc.demonstrations.trajectories import Origin, Trajectories, joined
from lightning_bc.environments import EnvironmentSpaces
from lightning_bc.errors import InputError
from lightning_bc.files import sha256_of_all

SAME = ("expert", "expert_sha256", "actions", "seed", "max_episode_steps", "versions")
"""How a file was made: of several files what all say alike. results.json has it too."""


def paths_of(given: str | Path | Sequence[str | Path] | None) -> list[str]:
    """The files that a ``--data.path`` names: none, one, or several.

    Raises:
        InputError: the list is empty, or names a file twice.
    """
    paths = [str(path) for path in ([given] if isinstance(given, str | Path) else given or [])]
    if given is not None and not all(paths or [""]):
        raise InputError(f"--data.path {given or repr(given)}: names no file.")
    if twice := [path for number, path in enumerate(paths) if path in paths[:number]]:
        raise InputError(f"--data.path: names {twice[0]} twice. To weight a file, use --data.shares.")
    return paths


def environment_of(said: Sequence[Origin]) -> str | None:
    """The environment that files say they are of; None where none does.

    Raises:
        InputError: they say different ones.
    """
    stated = {origin.environment_id: origin.path for origin in reversed(said) if origin.environment_id is not None}
    if len(stated) > 1:
        words = " and ".join(f"{path} of {environment_id}" for environment_id, path in stated.items())
        raise InputError(f"files of several environments cannot be joined: {words}. Name files of one.")
    return next(iter(stated), None)


def stated_environment(paths: Sequence[str]) -> str:
    """The environment that the files of these paths say they are of.

    Raises:
        InputError: none says it, or they say different ones.
    """
    said = environment_of([peek(path) for path in paths])
    if said is None:
        source = ", ".join(paths) or "Demonstrations without a path"
        raise InputError(f"{source}: does not say of which environment. Give environment_id.")
    return said


def read_all(paths: Sequence[str], keys: Sequence[str], environment_keys: Sequence[str]) -> list[Trajectories]:
    """Read files that are joined; ``keys`` of observations as in :func:`lightning_bc.demonstrations.read`."""
    files = [read(path, observation_keys=tuple(keys), environment_keys=tuple(environment_keys)) for path in paths]
    check_alike(files)
    return files


def in_units(files: Sequence[Trajectories], spaces: EnvironmentSpaces, scale: bool, clip: bool) -> list[Trajectories]:
    """The files in the environment's units and order, checked; what readers have to say of them is printed."""
    made = []
    for file in files:
        if file.origin.note:
            rank_zero_only(print)(f"{file.origin.path}: {file.origin.note}")
        ordered = in_order_of_space(file, spaces)
        check_fits(ordered, spaces)
        made.append(in_bounds(ordered, spaces, scale, clip))
    return made


def check_alike(files: Sequence[Trajectories]) -> None:
    """Raise InputError unless all have the dimensions of the first, and those that say their environment the same one."""
    for key in ("observations", "actions"):
        for file in files[1:]:
            shapes = [tuple(getattr(one, key).shape) for one in (file, files[0])]
            if shapes[0][1] != shapes[1][1]:
                raise InputError(
                    f"{file.origin.path}: {key} have the shape {shapes[0]}, those of {files[0].origin.path} {shapes[1]}. "
                    "Files that are joined need the same dimensions."
                )
    environment_of([file.origin for file in files])


def judged(files: Sequence[Trajectories], spaces: EnvironmentSpaces | None = None) -> list[Trajectories]:
    """The episodes of each file whose mean return is the demonstrator's: all but a last one that is cut off early.

    Where a file states its mean return, these are all. What is left out is printed, unless the expert's returns are known.
    """
    limit, can_terminate = (None, None) if spaces is None else (spaces.max_episode_steps, spaces.can_terminate)
    kept = []
    for file in files:
        if file.rewards is not None and file.origin.mean_return is None and file.last_is_cut(limit, can_terminate):
            whole = len(file.lengths) - 1
            if not any(one.origin.expert_returns for one in files):
                rank_zero_only(print)(
                    f"{file.origin.path}: its last episode was cut off after {int(file.lengths[-1])} steps; the mean return "
                    f"is that of the other {whole:,}"
                )
            file = file.part(0, whole)
        kept.append(file)
    return kept


def origin_of(files: Sequence[Trajectories]) -> Origin:
    """What is known of all ``files`` together.

    The return of the demonstrator is the mean over all episodes; the returns on the test bank are those of the first file
    that has them.
    """
    origins, episodes = [file.origin for file in files], [len(file.lengths) for file in files]
    mean = sum(file.mean_return * number for file, number in zip(files, episodes, strict=True)) / sum(episodes)
    known_mean = None if math.isnan(mean) else mean
    if len(files) == 1:
        return replace(origins[0], mean_return=known_mean)
    stated = {name: [getattr(one, name) for one in origins] for name in SAME}
    return Origin(
        path=", ".join(one.path for one in origins),
        sha256=sha256_of_all([one.sha256 for one in origins]),
        environment_id=environment_of(origins),
        mean_return=known_mean,
        random_returns=next((one.random_returns for one in origins if one.random_returns), ()),
        expert_returns=next((one.expert_returns for one in origins if one.expert_returns), ()),
        layout="; ".join(one.layout for one in origins),
        **{name: values[0] for name, values in stated.items() if all(value == values[0] for value in values)},
    )


def error_of(files: Sequence[Trajectories]) -> float:
    """Standard error of the mean return over the episodes of all ``files``; NaN where a file does not know them."""
    if not files or not all(file.knows_episodes for file in files):
        return math.nan
    return standard_error(torch.cat([file.returns for file in files]).numpy())


def together(files: Sequence[Trajectories], origin: Origin) -> Trajectories:
    """The episodes of all ``files``, one file's after another's; what one of them does not know is left out."""
    if len(files) == 1:
        return files[0]
    return replace(joined(files), origin=origin, knows_episodes=all(file.knows_episodes for file in files))


@dataclass(frozen=True)
class Joined:
    """Files that are learnt from, as one.

    Attributes:
        files: in the environment's units.
        splits: of each, the episodes to train on and those held out.
    """

    files: Sequence[Trajectories]
    splits: Sequence[tuple[Trajectories, Trajectories]]

    @cached_property
    def split(self) -> tuple[Trajectories, Trajectories]:
        """The episodes to train on, and those held out, maybe none; one file's after another's."""
        origin = origin_of(self.files)
        training, validation = zip(*self.splits, strict=True)
        return together(training, origin), together(validation, origin)

    def mixture(self, shares: Sequence[float], subsample: int) -> Mixture:
        """The training pairs of each file, every ``subsample``-th, in given shares."""
        return Mixture(tuple(len(training.rows(subsample)) for training, _ in self.splits), tuple(shares))

    def summary(self, pairs: int) -> str:
        """In words, how much of the files the ``pairs`` are that are trained on."""
        training, validation = self.split
        episodes = sum(len(file.lengths) for file in self.files)
        return (
            f"{pairs:,} of the {sum(map(len, self.files)):,} pairs ({len(training.lengths):,} episodes of {episodes:,}; "
            f"{len(validation.lengths):,} held out)"
        )

    def source(self, pairs: int) -> StateDict:
        """What results.json says of it, but for the path."""
        training, validation = self.split
        origin = training.origin
        return {
            "sha256": origin.sha256,
            "files": {file.origin.path: file.origin.sha256 for file in self.files} if len(self.files) > 1 else {},
            "training_pairs": pairs,
            "training_episodes": len(training.lengths),
            "validation_episodes": len(validation.lengths),
            **{key: getattr(origin, key) for key in SAME},
        }
