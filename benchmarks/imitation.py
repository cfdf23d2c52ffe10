"""Behavioural cloning beside that of imitation (https://imitation.readthedocs.io), which pins other packages than ours.

So it runs in an environment of its own, whose Python is told by ``--imitation PYTHON``:

    python -m venv other && other/bin/pip install imitation
    python -m benchmarks imitation --imitation other/bin/python

Both learn the same pairs as a Gaussian, on the CPU with as many threads, imitation in its network of two layers of 32, we in
ours of three of 256. One row is of pairs per second. The other is of the seconds of training until the mean action
returns 0.99 of the demonstrations, over 10 episodes of the selection bank, which we play for both; playing is not counted.
"""

import json
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.measure import ENVIRONMENT, Row, Settings, duration, rate
from benchmarks.protocol import demonstrations, fitted
from lightning_bc.demonstrations import read
from lightning_bc.environments import environment_spaces, make
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.players import ArrayPolicy
from lightning_bc.runs.curve import read_curve

BATCHES = (32, 250, 1000)
"""Pairs in a batch of imitation's: its default, ours, and where it is fastest."""
EPISODES, WANTED = 10, 0.99


class Clone(ArrayPolicy):
    """imitation's policy: tanh layers and the mean of a Gaussian, clipped to the bounds.

    Args:
        weights: matrices (size_out, size_in) and biases (size_out,) in turn.
        low: of the actions.
        high: of the actions.
    """

    def __init__(self, weights: list[np.ndarray], low: np.ndarray, high: np.ndarray) -> None:
        self.weights, self.low, self.high = weights, low, high

    def answer(self, observations: np.ndarray) -> np.ndarray:
        """The mean action."""
        hidden = observations
        for number, (matrix, bias) in enumerate(zip(self.weights[::2], self.weights[1::2], strict=True)):
            hidden = (np.tanh(hidden) if number else hidden) @ matrix.T + bias
        return np.clip(hidden, self.low, self.high).astype(np.float32)


def rows(settings: Settings) -> list[Row]:
    """Pairs per second, and seconds; one round of each, since each takes minutes."""
    if settings.imitation is None:
        return []
    path, pairs, found = demonstrations(settings), settings.folder / "pairs.npz", []
    learnt, spaces = read(path), environment_spaces(ENVIRONMENT)
    bounds = {"low": spaces.action_low.astype(np.float32), "high": spaces.action_high.astype(np.float32)}
    np.savez(pairs, observations=learnt.observations.numpy(), actions=learnt.actions.numpy(), **bounds)
    wanted = WANTED * learnt.mean_return
    for batch in BATCHES[: settings.sized(len(BATCHES), 1)]:
        our_rate, our_seconds = ours(settings, path, 1000, wanted)
        other_rate, other_seconds = others(settings, pairs, batch, wanted)
        found.append(rate("pairs", f"imitation, batches of {batch}", 1, "pairs/s", [(1 / our_rate, 1 / other_rate)]))
        seconds = [(our_seconds, other_seconds)]
        found.append(duration("to 0.99 of the demonstrations", f"imitation, batches of {batch}", seconds))
    return found


def ours(settings: Settings, path: Path, batch: int, wanted: float) -> tuple[float, float]:
    """Pairs per second, and seconds to the first point that returns what is wanted."""
    steps = settings.sized(1500, 20)
    curve_of = ["--rollouts.eval_freq", settings.sized(50, 10), "--rollouts.episodes", EPISODES, "--rollouts.workers", 0]
    logs = fitted(settings, path, batch, *curve_of, "--trainer.max_steps", steps, "--trainer.accelerator", "cpu")
    results, curve = json.loads((logs / "results.json").read_text()), read_curve(logs / "curve.csv")
    points = [*zip(curve["training_seconds"].tolist(), curve["rollout/return_mean"].tolist(), strict=True)]
    return steps * batch / results["training_seconds"], first(points, wanted)


def others(settings: Settings, pairs: Path, batch: int, wanted: float) -> tuple[float, float]:
    """The same of imitation."""
    output, script = settings.folder / "clones.npz", Path(__file__).with_name("imitation_bc.py")
    arguments = map(str, (pairs, batch, settings.sized(60, 2), output))
    subprocess.run(
        [str(settings.imitation), "-I", "-W", "ignore", str(script), *arguments], check=True, stdout=subprocess.DEVNULL
    )
    environments, points = make(ENVIRONMENT, EPISODES), []
    with np.load(pairs) as given, np.load(output) as file:
        low, high = given["low"], given["high"]
        columns = [file[str(number)] for number in range(6)]        # each (snapshots, ...)
        for taken, *weights in zip(file["times"], *columns, strict=True):
            policy = Clone(weights, low, high)
            points.append((float(taken), float(play(policy, environments, SELECTION_BANK.seeds(EPISODES)).returns.mean())))
            if points[-1][1] >= wanted:
                break
        rate_of_pairs = float(file["updates"]) * batch / float(file["times"][-1])
    environments.close()
    return rate_of_pairs, first(points, wanted)


def first(points: list[tuple[float, float]], wanted: float) -> float:
    """The seconds of the first of ``points`` (seconds, return) that returns what is wanted; where none does, of the last."""
    return next((taken for taken, reached in points if reached >= wanted), points[-1][0])
