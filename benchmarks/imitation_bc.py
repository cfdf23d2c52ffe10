"""imitation's behavioural cloning, by the clock; run by the Python of an environment that has it (benchmarks/imitation.py).

    python imitation_bc.py PAIRS.npz BATCH_SIZE SECONDS OUTPUT.npz

OUTPUT holds, of every hundredth update, the seconds that training had taken and the policy's weights, and how many updates
there were.
"""

import contextlib
import itertools
import sys
import time

import numpy as np
from gymnasium import spaces
from imitation.algorithms.bc import BC
from imitation.data.types import Transitions

EVERY = 100
LAYERS = ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net")


class EnoughError(Exception):
    """The time is over."""


def main(pairs: str, batch_size: str, seconds: str, output: str) -> None:
    """Train with its defaults, but for the size of batches."""
    with np.load(pairs) as file:
        observations, actions, low, high = (file[name] for name in ("observations", "actions", "low", "high"))
    demonstrations = Transitions(
        obs=observations, acts=actions, infos=np.array([{}] * len(actions)), next_obs=observations,
        dones=np.zeros(len(actions), bool),
    )  # fmt: skip
    cloning = BC(
        observation_space=spaces.Box(-np.inf, np.inf, observations.shape[1:]), action_space=spaces.Box(low, high),
        rng=np.random.default_rng(0), demonstrations=demonstrations, batch_size=int(batch_size),
    )  # fmt: skip
    times, kept, count, spent = list[float](), list[list[np.ndarray]](), itertools.count(1), 0.0
    began = time.perf_counter()

    def look() -> None:
        nonlocal spent
        taken, number = time.perf_counter() - began - spent, next(count)
        if number % EVERY == 0 or taken > float(seconds):
            state = cloning.policy.state_dict()
            kept.append([state[f"{layer}.{kind}"].numpy().copy() for layer in LAYERS for kind in ("weight", "bias")])
            times.append(taken)
            if taken > float(seconds):
                weights = {str(place): np.stack(column) for place, column in enumerate(zip(*kept, strict=True))}
                np.savez(output, times=times, updates=number, **weights)
                raise EnoughError
            spent = time.perf_counter() - began - taken             # looking is not training

    with contextlib.suppress(EnoughError):
        cloning.train(n_epochs=1000, on_batch_end=look, progress_bar=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
