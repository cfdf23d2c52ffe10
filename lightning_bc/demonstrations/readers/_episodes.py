"""Layouts of a file's content: flat arrays, in which episodes lie one after another, or episodes apart.

    {"obs": ..., "acts": ...}               flat arrays, under the names of ``_names``
    (observations, actions)                 the same; with one observation more than actions it is one episode
    [{"obs": ..., "acts": ...}, ...]        one dictionary per episode
    {"demo_0": {...}, "demo_1": {...}}      the same by name
    [(observations, actions), ...]          one pair of arrays per episode
    {"obs": [..., ...], "acts": [..., ...]} lists with one array per episode, or arrays (episodes, steps, dimensions)

Arrays (steps, 1, dimensions), as stable-baselines3's buffers have them of a single environment, are flat. What is kept apart
is one episode, also where ``dones`` mark successes in its midst or next observations differ from the following row.
Observations may be a dictionary of arrays in each of these layouts: see ``_observations``.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_bc.demonstrations.readers import _checks
from lightning_bc.demonstrations.readers._arrays import as_whole, is_whole, tensor_of
from lightning_bc.demonstrations.readers._names import ENDS, known, marks_steps_within, named, say_left_out
from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys, rows_of, side_by_side
from lightning_bc.demonstrations.trajectories import Origin, Trajectories, joined
from lightning_bc.errors import InputError

LAYOUTS = (
    "a dictionary with observations and actions, a list of such dictionaries, one per episode, or the pair (observations, "
    "actions)"
)

MOST_NAMES = 5
"""Parts that a warning names."""


def trajectories(
    path: str, content: Any, sha256: str, one_episode: bool = False, keys: ObservationKeys = ANY
) -> Trajectories:
    """Check ``content``, in any of these layouts, and make trajectories of it; see :func:`_checks.trajectories`.

    Raises:
        InputError: it is in no layout, observations are several and ``keys`` do not fit them, or what
            :func:`_checks.trajectories` refuses; the message names the episode.
    """
    if _is_pair(content):
        one_episode = one_episode or rows_of(content[0]) == len(content[1]) + 1
        content = {"observations": content[0], "actions": content[1]}
    episodes = _apart(path, content)
    if episodes is None:
        return _one(path, content, sha256, one_episode, keys)
    parts, is_apart = list[Trajectories](), not _is_named_without_numbers(content)
    numbers = [number for number, episode in enumerate(episodes) if not _is_empty(episode)] or range(len(episodes))
    if len(numbers) < len(episodes):
        say_left_out(path, sorted(set(range(len(episodes))) - set(numbers)))
    for number in numbers:
        parts.append(_one(f"{path}, episode {number}", episodes[number], sha256, True, keys, is_apart))
        if not keys.chosen and parts[0].origin.note:                # every episode's are those of the first
            keys = ObservationKeys(parts[0].origin.observation_keys or ())
    if is_apart:
        _warn_of_successes(path, episodes)
    elif len(parts) > 1:
        _warn_of_parts(path, sorted(content, key=natural))
    first = parts[0].origin
    layout = f"episodes apart, each with {first.layout}"
    said = replace(origin(path, content), sha256=sha256, note=first.note, layout=layout)
    return together(parts, replace(said, observation_keys=first.observation_keys))


def _one(
    path: str, content: Mapping[Any, Any], sha256: str, one_episode: bool, keys: ObservationKeys, is_apart: bool = False
) -> Trajectories:
    """One dictionary of arrays, whose observations may be several; of one episode, where the file keeps it apart."""
    content, used, note = side_by_side(path, _without_environments(content), keys)
    made = _checks.trajectories(path, content, sha256, one_episode, is_apart)
    return made if used is None else replace(made, origin=replace(made.origin, observation_keys=used, note=note))


def origin(path: str, content: Any) -> Origin:
    """What ``content`` says of itself beside its arrays."""
    return _checks.origin(path, content if isinstance(content, Mapping) else {})


def together(parts: Sequence[Trajectories], origin: Origin) -> Trajectories:
    """Trajectories one after another; what one of them does not know is left out.

    Raises:
        InputError: their dimensions differ.
    """
    first = parts[0]
    for part in parts:
        for key in ("observations", "actions"):
            here, there = getattr(part, key).shape[1], getattr(first, key).shape[1]
            if here != there:
                raise InputError(
                    f"{part.origin.path}: {key} have {here} dimensions, those of {first.origin.path} have {there}; all need "
                    "the same."
                )
    rounded = sorted({dimension for part in parts for dimension in part.origin.rounded_away})
    return replace(joined(parts), origin=replace(origin, rounded_away=tuple(rounded)), knows_episodes=True)


def natural(name: Any) -> list[tuple[bool, int, str]]:
    """A key to sort by, for which ``demo_2`` comes before ``demo_10``."""
    parts = re.split(r"0*([0-9]+)", str(name))
    return [(not part.isdecimal(), len(part) if part.isdecimal() else 0, part) for part in parts]


def _apart(path: str, content: Any) -> Sequence[Mapping[str, Any]] | None:
    """The episodes that are kept apart; None of flat arrays."""
    if isinstance(content, Mapping):
        if content and all(isinstance(episode, Mapping) for episode in content.values()) and not known(content):
            return [content[name] for name in sorted(content, key=natural)]
        return _columns_apart(path, content)
    if isinstance(content, list | tuple) and content:
        if all(isinstance(episode, Mapping) for episode in content):
            _refuse_steps(path, content)
            return content
        if all(map(_is_pair, content)):
            return [{"observations": one[0], "actions": one[1]} for one in content]
    raise InputError(f"{path}: holds {_described(content)}, wanted {LAYOUTS}. Arrange it so; see docs/your-data.md.")


def _refuse_steps(path: str, content: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a list with one dictionary per step.

    Raises:
        InputError: observations and actions of its first dictionary are single vectors.
    """
    first = named(content[0])
    if all(isinstance(first.get(key), np.ndarray | Tensor) and first[key].ndim == 1 for key in ("observations", "actions")):
        raise InputError(
            f"{path}: is a list of {len(content)} dictionaries with one step each, wanted one per episode or flat arrays. "
            "Stack them: {key: numpy.stack([step[key] for step in steps]) for key in steps[0]}."
        )


