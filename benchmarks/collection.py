"""Collection: the loop that ``collect`` runs, over the same loop on gymnasium's SyncVectorEnv."""

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorWrapper

from benchmarks.measure import ENVIRONMENT, EXPERT, Row, Settings, race, rate, seconds
from lightning_bc.demonstrations import load_expert
from lightning_bc.demonstrations.collect import NUM_ENVS
from lightning_bc.environments import make, quiet_model_loading
from lightning_bc.episodes import play


class Sync(VectorWrapper):
    """SyncVectorEnv behind the one argument more that ``play`` passes; every sub-environment is always active here."""

    environment_id = ENVIRONMENT

    def step(self, actions: np.ndarray, active: None = None) -> Any:
        """Step all sub-environments."""
        return self.env.step(actions)


def rows(settings: Settings) -> list[Row]:
    """Pairs per second, one episode per sub-environment and round."""
    expert, number = load_expert(str(EXPERT)), settings.sized(NUM_ENVS, 2)
    batched = make(ENVIRONMENT, number)
    with quiet_model_loading():
        options = {"autoreset_mode": AutoresetMode.SAME_STEP}
        sync = Sync(gymnasium.make_vec(ENVIRONMENT, number, vectorization_mode="sync", vector_kwargs=options))
    steps = play(expert.player(), batched, range(number)).lengths.sum()
    races = race(partial(_played, batched, expert), partial(_played, sync, expert), settings.rounds)
    return [rate(f"{ENVIRONMENT}, {number} sub-environments", "SyncVectorEnv", float(steps), "pairs/s", races)]


def _played(environments: Any, expert: Any) -> float:
    return seconds(lambda: play(expert.player(), environments, range(environments.num_envs), record=True))
