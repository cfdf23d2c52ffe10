"""DAgger: let the learner play, ask the expert what it would have done, and learn from that too (Ross 2011,
https://arxiv.org/abs/1011.0686).

Cloning sees the states that the expert visits; the clone's mistakes lead it to others, where it was taught nothing. In round
i = 1, 2, ... the policy

    pi_i = beta_i expert + (1 - beta_i) learner,    beta_i = beta^i

plays (each step is the expert's with probability beta_i), the expert labels every observation on the way, and the pairs join
the training set. With beta = 0, the default, the learner plays alone in every round; the demonstrations count as round 0.

The learner goes on from where it is, it is not trained anew.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import ClosedUnitInterval, PositiveInt, check_arguments
from lightning_bc.callbacks.points import honour_signals
from lightning_bc.demonstrations.experts import Expert, expert_sha256, load_expert
from lightning_bc.demonstrations.trajectories import Trajectories, recorded
from lightning_bc.environments import Environments, make
from lightning_bc.episodes import SELECTION_BANK, play
from lightning_bc.errors import InputError, takes_state
from lightning_bc.players import Player
from lightning_bc.ranks import on_rank_zero
from lightning_bc.strategies import OfflineStrategy, data_of
from lightning_bc.strategies.base import evaluating
from lightning_bc.strategies.contract import Data


@dataclass(frozen=True)
class Lesson:
    """What the rounds of one fit need."""

    learner: OfflineStrategy
    expert: Expert
    environments: Environments


class DAgger(Callback):
    """Aggregate the expert's answers on the learner's own states, in rounds, under any offline strategy.

    Args:
        expert: the expert that labels, as ``collect --expert`` takes it: a file, the name of a run, or
            package.module:function.
        round_every: optimizer steps between two rounds.
        rounds: how many rounds there are.
        episodes: episodes per round.
        beta: the expert plays a step of round i with probability beta^i.
    """

    names_method = True
    """Tables name the method by it."""

    teaches = True
    """It adds to what is learnt from."""

    lesson: Lesson                                                  # made in setup

    def __init__(
        self,
        expert: str,
        round_every: PositiveInt = 500,
        rounds: PositiveInt = 10,
        episodes: PositiveInt = 1,
        beta: ClosedUnitInterval = 0.0,
    ) -> None:
        if not isinstance(expert, str):
            raise InputError(
                f"DAgger: expert is a {type(expert).__name__}; wanted a file, the name of a run, or a function by its "
                "name, package.module:function."
            )
        check_arguments(DAgger.__init__, locals())
        self.path, self.round_every, self.rounds, self.episodes, self.beta = expert, round_every, rounds, episodes, beta
        self.rounds_done = 0
        self.sha256: str | None = None                              # of the expert, once it has labelled

    def check(self, module: LightningModule, environment_id: str) -> None:
        """Refuse what cannot work.

        Raises:
            InputError: the strategy does not learn from demonstrations alone, or the expert cannot be read or is not one for
                this environment.
        """
        self._learner_and_expert(module, environment_id)

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Check, make the environments, and have training stop for a round wherever one is due."""
        if stage == "fit":
            data = data_of(trainer)
            data.group_size = math.gcd(data.group_size, self.round_every)
            learner, expert = self._learner_and_expert(module, data.environment_id)
            if isinstance(expert, torch.nn.Module):
                expert.to(trainer.strategy.root_device)
            self.lesson = Lesson(learner, expert, make(data.environment_id, self.episodes))

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuse to go on with another expert.

        Raises:
            InputError: its file has changed since the run began.
        """
        before, self.sha256 = self.sha256, expert_sha256(self.path)
        if before not in (None, self.sha256):
            raise InputError(
                f"DAgger: expert {self.path}: is another one than that which this run began with (SHA-256 {self.sha256}, "
                f"wanted {before}), and the labels of both would be mixed. Put that one back, or start a new run."
            )

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Say how many rounds there will be."""
        length = self.lesson.learner.run_length
        fitting = self.rounds if length is None else min(self.rounds, (length - 1) // self.round_every)
        left_out = "" if fitting == self.rounds else (
            f"; {self.rounds - fitting} of rounds={self.rounds} would come at the last step or after it, when nothing "
            "learns from them, and are left out"
        )
        rank_zero_only(print)(f"DAgger: {fitting} rounds, one per {self.round_every} optimizer steps{left_out}\n")

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int) -> None:
        """Play the round that was due at the end of a run that has been lengthened since."""
        self._play_what_is_due(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """Play a round when one is due, unless the run is over: nothing would learn from it."""
        length = self.lesson.learner.run_length
        if length is None or trainer.global_step < length:
            self._play_what_is_due(trainer)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Let the environments go."""
        if stage == "fit":
            self.lesson.environments.close()

    def state_dict(self) -> StateDict:
        """Where the rounds stand; the pairs are with the data."""
        return {"rounds_done": self.rounds_done, "sha256": self.sha256}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from there."""
        self.rounds_done, self.sha256 = state["rounds_done"], state.get("sha256")  # not in earlier versions

    def _learner_and_expert(self, module: LightningModule, environment_id: str) -> tuple[OfflineStrategy, Expert]:
        if not isinstance(module, OfflineStrategy):
            raise InputError(
                f"DAgger works under strategies that learn from demonstrations; {type(module).__name__} acts in the "
                "environment itself. Leave DAgger out of trainer.callbacks, or choose another model."
            )
        return module, load_expert(self.path, environment_id)

    def _play_what_is_due(self, trainer: Trainer) -> None:
        due = min(trainer.global_step // self.round_every, self.rounds)
        while self.rounds_done < due:
            self._round(data_of(trainer))

    def _round(self, data: Data) -> None:
        first = int(np.random.SeedSequence((data.seed, 2)).generate_state(1)[0]) % (SELECTION_BANK.first // 2)
        seeds = range(first + self.rounds_done * self.episodes, first + (self.rounds_done + 1) * self.episodes)
        self.rounds_done += 1
        labelled = on_rank_zero(self.lesson.learner.trainer, partial(self._play, seeds))
        data.extend(labelled.observations, labelled.actions, labelled.lengths)

    def _play(self, seeds: Sequence[int]) -> Trajectories:
        """Episodes of the learner, or the expert, with the expert's labels."""
        learner, expert = self.lesson.learner, self.lesson.expert
        with evaluating(learner):
            played = play(
                ExpertOrLearner(expert.player(), learner.player(), self.beta**self.rounds_done),
                self.lesson.environments,
                seeds,
                record=True,
                label=expert.player(replan=True),
                device=learner.device,
                on_step=partial(honour_signals, learner.trainer),
            )
        return recorded(played)


class ExpertOrLearner(Player):
    """Plays the expert's action with probability ``beta``, else the learner's.

    Both see every step, so that either may go on from what it remembers; with ``beta`` = 0 the learner alone does.

    Args:
        expert: plays the expert's deterministic action.
        learner: plays the learner's.
        beta: the probability.
    """

    def __init__(self, expert: Player, learner: Player, beta: float) -> None:
        self.expert, self.learner, self.beta = expert, learner, beta

    def begin(self, observations: Tensor, rows: Tensor, num_envs: int) -> None:
        """Both forget."""
        for player in (self.expert, self.learner):
            player.begin(observations, rows, num_envs)

    def act(self, observations: Tensor, rows: Tensor) -> Tensor:
        """Actions (playing, action_dim) of the one or the other."""
        actions = self.learner.act(observations, rows)
        if self.beta == 0:
            return actions
        chosen = torch.rand(len(observations), 1, device=observations.device) < self.beta
        return torch.where(chosen, self.expert.act(observations, rows), actions)