def _columns_apart(path: str, content: Mapping[Any, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The episodes of columns that are lists with one array per episode, or stacks of them; None of flat arrays."""
    used = known(content)
    needed = [content[used[key]] for key in ("observations", "actions") if key in used]
    if len(needed) < 2 or all(map(_is_of_one_environment, needed)):
        return None
    if all(map(_is_stack, needed)):
        columns = {name: content[name] for name in used.values() if _is_array(content[name]) and content[name].ndim > 1}
    elif _is_per_episode(needed[1]) and _is_episode(needed[1][0]) and _is_per_episode(needed[0], or_dictionaries=True):
        columns = {name: content[name] for name in used.values() if _is_per_episode(content[name], or_dictionaries=True)}
    else:
        return None
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{path}: has {counts} episodes; each episode needs one array of each.")
    episodes = [dict(zip(columns, episode, strict=True)) for episode in zip(*columns.values(), strict=True)]
    return _without_padding(path, episodes, content, used) if _is_array(needed[0]) else episodes


def _without_padding(
    path: str, episodes: Sequence[Mapping[str, Any]], content: Mapping[Any, Any], used: Mapping[str, str]
) -> Sequence[Mapping[str, Any]]:
    """Stacked episodes, each cut to its length where lengths are given.

    Raises:
        InputError: the lengths do not fit, or none are given and an episode ends before its last row.
    """
    steps = len(episodes[0][used["actions"]])
    if "episode_lengths" in used:
        given = content[used["episode_lengths"]]
        lengths = as_whole(tensor_of(path, "episode_lengths", given, "an array of positive integers"))
        fit = lengths.shape == (len(episodes),) and is_whole(lengths)
        if not fit or not ((lengths >= 0) & (lengths <= steps)).all():
            raise InputError(
                f"{path}: episode_lengths must be {len(episodes)} integers from 0 to {steps}, the steps in its stack of "
                f"actions; found shape {tuple(lengths.shape)}, {lengths.dtype}."
            )
        return [                                                    # observations may have one row more
            {name: column[: len(column) - steps + length] for name, column in episode.items()}
            for episode, length in zip(episodes, lengths.tolist(), strict=True)
        ]
    for key in ENDS:
        marked = [episode[used[key]] for episode in episodes if used.get(key) in episode]
        flags = [tensor_of(path, key, column, "yes or no per step") for column in marked]
        if any((flag[:-1] != 0).any() for flag in flags if flag.ndim):
            raise InputError(
                f"{path}: {used[key]} marks ends before the last of {steps} steps of {used['actions']}, whose shape is "
                f"{tuple(content[used['actions']].shape)}, read as (episodes, steps, action_dim). Where rows behind ends "
                "are padding, give episode_lengths, or a list with one array per episode. Arrays (steps, environments, "
                "dimensions) become flat by .swapaxes(0, 1).reshape(-1, dimensions), and flags by .T.reshape(-1), with each "
                "environment's last step marked in timeouts."
            )
    if steps:
        _warn_of_padding(path, episodes, used)
    return episodes


def _is_named_without_numbers(content: Any) -> bool:
    """Whether it is dictionaries with names as ``data`` or ``train``, of which each may hold several episodes."""
    return isinstance(content, Mapping) and not known(content) and not re.search("[0-9]", "".join(map(str, content)))


def _is_empty(episode: Mapping[Any, Any]) -> bool:
    """Whether it has no steps."""
    actions: Any = named(episode).get("actions")
    return (_is_array(actions) or isinstance(actions, list)) and len(actions) == 0


@rank_zero_only
def _warn_of_parts(path: str, names: Sequence[Any]) -> None:
    """Say that parts which may be splits, for training and for testing, are all read."""
    shown = [str(name) for name in names[:MOST_NAMES]] + ["..."] * (len(names) > MOST_NAMES)
    warnings.warn(
        f"{path}: all of its parts, {', '.join(shown)}, are read, one after another. A part without marks of ends "
        "is taken for one episode. If one is not to be learnt from, as a test set, write the others to a file of their own.",
        stacklevel=2,
    )


@rank_zero_only
def _warn_of_padding(path: str, episodes: Sequence[Mapping[str, Any]], used: Mapping[str, str]) -> None:
    """Say where the last rows of stacked episodes could be padding: zeros, or one row again and again."""
    found = dict[int, int]()
    for number, episode in enumerate(episodes):
        columns = [tensor_of(path, key, episode[used[key]], "numbers") for key in ("observations", "actions")]
        steps = len(columns[1])
        alike = torch.stack([(column[-steps:] == column[-1]).all(dim=1) for column in columns]).all(dim=0)
        equal = int(alike.flip(0).long().cumprod(0).sum())          # rows at its end
        if equal > 1 or not any(column[-1].any() for column in columns):
            found[number] = steps - equal
    if found:
        first, row = next(iter(found.items()))
        warnings.warn(
            f"{path}: {len(found)} of {len(episodes)} stacked episodes end in equal rows (the first: episode {first}, from "
            f"its step {row} of {steps} on), which are learnt from. If they are padding, give episode_lengths.",
            stacklevel=2,
        )


@rank_zero_only
def _warn_of_successes(path: str, episodes: Sequence[Mapping[str, Any]]) -> None:
    """Say where ``dones`` are taken for successes that could be ends of several episodes in one place."""
    found = [number for number, episode in enumerate(episodes) if marks_steps_within(path, named(episode).get("dones"))]
    if found:
        warnings.warn(
            f"{path}: dones mark steps within {len(found)} of {len(episodes)} episodes (the first is episode {found[0]}). "
            "They are taken for successes. If they are ends of several episodes, give episode_lengths there.",
            stacklevel=2,
        )


def _without_environments(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Arrays of shape (steps, environments = 1, dimensions) as (steps, dimensions)."""
    used = known(content)
    if not all(key in used and _is_of_one_environment(content[used[key]]) for key in ("observations", "actions")):
        return content
    stacks = {name: content[name] for name in used.values() if _is_stack(content[name])}
    return {**content, **{name: stack[:, 0] for name, stack in stacks.items() if stack.shape[1] == 1}}


def _is_episode(actions: Any) -> bool:
    return _axes(actions) == 2 or _is_of_one_environment(actions)


def _is_of_one_environment(value: Any) -> bool:
    """Whether its shape is (steps, 1, dimensions); of observations also those of all entries."""
    if isinstance(value, Mapping):                                  # whose entries are flattened anyway
        return len(value) > 0 and all(_axes(one) > 2 and one.shape[1] == 1 for one in value.values())
    return _is_stack(value) and value.shape[1] == 1


def _is_stack(value: Any) -> bool:
    return _is_array(value) and _axes(value) == 3


def _axes(value: Any) -> int:
    """Of an array, also one of HDF5; 0 of what has no shape of its own, as nested tensors."""
    is_dense = not isinstance(value, Tensor) or (value.layout == torch.strided and not value.is_nested)
    return getattr(value, "ndim", 0) if is_dense else 0


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.ndim > 0


def _is_pair(value: Any) -> bool:
    """Whether it is (observations, actions)."""
    is_two = isinstance(value, list | tuple) and len(value) == 2
    return is_two and _is_array(value[1]) and (_is_array(value[0]) or isinstance(value[0], Mapping))


def _is_per_episode(value: Any, or_dictionaries: bool = False) -> bool:
    """Whether it has one array per episode: a list of them, or an array of objects; of observations also dictionaries."""
    kinds = (np.ndarray, Tensor, Mapping) if or_dictionaries else (np.ndarray, Tensor)
    is_objects = isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1
    is_list = isinstance(value, list | tuple) or is_objects
    return is_list and len(value) > 0 and all(isinstance(one, kinds) and getattr(one, "ndim", 1) > 0 for one in value)


def _described(content: Any) -> str:
    kind = type(content).__name__
    if isinstance(content, list | tuple):
        return f"a {kind} of {len(content)} {', '.join(sorted({type(one).__name__ for one in content}))}"
    return f"a {kind}"
