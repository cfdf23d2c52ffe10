"""Soft actor-critic on the environment's own reward: no imitation, but how experts come to be.

The losses stand in soft_actor_critic.py (Haarnoja 2018, https://arxiv.org/abs/1812.05905), the loop in loop.py. The reward
is the environment's, so no demonstrations are read (``data.path: null``). A checkpoint is an expert for ``collect``. With
``--model.init_from CLONE`` the actor begins as a clone: handover.py.
"""

import math
from collections.abc import Sequence

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    UnitIntervalAboveZero,
    UnitIntervalBelowOne,
)
from lightning_bc.errors import InputError, takes_state
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule, Strategy
from lightning_bc.strategies.contract import Needs, Transitions
from lightning_bc.strategies.online.agent import Descend
from lightning_bc.strategies.online.handover import LEAST_WEIGHT, TEMPERATURE, WEIGHT, Clone, with_scale
from lightning_bc.strategies.online.interaction import Interaction
from lightning_bc.strategies.online.loop import OnlineStrategy
from lightning_bc.strategies.online.rewards import EnvironmentReward
from lightning_bc.strategies.online.soft_actor_critic import SoftActorCritic
from lightning_bc.strategies.optimizers import DefaultAdam


class SAC(OnlineStrategy):
    """Maximise the environment's reward and the policy's entropy.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps observations to 2 action_dim outputs of the actor: means and raw log standard deviations.
        total_environment_steps: where the run ends.
        num_envs: sub-environments that are stepped together.
        learning_starts: environment steps of random play before the first update; from a clone, of its play.
        updates_per_step: updates for each environment step.
        batch_size: transitions per update.
        replay_capacity: transitions that are remembered.
        discount: gamma, how much a reward one step later is worth.
        initial_temperature: what entropy is worth at first; it then follows the policy's entropy. From 1, where Haarnoja
            begins, it falls for ten thousand updates before the reward counts for much. From a clone it is at most 0.01, and
            stays.
        target_rate: how far the slow critics follow in each update.
        actor_every: updates of the critics for each one of actor and temperature.
        critic_first: from a clone, updates of the critics alone at first.
        anchor: from a clone, updates in which its pull on the actor halves.
        demonstrated: share of demonstrations, with rewards, in each batch.
        optimizer: of each of the networks.
        schedule: "cosine" lowers the learning rates to zero over the run's environment steps; "constant" leaves them.
    """

    needs = Needs.NOTHING
    recordable = True
    logs = Interaction.logs | SoftActorCritic.logs
    shown = ("critic_loss",)
    cleanrl_heads = ("fc_mean", "fc_logstd")
    agent: SoftActorCritic

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        total_environment_steps: PositiveInt = 400_000,
        num_envs: PositiveInt = 8,
        learning_starts: PositiveInt = 5000,
        updates_per_step: PositiveFloat = 0.5,
        batch_size: PositiveInt = 256,
        replay_capacity: PositiveInt = 1_000_000,
        discount: UnitIntervalBelowOne = 0.99,
        initial_temperature: PositiveFloat = 0.1,
        target_rate: UnitIntervalAboveZero = 0.005,
        actor_every: PositiveInt = 2,
        critic_first: NonNegativeInt = 4000,
        anchor: PositiveFloat = 2000.0,
        demonstrated: UnitIntervalBelowOne = 0.0,
        optimizer: OptimizerCallable = DefaultAdam,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(
            observation_dim, action_low, action_high, optimizer, schedule, total_environment_steps, num_envs,
            learning_starts, updates_per_step, batch_size, replay_capacity,
        )  # fmt: skip
        self.agent = SoftActorCritic(
            observation_dim, self.action_dim, network, discount, initial_temperature, target_rate, actor_every
        )
        self.reward = EnvironmentReward()
        self.critic_first, self.anchor, self.demonstrated_share = critic_first, anchor, demonstrated
        self.clone: Clone | None = None
        if demonstrated:
            self.needs = Needs.TRANSITIONS

    def weights_from(self, clone: Strategy) -> StateDict | None:
        """The actor's are those of a clone's squashed mean, and the temperature is low."""
        if clone.squashed_mean is None:
            return None
        own = self.state_dict()
        actor = with_scale(clone.squashed_mean.state_dict(), self.agent.network.state_dict())
        temperature = {"agent.log_temperature": own["agent.log_temperature"].clamp(max=math.log(TEMPERATURE))}
        border = {f"border.{name}": value for name, value in clone.border.state_dict().items()}
        actors = {f"agent.{which}.{name}": value for which in ("network", "averaged") for name, value in actor.items()}
        return own | temperature | border | actors

    def take_over(self) -> None:
        """Remember the actor as it is: what it is anchored to."""
        self.clone = Clone(self.agent.network)
        self.agent.anchor = self.clone.anchor

    def first_actions(self) -> Tensor:
        """The clone's, where there is one."""
        return super().first_actions() if self.clone is None else self.explored_actions()

    def on_train_start(self) -> None:
        """Refuse demonstrations without rewards.

        Raises:
            InputError: all of them are zero.
        """
        super().on_train_start()
        if self.clone is not None:
            self.clone.to(self.device)
        if self.demonstrated_share and not self.demonstrated.transitions.rewards.any():
            raise InputError(
                f"--model.demonstrated {self.demonstrated_share}: the demonstrations of --data.path have no rewards, and "
                "SAC learns from these. Leave it away, or give a file with rewards."
            )

    def prepare(self, number: int) -> None:
        """Whether the actor learns yet, and how much its clone holds it."""
        super().prepare(number)
        if self.clone is not None:
            since = number - self.critic_first
            self.agent.actor_learns = since >= 0
            self.clone.weight.fill_(max(LEAST_WEIGHT, WEIGHT * 0.5 ** (max(0, since) / self.anchor)))

    def on_save_checkpoint(self, checkpoint: StateDict) -> None:
        """With the clone."""
        super().on_save_checkpoint(checkpoint)
        if self.clone is not None:
            checkpoint["clone"] = self.clone.network.state_dict()

    @takes_state
    def on_load_checkpoint(self, checkpoint: StateDict) -> None:
        """Bring it back."""
        super().on_load_checkpoint(checkpoint)
        if "clone" in checkpoint:
            self.take_over()
            assert self.clone is not None
            self.clone.network.load_state_dict(checkpoint["clone"])

    def update(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """A step of the critics, then of actor and temperature."""
        if self.demonstrated_share:
            batch = self.demonstrated.mixed(batch, self.demonstrated_share)
        loss, metrics = self.agent.critic_loss(batch, self.reward)
        descend("critic", loss)
        return metrics | self.agent.improve(batch, number, descend)
