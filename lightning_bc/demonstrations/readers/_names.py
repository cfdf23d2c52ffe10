"""The names that other tools give to what demonstrations hold, and how they mark where episodes end.

Every reader shares this: a name is known in each format. ``NAMES`` lists what is read under which names, the first one
that a file has; any other name is never looked at. :func:`arranged` brings arrays under these names to the keys of
:mod:`lightning_bc.demonstrations.readers._checks`. Where episodes end is said by the first of these that is there:

    episode_lengths                       steps of each episode
    episode_ids                           the number or name of each step's episode; else left aside where flags say it
    terminated, timeouts, dones           yes or no per step; an episode ends where any of them is yes
    episode_starts                        yes or no per step
    indices                               the row of each episode's first step, but the first episode's

Observations may have one row more per episode than actions, the one after its last step; ``next_observations`` say the
same. Where most of them are not the following row's observation, the rows are in another order: episodes are unknown, and a
file that marks ends is refused. ``dones`` alone do not tell a terminal state from a time limit, so that terminations are not
known from them.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_bc.aliases import Columns
from lightning_bc.demonstrations.readers._arrays import as_whole, flags_of, is_whole, lengths_of, tensor_of
from lightning_bc.errors import InputError

NAMES: dict[str, tuple[str, ...]] = {
    "observations": ("observations", "observation", "obs", "states", "state"),
    "actions": ("actions", "action", "acts", "act"),
    "rewards": ("rewards", "reward", "rews", "rew"),
    "next_observations": ("next_observations", "next_observation", "next_obs", "obs_next", "next_states", "next_state"),
    "terminated": ("terminated", "terminals", "terminal", "terminations"),
    "timeouts": ("timeouts", "timeout", "truncated", "truncations"),
    "dones": ("dones", "done"),
    "episode_starts": ("episode_starts",),
    "indices": ("indices",),
    "episode_lengths": ("episode_lengths",),
    "episode_ids": ("episode_ids", "episode_id", "episode_index"),
    "final_observations": ("final_observations",),
    "mean_reward": ("mean_reward",),
    "std_reward": ("std_reward",),
    "random_returns": ("random_returns",),
    "expert_returns": ("expert_returns",),
    "metadata": ("metadata",),
}

ENDS = ("terminated", "timeouts", "dones")

SAME = 1e-3
"""An episode goes on where the following row is so near to the next observation, in standard deviations: noise is no end."""


def known(names: Iterable[str]) -> dict[str, str]:
    """The key that each name in a file stands for, and the name: ``{"observations": "obs"}``."""
    found = set(names)
    used = {key: [name for name in alike if name in found] for key, alike in NAMES.items()}
    return {key: names[0] for key, names in used.items() if names}


def named(content: Mapping[str, Any]) -> Columns:
    """``content`` under our keys, without what is not known or None."""
    present = [name for name, value in content.items() if value is not None]
    return {key: content[name] for key, name in known(present).items()}


def layout_of(content: Mapping[str, Any]) -> str:
    """The names of arrays that are read, in words: ``observations (obs), actions (acts), rewards``."""
    used = known([name for name, value in content.items() if isinstance(value, Sized) and not isinstance(value, Mapping)])
    return ", ".join(key if key == name else f"{key} ({name})" for key, name in used.items())


def arranged(path: str, content: Mapping[str, Any], one_episode: bool = False, is_apart: bool = False) -> Columns:
    """``content`` under the keys of the checks, which say what is wrong with shapes.

    Args:
        path: for messages.
        content: arrays by name.
        one_episode: whether they are one, unless flags mark steps of their midst as ends, or lengths say otherwise.
        is_apart: whether they are one that the file keeps apart from others, unless lengths say otherwise: flags may go on
            behind its success.

    Raises:
        InputError: what says where episodes end is not what it should be.
    """
    found = named(content)
    if is_apart and "timeouts" not in found:                        # with which they tell terminations
        found.pop("dones", None)
    if not {"observations", "actions"} <= set(found):
        return found
    observations, actions = (tensor_of(path, key, found[key], "an array of numbers") for key in ("observations", "actions"))
    if observations.ndim != 2 or actions.ndim != 2 or not len(actions):
        return found                                                # which the checks refuse
    found |= {"observations": observations, "actions": actions}
    following, pairs = found.pop("next_observations", None), len(actions)
    if following is not None:
        following = tensor_of(path, "next_observations", following, "an array of numbers")
        if following.shape != observations.shape or len(observations) != pairs:
            raise InputError(
                f"{path}: next_observations has shape {tuple(following.shape)}, observations {tuple(observations.shape)}, "
                f"and there are {pairs} actions; each action needs one of both. Mend them, or leave next_observations out."
            )
    _leave_out_empty(path, found, pairs)
    flags = {key: flags_of(path, key, found.pop(key), "step or episode") for key in ENDS if key in found}
    last = _last_rows(path, found, flags, following, one_episode, is_apart)
    if last is None and one_episode:
        last = torch.tensor([pairs - 1])
    if last is not None:
        _refuse_ends_within(path, flags, last)
        found["episode_lengths"] = last.diff(prepend=torch.tensor([-1]))
        if len(observations) == pairs + len(last) != pairs:
            final = last + 1 + torch.arange(len(last))
            found.setdefault("final_observations", observations[final])
            found["observations"] = observations[_others(len(observations), final)]
    if following is not None:
        found.setdefault("final_observations", following[-1:] if last is None else following[last])
    terminated = _terminated(flags, last, pairs)
    return found if terminated is None else found | {"terminated": terminated}


@rank_zero_only
def say_left_out(path: str, episodes: Sequence[int]) -> None:
    """Warn of ``episodes`` without steps."""
    found = f"{len(episodes)} episodes have no steps and are left out (the first is episode {episodes[0]})"
    warnings.warn(f"{path}: {found}.", stacklevel=2)


def _leave_out_empty(path: str, found: Columns, pairs: int) -> None:
    """Take episodes of length 0 out of ``found``, where it is clear what is given per episode."""
    if "episode_lengths" not in found:
        return
    lengths = as_whole(tensor_of(path, "episode_lengths", found["episode_lengths"], "an array of positive integers"))
    is_empty = lengths == 0
    if lengths.ndim != 1 or not is_empty.any() or is_empty.all() or len(lengths) == pairs:
        return
    say_left_out(path, is_empty.nonzero()[:, 0].tolist())
    found["episode_lengths"] = lengths[~is_empty]
    for key in ("terminated", "final_observations"):
        values = tensor_of(path, key, found.get(key, ()), "one row per episode")
        if values.ndim and len(values) == len(lengths):
            found[key] = values[~is_empty]


def _last_rows(
    path: str, found: Columns, flags: Mapping[str, Tensor], following: Tensor | None, one_episode: bool, is_apart: bool
) -> Tensor | None:
    """The row of each episode's last step, (episodes,), or None where nothing says it. What says it leaves ``found``."""
    pairs = len(found["actions"])
    said = ("episode_lengths", "episode_ids", "episode_starts", "indices")
    lengths, numbers, starts, splits = (found.pop(key, None) for key in said)
    ends = torch.zeros(pairs, dtype=torch.bool)
    for key, flag in flags.items():
        if len(flag) == pairs:
            ends |= flag
        elif key != "terminated":
            raise InputError(f"{path}: {len(flag)} {key} for {pairs} actions; each action needs one.")
    if lengths is not None:
        rows = len(found["observations"])
        stated = as_whole(tensor_of(path, "episode_lengths", lengths, "an array of positive integers"))
        if rows != pairs and is_whole(stated) and stated.sum() == rows:
            raise InputError(
                f"{path}: {rows} observations, as episode_lengths sum to, but {pairs} actions; each observation needs its "
                "action, and episode_lengths count actions."
            )
        return lengths_of(path, lengths, pairs).cumsum(0) - 1
    if numbers is not None and not is_apart:
        is_needed = not ends.any() and starts is None and splits is None
        last = _last_of_numbers(path, numbers, pairs, is_needed)
        if last is not None:
            return last
    if is_apart or (one_episode and not _marks_within(ends)):       # what is one has ends nowhere else
        ends[:], following = False, None
    if not ends.any() and starts is not None:
        began = flags_of(path, "episode_starts", starts, "step")
        if len(began) != pairs:
            raise InputError(f"{path}: {len(began)} episode_starts for {pairs} actions; each action needs one.")
        ends[:-1] |= began[1:]
    elif not ends.any() and splits is not None:
        ends[_splits(path, splits, pairs) - 1] = True
        ends[-1] = True                                             # no split is one episode, and that is known
    if following is not None:
        leaps = _leaps(path, found["observations"], following, ends)
        if set(flags) <= {"terminated"}:                            # says nothing of time limits, but the rows do
            ends[:-1] |= leaps
    if not ends.any():
        return None
    if set(flags) == {"terminated"} and following is None and flags["terminated"][:-1].any() and not one_episode:
        _warn_of_time_limits(path)
    ends[-1] = True
    return ends.nonzero()[:, 0]


