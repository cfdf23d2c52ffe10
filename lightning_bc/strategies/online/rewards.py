"""What an agent maximises: the environment's reward, or a discriminator's."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_bc.strategies.base import Metrics
from lightning_bc.strategies.contract import Metric, Transitions
from lightning_bc.strategies.online.agent import Descend
from lightning_bc.strategies.online.demonstrated import AbsorbingStates
from lightning_bc.strategies.online.discriminators import classification_loss, gradient_penalty
from lightning_bc.strategies.online.watch import Watch


class Reward(nn.Module, ABC):
    """A reward of transitions with normalised observations; critics take no gradient through it."""

    @abstractmethod
    def forward(self, batch: Transitions) -> Tensor:
        """The reward of each of ``batch``, (batch,)."""

    @abstractmethod
    def value_after_termination(self) -> Tensor | float:
        """What a terminated episode is worth from there on, a scalar."""


class EnvironmentReward(Reward):
    """The environment's own; nothing is earned after a termination."""

    def forward(self, batch: Transitions) -> Tensor:
        """As it was observed."""
        return batch.rewards

    def value_after_termination(self) -> float:
        """Nothing."""
        return 0.0


class DiscriminatorReward(Reward):
    """The output f of a discriminator, which learns to tell demonstrations from the replay, off-policy
    (Discriminator-Actor-Critic, Kostrikov 2019, https://arxiv.org/abs/1809.02925).

        L = - E_expert[log D] - E_replay[log(1 - D)] + penalty E[(||grad f|| - 1)^2],    D = sigmoid(logit)

    After a termination f of the absorbing state, learnt like any other, is earned for ever: f / (1 - gamma).

    Args:
        f: maps inputs (batch, 2 state_dim + action_dim), which are state, action and next state, to rewards (batch,).
        states: how these are made of transitions.
        discount: gamma, how much a reward one step later is worth.
        penalty: weight of the gradient penalty.
        every: updates of the critics for each one of the discriminator.
        watch: follows how well the discriminator does.
    """

    logs = {
        "discriminator_loss": Metric("nat", "binary cross-entropy of expert and learner, without the gradient penalty"),
        "discriminator_accuracy_expert": Metric("1", "share of the expert's batch that is taken for the expert's"),
        "discriminator_accuracy_learner": Metric("1", "share of the replay's batch that is taken for the learner's"),
        "reward_correlation": Metric(
            "1", "correlation over the batch of the learnt reward with the environment's, which is never trained on"
        ),
    }

    def __init__(
        self, f: nn.Module, states: AbsorbingStates, discount: float, penalty: float, every: int, watch: Watch
    ) -> None:
        super().__init__()
        self.f, self.states, self.watch = f, states, watch
        self.discount, self.penalty, self.every = discount, penalty, every

    def forward(self, batch: Transitions) -> Tensor:
        """f(s, a, s')."""
        return self.f(self.states.inputs(batch))

    def value_after_termination(self) -> Tensor:
        """The absorbing state's reward, for ever."""
        (parameter, *_) = self.f.parameters()
        return self.f(self.states.absorbed(1, parameter.device))[0] / (1 - self.discount)

    def loss(
        self, learner: Transitions, expert: Transitions, logits: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Metrics]:
        """Binary cross-entropy, each terminated episode with a step in the absorbing state, and the gradient penalty.

        Args:
            learner: transitions of the replay.
            expert: demonstrated ones.
            logits: log D / (1 - D) of inputs, D being the probability of the expert, (batch,).
        """
        learner_inputs, expert_inputs = (self.states.inputs_and_ends(batch) for batch in (learner, expert))
        learner_logits, expert_logits = logits(learner_inputs), logits(expert_inputs)
        classification = classification_loss(expert_logits, learner_logits)
        # Ends too, or the absorbing state's reward would know no bounds; the shorter side begins again to make pairs.
        pairs = torch.arange(max(len(learner_inputs), len(expert_inputs)), device=learner_inputs.device)
        penalty = gradient_penalty(
            self.f, expert_inputs[pairs % len(expert_inputs)], learner_inputs[pairs % len(learner_inputs)]
        )
        loss = classification + self.penalty * penalty
        return loss, {
            "discriminator_loss": classification.detach(),
            "discriminator_accuracy_expert": (expert_logits > 0).float().mean(),
            "discriminator_accuracy_learner": (learner_logits < 0).float().mean(),
        }

    def update(
        self,
        batch: Transitions,
        demonstrated: Callable[[int], Transitions],
        number: int,
        descend: Descend,
        logits: Callable[[Tensor], Tensor],
    ) -> Metrics:
        """An update of the discriminator, at every ``every``-th update of the critics.

        Args:
            batch: transitions of the replay.
            demonstrated: draws so many demonstrated ones.
            number: of the critics' update.
            descend: steps the optimizer ``discriminator``.
            logits: as in ``loss``.
        """
        if number % self.every:
            return {}
        loss, metrics = self.loss(batch, demonstrated(len(batch.rewards)), logits)
        descend("discriminator", loss)
        with torch.no_grad():
            learnt, observed = (rewards - rewards.mean() for rewards in (self(batch), batch.rewards))
            # for the eye, never trained on; torch.corrcoef would wait for the device
            metrics["reward_correlation"] = F.cosine_similarity(learnt, observed, dim=0)
        accuracy = 0.5 * (metrics["discriminator_accuracy_expert"] + metrics["discriminator_accuracy_learner"])
        self.watch.follow("discriminator_accuracy", accuracy, rate=0.002, first=0.5)  # over about 500 updates
        return metrics

    def check(self) -> None:
        """Warn of a discriminator that has won."""
        if self.watch.means.get("discriminator_accuracy", 0.0) > 0.99:
            self.watch.warn(
                "discriminator",
                "the discriminator tells expert and learner apart almost without error, so its reward hardly says where to "
                "go. Raise --model.penalty or --model.discriminator_every, or give more demonstrations.",
            )
