"""Strategies that act in the environment while they learn: the loop that soft actor-critic, GAIL and AIRL share."""

import copy
import math
import warnings
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_bc.environments import Environments, make
from lightning_bc.episodes import SELECTION_BANK
from lightning_bc.errors import refuse_unless_good
from lightning_bc.networks import MLP, Network, NetworkFactory
from lightning_bc.strategies.base import Metrics, Strategy
from lightning_bc.strategies.contract import Transitions, data_of
from lightning_bc.strategies.online.replay import Replay
from lightning_bc.strategies.online.soft_actor_critic import Critics, SquashedGaussian
from lightning_bc.strategies.optimizers import Adam

LARGEST_TEMPERATURE = 100.0
"""Reward a nat. Its logarithm moves by about a learning rate an update: only a long climb ends here."""


class OnlineStrategy(Strategy):
    """A strategy that learns by acting: off-policy soft actor-critic on a reward that its subclass defines.

    One ``training_step`` steps all sub-environments once, stores what happened, and makes ``updates_per_step`` updates for
    each of their steps; before the first one, random actions fill the replay. The critics' optimizer steps through
    Lightning once in it, so that Lightning's ``global_step`` counts training_steps; what is counted in the world, and how
    many updates were made, is in the buffers ``environment_steps`` and ``optimizer_steps``.

    **An averaged actor.** Actor and critics chase each other, a discriminator too, and the return goes up and down on the
    way. What plays and is scored is the average of the actor's weights, each of update n with a weight growing as n^9, so
    that it is over about the last tenth (polynomial-decay averaging, Shamir 2013, https://arxiv.org/abs/1212.1824; of the
    generator in generative adversarial training, Yazici 2019, https://arxiv.org/abs/1806.04498). What collects and learns
    is the actor itself.

    Args:
        network: maps observations to 2 action_dim outputs of the actor: means and raw log standard deviations.
        total_environment_steps: where the run ends.
        num_envs: sub-environments that are stepped together.
        learning_starts: environment steps with random actions before the first update.
        updates_per_step: updates for each environment step.
        batch_size: transitions an update.
        replay_capacity: transitions that are remembered.
        discount: gamma, how much a reward one step later is worth.
        initial_temperature: what entropy is worth at first; it then follows the policy's entropy. From 1, where Haarnoja
            begins, it falls for ten thousand updates before the reward counts for much.
        target_rate: how far the slow critics move towards the others at each update.
        actor_every: updates of the critics for each one of actor and temperature.
        optimizer: of each of the networks.
        schedule: the learning rate stays as it is; "constant" is the only choice.
        options: those of :class:`Strategy`.
    """

    environment_steps: Tensor
    optimizer_steps: Tensor
    learns_by_acting = True
    cleanrl_heads = ("fc_mean", "fc_logstd")
    log_every = 100
    shown: ClassVar[tuple[str, ...]] = ("critic_loss",)

    def __init__(
        self,
        network: NetworkFactory = MLP,
        total_environment_steps: int = 400_000,
        num_envs: int = 8,
        learning_starts: int = 5000,
        updates_per_step: float = 0.5,
        batch_size: int = 256,
        replay_capacity: int = 1_000_000,
        discount: float = 0.99,
        initial_temperature: float = 0.1,
        target_rate: float = 0.005,
        actor_every: int = 2,
        optimizer: OptimizerCallable = Adam,
        schedule: Literal["constant"] = "constant",
        **options: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, schedule=schedule, **options)
        refuse_unless_good(
            "--model.",
            (
                ("total_environment_steps", total_environment_steps, "at least 1", total_environment_steps >= 1),
                ("num_envs", num_envs, "at least 1", num_envs >= 1),
                ("batch_size", batch_size, "at least 1", batch_size >= 1),
                ("actor_every", actor_every, "at least 1", actor_every >= 1),
                ("replay_capacity", replay_capacity, f"at least a batch, {batch_size}", replay_capacity >= batch_size),
                ("learning_starts", learning_starts, f"at least a batch, {batch_size}", learning_starts >= batch_size),
                (
                    "learning_starts",
                    learning_starts,
                    f"less than --model.total_environment_steps, {total_environment_steps}: there the run ends",
                    learning_starts < total_environment_steps,
                ),
                ("discount", discount, "0 to below 1", 0 <= discount < 1),
                ("initial_temperature", initial_temperature, "above 0", initial_temperature > 0),
                ("target_rate", target_rate, "above 0, at most 1", 0 < target_rate <= 1),
                (
                    "updates_per_step",
                    updates_per_step,
                    f"at least 1 / num_envs, {1 / max(num_envs, 1):g}: an update each time that the sub-environments step",
                    updates_per_step * num_envs >= 1,
                ),
            ),
        )
        self.total_environment_steps, self.num_envs = total_environment_steps, num_envs
        self.learning_starts = learning_starts
        self.updates_per_step, self.batch_size, self.replay_capacity = updates_per_step, batch_size, replay_capacity
        self.discount, self.target_rate, self.actor_every = discount, target_rate, actor_every
        self.automatic_optimization = False
        self.network = network(self.observation_dim, 2 * self.action_dim)
        self.averaged = copy.deepcopy(self.network).requires_grad_(False)
        self.critics = Critics(self.observation_dim + self.action_dim)
        self.target_critics = Critics(self.observation_dim + self.action_dim).requires_grad_(False)
        self.target_critics.load_state_dict(self.critics.state_dict())
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial_temperature)))
        self.register_buffer("environment_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("optimizer_steps", torch.zeros((), dtype=torch.int64))
        self.replay: Replay | None = None
        self.environments: Environments | None = None
        self._resumed: dict[str, Any] | None = None
        self._measured: Metrics = {}                                # the last of each: not all come with every update
        self._warned_of: list[str] = []

    @property
    def steps_taken(self) -> dict[str, int]:
        """Both counters; Lightning's counts training_steps."""
        return {"optimizer_steps": int(self.optimizer_steps), "environment_steps": int(self.environment_steps)}

    @property
    def position(self) -> int:
        """Environment steps."""
        return self.steps_taken["environment_steps"]

    @property
    def run_length(self) -> int:
        """All environment steps."""
        return self.total_environment_steps

    @abstractmethod
    def rewards(self, batch: Transitions) -> Tensor:
        """What the policy is to maximise, for each of ``batch``, (batch,); no gradient is taken through it."""

    def value_after_termination(self) -> Tensor | float:
        """What a terminated episode is worth from there on: nothing, where rewards are the environment's."""
        return 0.0

    def fit_normalization(self, replay: Replay) -> None:
        """Take mean and scale of observations, once the replay holds random play; here they stay as they are."""

    def update_rewards(self, batch: Transitions, update: int) -> Metrics:
        """Learn the reward itself, if there is anything to learn; called before each update with its number."""
        return {}

    def mixed(self, batch: Transitions) -> Transitions:
        """What actor and critics learn from in an update: the ``batch`` of the replay, here without anything else."""
        return batch

    @property
    def actor(self) -> Network:
        """The averaged one."""
        return self.averaged

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The squashed mean, or a sample."""
        policy = SquashedGaussian(self.actor(observations))
        return policy.mean.tanh() if deterministic else policy.sample()[0]

    def policy(self, observations: Tensor) -> SquashedGaussian:
        """pi(. | o) over scaled actions given normalised ``observations`` (batch, observation_dim), as it learns."""
        return SquashedGaussian(self.network(observations))

    # The losses

    def critic_loss(self, batch: Transitions) -> tuple[Tensor, Metrics]:
        """Squared distance of each critic to the reward and the discounted soft value of what follows."""
        with torch.no_grad():
            rewards = self.rewards(batch)                           # (batch,)
            next_actions, log_probability = self.policy(batch.next_observations).sample()
            next_values = self.target_critics(batch.next_observations, next_actions).amin(0)
            next_values = next_values - self.log_temperature.exp() * log_probability
            ended = batch.terminated.bool()
            next_values = torch.where(ended, torch.as_tensor(self.value_after_termination()), next_values)
            targets = rewards + self.discount * next_values         # (batch,)
        values = self.critics(batch.observations, batch.actions)    # (members, batch)
        loss = (values - targets).square().mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q_value": values.detach().mean(), "reward": rewards.mean()}

    def actor_loss(self, batch: Transitions) -> tuple[Tensor, Metrics]:
        """Value and entropy of the policy's own actions, negated."""
        actions, log_probability = self.policy(batch.observations).sample()
        values = self.critics(batch.observations, actions).amin(0)  # (batch,)
        loss = (self.log_temperature.exp().detach() * log_probability - values).mean()
        return loss, {"actor_loss": loss.detach(), "entropy": -log_probability.detach().mean()}

    def temperature_loss(self, entropy: Tensor) -> Tensor:
        """Its gradient raises the temperature while the policy's ``entropy`` is under -action_dim (Haarnoja 2018)."""
        return self.log_temperature.exp() * (entropy + self.action_dim)

    # The loop

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What each optimizer moves; the first one is Lightning's step."""
        return {
            "critic": list(self.critics.parameters()),
            "actor": list(self.network.parameters()),
            "temperature": [self.log_temperature],
        }

    def averages(self) -> list[tuple[nn.Module, nn.Module, float]]:
        """Slow copies, what each follows, and which part of the way it goes at an update.

        The averaged actor begins as the actor after its first update.
        """
        return [
            (self.target_critics, self.critics, self.target_rate),
            (self.averaged, self.network, 10 / (int(self.optimizer_steps) + 10)),
        ]

    def configure_optimizers(self) -> Any:
        """One optimizer a part; all are in checkpoints."""
        return [self.optimizer(parameters) for parameters in self.parameter_groups().values()]

    def on_train_start(self) -> None:
        """Make sub-environments and replay, new or as the checkpoint left them, then restore the random state."""
        data = data_of(self.trainer)
        self.environments = make(data.environment_id, self.num_envs)
        self.replay = Replay(self.replay_capacity, self.observation_dim, self.action_dim, self.device)
        if self._resumed is None:
            learning_bank = SELECTION_BANK.first - self.num_envs
            seed = int(np.random.SeedSequence((data.seed, 1)).generate_state(1)[0]) % learning_bank
            self.environments.reset(seed=seed)
        else:
            self.replay.load_state_dict(self._resumed["replay"])
            self.environments.load_state_dict(self._resumed["environments"])
            self._measured = {name: value.to(self.device) for name, value in self._resumed["measured"].items()}
            self._warned_of = self._resumed["warned_of"]
            self._resumed = None
        self._stop_at_the_end()
        super().on_train_start()

    def training_step(self, batch: Any, batch_index: int) -> None:
        """Step the sub-environments, and make the updates that are due."""
        assert self.replay is not None
        while self.environment_steps < self.learning_starts:
            self._step_environments(at_random=True)
        if self.optimizer_steps == 0:
            self.fit_normalization(self.replay)
        self._step_environments(at_random=False)
        learning_since = max(self.learning_starts, self.num_envs)
        due = math.floor((int(self.environment_steps) - learning_since) * self.updates_per_step)
        updates = max(1, due - int(self.optimizer_steps))
        optimizers = dict(zip(self.parameter_groups(), self.optimizers(), strict=True))
        for update in range(updates):
            is_last = update == updates - 1
            batch = self.sample(self.replay, self.batch_size)
            self._measured |= self._update(batch, optimizers, through_lightning=is_last)
        if self.global_step % self.log_every == 0:
            self.log_dict({f"train/{name}": value for name, value in self._measured.items()}, logger=False, batch_size=1)
            self._watch_temperature()
        self._stop_at_the_end()

    def sample(self, transitions: Replay | Transitions, size: int) -> Transitions:
        """``size`` of ``transitions``, their observations normalised."""
        batch = transitions.sample(size)
        observations, following = self.border.observe(batch.observations), self.border.observe(batch.next_observations)
        return replace(batch, observations=observations, next_observations=following)

    def _stop_at_the_end(self) -> None:
        if self.environment_steps >= self.total_environment_steps:
            self.trainer.should_stop = True

    def _update(self, batch: Transitions, optimizers: dict[str, Any], through_lightning: bool) -> Metrics:
        metrics = self.update_rewards(batch, int(self.optimizer_steps))
        batch = self.mixed(batch)
        loss, more = self.critic_loss(batch)
        metrics |= more
        critic = optimizers["critic"] if through_lightning else optimizers["critic"].optimizer
        self._descend(critic, loss)
        if int(self.optimizer_steps) % self.actor_every == 0:
            self.critics.requires_grad_(False)
            loss, more = self.actor_loss(batch)
            metrics |= more
            self._descend(optimizers["actor"].optimizer, loss)
            self.critics.requires_grad_(True)
            self._descend(optimizers["temperature"].optimizer, self.temperature_loss(more["entropy"]))
            metrics["temperature"] = self.log_temperature.detach().exp()
        with torch.no_grad():
            for slow, fast, rate in self.averages():
                torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), rate)
        self.optimizer_steps += 1
        return metrics

    def _descend(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    @torch.no_grad()
    def _step_environments(self, at_random: bool) -> None:
        """One step of each sub-environment, with the policy's samples or uniformly random actions, into the replay."""
        assert self.environments is not None
        assert self.replay is not None
        observations = self._tensor(self.environments.observations)
        if at_random:
            scaled = 2 * torch.rand(self.num_envs, self.action_dim, device=self.device) - 1
        else:
            scaled = self.policy(self.border.observe(observations)).sample()[0].clamp(-1.0, 1.0)
        played = self.border.unscaled(scaled).cpu().numpy()
        following, rewards, terminated, truncated, infos = self.environments.step(played)
        for ended in np.flatnonzero(terminated | truncated):        # what followed, not the next episode's first
            following[ended] = infos["final_obs"][ended]
        self.replay.add(
            Transitions(
                observations,
                scaled,
                self._tensor(rewards),
                self._tensor(following),
                self._tensor(terminated),
            )
        )
        self.environment_steps += self.num_envs

    def _watch_temperature(self) -> None:
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
        self._warn_once(
            "temperature",
            f"the temperature is {temperature:.3g}: {meaning}. Lower --model.optimizer.lr or --model.updates_per_step.",
        )

    def _warn_once(self, subject: str, message: str) -> None:
        """Warn, once a run, of a ``subject``."""
        if subject not in self._warned_of:
            self._warned_of.append(subject)
            warnings.warn(message, stacklevel=3)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an exact resume needs."""
        super().on_save_checkpoint(checkpoint)
        if self.replay is not None and self.environments is not None:
            checkpoint["interaction"] = {
                "replay": self.replay.state_dict(),
                "environments": self.environments.state_dict(),
                "measured": self._measured,
                "warned_of": self._warned_of,
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep it until training starts."""
        super().on_load_checkpoint(checkpoint)
        self._resumed = checkpoint.get("interaction")

    def teardown(self, stage: str) -> None:
        """Let the sub-environments go."""
        if self.environments is not None:
            self.environments.close()
            self.environments = None
