"""Two whole runs, from the first step to the last point, over their bare limits, and one over a plain script.

    original   fit --config configs/gaussian.yaml --data.batch_size 1000 --model.optimizer.lr 1e-3 --rollouts.eval_freq 10
                   --rollouts.episodes 5 --trainer.max_epochs 1
    first      fit --config configs/gmm.yaml, the first command of the README, without the collection of its pairs

on 2.4 million pairs: 2400 steps and 241 points of 5 episodes, and 9600 steps and 49 points of 10. A bare limit is the matrix
products of these steps and the physics of these episodes, in the shipped expert's gait, each on all cores, one after the
other and nothing else. The plain script, of the original alone, validates nothing and saves nothing.
"""

import contextlib
import json
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from benchmarks import plain
from benchmarks.measure import ENVIRONMENT, EXPERT, Row, Settings, duration, gait, seconds
from benchmarks.playing import physics
from benchmarks.training import by_products, new, products, random_pairs
from lightning_bc.cli import main
from lightning_bc.demonstrations import Trajectories, read
from lightning_bc.environments import BatchedMujoco
from lightning_bc.strategies import Gaussian, GaussianMixture, OfflineStrategy

DATA = Path("data") / f"{ENVIRONMENT}-sampled-2400000.pt"
CONFIGS = EXPERT.parents[2] / "configs"
WIDEST = 50
"""Sub-environments with which the physics alone is fastest."""


@dataclass(frozen=True)
class Protocol:
    """A run.

    Attributes:
        what: it is called.
        cls: its strategy.
        config: its file in configs/.
        batch: pairs per step.
        every: steps between two points.
        episodes: of a point.
        flags: what else is given to ``fit``.
    """

    what: str
    cls: type[OfflineStrategy]
    config: str
    batch: int
    every: int
    episodes: int
    flags: tuple[object, ...] = ()


ORIGINAL = Protocol("the original protocol", Gaussian, "gaussian", 1000, 10, 5, ("--model.optimizer.lr", "1e-3"))
FIRST = Protocol("README's first command", GaussianMixture, "gmm", 250, 200, 10)
PAIRS = 2_400_000


def rows(settings: Settings) -> list[Row]:
    """Seconds; at most three rounds, since each takes minutes."""
    path, rounds = demonstrations(settings), min(settings.rounds, settings.sized(3, 1))
    found = []
    for protocol, beside, other in (
        (ORIGINAL, "bare limit", partial(bare, settings, ORIGINAL)),
        (ORIGINAL, "plain script", partial(script, path, settings.sized(ORIGINAL.batch, 100))),
        (FIRST, "bare limit", partial(bare, settings, FIRST)),
    ):
        races = [(ours(settings, path, protocol), other()) for _ in range(rounds)]
        found.append(duration(protocol.what, beside, races))
    return found


def demonstrations(settings: Settings) -> Path:
    """The expert's pairs: the file that ``fit`` collects by default where it is there, else one of the same pairs."""
    if DATA.exists() and not settings.quick:
        return DATA.absolute()
    path = settings.folder / "pairs.pt"
    if not path.exists():
        pairs = settings.sized(PAIRS, 2000)
        command(settings, "collect", "--env", ENVIRONMENT, "--expert", EXPERT, "--pairs", pairs, "--output", path)
    return path


def command(settings: Settings, *arguments: object) -> None:
    """Run one of the package's commands here, in the folder."""
    with (
        (settings.folder / "log.txt").open("a") as log,
        contextlib.chdir(settings.folder),
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        main([str(one) for one in arguments])


def ours(settings: Settings, path: Path, protocol: Protocol, *flags: object) -> float:
    """Seconds of training and playing, as the run itself counts them."""
    points = "--rollouts.eval_freq", protocol.every, "--rollouts.episodes", protocol.episodes
    batch = settings.sized(protocol.batch, 100)
    logs = fitted(settings, path, batch, *points, *protocol.flags, "--trainer.max_epochs", 1, *flags, config=protocol.config)
    return float(json.loads((logs / "results.json").read_text())["seconds"])


def fitted(settings: Settings, path: Path, batch: int, *flags: object, config: str = "gaussian") -> Path:
    """Fit a strategy, by default the Gaussian baseline; the folder of the run's logs."""
    logs = settings.folder / "lightning_logs"
    run = f"{config}-{len([*logs.glob('*')])}"
    fit = ["fit", "--config", CONFIGS / f"{config}.yaml", "--data.path", path, "--data.batch_size", batch, "--run", run]
    command(settings, *fit, "--trainer.enable_progress_bar", "false", *flags)
    return logs / run


def bare(settings: Settings, protocol: Protocol) -> float:
    """Seconds of the products and the physics, from a part of each."""
    steps = settings.sized(PAIRS // protocol.batch, 20)
    part = settings.sized(200, 2)
    calls = products(new(protocol.cls, random_pairs(settings, 2000)), settings.sized(protocol.batch, 100))
    training = by_products(calls, part) * steps / part
    environments, actions = _widest()
    played = (steps // protocol.every + 1) * protocol.episodes * len(actions)
    return training + physics(environments, actions) * played / (len(actions) * environments.num_envs)


@cache
def _widest() -> tuple[BatchedMujoco, object]:
    environments = BatchedMujoco(ENVIRONMENT, WIDEST)
    return environments, gait(environments)


def script(path: Path, batch: int) -> float:
    """Seconds of the plain script."""
    pairs: Trajectories = read(path)
    points = ORIGINAL.every, ORIGINAL.episodes
    return seconds(partial(plain.train, ENVIRONMENT, pairs.observations, pairs.actions, batch, *points))
