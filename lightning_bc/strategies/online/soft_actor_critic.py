"""Soft actor-critic: a policy that maximises reward and entropy (Haarnoja 2018, https://arxiv.org/abs/1812.05905).

The policy is a squashed Gaussian, and of an ensemble of critics the least says what the future is worth:

    a = tanh(m(o) + sigma(o) e),    log pi(a | o) = log Normal(u; m, sigma) - sum_d log(1 - a_d^2)
    Q_i(o, a) <- r + gamma (1 - terminated) (min_j Qbar_j(o', a') - alpha log pi(a' | o')),    a' ~ pi(. | o')
    pi <- argmax E[ min_i Q_i(o, a) - alpha log pi(a | o) ]
    alpha <- falls while the entropy is above -action_dim, rises while it is below

Qbar are slowly moving averages of Q. After a termination a learnt reward may go on: see rewards.py.
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_bc.networks import NetworkFactory
from lightning_bc.strategies.base import Metrics
from lightning_bc.strategies.contract import Metric, Transitions
from lightning_bc.strategies.online.agent import Agent, Descend, Parts, follow
from lightning_bc.strategies.online.critics import Critics
from lightning_bc.strategies.online.rewards import Reward
from lightning_bc.strategies.online.watch import Watch

LOG_SCALE_RANGE = (-5.0, 2.0)

LARGEST_TEMPERATURE = 100.0
"""Reward per nat. log(alpha) moves by about the learning rate per update, so a healthy run never gets here."""


class SquashedGaussian:
    """tanh of a diagonal Normal.

    Args:
        outputs: of the actor's network, (batch, 2 action_dim): means, then raw log standard deviations.
    """

    def __init__(self, outputs: Tensor) -> None:
        low, high = LOG_SCALE_RANGE
        self.mean, raw = outputs.chunk(2, dim=-1)                   # (batch, action_dim)
        self.log_scale = low + (high - low) * (raw.tanh() + 1) / 2

    def sample(self) -> tuple[Tensor, Tensor]:
        """Actions (batch, action_dim), differentiable in the outputs, and their log-probabilities (batch,)."""
        noise = torch.randn_like(self.mean)
        before_tanh = self.mean + self.log_scale.exp() * noise
        return before_tanh.tanh(), self._log_probability(before_tanh, noise)

    def log_probability(self, actions: Tensor, largest: float = 1 - 1e-5) -> Tensor:
        """log pi of given ``actions`` (batch, action_dim), those on a bound moved in, (batch,)."""
        before_tanh = actions.clamp(-largest, largest).arctanh()
        return self._log_probability(before_tanh, (before_tanh - self.mean) / self.log_scale.exp())

    def _log_probability(self, before_tanh: Tensor, noise: Tensor) -> Tensor:
        log_normal = -0.5 * noise.square() - self.log_scale - 0.5 * math.log(2 * math.pi)
        # log(1 - tanh(u)^2) without the rounding of 1 - 1
        log_volume = 2 * (math.log(2) - before_tanh - F.softplus(-2 * before_tanh))
        return (log_normal - log_volume).sum(-1)


class SoftActorCritic(Agent):
    """The agent: networks and losses.

    Args:
        observation_dim: size of an observation.
        action_dim: size of an action.
        network: maps observations to 2 action_dim outputs of the actor: means and raw log standard deviations.
        discount: gamma, how much a reward one step later is worth.
        initial_temperature: alpha at first.
        target_rate: how far the slow critics move towards the others at each update.
        actor_every: updates of the critics for each one of actor and temperature.
    """

    logs = {
        "critic_loss": Metric("reward squared", "sum over critics i of the mean of (Q_i(o, a) - target)^2"),
        "actor_loss": Metric("reward", "mean of temperature log pi(a given o) - min_i Q_i(o, a), a from the policy"),
        "q_value": Metric("reward", "mean of Q_i(o, a) over critics and batch"),
        "reward": Metric("reward", "mean over the batch of what the policy maximises"),
        "entropy": Metric("nat", "mean of -log pi(a given o)"),
        "temperature": Metric("reward per nat", "alpha, the price of entropy"),
    }

    anchor: Callable[[SquashedGaussian, Tensor], Tensor] | None = None
    """What else the actor's loss holds, beside its value in units of the mean |Q|; of policy and observations, a scalar."""

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        network: NetworkFactory,
        discount: float,
        initial_temperature: float,
        target_rate: float,
        actor_every: int,
    ) -> None:
        super().__init__()
        self.action_dim, self.discount, self.target_rate, self.actor_every = action_dim, discount, target_rate, actor_every
        self.network = network(observation_dim, 2 * action_dim)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.critics = Critics(observation_dim + action_dim)
        self.target_critics = Critics(observation_dim + action_dim).requires_grad_(False)
        self.target_critics.load_state_dict(self.critics.state_dict())
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial_temperature)))

    def parts(self) -> Parts:
        """Critics, actor and temperature."""
        return {
            "critic": list(self.critics.parameters()),
            "actor": list(self.network.parameters()),
            "temperature": [self.log_temperature],
        }

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The squashed mean, or a sample."""
        policy = SquashedGaussian(self.averaged(observations))
        return policy.mean.tanh() if deterministic else policy.sample()[0]

    def policy(self, observations: Tensor) -> SquashedGaussian:
        """pi(. | o) as it learns, given ``observations`` (batch, observation_dim)."""
        return SquashedGaussian(self.network(observations))

    def explore(self, observations: Tensor) -> Tensor:
        """A sample."""
        return self.policy(observations).sample()[0]

    def critic_loss(self, batch: Transitions, reward: Reward) -> tuple[Tensor, Metrics]:
        """Squared distance of each critic to the reward and the discounted soft value of what follows."""
        with torch.no_grad():
            rewards = reward(batch)                                 # (batch,)
            next_actions, log_probability = self.policy(batch.next_observations).sample()
            next_values = self.target_critics(batch.next_observations, next_actions).amin(0)
            next_values = next_values - self.log_temperature.exp() * log_probability
            next_values = torch.where(batch.terminated.bool(), reward.value_after_termination(), next_values)
            targets = rewards + self.discount * next_values         # (batch,)
        values = self.critics(batch.observations, batch.actions)    # (members, batch)
        loss = (values - targets).square().mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q_value": values.detach().mean(), "reward": rewards.mean()}

    def actor_loss(self, observations: Tensor) -> tuple[Tensor, Metrics]:
        """Value and entropy of the policy's own actions, negated."""
        policy = self.policy(observations)
        actions, log_probability = policy.sample()
        values = self.critics(observations, actions).amin(0)        # (batch,)
        loss = (self.log_temperature.exp().detach() * log_probability - values).mean()
        metrics = {"actor_loss": loss.detach(), "entropy": -log_probability.detach().mean()}
        if self.anchor is not None:
            loss = loss / values.detach().abs().mean() + self.anchor(policy, observations)
        return loss, metrics

    def temperature_loss(self, entropy: Tensor) -> Tensor:
        """Its gradient raises the temperature while the policy's ``entropy`` is under -action_dim."""
        return self.log_temperature.exp() * (entropy + self.action_dim)

    def improve(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """Actor and temperature at every ``actor_every``-th update; slow critics and average follow at each."""
        metrics: Metrics = {}
        if self.actor_learns and number % self.actor_every == 0:
            self.critics.requires_grad_(False)
            loss, metrics = self.actor_loss(batch.observations)
            descend("actor", loss)
            self.critics.requires_grad_(True)
            if self.anchor is None:                                 # else both would hold the entropy, and fight over it
                descend("temperature", self.temperature_loss(metrics["entropy"]))
            metrics["temperature"] = self.log_temperature.detach().exp()
        follow(self.target_critics, self.critics, self.target_rate)
        follow(self.averaged, self.network, self.rate_of_average)
        return metrics

    def check(self, watch: Watch) -> None:
        """Warn of a temperature that diverges."""
        temperature = self.log_temperature.detach().exp().item()
        if not math.isfinite(temperature):
            meaning = "the losses have diverged, and nothing more is learnt"
        elif temperature > LARGEST_TEMPERATURE:
            meaning = (
                "however much it is paid for, the policy's entropy stays under its target, and the reward hardly counts any "
                "more. Unless rewards are that large in this environment, training diverges"
            )
        else:
            return
        watch.warn(
            "temperature",
            f"the temperature is {temperature:.3g}: {meaning}. Lower --model.optimizer.lr or --model.updates_per_step.",
        )
