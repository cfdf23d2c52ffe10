"""Demonstrations: the LightningDataModule that serves pairs, or windows of them, from the training device's memory."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    UnitIntervalAboveZero,
    UnitIntervalBelowOne,
    check_arguments,
)
from lightning_bc.demonstrations import several, without_simulator
from lightning_bc.demonstrations.batches import Batch, Batches, Nothing, batches_per_pass
from lightning_bc.demonstrations.collect import collect_missing, default_path
from lightning_bc.demonstrations.fitting import DEFAULT_ENVIRONMENT, Budget, Wanted, check_wanted
from lightning_bc.demonstrations.mixture import check_shares
from lightning_bc.demonstrations.reference_returns import references
from lightning_bc.demonstrations.serving import optimizer_steps
from lightning_bc.demonstrations.sources import InMemory, Reading
from lightning_bc.demonstrations.trajectories import Trajectories
from lightning_bc.environments import environment_spaces
from lightning_bc.errors import InputError, takes_state
from lightning_bc.references import References
from lightning_bc.strategies.contract import Data, Needs, Transitions

DEFAULT_PATH = default_path("{env}")

VALIDATION_PAIRS = 2000

FEWEST_STEPS = 1000
"""Optimizer steps, of however few pairs."""


class Demonstrations(LightningDataModule):
    """The pairs that a strategy learns from, and what its returns are measured against.

    The tensors lie on the training device and a batch is an index selection (see ``Batches``), so serving costs next to
    nothing. With ``trainer.max_epochs`` (one, unless set) an epoch is one pass; with ``trainer.max_steps`` alone, one
    epoch spans all of the steps, however many passes they are, so that small data does not pay Lightning's cost of an
    epoch at each pass.

    Args:
        path: file, folder, or minari:DATASET_ID; see ``readers``; the default file is collected by ``fit`` when it is
            missing and an expert for the environment is shipped. null reads nothing, and is what strategies that need no
            demonstrations have by default; returns are then measured against the shipped expert, if there is one. Several,
            [a.pt,b.npz], are joined; each is first taken as if it were alone: episodes, first_steps, subsample,
            validation_fraction, episode_length, top_fraction, scale_actions and clip_actions hold for every file. See
            ``several`` for what returns are then measured against.
        environment_id: Gymnasium id of the environment; default: the one that the file says it is of, and HalfCheetah-v5
            for the default file. The command line sets it from --env.
        episodes: use only the first n episodes (the demonstration budget).
        first_steps: learn from the first n steps of each episode alone. An equal number of pairs shows more ways to begin,
            which a clone of few episodes fails at first; docs/action-models.md has figures.
        subsample: keep every k-th pair of each episode; strategies with a history or a horizon need all of them.
        validation_fraction: share of the episodes, the last ones, that is held out; below 10 episodes there is no
            validation set.
        validation_pairs: held-out pairs that are measured at a validation of ``fit``; always the same ones, spread evenly
            over the held-out episodes. ``validate``, and the curve of a run without a simulator, measure all of them.
        batch_size: pairs per batch.
        max_passes: passes that a run may make; where its length is not given, of some strategies 500: few pairs
            that are learnt for too long make worse clones. In optimizer steps they are at least 1000, and
            ``trainer.max_steps`` may be fewer.
        episode_length: steps per episode, for files without episode lengths; default: the environment's time limit,
            where that environment never terminates early.
        top_fraction: share of the episodes used, of highest returns; before all else is taken from
            them (%BC in Chen 2021, https://arxiv.org/abs/2106.01345).
        scale_actions: the file's actions were recorded in [-1, 1]; bring them to the environment's bounds.
        clip_actions: move actions beyond the environment's bounds to them; otherwise they are refused.
        observation_keys: which observations are put side by side, KEY [KEY ...]; where the file keeps several (obs/KEY of
            HDF5, dictionaries, columns of LeRobot), those, in this order; where it keeps one array of an environment with
            dictionaries, the order of its columns. Default: what the environment's space or the format says.
        hidden_dimensions: entries of an observation to hide, [8,9], [] for none, by default forces of contacts; there is 0
            in their place for all who learn, critics and discriminators too. DAgger's teacher sees all. The default is of
            strategies that learn from pairs, where the environment declares which entries these are (Ant-v5, Humanoid-v5).
        action_low: without a simulator, lower bounds of the actions; default: the least of the file.
        action_high: without a simulator, upper bounds of the actions; default: the greatest of the file.
        simulator: whether the environment can be played in. false takes everything from the file, see ``without_simulator``;
            the command line sets it from --rollouts.episodes.
        shares: of each file of path in what is learnt from, [0.5,0.5]; exact in every pass, on average in a batch; a pass
            has as many pairs as without, and repeats or leaves out pairs of a file in turn, see ``Mixture``. Default:
            proportional to the files' pairs.
        seed: of the order of the pairs; the command line sets it from --seed_everything.
        group_size: batches that the loader serves together, one optimizer step each; the command line sets it to what
            divides --rollouts.eval_freq, at most 100, and DAgger to what divides its rounds too.
        memory: GB that the pairs of a folder of shards may take in memory; more are streamed from the disk, see
            ``streaming``. Default: a quarter of the training device's memory, and of the machine's or of its limit.
    """

    def __init__(
        self,
        path: list[str] | str | None = DEFAULT_PATH,
        environment_id: str | None = None,
        episodes: PositiveInt | None = None,
        first_steps: PositiveInt | None = None,
        subsample: PositiveInt = 1,
        validation_fraction: UnitIntervalBelowOne = 0.01,
        validation_pairs: PositiveInt = VALIDATION_PAIRS,
        batch_size: PositiveInt = 250,
        max_passes: PositiveInt | None = None,
        episode_length: PositiveInt | None = None,
        top_fraction: UnitIntervalAboveZero = 1.0,
        scale_actions: bool = False,
        clip_actions: bool = False,
        observation_keys: list[str] | None = None,
        hidden_dimensions: list[NonNegativeInt] | None = None,
        action_low: list[float] | None = None,
        action_high: list[float] | None = None,
        shares: list[UnitIntervalAboveZero] | None = None,
        seed: NonNegativeInt = 0,
        group_size: PositiveInt = 100,
        simulator: bool = True,
        memory: NonNegativeFloat | None = None,
    ) -> None:
        super().__init__()
        check_arguments(Demonstrations.__init__, locals())
        paths = several.paths_of(path)
        if environment_id is None and simulator:
            environment_id = DEFAULT_ENVIRONMENT if "{env}" in "".join(paths) else several.stated_environment(paths)
        environment_id = environment_id or ""                       # without a simulator
        self.environment_id, self.batch_size, self.seed, self.group_size = environment_id, batch_size, seed, group_size
        self.max_passes = max_passes
        self.paths = [one.replace("{env}", environment_id) for one in paths]
        self.path = ", ".join(self.paths) or None                   # for people
        if shares is not None:
            check_shares(shares, len(self.paths))
        self.has_simulator, self.validation_pairs = simulator, validation_pairs
        self.budget = Budget(
            episodes, subsample, validation_fraction, episode_length, top_fraction, not simulator, first_steps
        )
        self.reading = Reading(self.paths, tuple(observation_keys or ()), scale_actions, clip_actions, shares, memory)
        if simulator:
            without_simulator.refuse_bounds(environment_id, action_low, action_high)
            self.spaces = environment_spaces(environment_id)
        else:
            self.spaces = without_simulator.spaces_of(
                self.reading.without_spaces(), environment_id, action_low, action_high, scale_actions
            )
        self.observation_dim = self.spaces.observation_dim          # these three are what a strategy is built from
        self.action_low = [float(bound) for bound in self.spaces.action_low]
        self.action_high = [float(bound) for bound in self.spaces.action_high]
        self._hidden_dimensions = hidden_dimensions
        if too_large := [index for index in hidden_dimensions or [] if index >= self.observation_dim]:
            raise InputError(
                f"--data.hidden_dimensions {too_large[0]}: an observation has {self.observation_dim} entries, 0 to "
                f"{self.observation_dim - 1}."
            )
        if len({*(hidden_dimensions or [])}) == self.observation_dim:
            raise InputError(f"--data.hidden_dimensions: hides all {self.observation_dim} entries. Leave some to be seen.")
        self.source: StateDict = {}                                 # what was learnt from, for results
        self._loader: Batches | Nothing = Nothing()
        self._collected: Batch = ()                                 # added while learning: observations, actions, lengths

    # Lightning's hooks

    def prepare_data(self) -> None:
        """Collect the default file where it is missing, for ``fit`` only; then read it, before any folder is made."""
        wanted = Wanted.by(self.trainer)
        if self.path is None:
            if self.trainer is not None and wanted.needs is not Needs.NOTHING:
                raise InputError(
                    f"--data.path null: {wanted.name} learns from demonstrations. Name their file with --data.path."
                )
            return
        if wanted.fits:
            self._check_strategy()
        if wanted.fits and self.path == default_path(self.environment_id):
            collect_missing(self.environment_id, self.path)
        self.material.check(wanted)
        check_wanted(self.split[0], wanted, self.budget.subsample)
        if wanted.fits and not self.has_simulator:
            without_simulator.check_held_out(self.split[1], self.budget.validation_fraction)
        if wanted.fits:
            self.material.warn(self.hidden_dimensions)

    def _check_strategy(self) -> None:
        """From Python: is the strategy built for these data? One without data may play within bounds of its own."""
        strategy: Any = self.trainer and self.trainer.lightning_module
        for name in ("observation_dim", "action_low", "action_high"):
            value = getattr(self, name)
            theirs = strategy.hparams.get(name, value)
            if np.shape(theirs) != np.shape(value) or not np.allclose(theirs, value):
                environment = self.environment_id or "the data"
                raise InputError(
                    f"{type(strategy).__name__}: {name} is {theirs}, and of {environment} it is {value}. "
                    "Build it from the data: (data.observation_dim, data.action_low, data.action_high)."
                )

    def setup(self, stage: str) -> None:
        """Split the pairs by episodes, and bring them to the training device."""
        if stage not in ("fit", "validate") or self.path is None:
            return
        pairs = self.material.pairs
        if self.batch_size > pairs:
            warnings.warn(
                f"--data.batch_size {self.batch_size} is more than the {pairs} training pairs: each batch holds them all.",
                stacklevel=2,
            )
        if stage == "fit" and not self.budget.takes_every_row:
            rank_zero_only(print)(f"{self.path}: learns from {self.material.summary(pairs)}")
        self.source = {"path": self.path, **self.material.source(pairs)}
        if stage == "fit" and self.max_passes is not None:
            self._end_after_passes(self.max_passes)

    def _end_after_passes(self, passes: int) -> None:
        """Let training end after so many passes, if it is not to end before that."""
        trainer, pairs = self.trainer, self.material.pairs
        assert trainer is not None
        steps = max(FEWEST_STEPS, passes * batches_per_pass(pairs, self.batch_size, trainer.world_size))
        if not 0 < trainer.max_steps <= steps:
            trainer.fit_loop.epoch_loop.max_steps = steps
            rank_zero_only(print)(
                f"length: {steps:,} optimizer steps, since more than {passes} passes over few pairs make worse clones; "
                "--trainer.max_steps sets another"
            )

    def train_dataloader(self) -> Batches | Nothing:
        """Shuffled batches; see the class for what an epoch is. Strategies that act while they learn draw for themselves."""
        wanted = Wanted.by(self.trainer)
        if wanted.needs is not Needs.PAIRS:
            return Nothing()
        if self.trainer is not None and self.trainer.limit_train_batches != 1.0:
            raise InputError(
                f"--trainer.limit_train_batches {self.trainer.limit_train_batches}: is not supported, since many batches "
                "share one training step. Train on less with --trainer.max_steps or --data.episodes."
            )
        self._loader = self.material.batches(wanted, self.batch_size, self.seed, self.group_size)
        if self._collected:                                         # of a run that is resumed
            self._collected = tuple(column.to(wanted.device) for column in self._collected)  # a checkpoint is on the CPU
            self._loader.extend(*self._collected)
        return self._loader

    def val_dataloader(self) -> Batches | DataLoader[Any] | list[Any]:
        """Of ``fit`` the fixed sample of held-out pairs, else all of them; in large batches, all in one item.

        Without them, or where they are the curve, there is none; or an empty one, for callbacks that look at the curve then.
        """
        wanted = Wanted.by(self.trainer)
        fits = wanted.fits
        if self.measures_held_out and (self.has_simulator or not fits):
            return self.material.held_out(wanted, self.seed, self.pairs_per_validation) if fits else self.held_out()
        is_watched = any(getattr(callback, "monitor", None) for callback in getattr(self.trainer, "callbacks", []))
        nothing: Any = [[]]
        return DataLoader(nothing, batch_size=None) if is_watched else []

    @property
    def measures_held_out(self) -> bool:
        """Whether there are held-out episodes."""
        return self.path is not None and len(self.split[1]) > 0

    def held_out(self) -> Batches | list[Any]:
        """The held-out episodes in large batches, all in one item; empty where nothing is held out."""
        return self.material.held_out(Wanted.by(self.trainer), self.seed) if self.measures_held_out else []

    @property
    def pairs_per_validation(self) -> int:
        """Held-out pairs that a validation measures while training."""
        return min(self.validation_pairs, self.material.pairs_held_out) if self.measures_held_out else 0

    def state_dict(self) -> StateDict:
        """What a test needs to know of the data, and a resumed run to recognise it; never the data."""
        return {
            "environment_id": self.environment_id,
            "source": self.source,
            "references": self.references.as_dict(),
            "collected": self._collected,
        }

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Take over references; refuse to go on with other data.

        Raises:
            InputError: if the file is not the one that the checkpoint's run learnt from.
        """
        before, now = state["source"].get("sha256"), self.source.get("sha256")
        if self.source and before != now:
            words = f"is not the file that this run began with (SHA-256 {now}, at its start {before})"
            raise InputError(f"{self.path}: {words}. Bring that file back, or start a new run without --ckpt_path.")
        self.source, self.references = state["source"], References.from_dict(state["references"])
        self._collected = state["collected"]

    # What others ask of the data: see lightning_bc.strategies.contract.Data

    @property
    def hidden_dimensions(self) -> Sequence[int]:
        """Entries of an observation that nobody who learns sees."""
        if self._hidden_dimensions is not None:
            return self._hidden_dimensions
        return self.spaces.contact_forces if Wanted.by(self.trainer).needs is Needs.PAIRS else ()

    def extend(self, observations: Tensor, actions: Tensor, lengths: Tensor) -> None:
        """Add episodes that were labelled while learning: see :meth:`Batches.extend`. They are in the checkpoint."""
        new = tuple(column.to(Wanted.by(self.trainer).device) for column in (observations, actions, lengths))
        self._loader.extend(*new)
        old = self._collected
        self._collected = tuple(torch.cat(columns) for columns in zip(old, new, strict=True)) if old else new

    def pairs_seen(self, optimizer_steps: int) -> int:
        """Training pairs, with repetition, behind a number of optimizer steps; none where a strategy draws for itself."""
        return self._loader.pairs_until(optimizer_steps)

    @property
    def expert_queries(self) -> int:
        """Labels that an expert was asked for while learning."""
        return len(self._collected[0]) if self._collected else 0

    @property
    def optimizer_steps(self) -> int | None:
        """Optimizer steps of the whole run under the Trainer's settings; None where these set no end."""
        return optimizer_steps(self.material.pairs, self.batch_size, Wanted.by(self.trainer))

    @property
    def training_observations(self) -> Tensor:
        """Observations of the training pairs, (pairs, observation_dim), on the training device; see ``training_actions``."""
        return self.material.training[0]

    @property
    def observation_moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of all training observations, (observation_dim,) float64, on the training device."""
        return self.material.observation_moments

    @property
    def training_actions(self) -> Tensor:
        """Actions of the training pairs, (pairs, action_dim), on the training device.

        Of pairs that stay on the disk, a fixed sample that is spread evenly over them.
        """
        return self.material.training[1]

    @property
    def grows(self) -> bool:
        """Whether a callback adds pairs while learning: DAgger."""
        callbacks: Any = getattr(self.trainer, "callbacks", [])
        return any(getattr(callback, "teaches", False) for callback in callbacks)

    @property
    def training_pairs(self) -> tuple[Tensor, Tensor]:
        """Observations and actions of the training pairs, and of those that were added while learning."""
        observations, actions = self.material.training
        if self._collected:
            observations = torch.cat([observations, self._collected[0]])
            actions = torch.cat([actions, self._collected[1]])
        return observations, actions

    @property
    def training_transitions(self) -> Transitions:
        """The training pairs of which it is known where they led, on the training device."""
        return self.material.transitions

    @cached_property
    def references(self) -> References:
        """Returns of the random policy and of the expert; played or read at the first call."""
        if not self.has_simulator:
            return without_simulator.REFERENCES
        files = several.judged(self.material.files, self.spaces) if self.paths else []
        return references(self.environment_id, several.origin_of(files) if files else None, several.error_of(files))

    # What is made once, when it is first asked for

    @cached_property
    def material(self) -> InMemory:
        """The pairs, in memory or on the disk."""
        return self.reading.material(self.spaces, Wanted.by(self.trainer), self.budget, self.grows, self.has_simulator)

    @property
    def split(self) -> tuple[Trajectories, Trajectories]:
        """The episodes to train on, and those held out, maybe none; of several files one after another."""
        return self.material.split


if TYPE_CHECKING:
    _: Data = Demonstrations()
