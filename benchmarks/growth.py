"""How cost grows with pairs, batch, width, episodes and workers: what ``--long`` measures."""

from functools import partial

from benchmarks.measure import ENVIRONMENT, Row, Settings, gait, race, rate, seconds, untrained
from benchmarks.playing import Replaying
from benchmarks.protocol import ORIGINAL, demonstrations, ours
from benchmarks.training import by_trainer, random_pairs
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.environments import BatchedMujoco
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.networks import MLP
from lightning_bc.strategies import Gaussian

PAIRS, BATCHES, WIDTHS = (300_000, 2_400_000, 24_000_000), (250, 50, 1000, 4000), (256, 64, 1024)
EPISODES, WORKERS = (10, 1, 50, 200), (1, 2)


def rows(settings: Settings) -> list[Row]:
    """Pairs per second, environment steps per second and, of workers, optimizer steps per second of a short protocol."""
    if not settings.long:
        return []
    steps, found = settings.sized(1000, 2), []

    def train(data: Demonstrations, width: int = 256) -> float:
        network = partial(MLP, hidden_sizes=(width,) * 3)
        return by_trainer(Gaussian, data, steps, network=network) / (steps * data.batch_size)

    usual = random_pairs(settings, settings.sized(PAIRS[0], 1000))
    variants = {f"{pairs:,} pairs": partial(train, random_pairs(settings, settings.sized(pairs, 1000))) for pairs in PAIRS}
    variants |= {f"{size} pairs per batch": partial(train, random_pairs(settings, 300_000, size)) for size in BATCHES[1:]}
    variants |= {f"3 layers of {width}": partial(train, usual, width) for width in WIDTHS[1:]}
    usually, beside = partial(train, usual), "300,000 pairs, 250 per batch, 3 layers of 256"
    for what, call in variants.items():
        found.append(rate(what, beside, 1, "pairs/s", race(call, usually, settings.rounds)))
    return found + _episodes(settings) + _workers(settings)


def _episodes(settings: Settings) -> list[Row]:
    plays = {}
    for number in EPISODES:
        environments = BatchedMujoco(ENVIRONMENT, number)
        policy = Replaying(untrained(Gaussian).frozen(), gait(environments))
        plays[number] = partial(_per_step, policy, environments, SELECTION_BANK.seeds(number))
    first = plays[EPISODES[0]]
    return [
        rate(f"{number} episodes side by side", f"{EPISODES[0]} episodes", 1, "steps/s", race(call, first, settings.rounds))
        for number, call in plays.items()
    ]


def _per_step(policy: Replaying, environments: BatchedMujoco, seeds: range) -> float:
    return seconds(partial(play, policy, environments, seeds)) / (len(seeds) * len(policy.actions))


def _workers(settings: Settings) -> list[Row]:
    path, steps = demonstrations(settings), settings.sized(600, 20)

    def run(workers: int) -> float:
        return ours(settings, path, ORIGINAL, "--trainer.max_steps", steps, "--rollouts.workers", workers)

    found = {workers: race(partial(run, workers), partial(run, 0), 1) for workers in WORKERS}
    what = f"workers, {steps} steps of the protocol"
    return [rate(f"{workers} {what}", "0 workers", steps, "steps/s", races) for workers, races in found.items()]
