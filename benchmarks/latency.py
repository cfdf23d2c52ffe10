"""One observation answered by the frozen policy, as it plays, over ``forward``."""

from functools import partial

import numpy as np
import torch

from benchmarks.measure import Row, Settings, duration, race, seconds, untrained
from lightning_bc.episodes import single_threaded
from lightning_bc.strategies import strategies

BATCHES = (1, 5, 50)


def rows(settings: Settings) -> list[Row]:
    """Microseconds of a call; each round is the median of many calls that take turns."""
    found = []
    for name, cls in strategies().items():
        strategy = untrained(cls)
        frozen = strategy.frozen()
        for batch in BATCHES[: settings.sized(len(BATCHES), 1)]:
            observations = torch.randn(batch, strategy.observation_dim)
            medians = []
            for _ in range(settings.rounds):
                with torch.inference_mode(), single_threaded():
                    calls = race(
                        partial(seconds, partial(frozen.answer, observations.numpy())),
                        partial(seconds, partial(strategy, observations)),
                        settings.sized(100, 3),
                    )
                ours, forward = np.median(calls, axis=0).tolist()
                medians.append((ours, forward))
            found.append(duration(f"{name}, {batch} observations", "forward", medians, 1e6, "us"))
    return found
