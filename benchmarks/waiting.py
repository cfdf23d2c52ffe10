"""Training on all cores with threads that wait as ``fit`` has them wait, beside OpenMP's own way: spinning.py.

    python -m benchmarks.waiting DATA STEPS                         # in a process of its own: seconds of so many updates
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, Settings, race, rate
from benchmarks.training import by_trainer, random_pairs
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.environments import usable_cores
from lightning_bc.spinning import SPINS
from lightning_bc.strategies import MSE
from lightning_bc.trainer_flags import quiet_lightning

LIBGOMPS_OWN = 300_000
PAIRS = 250_000


def rows(settings: Settings) -> list[Row]:
    """Optimizer steps of MSE per second, alone, and where another process computes on one of the cores."""
    random_pairs(settings, PAIRS)
    data, found = settings.folder / f"random-{PAIRS}.npz", []
    for what, others in (("alone", 0), ("beside a process that computes", 1)):
        steps = settings.sized(500 if others else 2000, 5)
        with busy(others):
            races = race(partial(trained, data, steps, SPINS), partial(trained, data, steps, LIBGOMPS_OWN), settings.rounds)
        found.append(rate(f"{what}, {usable_cores()} threads", f"{LIBGOMPS_OWN:,} looks", steps, "steps/s", races))
    return found


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Inside the block so many others compute and never wait."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def trained(data: Path, steps: int, spins: int) -> float:
    """Seconds of training in a process whose waiting threads look ``spins`` times."""
    command = [sys.executable, "-m", "benchmarks.waiting", str(data), str(steps)]
    environment = os.environ | {"GOMP_SPINCOUNT": str(spins)}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1])


if __name__ == "__main__":
    quiet_lightning()
    print(by_trainer(MSE, Demonstrations(sys.argv[1], "HalfCheetah-v5", validation_fraction=0), int(sys.argv[2])))
