"""The project's original protocol, from the first step to the last point, over its bare limit and over a plain script.

    fit --config configs/gaussian.yaml --data.batch_size 1000 --model.optimizer.lr 1e-3 --rollouts.eval_freq 10
        --rollouts.episodes 5 --trainer.max_epochs 1

on 2.4 million pairs: 2400 steps and 241 points. The bare limit is the matrix products of these steps and the physics of
these episodes, in the shipped expert's gait, each on all cores, one after the other and nothing else. The plain script
validates nothing and saves nothing.
"""

import contextlib
import json
from functools import cache, partial
from pathlib import Path

from benchmarks import plain
from benchmarks.measure import ENVIRONMENT, EXPERT, Row, Settings, duration, gait, seconds
from benchmarks.playing import physics
from benchmarks.training import by_products, new, products, random_pairs
from lightning_bc.cli import main
from lightning_bc.demonstrations import Trajectories, read
from lightning_bc.environments import BatchedMujoco
from lightning_bc.strategies import Gaussian

DATA = Path("data") / f"{ENVIRONMENT}-sampled-2400000.pt"
CONFIG = EXPERT.parents[2] / "configs" / "gaussian.yaml"
EPISODES, EVERY = 5, 10
WIDEST = 50
"""Sub-environments with which the physics alone is fastest."""


def rows(settings: Settings) -> list[Row]:
    """Seconds; one round, since each takes minutes."""
    path, batch = demonstrations(settings), settings.sized(1000, 100)
    mine = partial(ours, settings, path, batch)
    found = []
    for beside, other in (("bare limit", partial(bare, settings, batch)), ("plain script", partial(script, path, batch))):
        races = [(mine(), other()) for _ in range(min(settings.rounds, settings.sized(3, 1)))]
        found.append(duration("the original protocol", beside, races))
    return found


def demonstrations(settings: Settings) -> Path:
    """The expert's pairs: the file that ``fit`` collects by default where it is there, else one of the same pairs."""
    if DATA.exists() and not settings.quick:
        return DATA.absolute()
    path = settings.folder / "pairs.pt"
    if not path.exists():
        pairs = settings.sized(2_400_000, 2000)
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


def ours(settings: Settings, path: Path, batch: int, *flags: object) -> float:
    """Seconds of training and playing, as the run itself counts them."""
    protocol = ["--model.optimizer.lr", "1e-3", "--rollouts.eval_freq", EVERY, "--rollouts.episodes", EPISODES]
    logs = fitted(settings, path, batch, *protocol, "--trainer.max_epochs", 1, *flags)
    return float(json.loads((logs / "results.json").read_text())["seconds"])


def fitted(settings: Settings, path: Path, batch: int, *flags: object) -> Path:
    """Fit the Gaussian baseline; the folder of the run's logs."""
    logs = settings.folder / "lightning_logs"
    run = f"gaussian-{len([*logs.glob('*')])}"
    fit = ["fit", "--config", CONFIG, "--data.path", path, "--data.batch_size", batch, "--run", run]
    command(settings, *fit, "--trainer.enable_progress_bar", "false", *flags)
    return logs / run


def bare(settings: Settings, batch: int) -> float:
    """Seconds of the products and the physics, from a part of each."""
    steps = settings.sized(2400, 20)
    part = settings.sized(200, 2)
    calls = products(new(Gaussian, random_pairs(settings, 2000)), batch)
    training = by_products(calls, part) * steps / part
    environments, actions = _widest()
    played = (steps // EVERY + 1) * EPISODES * len(actions)
    return training + physics(environments, actions) * played / (len(actions) * environments.num_envs)


@cache
def _widest() -> tuple[BatchedMujoco, object]:
    environments = BatchedMujoco(ENVIRONMENT, WIDEST)
    return environments, gait(environments)


def script(path: Path, batch: int) -> float:
    """Seconds of the plain script."""
    pairs: Trajectories = read(path)
    return seconds(partial(plain.train, ENVIRONMENT, pairs.observations, pairs.actions, batch, EVERY, EPISODES))
