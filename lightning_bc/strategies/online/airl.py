"""Adversarial inverse reinforcement learning: a reward that outlives its discriminator (Fu 2018,
https://arxiv.org/abs/1710.11248).

    f(s, a, s') = g(s, a) + gamma h(s') - h(s)
    log D - log(1 - D) = f(s, a, s') - alpha log pi(a | s)
    reward = f(s, a, s')

g is the reward proper, and h a potential, whose differences change no optimal policy (Ng 1999): what depends on the
dynamics can go there.

Sign. At the best discriminator f - alpha log pi = log p_expert(s, a) - log p_learner(s, a), so f is high where the expert
goes. Soft actor-critic earns f and pays alpha, its temperature, for each nat of log pi, so all in all it maximises
E[f - alpha log pi] = E[log p_expert - log p_learner], whose maximum is the expert. Fu's reward log D - log(1 - D) is that
sum already, for a policy gradient without an entropy of its own; here the reward is f alone.

Temperature. Fu's D = exp f / (exp f + pi) is the case alpha = 1. Soft actor-critic chooses alpha itself, and mostly far
below 1; with log pi at full weight the sum above would not cancel. Nor would f be learnt: off the policy, log pi ranges
over tens of nats (old actions in the replay, the expert's), the logits would be all log pi, and the classes told apart
without f. So the temperature begins at 0.1 rather than at 1.

log pi is of the present policy, for the expert's actions and for the replay's. Off-policy, with a gradient penalty (on f)
and absorbing states: rewards.py, demonstrated.py.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_bc.bounds import NonNegativeFloat, PositiveFloat, PositiveInt, UnitIntervalAboveZero, UnitIntervalBelowOne
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Needs, Transitions
from lightning_bc.strategies.online.agent import Descend, Parts
from lightning_bc.strategies.online.demonstrated import AbsorbingStates
from lightning_bc.strategies.online.discriminators import Discriminator
from lightning_bc.strategies.online.interaction import Interaction
from lightning_bc.strategies.online.loop import OnlineStrategy
from lightning_bc.strategies.online.rewards import DiscriminatorReward
from lightning_bc.strategies.online.soft_actor_critic import SoftActorCritic
from lightning_bc.strategies.optimizers import DefaultAdam

_LOG_PROBABILITY_RANGE = (-20.0, 20.0)
"""Of an action under a policy that would never choose it, log pi has no lower bound."""


class ShapedReward(nn.Module):
    """f(s, a, s') = g(s, a) + gamma h(s') - h(s).

    Args:
        states: whose inputs it is given.
        discount: gamma.
    """

    def __init__(self, states: AbsorbingStates, discount: float) -> None:
        super().__init__()
        self.discount, self.widths = discount, [states.state_dim, states.action_dim, states.state_dim]
        self.reward = Discriminator(states.state_dim + states.action_dim)  # g
        self.potential = Discriminator(states.state_dim, hidden_size=64)  # h

    def forward(self, inputs: Tensor) -> Tensor:
        """f (batch,) of ``inputs`` (batch, 2 state_dim + action_dim)."""
        state, action, following = inputs.split(self.widths, dim=-1)
        reward = self.reward(torch.cat([state, action], dim=-1))
        return reward + self.discount * self.potential(following) - self.potential(state)


class AIRL(OnlineStrategy):
    """Soft actor-critic on f of a discriminator that knows the policy.

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
        f = ShapedReward(self.states, discount)
        self.reward = DiscriminatorReward(f, self.states, discount, penalty, discriminator_every, self.watch)

    def logits(self, inputs: Tensor) -> Tensor:
        """f - alpha log pi of ``inputs``, (batch,); in the absorbing state nothing is chosen, and log pi is 0."""
        state, action, _ = inputs.split([self.states.state_dim, self.action_dim, self.states.state_dim], dim=-1)
        with torch.no_grad():
            log_probability = self.agent.policy(state[:, :-1]).log_probability(action).clamp(*_LOG_PROBABILITY_RANGE)
        temperature = self.agent.log_temperature.detach().exp()
        return self.reward.f(inputs) - temperature * log_probability * (state[:, -1] == 0)

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
