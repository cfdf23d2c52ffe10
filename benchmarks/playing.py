"""Playing episodes over stepping through their states alone, and over the physics of these states alone.

The states are those of the shipped expert's gait, whatever is played: the policy under test answers each observation, and
the expert's recorded action is played in its place. One thread plays as a rollout worker does; several as ``evaluate``.
"""

from functools import partial

import numpy as np

from benchmarks.measure import ENVIRONMENT, Row, Settings, gait, race, rate, seconds, untrained
from lightning_bc.environments import BatchedMujoco, usable_cores
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.players import ArrayPolicy
from lightning_bc.strategies import Diffusion, Gaussian

PLAYED = [("Gaussian", Gaussian, episodes, threads) for threads in (1, 0) for episodes in (5, 10, 50)]
PLAYED += [("Diffusion", Diffusion, episodes, 1) for episodes in (5, 50)]


class Replaying(ArrayPolicy):
    """Costs what a policy costs, and plays recorded actions.

    Args:
        policy: is asked, and not heard.
        actions: (steps, num_envs, action_dim).
    """

    def __init__(self, policy: ArrayPolicy, actions: np.ndarray) -> None:
        self.policy, self.actions, self.step = policy, actions, 0

    def answer(self, observations: np.ndarray) -> np.ndarray:
        """The next ones."""
        self.policy.answer(observations)
        self.step = (self.step + 1) % len(self.actions)
        return self.actions[self.step - 1]


def rows(settings: Settings) -> list[Row]:
    """Environment steps per second."""
    found: list[Row] = []
    for name, cls, episodes, threads in PLAYED[: settings.sized(len(PLAYED), 1)]:
        environments = BatchedMujoco(ENVIRONMENT, episodes, threads or None)
        actions, policy, seeds = gait(environments), untrained(cls).frozen(), SELECTION_BANK.seeds(episodes)
        step, bare = partial(_step, environments, actions), partial(physics, environments, actions)
        played = partial(seconds, partial(play, Replaying(policy, actions), environments, seeds))
        threads = threads or min(episodes, usable_cores())
        what = f"{name}, {episodes} episodes, {threads} thread{'s' * (threads > 1)}"
        for beside, other in (("stepping alone", step), ("physics alone", bare)):
            steps = actions.shape[0] * episodes
            found.append(rate(what, beside, steps, "steps/s", race(played, other, settings.rounds)))
        environments.close()
    return found


def _step(environments: BatchedMujoco, actions: np.ndarray) -> float:
    """Seconds of calling ``step``."""
    environments.reset(seed=[*SELECTION_BANK.seeds(environments.num_envs)])
    return seconds(lambda: [environments.step(now) for now in actions])


def physics(environments: BatchedMujoco, actions: np.ndarray) -> float:
    """Seconds of MuJoCo's own steps."""
    environments.reset(seed=[*SELECTION_BANK.seeds(environments.num_envs)])

    def loop() -> None:
        for now in actions:
            environments._controls[:] = now
            environments._batch.step(None, environments._substeps)

    return seconds(loop)
