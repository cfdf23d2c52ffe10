"""A folder of shards, which ``collect`` and ``convert`` write for more pairs than memory holds: ``demonstrations.shards``.

This reads it whole. ``fit`` streams it from the disk where it does not fit: see ``demonstrations.streaming``.
"""

from lightning_bc.demonstrations.readers import _episodes
from lightning_bc.demonstrations.readers._checks import STATED
from lightning_bc.demonstrations.readers._observations import ANY, ObservationKeys
from lightning_bc.demonstrations.shards import ENDING, INDEX, Shards
from lightning_bc.demonstrations.trajectories import Origin, Trajectories

ANSWERS_TO = (ENDING, f"/{INDEX}")


def read(path: str, one_episode: bool = False, keys: ObservationKeys = ANY) -> Trajectories:
    """Read and check everything, the SHA-256 of its files too."""
    shards = Shards.at(path)
    shards.check_sha256()
    made = shards.whole(shards.skeleton, 0)
    columns = {"observations": made.observations, "actions": made.actions, "rewards": made.rewards}
    columns |= {"terminated": made.terminated, "final_observations": made.final_observations}
    content = {"episode_lengths": made.lengths, **columns, **_stated(shards)}
    content = {name: value for name, value in content.items() if value is not None}
    return _episodes.trajectories(path, content, shards.sha256, one_episode, keys)


def peek(path: str) -> Origin:
    """Read what the index says about the whole."""
    return _episodes.origin(path, _stated(Shards.at(path)))


def _stated(shards: Shards) -> dict[str, object]:
    return {name: shards.index.get(name) for name in STATED}
