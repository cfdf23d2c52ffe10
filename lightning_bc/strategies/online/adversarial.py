"""What GAIL and AIRL share: soft actor-critic on the reward of a discriminator that tells expert and learner apart.

Off-policy, with a gradient penalty and absorbing states: rewards.py, demonstrated.py.
"""

from abc import abstractmethod
from collections.abc import Sequence

from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_bc.bounds import NonNegativeFloat, PositiveFloat, PositiveInt, UnitIntervalAboveZero, UnitIntervalBelowOne
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Needs, Transitions
from lightning_bc.strategies.online.agent import Descend, Parts
from lightning_bc.strategies.online.demonstrated import AbsorbingStates
from lightning_bc.strategies.online.interaction import Interaction
from lightning_bc.strategies.online.loop import OnlineStrategy
from lightning_bc.strategies.online.rewards import DiscriminatorReward
from lightning_bc.strategies.online.soft_actor_critic import SoftActorCritic
from lightning_bc.strategies.optimizers import DefaultAdam


class AdversarialImitation(OnlineStrategy):
    """Soft actor-critic on the output f of a discriminator.

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
        discriminator_every: updates of the critics for each one of the discriminator.
        penalty: weight of the discriminator's gradient penalty.
        starts_every: steps within which one of the sub-environments begins an episode, where need be by breaking off another
            one, in a quarter of them; needs 4 of them. Default: episodes begin when others end.
        optimizer: of each of the networks.
        schedule: "cosine" lowers the learning rates to zero over the run's environment steps; "constant" leaves them.
    """

    needs = Needs.TRANSITIONS
    logs = Interaction.logs | SoftActorCritic.logs | DiscriminatorReward.logs
    shown = ("critic_loss", "discriminator_loss")
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
        discriminator_every: PositiveInt = 4,
        penalty: NonNegativeFloat = 10.0,
        starts_every: PositiveInt | None = None,
        optimizer: OptimizerCallable = DefaultAdam,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(
            observation_dim, action_low, action_high, optimizer, schedule, total_environment_steps, num_envs,
            learning_starts, updates_per_step, batch_size, replay_capacity, starts_every,
        )  # fmt: skip
        self.agent = SoftActorCritic(
            observation_dim, self.action_dim, network, discount, initial_temperature, target_rate, actor_every
        )
        self.states = AbsorbingStates(observation_dim, self.action_dim)
        f = self.discriminator(discount)
        self.reward = DiscriminatorReward(f, self.states, discount, penalty, discriminator_every, self.watch)

    @abstractmethod
    def discriminator(self, discount: float) -> nn.Module:
        """f, which maps inputs of ``states`` (batch, 2 state_dim + action_dim) to rewards (batch,)."""

    def logits(self, inputs: Tensor) -> Tensor:
        """log D - log(1 - D) of ``inputs``, (batch,), D being the probability of the expert: f, unless overridden."""
        return self.reward.f(inputs)

    def update(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """A step of the discriminator, then of critics, actor and temperature on its reward."""
        metrics = self.reward.update(batch, self.demonstrated.sample, number, descend, self.logits)
        mixed = self.demonstrated.mixed(batch)
        loss, more = self.agent.critic_loss(mixed, self.reward)
        descend("critic", loss)
        return metrics | more | self.agent.improve(mixed, number, descend)

    def parts(self) -> Parts:
        """With the discriminator."""
        return self.agent.parts() | {"discriminator": list(self.reward.parameters())}

    def check(self) -> None:
        """Look at the discriminator too."""
        super().check()
        self.reward.check()
