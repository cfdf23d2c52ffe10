"""Layouts of a file's content: flat arrays, in which episodes lie one after another, or episodes apart.

    {"obs": ..., "acts": ...}               flat arrays, under the names of ``_names``
    (observations, actions)                 the same; with one observation more than actions it is one episode
    [{"obs": ..., "acts": ...}, ...]        one dictionary per episode
    {"demo_0": {...}, "demo_1": {...}}      the same by name
    [(observations, actions), ...]          one pair of arrays per episode
    {"obs": [..., ...], "acts": [..., ...]} lists with one array per episode, or arrays (episodes, steps, dimensions)
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from lightning_bc.demonstrations.readers import _checks
from lightning_bc.demonstrations.readers._names import ENDS, known
from lightning_bc.demonstrations.trajectories import Origin, Trajectories, joined
from lightning_bc.errors import InputError

LAYOUTS = (
    "a dictionary with observations and actions, a list of such dictionaries, one per episode, or the pair (observations, "
    "actions)"
)


def trajectories(path: str, content: Any, sha256: str, one_episode: bool = False) -> Trajectories:
    """Check ``content``, in any of these layouts, and make trajectories of it; see :func:`_checks.trajectories`.

    Raises:
        InputError: it is in no layout, or what :func:`_checks.trajectories` refuses; the message names the episode.
    """
    episodes = _apart(path, content)
    if episodes is None:
        return _checks.trajectories(path, content, sha256, one_episode)
    parts = [
        _checks.trajectories(f"{path}, episode {number}", episode, sha256, one_episode=True)
        for number, episode in enumerate(episodes)
    ]
    layout = f"episodes apart, each with {parts[0].origin.layout}"
    return together(parts, replace(origin(path, content), sha256=sha256, layout=layout))


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
    return replace(joined(parts), origin=origin, knows_episodes=True)


def natural(name: Any) -> list[tuple[bool, int, str]]:
    """A key to sort by, for which ``demo_2`` comes before ``demo_10``."""
    parts = re.split(r"(\d+)", str(name))
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _apart(path: str, content: Any) -> Sequence[Mapping[str, Any]] | None:
    """The episodes that are kept apart; None of flat arrays."""
    if isinstance(content, Mapping):
        if content and all(isinstance(episode, Mapping) for episode in content.values()):
            return [content[name] for name in sorted(content, key=natural)]
        return _columns_apart(path, content)
    if isinstance(content, list | tuple) and content:
        if len(content) == 2 and all(map(_is_array, content)):
            content = [content]
        if all(isinstance(episode, Mapping) for episode in content):
            return content
        if all(isinstance(one, list | tuple) and len(one) == 2 and all(map(_is_array, one)) for one in content):
            return [{"observations": one[0], "actions": one[1]} for one in content]
    raise InputError(f"{path}: holds {_described(content)}, wanted {LAYOUTS}. Arrange it so; see docs/your-data.md.")


def _columns_apart(path: str, content: Mapping[Any, Any]) -> Sequence[Mapping[str, Any]] | None:
    """The episodes of columns that are lists with one array per episode, or stacks of them; None of flat arrays."""
    used = known(content)
    needed = [content[used[key]] for key in ("observations", "actions") if key in used]
    if len(needed) < 2:
        return None
    if all(_is_array(column) and column.ndim == 3 for column in needed):
        columns = {name: content[name] for name in used.values() if _is_array(content[name]) and content[name].ndim > 1}
    elif all(_is_per_episode(column) and column[0].ndim == 2 for column in needed):
        columns = {name: content[name] for name in used.values() if _is_per_episode(content[name])}
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
        lengths = np.asarray(content[used["episode_lengths"]])
        fit = lengths.shape == (len(episodes),) and lengths.dtype.kind in "iu" and ((lengths > 0) & (lengths <= steps)).all()
        if not fit:
            raise InputError(
                f"{path}: episode_lengths must be {len(episodes)} integers from 1 to {steps}, the steps in its stack of "
                f"actions; found shape {lengths.shape}, {lengths.dtype}."
            )
        return [                                                    # observations may have one row more
            {name: column[: len(column) - steps + length] for name, column in episode.items()}
            for episode, length in zip(episodes, lengths.tolist(), strict=True)
        ]
    for key in ENDS:
        if key in used and any(used[key] in episode and episode[used[key]][:-1].any() for episode in episodes):
            raise InputError(
                f"{path}: {used[key]} marks ends before the last of {steps} steps, so that the rows behind them may be "
                "padding. Give episode_lengths, or a list with one array per episode."
            )
    return episodes


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor) and value.ndim > 0


def _is_per_episode(value: Any) -> bool:
    """Whether it has one array per episode: a list of them, or an array of objects."""
    is_list = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object)
    return is_list and len(value) > 0 and all(map(_is_array, value))


def _described(content: Any) -> str:
    kind = type(content).__name__
    if isinstance(content, list | tuple):
        return f"a {kind} of {len(content)} {', '.join(sorted({type(one).__name__ for one in content}))}"
    return f"a {kind}"
