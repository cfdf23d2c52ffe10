"""Soft actor-critic on the environment's own reward: no imitation, but how experts come to be.

The losses stand in soft_actor_critic.py (Haarnoja 2018, https://arxiv.org/abs/1812.05905), the loop in loop.py. The reward
is the environment's, so no demonstrations are read (``data.path: null``). A checkpoint is an expert for ``collect``.
"""

from collections.abc import Sequence
from typing import Literal

from lightning.pytorch.cli import OptimizerCallable

from lightning_bc.bounds import PositiveFloat, PositiveInt, UnitIntervalAboveZero, UnitIntervalBelowOne
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics
from lightning_bc.strategies.contract import Needs, Transitions
from lightning_bc.strategies.online.agent import Descend
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
        learning_starts: environment steps with random actions before the first update.
        updates_per_step: updates for each environment step.
        batch_size: transitions per update.
        replay_capacity: transitions that are remembered.
        discount: gamma, how much a reward one step later is worth.
        initial_temperature: what entropy is worth at first; it then follows the policy's entropy. From 1, where Haarnoja
            begins, it falls for ten thousand updates before the reward counts for much.
        target_rate: how far the slow critics move towards the others at each update.
        actor_every: updates of the critics for each one of actor and temperature.
        optimizer: of each of the networks.
        schedule: the learning rate stays as it is; "constant" is the only choice.
    """

    needs = Needs.NOTHING
    recordable = True
    logs = SoftActorCritic.logs
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
        optimizer: OptimizerCallable = DefaultAdam,
        schedule: Literal["constant"] = "constant",
    ) -> None:
        super().__init__(
            observation_dim, action_low, action_high, optimizer, schedule, total_environment_steps, num_envs,
            learning_starts, updates_per_step, batch_size, replay_capacity,
        )  # fmt: skip
        self.agent = SoftActorCritic(
            observation_dim, self.action_dim, network, discount, initial_temperature, target_rate, actor_every
        )
        self.reward = EnvironmentReward()

    def update(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """A step of the critics, then of actor and temperature."""
        loss, metrics = self.agent.critic_loss(batch, self.reward)
        descend("critic", loss)
        return metrics | self.agent.improve(batch, number, descend)
