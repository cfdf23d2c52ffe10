"""Environment steps per second: batched physics against gymnasium's SyncVectorEnv, side by side in one run.

    python benchmarks/environments.py --env HalfCheetah-v5 --num-envs 5 64

The two take turns in short rounds, so that whatever else the machine does meets both, and the medians are printed. Both
play the same random actions, restart episodes in the same step, and pay for their returned copies.
"""

import argparse
import statistics
import time

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from lightning_bc.environments import BatchedMujoco, quiet_model_loading


def steps_per_second(environments: VectorEnv, actions: np.ndarray) -> float:
    """Environment steps per second over one round of ``actions``, (steps, num_envs, action_dim)."""
    start = time.perf_counter()
    for action in actions:
        environments.step(action)
    return actions.shape[0] * actions.shape[1] / (time.perf_counter() - start)


def compare(environment_id: str, num_envs: int, threads: int | None, steps: int, rounds: int) -> None:
    """Print one line: both speeds and their ratio."""
    batched = BatchedMujoco(environment_id, num_envs, threads)
    with quiet_model_loading():
        same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
        sync = gymnasium.make_vec(environment_id, num_envs, vectorization_mode="sync", vector_kwargs=same_step)
    space = batched.single_action_space
    shape = (max(1, steps // num_envs), num_envs, *space.shape)
    actions = np.random.default_rng(0).uniform(space.low, space.high, shape).astype(np.float32)
    speeds: dict[str, list[float]] = {"batched": [], "sync": []}
    for environments in (batched, sync):
        environments.reset(seed=0)
        steps_per_second(environments, actions[: len(actions) // 4 + 1])  # warm caches, leave the start states
    for _ in range(rounds):
        speeds["batched"].append(steps_per_second(batched, actions))
        speeds["sync"].append(steps_per_second(sync, actions))
    fast, slow = statistics.median(speeds["batched"]), statistics.median(speeds["sync"])
    print(
        f"{environment_id}  {num_envs:4d} sub-environments  batched {fast:9,.0f} steps/s  "
        f"SyncVectorEnv {slow:8,.0f} steps/s  ratio {fast / slow:.2f}"
    )
    sync.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="HalfCheetah-v5", help="environment id with a batched task")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[64], help="numbers of sub-environments")
    parser.add_argument("--threads", type=int, help="physics threads (default: one a core)")
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each; the median counts")
    arguments = parser.parse_args()
    for num_envs in arguments.num_envs:
        compare(arguments.env, num_envs, arguments.threads, arguments.steps, arguments.rounds)


if __name__ == "__main__":
    main()
