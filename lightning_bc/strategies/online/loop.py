"""The loop of strategies that act in the environment while they learn: act, store, update.

    while environment_steps < learning_starts:  play uniformly random actions, or a clone's
    repeat:  play the learning actor's actions, one step of each sub-environment;  make the updates that are due

What is learnt, and from what reward, is the strategy's: its ``update``.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer

from lightning_bc.aliases import StateDict
from lightning_bc.environments import make
from lightning_bc.episodes import SELECTION_BANK
from lightning_bc.errors import InputError, takes_state
from lightning_bc.networks import Network
from lightning_bc.strategies.base import Metrics, Schedule, Strategy
from lightning_bc.strategies.contract import Needs, Transitions, data_of
from lightning_bc.strategies.online.agent import Agent, Descend, Parts, averaging_rate
from lightning_bc.strategies.online.demonstrated import Demonstrated
from lightning_bc.strategies.online.interaction import FEWEST_THAT_RESTART, Interaction
from lightning_bc.strategies.online.replay import Replay, normalised
from lightning_bc.strategies.online.watch import Watch

LOSS_OF = "the loss of the "

CRITICS_ALONE = -1
"""The kind of an update in which the actor does not learn."""

COUNTED = "critic"
"""The part whose optimizer steps through Lightning, once per training_step, so that ``global_step`` counts these."""


class OnlineStrategy(Strategy):
    """A strategy that learns by acting, off-policy.

    One ``training_step`` steps all sub-environments once, stores what happened, and makes ``updates_per_step`` updates for
    each of their steps; before the first one, random actions fill the replay. Lightning's ``global_step`` counts
    training_steps; ``environment_steps`` and ``optimizer_steps`` count environment steps and updates.

    A final class sets ``agent`` in its constructor and defines ``update``. What exists only while it trains is
    ``interaction``, and, where it ``needs`` demonstrated transitions, ``demonstrated``; by these observations are then
    standardised.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        optimizer: of each of the networks.
        schedule: "cosine" lowers the learning rates to zero over the run's environment steps; "constant" leaves them.
        total_environment_steps: where the run ends.
        num_envs: sub-environments that are stepped together.
        learning_starts: environment steps with random actions before the first update.
        updates_per_step: updates for each environment step.
        batch_size: transitions of the replay per update.
        replay_capacity: transitions that are remembered.
        starts_every: steps within which one of the sub-environments begins an episode; see ``Interaction``.

    Raises:
        InputError: if two of these contradict each other.
    """

    agent: Agent
    interaction: Interaction
    demonstrated: Demonstrated
    learns_by_acting = True
    log_every = 100

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        optimizer: OptimizerCallable,
        schedule: Schedule,
        total_environment_steps: int,
        num_envs: int,
        learning_starts: int,
        updates_per_step: float,
        batch_size: int,
        replay_capacity: int,
        starts_every: int | None = None,
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.total_environment_steps, self.num_envs = total_environment_steps, num_envs
        self.learning_starts, self.updates_per_step = learning_starts, updates_per_step
        self.batch_size, self.replay_capacity = batch_size, replay_capacity
        self.starts_every = starts_every
        self._refuse_contradictions()
        self.automatic_optimization = False
        self.watch = Watch()
        self.environment_steps = self.optimizer_steps = 0           # numbers, not buffers: nothing waits for the device
        self._resumed: StateDict = {}

    def _refuse_contradictions(self) -> None:
        batch, total, num_envs = self.batch_size, self.total_environment_steps, self.num_envs
        least = f"{1 / num_envs:g}: an update each time that the sub-environments step"
        for name, wanted, is_good in (
            ("replay_capacity", f"at least a batch, {batch}", self.replay_capacity >= batch),
            ("learning_starts", f"at least a batch, {batch}", self.learning_starts >= batch),
            (
                "learning_starts",
                f"less than --model.total_environment_steps, {total}: there the run ends",
                self.learning_starts < total,
            ),
            (
                "starts_every",
                f"at least {FEWEST_THAT_RESTART} of --model.num_envs, of which a quarter begins anew",
                self.starts_every is None or num_envs >= FEWEST_THAT_RESTART,
            ),
            ("updates_per_step", f"at least 1 / num_envs, {least}", self.updates_per_step * num_envs >= 1),
        ):
            if not is_good:
                raise InputError(f"--model.{name} {getattr(self, name)}: wanted {wanted}.")

    # What a strategy defines

    @abstractmethod
    def update(self, batch: Transitions, number: int, descend: Descend) -> Metrics:
        """One update.

        Args:
            batch: of the replay, as agents see it.
            number: how many updates came before.
            descend: steps the optimizer of a part: see ``parts``.

        Returns:
            Scalars to log by name.
        """

    def first_actions(self) -> Tensor:
        """What is played before the first update, scaled: uniformly random actions (num_envs, action_dim)."""
        return 2 * torch.rand(self.num_envs, self.action_dim, device=self.device) - 1

    def explored_actions(self) -> Tensor:
        """The learning actor's actions, scaled, (num_envs, action_dim)."""
        with torch.no_grad(), self.full_precision():
            return self.agent.explore(self.border.observe(self.interaction.observations)).clamp(-1.0, 1.0)

    def prepare(self, number: int) -> None:
        """Set what depends on how many updates came before, ``number``."""
        self.agent.rate_of_average.fill_(averaging_rate(number))

    def parts(self) -> Parts:
        """What each optimizer moves; more than the agent's where something else learns too."""
        return self.agent.parts()

    def check(self) -> None:
        """Warn of what goes wrong; called as often as metrics are logged."""
        self.agent.check(self.watch)

    # What others ask of a strategy

    @property
    def steps_taken(self) -> dict[str, int]:
        """Both counters; Lightning's counts training_steps."""
        return {"optimizer_steps": self.optimizer_steps, "environment_steps": self.environment_steps}

    @property
    def position(self) -> int:
        """Environment steps."""
        return self.steps_taken["environment_steps"]

    @property
    def run_length(self) -> int:
        """All environment steps."""
        return self.total_environment_steps

    @property
    def actor(self) -> Network:
        """The averaged one."""
        return self.agent.averaged

    def acting_weights(self) -> StateDict:
        """The averaged actor's, and the border's."""
        parts = ("border.", "agent.averaged.")
        return {name: value for name, value in self.state_dict().items() if name.startswith(parts)}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The averaged actor's actions."""
        return self.agent.act(observations, deterministic)

    # The loop

    def configure_optimizers(self) -> Any:
        """One optimizer per part; all are in checkpoints."""
        return [self.optimizer(parameters) for parameters in self.parts().values()]

    def on_train_start(self) -> None:
        """Make sub-environments and replay, new or as the checkpoint left them, then restore the random state."""
        data = data_of(self.trainer)
        self.interaction = Interaction(
            make(data.environment_id, self.num_envs),
            Replay(self.replay_capacity, self.observation_dim, self.action_dim, self.device),
            self.border,
            self.device,
            self.starts_every,
        )
        if self.needs is Needs.TRANSITIONS:
            self.demonstrated = Demonstrated(data.training_transitions, self.border)
        if self._resumed:
            self._go_on(self._resumed)
            self._resumed = {}
        else:
            learning_bank = SELECTION_BANK.first - self.num_envs
            seed = int(np.random.SeedSequence((data.seed, 1)).generate_state(1)[0]) % learning_bank
            self.interaction.environments.reset(seed=seed)
            if 2 * self.learning_starts > self.total_environment_steps:
                rank_zero_only(warnings.warn)(
                    f"{self.learning_starts:,} of the {self.total_environment_steps:,} environment steps are played before "
                    "the first update. Set --model.total_environment_steps higher, or --model.learning_starts lower."
                )
        self._stop_at_the_end()
        super().on_train_start()

    def training_step(self, batch: Any, batch_index: int) -> None:
        """Step the sub-environments, and make the updates that are due."""
        while self.environment_steps < self.learning_starts:
            self._step(self.first_actions())
        if self.optimizer_steps == 0:
            self._fit_border()
        self._step(self.explored_actions())
        learning_since = max(self.learning_starts, self.num_envs)
        due = math.floor((self.environment_steps - learning_since) * self.updates_per_step)
        self.learn(max(1, due - self.optimizer_steps))
        if self.global_step % self.log_every == 0:
            measured = {f"train/{name}": value for name, value in self.interaction.measured.items()}
            self.log_dict(measured, logger=False, batch_size=1)
            self.check()
        self._stop_at_the_end()

    def learn(self, updates: int) -> None:
        """Make ``updates`` updates from the replay; Lightning counts the last step of the critics."""
        optimizers: dict[str, Any] = dict(zip(self.parts(), self.optimizers(), strict=True))
        bare = {part: optimizer.optimizer for part, optimizer in optimizers.items()}
        first, is_recorded = self.optimizer_steps, self.is_recorded
        self._set_rates(bare.values())
        self.losses = []
        with self.replays([*bare.values()]) if is_recorded else nullcontext():
            for number in range(first, first + updates):
                self.prepare(number)
                if is_recorded:
                    # all that an update wants to know of its number
                    kind = number % self.agent.actor_every if self.agent.actor_learns else CRITICS_ALONE
                    measured = self.replaying(kind, partial(self._update, bare, kind), list(bare.values()))()
                else:
                    is_counted = number == first + updates - 1
                    measured = self._update(bare | {COUNTED: optimizers[COUNTED]} if is_counted else bare, number)
                self.optimizer_steps += 1
                for name in [name for name in measured if name.startswith(LOSS_OF)]:
                    self.losses.append((self.optimizer_steps, name, measured.pop(name)))
                self.interaction.measured |= measured
        if is_recorded:
            self.count_step(optimizers[COUNTED])

    def _set_rates(self, optimizers: Iterable[Optimizer]) -> None:
        """Set the learning rates, which depend on the environment steps alone, so that a run that is made longer goes on.

            lr_t = lr_0 (1 + cos(pi t / T)) / 2
        """
        if self.schedule == "cosine":
            share = (1 + math.cos(math.pi * min(1.0, self.environment_steps / self.total_environment_steps))) / 2
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = share * group.setdefault("initial_lr", group["lr"])

    def _update(self, optimizers: Mapping[str, Any], number: int) -> Metrics:
        """One update; what it measures, and the loss of each part."""
        losses: Metrics = {}

        def descend(part: str, loss: Tensor) -> None:
            losses[LOSS_OF + part] = loss.detach()
            optimizers[part].zero_grad()
            self.manual_backward(loss)
            optimizers[part].step()
            torch.clear_autocast_cache()                            # of the weights before the step, under mixed precision

        batch = normalised(self.interaction.replay.sample(self.batch_size), self.border)
        return self.update(batch, number, descend) | losses

    def _fit_border(self) -> None:
        """Standardise observations by demonstrations, where there are some, and hide what is not to be seen."""
        if self.needs is Needs.TRANSITIONS:
            self.demonstrated.fit_border(self.interaction.replay)
        self.border.hide(data_of(self.trainer).hidden_dimensions)

    def _step(self, scaled: Tensor) -> None:
        self.interaction.step(scaled, self.optimizer_steps)
        self.environment_steps += self.num_envs

    def _stop_at_the_end(self) -> None:
        if self.environment_steps >= self.total_environment_steps:
            self.trainer.should_stop = True

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: StateDict) -> None:
        """Add what an exact resume needs."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["steps_taken"] = self.steps_taken
        if hasattr(self, "interaction"):
            checkpoint["interaction"] = self.interaction.state_dict() | {"watch": self.watch.state_dict()}

    @takes_state
    def on_load_checkpoint(self, checkpoint: StateDict) -> None:
        """Keep it until training starts."""
        super().on_load_checkpoint(checkpoint)
        self._resumed = checkpoint.get("interaction", {})
        self.optimizer_steps, self.environment_steps = (
            checkpoint["steps_taken"][name] for name in ("optimizer_steps", "environment_steps")
        )

    @takes_state
    def _go_on(self, state: StateDict) -> None:
        self.interaction.load_state_dict(state)
        self.watch.load_state_dict(state["watch"])

    def teardown(self, stage: str) -> None:
        """Let the sub-environments go."""
        if hasattr(self, "interaction"):
            self.interaction.environments.close()
            del self.interaction