@rank_zero_only
def _warn_of_time_limits(path: str) -> None:
    warnings.warn(
        f"{path}: terminal states alone say where its episodes end. One that a time limit cut off is taken to go on in the "
        "next; if there are any, give timeouts, next_observations or episode_lengths.",
        stacklevel=2,
    )


def marks_steps_within(path: str, value: Any) -> bool:
    """Whether ``dones`` of an episode mark a step and not the following one, other than those from a success to the end."""
    return value is not None and _marks_within(flags_of(path, "dones", value, "step or episode"))


def _marks_within(ends: Tensor) -> bool:
    return bool((ends[:-1] & ~ends[1:]).any())


def _refuse_ends_within(path: str, flags: Mapping[str, Tensor], last: Tensor) -> None:
    """Flags may mark an episode's last steps, from its success to its end, but not others.

    Raises:
        InputError: one does, so that it means something else, or there are more episodes than said.
    """
    pairs = int(last[-1]) + 1
    for key in ("terminated", "timeouts"):
        if key not in flags or len(flags[key]) != pairs:            # one per episode
            continue
        marked = flags[key].clone()
        marked[:-1] &= ~flags[key][1:]
        marked[last] = False
        if marked.any():
            row = int(marked.nonzero()[0])
            raise InputError(
                f"{path}: {key} marks row {row} and not the following one, within an episode that ends at row "
                f"{int(last[last > row][0])}. Give each episode by itself, or episode_lengths that fit; where {key} means "
                "something else, as success, leave it out."
            )


