"""IQ-Learn: inverse soft Q-learning (Garg 2021, https://arxiv.org/abs/2106.12142). A soft Q function says which reward it is
optimal for, so learning it from demonstrations learns reward and policy at once; there is no discriminator.

    r(s, a, s') = Q(s, a) - gamma V(s'),    V(s) = E_pi[Q(s, a) - alpha log pi(a | s)]
    L(Q) = - E_expert[r] + E[V(s) - gamma V(s')] + E[r^2] / (4 chi_square_alpha)
    pi <- soft actor-critic's step on Q

The first term makes the expert's steps worth much. The second is what the policy earns, (1 - gamma) E_0[V(s_0)] in the
paper's equation 9, which telescopes along any trajectories (equation 10): without it Q would grow everywhere. The third
is the regularisation by the chi-square divergence, which is convex and bounds the learnt rewards: at the best Q they
are 4 chi_square_alpha (p_expert - p_learner) / (p_expert + p_learner).

Which transitions. Of the official code's variants this is ``method.loss=value method.regularize=True``, with which its
HalfCheetah is trained online: the last two expectations are over demonstrations and replay in equal parts. With the
demonstrations' alone ("value_expert") Q is bound nowhere that only the learner goes; with the first states alone ("v0")
few samples carry the term. Deviations: the regularisation takes the replay's own actions rather than new ones, V(s')
has a gradient as in the paper, the temperature is learnt as in soft actor-critic instead of fixed at 0.01, and V is
each critic's own. The official code takes the least critic's for all; then one critic can be high where the other one
is low, which the second term does not see (on two known densities one critic's rewards spanned 4.2 and the other's 1.4,
where the best span 2.9).

Terminated episodes. V = 0 after a termination, as in the official code, is a reward that nobody learnt: where the
expert's steps earn more, the learner stays alive whatever the expert did, and where they earn less it dies early. Here
the episode goes on in an absorbing state whose reward r_A is learnt, a single number as there is nothing to choose, and
its value is r_A / (1 - gamma). With a weight of 1 / (1 - gamma) steps, as far as the discount sees, it joins each of
the expectations (LS-IQ treats absorbing states alike, Al-Hafez 2023, https://arxiv.org/abs/2303.00599).
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_bc.bounds import PositiveFloat, PositiveInt, UnitIntervalBelowOne
from lightning_bc.networks import MLP, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric, Needs, Transitions
from lightning_bc.strategies.online.agent import Descend, Parts
from lightning_bc.strategies.online.interaction import Interaction
from lightning_bc.strategies.online.loop import OnlineStrategy
from lightning_bc.strategies.online.replay import joined
from lightning_bc.strategies.online.soft_actor_critic import SoftActorCritic
from lightning_bc.strategies.optimizers import DefaultAdam


class IQLearn(OnlineStrategy):
    """Soft actor-critic whose critics make the demonstrations optimal.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps observations to 2 action_dim outputs of the actor: means and raw log standard deviations.
        total_environment_steps: where the run ends.
        num_envs: sub-environments that are stepped together.
        learning_starts: environment steps with random actions before the first update.
        updates_per_step: updates for each environment step.
        batch_size: transitions of the replay per update; as many demonstrated ones join them.
        replay_capacity: transitions that are remembered.
        discount: gamma, how much a reward one step later is worth.
        initial_temperature: what entropy is worth at first; it then follows the policy's entropy. From 1, where Haarnoja
            begins, it falls for ten thousand updates before the reward counts for much.
        actor_every: updates of the critics for each one of actor and temperature.
        chi_square_alpha: the regularisation's weight is 1 / (4 chi_square_alpha); rewards up to 4 of it are learnt.
        optimizer: of each of the networks.
        schedule: "cosine" lowers the learning rates to zero over the run's environment steps; "constant" leaves them.
    """

    needs = Needs.TRANSITIONS
    recordable = True
    logs = Interaction.logs | SoftActorCritic.logs | {
        "critic_loss": Metric("reward", "mean over critics of IQ-Learn's loss, L(Q)"),
        "reward": Metric("reward", "mean of Q(o, a) - gamma V(o') over critics and the replay's batch"),
        "reward_expert": Metric("reward", "the same over the demonstrated batch"),
    }
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
        batch_size: PositiveInt = 128,
        replay_capacity: PositiveInt = 1_000_000,
        discount: UnitIntervalBelowOne = 0.99,
        initial_temperature: PositiveFloat = 0.1,
        actor_every: PositiveInt = 2,
        chi_square_alpha: PositiveFloat = 0.5,
        optimizer: OptimizerCallable = DefaultAdam,
        schedule: Schedule = "constant",
    ) -> None:
        super().__init__(
            observation_dim, action_low, action_high, optimizer, schedule, total_environment_steps, num_envs,
            learning_starts, updates_per_step, batch_size, replay_capacity,
        )  # fmt: skip
        self.agent = SoftActorCritic(
            observation_dim, self.action_dim, network, discount, initial_temperature, 1.0, actor_every
        )                                                           # 1.0: of slow critics, which are not asked here
        self.discount, self.chi_square_alpha = discount, chi_square_alpha
        self.absorbing_reward = nn.Parameter(torch.zeros(()))       # r_A

    def value(self, observations: Tensor) -> Tensor:
        """V_i of ``observations`` (batch, observation_dim), of each critic by one action of the policy, (members, batch)."""
        with torch.no_grad():
            actions, log_probability = self.agent.policy(observations).sample()
            price = self.agent.log_temperature.exp() * log_probability
        return self.agent.critics(observations, actions) - price

    def value_after_termination(self) -> Tensor:
        """The absorbing state's reward, for ever."""
        return self.absorbing_reward / (1 - self.discount)

    def critic_loss(self, learner: Transitions, expert: Transitions) -> tuple[Tensor, Metrics]:
        """L(Q), mean over critics."""
        both, first = joined(learner, expert), len(learner.rewards)  # demonstrations from row ``first`` on
        ended = both.terminated                                     # (both,)
        values, next_values = self.value(torch.cat([both.observations, both.next_observations])).chunk(2, dim=1)
        # (members, both)
        following = self.discount * torch.where(ended.bool(), self.value_after_termination(), next_values)
        rewards = self.agent.critics(both.observations, both.actions) - following
        after = self.absorbing_reward
        of_expert = self._mean(rewards[:, first:], after, ended[first:])  # (members,)
        of_policy = self._mean(values - following, after, ended)    # (members,)
        squares = self._mean(rewards.square(), after.square(), ended)  # (members,)
        loss = (of_policy - of_expert + squares / (4 * self.chi_square_alpha)).mean()
        return loss, {
            "critic_loss": loss.detach(),
            "q_value": (rewards + following).detach().mean(),
            "reward": rewards.detach()[:, :first].mean(),
            "reward_expert": rewards.detach()[:, first:].mean(),
        }

    def update(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """A step of the critics on replay and demonstrations, then of actor and temperature on both."""
        expert = self.demonstrated.sample(self.batch_size)
        loss, metrics = self.critic_loss(batch, expert)
        descend("critic", loss)
        return metrics | self.agent.improve(joined(batch, expert), number, descend)

    def parts(self) -> Parts:
        """The absorbing state's reward learns with the critics."""
        parts = self.agent.parts()
        return parts | {"critic": [*parts["critic"], self.absorbing_reward]}

    def _mean(self, steps: Tensor, after: Tensor, ended: Tensor) -> Tensor:
        """Over ``steps`` (..., batch), and over ``after`` in the absorbing state where they ``ended`` (batch,): (...)."""
        weight = ended.sum() / (1 - self.discount)                  # how many steps are spent there
        return (steps.sum(-1) + weight * after) / (len(ended) + weight)
