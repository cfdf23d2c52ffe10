"""Environment steps: batched physics over gymnasium's SyncVectorEnv.

Both play the same random actions, restart episodes in the same step, and pay for their returned copies.
"""

from functools import partial

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from benchmarks.measure import Row, Settings, race, rate, seconds
from lightning_bc.environments import BatchedMujoco, quiet_model_loading

COMPARED = [(name, number) for name in ("HalfCheetah-v5", "Hopper-v5", "Ant-v5") for number in (5, 64)]


def rows(settings: Settings) -> list[Row]:
    """Environment steps per second."""
    found = []
    for environment_id, number in COMPARED[: settings.sized(len(COMPARED), 1)]:
        batched = BatchedMujoco(environment_id, number)
        with quiet_model_loading():
            options = {"autoreset_mode": AutoresetMode.SAME_STEP}
            sync = gymnasium.make_vec(environment_id, number, vectorization_mode="sync", vector_kwargs=options)
        space = batched.single_action_space
        shape = (max(1, settings.sized(10_000, 100) // number), number, *space.shape)
        actions = np.random.default_rng(0).uniform(space.low, space.high, shape).astype(np.float32)
        for environments in (batched, sync):
            environments.reset(seed=0)
        races = race(partial(_steps, batched, actions), partial(_steps, sync, actions), settings.rounds)
        what = f"{environment_id}, {number} sub-environments"
        found.append(rate(what, "SyncVectorEnv", shape[0] * number, "steps/s", races))
        sync.close()
    return found


def _steps(environments: VectorEnv, actions: np.ndarray) -> float:
    return seconds(lambda: [environments.step(action) for action in actions])