def _leaps(path: str, observations: Tensor, following: Tensor, ends: Tensor) -> Tensor:
    """After which rows but the last the next observation is another one than the following row's, (pairs - 1,).

    Where that is most of the rows, they are no episodes: an ordinary file has as many of them as episodes that were cut off.

    Raises:
        InputError: it is most of the rows that are not marked as ``ends``, and some are.
    """
    observations = observations.to(torch.float32)                   # as it is read: one of both may be more precise
    distances = (following[:-1].to(torch.float32) - observations[1:]).abs()
    if not distances.any():
        return torch.zeros_like(ends[:-1])
    centre = observations.median(dim=0).values
    spread = (observations - centre).abs().median(dim=0).values     # a single row that is far off does not widen it
    spread = torch.where(spread > 0, spread, observations.std(dim=0, correction=0))
    leaps = (distances > SAME * spread).any(dim=1)
    torn, rows = int((leaps & ~ends[:-1]).sum()), int((~ends[:-1]).sum())
    if torn > rows / 2 and not ends.any():
        return torch.zeros_like(leaps)
    if torn > rows / 2:
        raise InputError(
            f"{path}: after {torn} of {rows} rows that end no episode, next_observations is not the observation of the "
            "following row. Either the rows are not in the order in which they were played: sort them by environment, "
            "episode and step. Or next_observations is something else, as clipped or some steps later: leave it out, or "
            "give episode_lengths. Single pairs are learnt from by observations and actions alone."
        )
    return leaps


def _last_of_numbers(path: str, value: Any, pairs: int, is_needed: bool) -> Tensor | None:
    """The row of each episode's last step, from the number or name of each step's episode, or one for all.

    Args:
        path: for messages.
        value: the numbers.
        pairs: how many steps there are.
        is_needed: whether nothing else says where episodes end. Where something does, what is not a number for each step,
            episode after episode, is left aside, and None is returned.

    Raises:
        InputError: they are needed, and say otherwise.
    """
    try:
        names = np.asarray(value.float() if isinstance(value, Tensor) and value.is_floating_point() else value).reshape(-1)
    except (TypeError, ValueError):                                 # of several shapes
        names = np.zeros(0)
    if len(names) == 1 < pairs and not is_needed:
        return None
    wrong = "" if len(names) in (1, pairs) else f"{len(names)} episode_ids for {pairs} actions; each action needs one"
    if not wrong and names.dtype.kind in "fc" and not np.isfinite(names).all():
        wrong = "episode_ids are not all finite"
    numbers = torch.from_numpy(np.unique(names.astype(str) if names.dtype.kind == "O" else names, return_inverse=True)[1])
    ends = torch.ones(pairs, dtype=torch.bool)
    ends[:-1] = False if wrong or len(numbers) == 1 else numbers[1:] != numbers[:-1]
    last = ends.nonzero()[:, 0]
    if not wrong and len(numbers) == pairs and len(numbers[last].unique()) < len(last):
        wrong = (
            f"episode_ids come back to earlier episodes: {len(numbers[last].unique())} lie in {len(last)} places, so that "
            "the rows are not in the order in which they were played. Sort them by episode and step"
        )
    if not wrong:
        return last
    if is_needed:
        raise InputError(f"{path}: {wrong}. Leave the key out if it is something else.")
    return None


def _splits(path: str, value: Any, pairs: int) -> Tensor:
    splits = tensor_of(path, "indices", value, "an array of rows")
    rows = splits.to(torch.int64) if is_whole(splits) or not splits.numel() else splits
    rows = rows[1:] if rows.ndim == 1 and len(rows) and rows[0] == 0 else rows
    if rows.ndim != 1 or rows.dtype != torch.int64 or (rows.diff() <= 0).any() or ((rows < 1) | (rows >= pairs)).any():
        raise InputError(
            f"{path}: indices must be the rows, below {pairs}, of each episode's first step but the first one's, in their "
            "order. Leave the key out if it is something else, and give episode_lengths."
        )
    return rows


def _terminated(flags: Mapping[str, Tensor], last: Tensor | None, pairs: int) -> Tensor | None:
    """Whether each episode terminated, (episodes,), where that is said."""
    stated = flags.get("terminated")
    if stated is None:
        if "dones" not in flags or "timeouts" not in flags:
            return None
        stated = flags["dones"] & ~flags["timeouts"]
    if len(stated) != pairs:
        return stated                                               # of each episode already
    return stated.any().unsqueeze(0) if last is None else stated[last]


def _others(rows: int, chosen: Tensor) -> Tensor:
    others = torch.ones(rows, dtype=torch.bool)
    others[chosen] = False
    return others
