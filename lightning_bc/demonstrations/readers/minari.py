"""Local Minari datasets, ``minari:DATASET_ID`` (optional extra ``minari``; https://minari.farama.org)."""

import hashlib
import inspect
import json
import warnings
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator

from lightning_bc.aliases import Columns
from lightning_bc.demonstrations.readers import _episodes
from lightning_bc.demonstrations.readers._observations import ANY, Entry, ObservationKeys, note_of
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError, needs_extra

ANSWERS_TO = ("minari:",)


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check everything."""
    dataset = _dataset(path)
    space, note, used = dataset.observation_space, "", None
    if isinstance(space, spaces.Dict):                              # which states an order of its own
        used = keys.among(path, {key: _entry(part) for key, part in space.items()}, stated=tuple(space))
        space = spaces.Dict(OrderedDict((key, space[key]) for key in used))
        keys, note = ObservationKeys(), note_of({key: spaces.flatdim(part) for key, part in space.items()})
    try:
        episodes = [_episode(space, dataset.action_space, episode) for episode in dataset.iterate_episodes()]
    except Exception as error:                                      # of any kind: Minari believes what its files say
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error}). Fetch it again.") from error
    content = hashlib.sha256()
    for key, last in (("observations", -1), ("actions", None)):
        for episode in episodes:
            content.update(np.ascontiguousarray(episode[key][:last]).tobytes())
    made = _episodes.trajectories(path, episodes, content.hexdigest(), keys=keys)
    origin = replace(_origin(path, dataset), sha256=made.origin.sha256, note=note, observation_keys=used)
    return replace(made, origin=replace(origin, layout=made.origin.layout, rounded_away=made.origin.rounded_away))


def peek(path: str) -> Origin:
    """Read what the dataset says about itself."""
    return _origin(path, _dataset(path))


def _episode(observed: spaces.Space[Any], acted: spaces.Space[Any], episode: Any) -> Columns:
    """The arrays of an episode; Minari keeps one more observation than actions: the one after the last step."""
    return {
        "observations": flattened(observed, episode.observations),
        "actions": flattened(acted, episode.actions),
        "rewards": episode.rewards,
        "terminated": episode.terminations,
    }


def _entry(part: spaces.Space[Any]) -> Entry:
    """A part of a Dict space, flattened where it is not numbers itself."""
    if isinstance(part, spaces.Box):
        return Entry(part.shape, str(part.dtype))
    return Entry((spaces.flatdim(part),), "float64")


def flattened(space: spaces.Space[Any], values: Any) -> np.ndarray:
    """One row per step, as ``gymnasium.spaces.flatten`` makes it of each: parts of a Dict in the order of its space."""
    if isinstance(space, spaces.Dict):
        return np.concatenate([flattened(part, values[key]) for key, part in space.spaces.items()], axis=1)
    if isinstance(space, spaces.Tuple):
        return np.concatenate([flattened(part, value) for part, value in zip(space.spaces, values, strict=True)], axis=1)
    if isinstance(space, spaces.Box):
        return np.asarray(values).reshape(len(values), -1)
    return np.stack([np.asarray(spaces.flatten(space, value)) for value in values])


def _origin(path: str, dataset: Any) -> Origin:
    try:
        spec = dataset.env_spec
    except AttributeError:                                          # Minari's own, of a dataset without an environment
        spec = None
    if spec is not None and (own := _of_its_own(spec)):
        words = ", ".join(f"{key}={value!r}" for key, value in own.items())
        warnings.warn(
            f"{path}: was recorded in {spec.id} with {words}, which is another environment than that id alone. Register one "
            "with these arguments, and name it: --env module:Id-v0.",
            stacklevel=2,
        )
        spec = None
    return Origin(path, environment_id=None if spec is None else spec.id)


def _of_its_own(spec: Any) -> dict[str, Any]:
    """The arguments with which an environment was made, as far as they are not those that its id stands for."""
    registered = gymnasium.registry.get(spec.id)
    if registered is None:
        return {}
    entry = registered.entry_point
    usual: dict[str, Any] = {"render_mode": None}
    if entry is not None:
        parameters = inspect.signature(load_env_creator(entry) if isinstance(entry, str) else entry).parameters.values()
        usual |= {one.name: one.default for one in parameters if one.default is not one.empty}
    usual |= registered.kwargs
    return {key: value for key, value in spec.kwargs.items() if key not in usual or _plain(usual[key]) != _plain(value)}


def _plain(value: Any) -> Any:
    """As a dataset's file holds it: JSON knows no tuples."""
    return json.loads(json.dumps(value, default=repr))


def _dataset(path: str) -> Any:
    dataset_id = path.removeprefix(ANSWERS_TO[0])
    try:
        import minari
    except ImportError as error:
        raise needs_extra(f"{path}: reading Minari datasets", "minari") from error
    try:
        return minari.load_dataset(dataset_id)
    except Exception as error:
        raise InputError(
            f"{path}: {error}. Local datasets: {', '.join(minari.list_local_datasets()) or 'none'}; "
            f"fetch one with  minari download {dataset_id}"
        ) from error
