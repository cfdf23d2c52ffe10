"""Collection: pairs per second against the same loop on gymnasium's SyncVectorEnv, and the peak memory of a whole file.

    python benchmarks/collection.py [--env HalfCheetah-v5] [--rounds 3] [--pairs 2400000]

The rounds are interleaved, one episode a sub-environment each, so that a machine whose speed drifts slows both alike; the
ratio printed is the median over rounds. Then ``collect`` writes a file of ``--pairs`` pairs, and its peak memory is read
from the operating system; ``--pairs 0`` leaves that out.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorWrapper

from lightning_bc.demonstrations import load_expert
from lightning_bc.demonstrations.collect import NUM_ENVS
from lightning_bc.environments import make, quiet_model_loading
from lightning_bc.episodes import play


class Sync(VectorWrapper):
    """SyncVectorEnv behind the one argument more that ``play`` passes; every sub-environment is always active here."""

    def step(self, actions: np.ndarray, active: None = None) -> Any:
        """Step all sub-environments."""
        return self.env.step(actions)


def pairs_per_second(environments: Any, expert: Any, first_seed: int) -> float:
    """Play one round as ``collect`` does."""
    started = time.perf_counter()
    seeds = range(first_seed, first_seed + environments.num_envs)
    played = play(expert.player(), environments, seeds, record=True)
    return float(played.lengths.sum() / (time.perf_counter() - started))


def main() -> None:
    """Print rates, their ratio and the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--expert", default="checkpoints/experts/HalfCheetah-v5.pt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=2_400_000)
    arguments = parser.parse_args()

    expert = load_expert(arguments.expert)
    batched = make(arguments.env, NUM_ENVS)
    with quiet_model_loading():
        options = {"autoreset_mode": AutoresetMode.SAME_STEP}
        sync = Sync(gymnasium.make_vec(arguments.env, NUM_ENVS, vectorization_mode="sync", vector_kwargs=options))
    ratios = []
    for number in range(arguments.rounds):
        ours, theirs = (pairs_per_second(each, expert, number * NUM_ENVS) for each in (batched, sync))
        ratios.append(ours / theirs)
        print(f"round {number + 1}: batched {ours:,.0f} pairs/s, SyncVectorEnv {theirs:,.0f}, ratio {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}, {NUM_ENVS} sub-environments")

    if arguments.pairs:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "lightning_bc", "collect", "--env", arguments.env]
            command += ["--expert", arguments.expert, "--pairs", str(arguments.pairs), "--output", f"{folder}/file.pt"]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # kilobytes on Linux
        print(f"peak memory of collect {peak / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
