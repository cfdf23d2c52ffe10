"""What GAIL and AIRL share: a discriminator learns to tell the expert from the learner, and its word is the reward."""

from abc import abstractmethod
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_bc.errors import refuse_unless_good
from lightning_bc.strategies.base import Metrics
from lightning_bc.strategies.contract import Needs, Transitions, data_of
from lightning_bc.strategies.online.discriminators import classification_loss, gradient_penalty
from lightning_bc.strategies.online.interactive import OnlineStrategy
from lightning_bc.strategies.online.replay import Replay

WIDEST = 10.0
"""Standard deviations: how far random play may reach, and how far the absorbing state lies from the living."""


class AdversarialStrategy(OnlineStrategy):
    """Soft actor-critic on a learnt reward, off-policy (Discriminator-Actor-Critic, Kostrikov 2019,
    https://arxiv.org/abs/1809.02925): the discriminator compares the demonstrations with the replay.

    **Normalisation.** Observations are standardised by the demonstrations' mean and standard deviation. The penalty wants a
    slope of 1 whatever the direction: in the environment's units, where HalfCheetah's velocities vary ten times as much as
    its angles, the discriminator would see hardly anything but velocities. Where an expert holds still, as on a pole that
    it balances, a tenth of random play's standard deviation is the least.

    **Demonstrations in the critics' batches.** A quarter of what actor and critics learn from are demonstrations, with the
    discriminator's reward like the rest. Critics of the replay alone have no idea what it is worth to go where only the
    expert has been: on Hopper they put the expert's steps far below the learner's own, and there the learner stayed. Half,
    as in Ball 2023 (https://arxiv.org/abs/2302.02948), teaches as fast at first, but then the learner's own mishaps are
    seen too rarely, and its return dips again and again.

    **Terminated episodes.** A reward that is positive everywhere would make a learner cling to life whatever the expert did,
    and a negative one would make it die early. So states get a last entry that is 0 while the episode lives, and an episode
    that terminated goes on for ever in an absorbing state, all zeros but for that last entry, whose reward r is learnt
    like any other; the episode is worth r / (1 - gamma) from there on. The entry is then 10, as far from the living as they
    are from each other at most: nearer, the penalty's slope would keep r above the reward of a living state that is far
    from the expert's, and dying would pay.

    Args:
        discriminator_every: updates of the critics for each one of the discriminator.
        penalty: weight of the gradient penalty.
        options: those of every interactive strategy.
    """

    needs = Needs.TRANSITIONS
    shown = ("critic_loss", "discriminator_loss")

    def __init__(self, discriminator_every: int = 4, penalty: float = 10.0, **options: Any) -> None:
        super().__init__(**options)
        refuse_unless_good(
            "--model.",
            (
                ("discriminator_every", discriminator_every, "at least 1", discriminator_every >= 1),
                ("penalty", penalty, "0 or more", penalty >= 0),
            ),
        )
        self.discriminator_every, self.penalty = discriminator_every, penalty
        self.state_dim = self.observation_dim + 1                   # with the entry for absorbing
        self.expert: Transitions | None = None
        self._accuracy = 0.5                                        # running mean, to notice a discriminator that has won

    @abstractmethod
    def score(self, inputs: Tensor) -> Tensor:
        """The reward of ``inputs`` (batch, 2 state_dim + action_dim), which are state, action and next state: (batch,)."""

    @abstractmethod
    def logits(self, inputs: Tensor) -> Tensor:
        """log D / (1 - D) of ``inputs``, D being the probability of the expert, (batch,)."""

    @abstractmethod
    def discriminator_parameters(self) -> list[nn.Parameter]:
        """What the discriminator's optimizer moves."""

    def inputs(self, batch: Transitions) -> Tensor:
        """States, actions and next states side by side, (batch, 2 state_dim + action_dim)."""
        alive = torch.zeros(len(batch.observations), 1, device=self.device)
        ended = batch.terminated.unsqueeze(-1)                      # (batch, 1)
        following = torch.cat([batch.next_observations * (1 - ended), WIDEST * ended], dim=-1)
        return torch.cat([batch.observations, alive, batch.actions, following], dim=-1)

    def absorbed(self, rows: int) -> Tensor:
        """Inputs of ``rows`` transitions from the absorbing state to itself, with the action zero."""
        state = torch.zeros(self.state_dim, device=self.device)
        state[-1] = WIDEST
        inputs = torch.cat([state, torch.zeros(self.action_dim, device=self.device), state])
        return inputs.expand(rows, -1)

    def rewards(self, batch: Transitions) -> Tensor:
        """The discriminator's."""
        return self.score(self.inputs(batch))

    def value_after_termination(self) -> Tensor:
        """The absorbing state's reward, for ever."""
        return self.score(self.absorbed(1))[0] / (1 - self.discount)

    def discriminator_loss(self, learner: Transitions, expert: Transitions) -> tuple[Tensor, Metrics]:
        """Binary cross-entropy, each terminated episode with a step in the absorbing state, and the gradient penalty."""
        inputs = [self.inputs(learner), self.inputs(expert)]
        ends = [self.absorbed(int(batch.terminated.sum())) for batch in (learner, expert)]
        learner_inputs, expert_inputs = (torch.cat([alive, end]) for alive, end in zip(inputs, ends, strict=True))
        learner_logits, expert_logits = self.logits(learner_inputs), self.logits(expert_inputs)
        classification = classification_loss(expert_logits, learner_logits)
        # Ends too, or the absorbing state's reward would know no bounds; the shorter side begins again to make pairs.
        pairs = torch.arange(max(len(learner_inputs), len(expert_inputs)), device=self.device)
        penalty = gradient_penalty(
            self.score, expert_inputs[pairs % len(expert_inputs)], learner_inputs[pairs % len(learner_inputs)]
        )
        loss = classification + self.penalty * penalty
        return loss, {
            "discriminator_loss": classification.detach(),
            "discriminator_accuracy_expert": (expert_logits > 0).float().mean(),
            "discriminator_accuracy_learner": (learner_logits < 0).float().mean(),
        }

    def fit_normalization(self, replay: Replay) -> None:
        """The demonstrations' mean and standard deviation, the latter at least a tenth of random play's."""
        assert self.expert is not None
        self.border.fit(replay.observations)
        least = self.border.scale / WIDEST
        self.border.fit(self.expert.observations)
        self.border.scale.clamp_(min=least)

    def update_rewards(self, batch: Transitions, update: int) -> Metrics:
        """An update of the discriminator, every few updates of the critics."""
        if update % self.discriminator_every:
            return {}
        assert self.expert is not None
        loss, metrics = self.discriminator_loss(batch, self.sample(self.expert, self.batch_size))
        self._descend(self.optimizers()[-1].optimizer, loss)       # type: ignore[index]
        with torch.no_grad():
            pairs = torch.stack([self.rewards(batch), batch.rewards])
            metrics["reward_correlation"] = torch.corrcoef(pairs)[0, 1].nan_to_num()  # for the eye, never trained on
        accuracy = 0.5 * (metrics["discriminator_accuracy_expert"] + metrics["discriminator_accuracy_learner"])
        self._watch(float(accuracy))
        return metrics

    def mixed(self, batch: Transitions) -> Transitions:
        """Demonstrations in place of the first quarter of ``batch``."""
        assert self.expert is not None
        quarter = self.batch_size // 4
        demonstrated = self.sample(self.expert, quarter)
        return Transitions(*(torch.cat([a, b[quarter:]]) for a, b in zip(demonstrated.columns, batch.columns, strict=True)))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """With the discriminator, last."""
        return super().parameter_groups() | {"discriminator": self.discriminator_parameters()}

    def on_train_start(self) -> None:
        """Take the demonstrations' transitions."""
        expert = data_of(self.trainer).training_transitions
        self.expert = replace(expert, actions=self.border.scaled(expert.actions).clamp(-1.0, 1.0))
        if self._resumed is not None:
            self._accuracy = self._resumed["accuracy"]
        super().on_train_start()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add how well the discriminator has done."""
        super().on_save_checkpoint(checkpoint)
        if "interaction" in checkpoint:
            checkpoint["interaction"]["accuracy"] = self._accuracy

    def _watch(self, accuracy: float) -> None:
        self._accuracy += 0.002 * (accuracy - self._accuracy)       # a memory of about 500 updates
        if self._accuracy > 0.99:
            self._warn_once(
                "discriminator",
                "the discriminator tells expert and learner apart almost without error, so its reward hardly says where to "
                "go. Raise --model.penalty or --model.discriminator_every, or give more demonstrations.",
            )
