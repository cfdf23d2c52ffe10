"""TD3: twin delayed deep deterministic policy gradient (Fujimoto 2018, https://arxiv.org/abs/1802.09477).

A deterministic actor climbs the first critic; three things keep it from climbing the critics' errors:

    a' = clip(tanh m_slow(o') + clip(sigma e, -c, c), -1, 1)                   target policy smoothing
    Q_i(o, a) <- r + gamma (1 - terminated) min_j Q_slow_j(o', a')              the least of two critics
    m <- argmax E[ Q_1(o, tanh m(o)) ]                                         delayed: at every second update

It collects with noise of its own, since the policy has none. Nothing pays for entropy, so its actions may lie on their
bounds where that is best, as those of an entropy-seeking expert do not. The reward is the environment's, and no
demonstrations are read (``data.path: null``). Deviations: the critics are layer-normalised (critics.py), and what plays
is the average of the actor's weights (agent.py).
"""

import copy
from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from lightning_bc.bounds import NonNegativeFloat, PositiveFloat, PositiveInt, UnitIntervalAboveZero, UnitIntervalBelowOne
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric, Needs, Transitions
from lightning_bc.strategies.online.agent import Agent, Descend, Parts, follow
from lightning_bc.strategies.online.critics import Critics
from lightning_bc.strategies.online.interaction import Interaction
from lightning_bc.strategies.online.loop import OnlineStrategy
from lightning_bc.strategies.online.rewards import EnvironmentReward, Reward
from lightning_bc.strategies.online.watch import Watch
from lightning_bc.strategies.optimizers import DefaultAdam


class TwinDelayed(Agent):
    """The agent: networks and losses. Arguments are those of :class:`TD3`."""

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        network: NetworkFactory,
        discount: float,
        target_rate: float,
        actor_every: int,
        exploration_noise: float,
        target_noise: float,
        target_noise_bound: float,
    ) -> None:
        super().__init__()
        self.discount, self.target_rate, self.actor_every = discount, target_rate, actor_every
        self.exploration_noise, self.target_noise, self.noise_bound = exploration_noise, target_noise, target_noise_bound
        self.network = network(observation_dim, action_dim)
        self.critics = Critics(observation_dim + action_dim)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.target_network = copy.deepcopy(self.network).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)

    def parts(self) -> Parts:
        """Critics and actor."""
        return {"critic": list(self.critics.parameters()), "actor": list(self.network.parameters())}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """tanh m(o); there is no other action to sample."""
        return self.averaged(observations).tanh()

    def explore(self, observations: Tensor) -> Tensor:
        """tanh m(o) and noise."""
        actions = self.network(observations).tanh()                 # (batch, action_dim)
        return actions + self.exploration_noise * torch.randn_like(actions)

    def critic_loss(self, batch: Transitions, reward: Reward) -> tuple[Tensor, Metrics]:
        """Squared distance of each critic to the reward and the discounted value of the slow actor's smoothed action."""
        with torch.no_grad():
            rewards = reward(batch)                                 # (batch,)
            noise = (self.target_noise * torch.randn_like(batch.actions)).clamp(-self.noise_bound, self.noise_bound)
            next_actions = (self.target_network(batch.next_observations).tanh() + noise).clamp(-1.0, 1.0)
            next_values = self.target_critics(batch.next_observations, next_actions).amin(0)
            next_values = torch.where(batch.terminated.bool(), reward.value_after_termination(), next_values)
            targets = rewards + self.discount * next_values         # (batch,)
        values = self.critics(batch.observations, batch.actions)    # (members, batch)
        loss = F.mse_loss(values, targets.expand_as(values), reduction="none").mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q_value": values.detach().mean(), "reward": rewards.mean()}

    def actor_loss(self, observations: Tensor) -> Tensor:
        """The first critic's value of the actor's actions, negated."""
        return -self.critics(observations, self.network(observations).tanh())[0].mean()

    def improve(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """The actor and the slow networks at every ``actor_every``-th update; the average follows at each."""
        metrics: Metrics = {}
        if number % self.actor_every == 0:
            self.critics.requires_grad_(False)
            loss = self.actor_loss(batch.observations)
            descend("actor", loss)
            self.critics.requires_grad_(True)
            metrics["actor_loss"] = loss.detach()
            follow(self.target_critics, self.critics, self.target_rate)
            follow(self.target_network, self.network, self.target_rate)
        follow(self.averaged, self.network, self.rate_of_average)
        return metrics

    def check(self, watch: Watch) -> None:
        """Nothing is known that goes wrong silently."""


class TD3(OnlineStrategy):
    """Maximise the environment's reward by a deterministic policy.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps observations to action_dim outputs of the actor, before the tanh that bounds the action.
        total_environment_steps: where the run ends.
        num_envs: sub-environments that are stepped together.
        learning_starts: environment steps with random actions before the first update.
        updates_per_step: updates for each environment step.
        batch_size: transitions per update.
        replay_capacity: transitions that are remembered.
        discount: gamma, how much a reward one step later is worth.
        target_rate: how far the slow networks move towards the others at each of their updates.
        actor_every: updates of the critics for each one of the actor and of the slow networks.
        exploration_noise: standard deviation of the noise on collected actions, scaled to [-1, 1].
        target_noise: standard deviation of the noise on the slow actor's actions, in the critics' targets.
        target_noise_bound: how far that noise goes at most.
        optimizer: of each of the networks.
        schedule: "cosine" lowers the learning rates to zero over the run's environment steps; "constant" leaves them.
    """

    needs = Needs.NOTHING
    recordable = True
    logs = Interaction.logs | {
        "critic_loss": Metric("reward squared", "sum over critics i of the mean of (Q_i(o, a) - target)^2"),
        "actor_loss": Metric("reward", "mean of -Q_1(o, a), a from the policy"),
        "q_value": Metric("reward", "mean of Q_i(o, a) over critics and batch"),
        "reward": Metric("reward", "mean over the batch of what the policy maximises"),
    }
    shown = ("critic_loss",)
    stochastic = False
    cleanrl_heads = ("fc_mu",)
    agent: TwinDelayed

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
        target_rate: UnitIntervalAboveZero = 0.005,
        actor_every: PositiveInt = 2,
        exploration_noise: NonNegativeFloat = 0.1,
        target_noise: NonNegativeFloat = 0.2,
        target_noise_bound: NonNegativeFloat = 0.5,
        optimizer: OptimizerCallable = DefaultAdam,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(
            observation_dim, action_low, action_high, optimizer, schedule, total_environment_steps, num_envs,
            learning_starts, updates_per_step, batch_size, replay_capacity,
        )  # fmt: skip
        self.agent = TwinDelayed(
            observation_dim, self.action_dim, network, discount, target_rate, actor_every,
            exploration_noise, target_noise, target_noise_bound,
        )  # fmt: skip
        self.reward = EnvironmentReward()

    def update(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """A step of the critics, and of the actor where it is due."""
        loss, metrics = self.agent.critic_loss(batch, self.reward)
        descend("critic", loss)
        return metrics | self.agent.improve(batch, number, descend)
