"""What every strategy shares: the border to the environment's units, the optimizer, and its checkpoint."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook
from torch.optim import Optimizer

from lightning_bc.acting import CannotBeFrozenError, Frozen, freeze
from lightning_bc.aliases import StateDict
from lightning_bc.border import Border
from lightning_bc.bounds import check_arguments
from lightning_bc.ensembling import LARGEST_EXPONENT, Ensembling
from lightning_bc.errors import DivergedError, InputError, takes_state
from lightning_bc.networks import InputSize, Network
from lightning_bc.players import Memory, Memoryless, Player, Policy
from lightning_bc.ranks import of_all_ranks, seed_of_rank
from lightning_bc.strategies.contract import Metric, Needs, data_of
from lightning_bc.strategies.optimizers import Cosine, take_a_step
from lightning_bc.strategies.outputs import refuse_other_sizes
from lightning_bc.strategies.recorded import Recorded, Update

Metrics = dict[str, Tensor]
Schedule = Literal["cosine", "constant"]

WITHIN_UPDATES = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
"""Lightning's hooks that are called between the kernels of an update, and so never where these are replayed."""


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Inside the block the module does not train; after it each of its modules does what it did before."""
    before = [(one, one.training) for one in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for one, was_training in before:
            one.training = was_training


class Strategy(LightningModule, ABC):
    """A way of modelling actions. What maps observations is its ``network``.

    ``forward`` is what environments and users call: observations come in as the environment gives them and actions go
    out in its units. Inside, ``act`` and the losses see normalised observations and actions scaled to [-1, 1]: see
    :class:`lightning_bc.border.Border`.

    A strategy with a ``history`` h or a ``horizon`` H above 1 works on windows, which have a third axis: ``loss`` sees the
    last h observations (batch, h, observation_dim) and the next H actions (batch, H, action_dim); ``act`` answers with the
    next c actions (batch, c, action_dim), c being its ``chunk``, which are played before it is asked again. Who plays
    remembers: see :class:`lightning_bc.players.Memory`.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        optimizer: which optimizer, and its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero along half a cosine over the run's optimizer steps
            (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983); "constant" leaves it.
    """

    needs: Needs = Needs.PAIRS
    """What it learns from."""

    logs: ClassVar[Mapping[str, Metric]] = {}
    """What training logs, by name without ``train/``, the loss included; docs/metrics.md is made of it."""

    shown: ClassVar[tuple[str, ...]] = ("loss",)
    """What of it the progress bar shows."""

    stochastic: ClassVar[bool] = True
    """Whether sampled actions differ from the deterministic one."""

    multimodal: ClassVar[bool] = False
    """Whether it can hold two different actions for one observation apart."""

    learns_by_acting: ClassVar[bool] = False
    """Whether it acts in the environment while it learns; its position and length are then environment steps."""

    cleanrl_heads: tuple[str, ...] = ()
    """What CleanRL calls the heads of an actor that acts as this one does; empty where there is none."""

    log_every: ClassVar[int] = 1
    """training_steps between two logs of what training measured."""

    history: int = 1
    """How many observations, the present one last, ``act`` sees."""

    horizon: int = 1
    """How many actions, from the present one on, ``loss`` sees."""

    chunk: int = 1
    """How many actions ``act`` answers with, at most ``horizon``."""

    temporal_ensembling: float | None = None
    """Coefficient m of the weights by which overlapping chunks are averaged; None plays one chunk after the other."""

    gradient_clip_val: float | None = None
    """Largest norm of the gradient of all parameters, of offline strategies; None leaves gradients as they are."""

    default_steps: ClassVar[int] = 20_000
    """Optimizer steps of a run of ``fit`` where nothing is said of its length, of strategies that learn from demonstrations:
    a number of steps suits a file of any size, a number of passes does not."""

    default_passes: ClassVar[int | None] = None
    """Passes over the pairs after which such a run ends if that is earlier, of strategies that are worse clones of few pairs
    when they learn for longer."""

    recordable: ClassVar[bool] = False
    """Whether updates may be recorded and replayed: see :class:`lightning_bc.strategies.recorded.Recorded`. Then the loss
    depends on tensors alone, of numbers that change while it trains on none, and waits for none."""

    record_updates: bool = True
    """Whether they are, in one process."""

    network: Network

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        optimizer: OptimizerCallable,
        schedule: Schedule,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        check_arguments(type(self).__init__, self.hparams)
        for name in [name for name, value in self.hparams.items() if callable(value)]:
            del self.hparams[name]  # built by hand, not from YAML: a checkpoint holds plain values alone
        self.border = Border(observation_dim, action_low, action_high)
        self.observation_dim, self.action_dim = observation_dim, len(action_low)
        self.optimizer, self.schedule = optimizer, schedule
        self._random_state: StateDict | None = None
        self.recorded: dict[int, Recorded] = {}                     # updates to replay, by their kind
        self._recorded_with: Any = None                             # see _read_once, when they were replayed last
        self.losses: list[tuple[int, str, Tensor]] = []             # of the last training step: optimizer step, name, value

    def set_windows(self, history: int, horizon: int, chunk: int, temporal_ensembling: float | None = None) -> None:
        """Declare the sizes of windows, and how chunks are played.

        Raises:
            InputError: more actions are to be played than are learnt, or chunks that do not overlap are to be averaged.
        """
        if chunk > horizon:
            raise InputError(f"--model.chunk {chunk}: wanted at most --model.horizon, {horizon}: no more are learnt.")
        if temporal_ensembling is not None and chunk == 1:
            raise InputError("--model.temporal_ensembling: averages overlapping chunks; wanted --model.chunk above 1.")
        if temporal_ensembling is not None and temporal_ensembling * (chunk - 1) > LARGEST_EXPONENT:
            raise InputError(
                f"--model.temporal_ensembling {temporal_ensembling:g}: with chunks of {chunk} wanted at most "
                f"{LARGEST_EXPONENT / (chunk - 1):.3g}, since weights beyond float32 would be left."
            )
        self.history, self.horizon, self.chunk = history, horizon, chunk
        self.temporal_ensembling = temporal_ensembling

    @property
    def steps_per_answer(self) -> int:
        """How many steps are played between two calls of ``act``."""
        return self.chunk if self.temporal_ensembling is None else 1

    def input_size(self, rest: int = 0) -> InputSize:
        """Size of a network's input: the observations of the history, and ``rest`` numbers behind them."""
        return InputSize(self.history, self.observation_dim, rest)

    @property
    def has_windows(self) -> bool:
        """Whether observations and actions have a time axis."""
        return self.history > 1 or self.horizon > 1

    def first_chunk(self, actions: Tensor) -> Tensor:
        """What ``act`` returns of flat ``actions`` (batch, horizon action_dim): of windows the first ``chunk`` ones."""
        return actions.unflatten(-1, (self.horizon, -1))[:, : self.chunk] if self.has_windows else actions

    @property
    def steps_taken(self) -> dict[str, int]:
        """How far training is, by the axes that curves are drawn over."""
        return {"optimizer_steps": self.trainer.global_step, "environment_steps": 0}

    @property
    def position(self) -> int:
        """What ``eval_freq`` counts: optimizer steps, of strategies that act while they learn environment steps."""
        return self.steps_taken["optimizer_steps"]

    @property
    def run_length(self) -> int | None:
        """The ``position`` where the run ends; None where the Trainer's settings set no end."""
        return data_of(self.trainer).optimizer_steps

    @property
    def actor(self) -> Network:
        """The network that ``act`` evaluates."""
        return self.network

    @property
    def actors(self) -> list[Network]:
        """All of them, where it evaluates several."""
        return [self.actor]

    @property
    def squashed_mean(self) -> Network | None:
        """The network whose tanh is the deterministic action for one observation; None where there is no such network."""
        return None

    def weights_from(self, clone: "Strategy") -> StateDict | None:
        """All weights of this strategy, the actor's and the border's those of a ``clone`` that another strategy has learnt.

        None where it cannot begin from such a clone.
        """
        return None

    def take_over(self) -> None:
        """Such weights were loaded, and training begins."""

    def acting_weights(self) -> StateDict:
        """The part of the state dict that ``forward`` needs; the rest is of learning alone, and is not exported."""
        return self.state_dict()

    @abstractmethod
    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Choose actions.

        Args:
            observations: normalised, (batch, observation_dim); of windows (batch, history, observation_dim).
            deterministic: the strategy's best single answer in place of a sample.

        Returns:
            Scaled actions, (batch, action_dim), of windows (batch, chunk, action_dim); values outside [-1, 1] are clamped
            by ``forward``.
        """

    def forward(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Act on ``observations``, shaped as in ``act``; both they and the actions are in the environment's units."""
        with self.full_precision():
            return self.border.unscaled(self.act(self.border.observe(observations), deterministic).clamp(-1.0, 1.0))

    def full_precision(self) -> AbstractContextManager[Any]:
        """Where a policy acts: in the precision of its weights, also while it is trained in a mixed one."""
        device = self.device.type
        is_mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        return torch.autocast(device, enabled=False) if is_mixed else nullcontext()

    def player(self, deterministic: bool = True, replan: bool = False) -> Player:
        """What plays episodes with this policy, and remembers for it.

        Args:
            deterministic: as in ``act``.
            replan: ask at every step and play the first action of each chunk; this is what labels observations.
        """
        return self.remembering(partial(self, deterministic=deterministic), replan)

    def frozen(self) -> Frozen:
        """The deterministic policy with the present weights, for few observations on the CPU: see :func:`freeze`.

        Its answers are those of ``forward`` up to rounding.

        Raises:
            CannotBeFrozenError: ``act`` does what cannot be written as a list of calls.
        """
        window = (self.history,) if self.has_windows else ()
        return freeze(partial(self, deterministic=True), (*window, self.observation_dim), self.device)

    def quickest(self) -> Policy:
        """The deterministic policy with the present weights, as it is scored and timed.

        It is frozen where it is on the CPU and that can be, else it is ``forward``.
        """
        if self.device.type == "cpu":
            with suppress(CannotBeFrozenError):
                return self.frozen()
        return self

    def quick_player(self, deterministic: bool = True) -> Player:
        """What plays scores: :meth:`quickest`, or samples. Unlike :meth:`player` it keeps the present weights."""
        return self.remembering(self.quickest()) if deterministic else self.player(deterministic=False)

    def zero_observations(self, batch: int) -> Tensor:
        """What it can answer: zeros (batch, observation_dim), of windows (batch, history, observation_dim)."""
        window = (self.history,) if self.has_windows else ()
        return torch.zeros(batch, *window, self.observation_dim, device=self.device)

    @property
    def network_evaluations(self) -> float:
        """How often one played deterministic action evaluates its network."""
        return len(self.network_calls()) / self.steps_per_answer

    @torch.inference_mode()
    def network_calls(self) -> list[int]:
        """How its network is called while one observation is answered deterministically: the number of rows of each call."""
        rows: list[int] = []
        actors = {*self.actors}

        def count(module: torch.nn.Module, inputs: tuple[Tensor, ...], _: Any) -> None:
            if module in actors:
                rows.append(inputs[0].shape[:-1].numel())

        hook = register_module_forward_hook(count)                  # of all modules: a ScriptModule takes none of its own
        try:
            with evaluating(self):                                  # where it trains, batch normalisation wants several rows
                self(self.zero_observations(1))
        finally:
            hook.remove()
        return rows

    def remembering(self, policy: Policy, replan: bool = False) -> Player:
        """What plays episodes with ``policy``, which answers as this strategy does, and remembers for it."""
        if not self.has_windows:
            return Memoryless(policy)
        if self.temporal_ensembling is not None and not replan:
            return Ensembling(policy, self.history, self.chunk, self.temporal_ensembling)
        return Memory(policy, self.history, 1 if replan else self.chunk)

    def setup(self, stage: str) -> None:
        """Before training, look whether networks answer with as many numbers as they must, and optimizers take a step.

        Raises:
            InputError: one does not.
        """
        if stage == "fit":
            refuse_other_sizes(self, self.hparams)
            take_a_step(self.optimizer, self.parameters())

    def on_fit_start(self) -> None:
        """Say what of an observation is hidden; a checkpoint's weights have been loaded."""
        if hidden := self.border.hidden:
            firsts = [entry for entry in hidden if entry - 1 not in hidden]
            lasts = [entry for entry in hidden if entry + 1 not in hidden]
            spans = [f"{first} to {last}" if first < last else f"{first}" for first, last in zip(firsts, lasts, strict=True)]
            rank_zero_only(print)(
                f"hidden from the policy: {', '.join(spans)} of the {self.observation_dim} entries of an observation "
                "(--data.hidden_dimensions; by default forces of contacts, [] shows all)"
            )

    def configure_optimizers(self) -> Any:
        """The optimizer, and the schedule over the run's length."""
        optimizer = self.optimizer(self.parameters())
        if self.schedule == "constant":
            return optimizer
        # Asking the Trainer (estimated_stepping_batches) would make it build the loader early and lose the loader's
        # restored position, so the data module is asked first.
        steps = data_of(self.trainer).optimizer_steps
        scheduler = Cosine(optimizer, T_max=steps or int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def is_recorded(self) -> bool:
        """Whether updates are replayed: not where gradients are scaled, averaged over processes or looked at by others."""
        if not (self.recordable and self.record_updates and self.device.type in ("cpu", "cuda")):
            return False
        trainer: Any = self.trainer
        lookers = [self, *trainer.callbacks]
        if trainer._detect_anomaly or any(is_overridden(hook, one) for one in lookers for hook in WITHIN_UPDATES):
            return False
        return trainer.world_size == 1 and trainer.precision in ("32-true", "64-true", "bf16-mixed")

    def replaying(self, kind: int, update: Update, optimizers: Sequence[Optimizer]) -> Recorded:
        """``update`` as it is replayed; the one that was made first for this ``kind``."""
        if kind not in self.recorded:
            self.recorded[kind] = Recorded(update, optimizers)
        return self.recorded[kind]

    @contextmanager
    def replays(self, optimizers: Sequence[Optimizer]) -> Iterator[None]:
        """Inside the block updates are replayed; those that have read what was changed since are let go."""
        if self.recorded and self._read_once(optimizers) != self._recorded_with:
            self.recorded = {}
        yield
        self._recorded_with = self._read_once(optimizers)

    def _read_once(self, optimizers: Sequence[Optimizer]) -> Any:
        """What a recorded update has read: where tensors lie, which of them are trained and how, and what modules do."""
        held = [(module.training, *module._parameters.values(), *module._buffers.values()) for module in self.modules()]
        states = [value for one in optimizers for state in one.state.values() for value in state.values()]
        groups = [group for one in optimizers for group in one.param_groups]
        return (
            [*map(id, optimizers)],
            [
                (one.data_ptr(), one.requires_grad) if isinstance(one, Tensor) else one
                for one in (*itertools.chain(*held), *states)
            ],
            [[*map(id, group["params"])] for group in groups],
            [{name: value for name, value in group.items() if name not in ("lr", "params")} for group in groups],
        )

    def count_step(self, optimizer: Any) -> None:
        """Count a step of ``optimizer`` that Lightning did not take itself in its ``global_step``."""
        optimizer._on_before_step()
        optimizer._on_after_step()

    def refuse_divergence(self) -> None:
        """Look whether all ``losses`` of the last training step are finite: once, since each look waits for the device.

        Raises:
            DivergedError: naming the first that is not.
        """
        losses, self.losses = self.losses, []
        finite = torch.stack([loss.float() for _, _, loss in losses]).isfinite() if losses else torch.ones(1)
        if not finite.all():
            step, name, loss = losses[int(finite.logical_not().nonzero()[0])]
            raise DivergedError(step, f"{name} is {float(loss)}")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_index: int) -> None:
        """Stop where a loss is not finite; :class:`lightning_bc.callbacks.Rollouts` does so before it plays."""
        self.refuse_divergence()

    def on_save_checkpoint(self, checkpoint: StateDict) -> None:
        """Lightning saves no random state; an exact resume needs it."""
        checkpoint["strategy"] = type(self).__name__
        own = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            own["cuda"] = torch.cuda.get_rng_state(self.device)
        every = of_all_ranks(self.trainer, own)
        checkpoint["random_state"] = every[0] | ({"others": every[1:]} if len(every) > 1 else {})

    @takes_state
    def on_load_checkpoint(self, checkpoint: StateDict) -> None:
        """Keep the saved random state until training starts."""
        self._random_state = checkpoint.get("random_state")

    def on_train_end(self) -> None:
        """Let recorded updates go."""
        self.recorded = {}

    def on_train_start(self) -> None:
        """Put the saved random state back, after everything that could have drawn from it.

        Raises:
            InputError: another number of processes has saved it.
        """
        self.recorded = {}                                          # of a training that an error ended
        rank, ranks, state = self.trainer.global_rank, self.trainer.world_size, self._random_state
        if state is None:
            if rank > 0:
                torch.manual_seed(seed_of_rank(torch.initial_seed(), rank))
            return
        every = [state, *state.get("others", [])]
        if len(every) != ranks:
            raise InputError(
                f"the checkpoint is of a run that {len(every)} processes trained, and now there are {ranks}. Go on with as "
                "many, or start a new run from its weights with --model.init_from."
            )
        torch.set_rng_state(every[rank]["cpu"].cpu())
        if self.device.type == "cuda" and "cuda" in every[rank]:
            torch.cuda.set_rng_state(every[rank]["cuda"].cpu(), self.device)
        self._random_state = None
