"""Local Minari datasets, ``minari:DATASET_ID`` (optional extra ``minari``; https://minari.farama.org)."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lightning_bc.demonstrations.readers import _checks
from lightning_bc.demonstrations.trajectories import Origin, Trajectories
from lightning_bc.errors import InputError

ANSWERS_TO = ("minari:",)


def read(path: str, one_episode: bool = False) -> Trajectories:
    """Read and check everything."""
    dataset = _dataset(path)
    episodes = list(dataset.iterate_episodes())
    # A Minari episode keeps one more observation than actions: the one after the last step.
    observations = np.concatenate([episode.observations[: len(episode.actions)] for episode in episodes])
    actions = np.concatenate([episode.actions for episode in episodes])
    content = {
        "observations": observations,
        "actions": actions,
        "rewards": np.concatenate([episode.rewards for episode in episodes]),
        "episode_lengths": np.array([len(episode.actions) for episode in episodes]),
        "terminated": np.array([bool(episode.terminations[-1]) for episode in episodes]),
        "final_observations": np.stack([episode.observations[len(episode.actions)] for episode in episodes]),
        "metadata": _metadata(dataset),
    }
    return _checks.trajectories(path, content, hashlib.sha256(observations.tobytes() + actions.tobytes()).hexdigest())


def peek(path: str) -> Origin:
    """Read what the dataset says about itself."""
    return _checks.origin(path, {"metadata": _metadata(_dataset(path))})


def _metadata(dataset: Any) -> Mapping[str, Any]:
    return {} if dataset.env_spec is None else {"environment_id": dataset.env_spec.id}


def _dataset(path: str) -> Any:
    dataset_id = path.removeprefix(ANSWERS_TO[0])
    try:
        import minari
    except ImportError as error:
        raise InputError(
            f"{path}: reading Minari datasets needs the optional extra: pip install -e '.[minari]'"
        ) from error
    try:
        return minari.load_dataset(dataset_id)
    except Exception as error:
        raise InputError(
            f"{path}: {error}. Local datasets: {', '.join(minari.list_local_datasets()) or 'none'}; "
            f"fetch one with  minari download {dataset_id}"
        ) from error
