"""Demonstrations: the LightningDataModule that serves pairs from the training device's memory."""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from lightning_bc.demonstrations.batches import Batch, Batches, Nothing
from lightning_bc.demonstrations.collect import collect, default_path
from lightning_bc.demonstrations.experts import SHIPPED_EXPERTS
from lightning_bc.demonstrations.formats import DemonstrationFile, read
from lightning_bc.demonstrations.reference_returns import random_returns, references_without_file
from lightning_bc.demonstrations.windows import Windows
from lightning_bc.environments import environment_spaces
from lightning_bc.errors import InputError, refuse_unless_good
from lightning_bc.references import References
from lightning_bc.strategies.contract import Needs, Transitions

VALIDATION_BATCH = 65_536
FEWEST_EPISODES_TO_HOLD_OUT = 10


class Demonstrations(LightningDataModule):
    """The pairs that a strategy learns from, and what its returns are measured against.

    The tensors lie on the training device and a batch is an index selection (see ``Batches``), so serving costs next to
    nothing. With ``trainer.max_epochs`` (one, unless set) an epoch is one pass; with ``trainer.max_steps`` alone, one
    epoch spans all of the steps, however many passes they are, so that small data does not pay Lightning's cost of an
    epoch at each pass.

    Args:
        path: demonstration file (.pt or .npz, see ``formats``) or minari:DATASET_ID; the default file is collected by
            ``fit`` when it is missing and an expert for the environment is shipped. null reads nothing, and is what
            strategies that need no demonstrations have by default; returns are then measured against the shipped expert,
            if there is one.
        environment_id: Gymnasium id of the environment; the command line sets it from --env.
        episodes: use only the first n episodes (the demonstration budget).
        subsample: keep every k-th pair of each episode.
        validation_fraction: share of the episodes, the last ones, that is held out; below 10 episodes there is no
            validation set.
        batch_size: pairs a batch.
        episode_length: steps an episode, for files without episode lengths; default: the environment's time limit,
            where that environment never terminates early.
        seed: of the order of the pairs; the command line sets it from --seed_everything.
        group_size: batches that the loader serves together, one optimizer step each; the command line sets it to
            --rollouts.eval_freq, and DAgger to what divides its rounds too.
    """

    def __init__(
        self,
        path: str | None = default_path("{env}"),
        environment_id: str = "HalfCheetah-v5",
        episodes: int | None = None,
        subsample: int = 1,
        validation_fraction: float = 0.01,
        batch_size: int = 250,
        episode_length: int | None = None,
        seed: int = 0,
        group_size: int = 80,
    ) -> None:
        super().__init__()
        refuse_unless_good(
            "--data.",
            (
                ("batch_size", batch_size, "at least 1", batch_size >= 1),
                ("subsample", subsample, "at least 1", subsample >= 1),
                ("episodes", episodes, "at least 1, or nothing for all", episodes is None or episodes >= 1),
                ("episode_length", episode_length, "at least 1", episode_length is None or episode_length >= 1),
                ("validation_fraction", validation_fraction, "0 to below 1", 0 <= validation_fraction < 1),
            ),
        )
        self.path = None if path is None else path.replace("{env}", environment_id)
        self.environment_id, self.episodes, self.subsample = environment_id, episodes, subsample
        self.validation_fraction, self.batch_size = validation_fraction, batch_size
        self.episode_length, self.seed, self.group_size = episode_length, seed, group_size
        self.spaces = environment_spaces(environment_id)
        self.source: dict[str, Any] = {}
        self._references: References | None = None
        self._file: DemonstrationFile | None = None
        self._training: Batch | None = None
        self._validation: Batch | None = None
        self._loader: Batches | None = None
        self._training_episodes = range(0)
        self._lengths = torch.empty(0, dtype=torch.int64)           # of all episodes in the file
        self._collected: Batch | None = None                        # what was added to the file's pairs while learning

    # What a strategy is built from

    @property
    def observation_dim(self) -> int:
        """Size of an observation."""
        return self.spaces.observation_dim

    @property
    def action_low(self) -> list[float]:
        """Lower bounds of the actions."""
        return [float(bound) for bound in self.spaces.action_low]

    @property
    def action_high(self) -> list[float]:
        """Upper bounds of the actions."""
        return [float(bound) for bound in self.spaces.action_high]

    # Lightning's hooks

    def prepare_data(self) -> None:
        """Collect the default file where it is missing, for ``fit`` only; then read it, before any folder is made."""
        model = None if self.trainer is None else self.trainer.lightning_module
        if self.path is None:
            if model is not None and model.needs is not Needs.NOTHING:
                raise InputError(
                    f"--data.path null: {type(model).__name__} learns from demonstrations. Name their file with --data.path."
                )
            return
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        if fitting and self.path == default_path(self.environment_id) and not Path(self.path).exists():
            expert = SHIPPED_EXPERTS / f"{self.environment_id}.pt"
            if not expert.is_file():
                raise InputError(
                    f"{self.path}: no such file, and no expert for {self.environment_id} is shipped to collect it with "
                    f"({expert} is missing). Name your own demonstrations with --data.path, or collect them with\n"
                    f"    python -m lightning_bc collect --env {self.environment_id} --expert EXPERT.pt"
                )
            collect(self.environment_id, str(expert), self.path)
        self._split(self._read())

    def setup(self, stage: str) -> None:
        """Split the pairs by episodes, and bring them to the training device."""
        if stage not in ("fit", "validate") or self._training is not None or self.path is None:
            return
        self._refuse_gaps_in_windows()
        file = self._read()
        starts, lengths, used, held_out = self._split(file)
        self._lengths = lengths
        self._training_episodes = range(used - held_out)
        self._training = self._pairs(file, starts, lengths, self._training_episodes)
        self._validation = self._pairs(file, starts, lengths, range(used - held_out, used)) if held_out else None
        pairs = len(self._training[0])
        if self.batch_size > pairs:
            warnings.warn(
                f"--data.batch_size {self.batch_size} is more than the {pairs} training pairs: each batch holds them all.",
                stacklevel=2,
            )
        self.source = {
            "path": self.path,
            "sha256": file.sha256,
            "training_pairs": pairs,
            "training_episodes": used - held_out,
            "validation_episodes": held_out,
            **{key: file.metadata.get(key) for key in ("actions", "expert", "expert_sha256", "seed", "versions")},
        }

    def train_dataloader(self) -> Batches | Nothing:
        """Shuffled batches; see the class for what an epoch is. Strategies that act while they learn draw for themselves."""
        if self.trainer is not None and self.trainer.lightning_module.needs is not Needs.PAIRS:
            return Nothing()
        assert self._training is not None, "setup('fit') comes first"
        if self.trainer is not None and self.trainer.limit_train_batches != 1.0:
            raise InputError(
                f"--trainer.limit_train_batches {self.trainer.limit_train_batches}: is not supported, since many batches "
                "share one training step. Train on less with --trainer.max_steps or --data.episodes."
            )
        stop = self.trainer.max_steps if self.trainer is not None and self.trainer.max_steps > 0 else None
        by_steps = stop is not None and self.trainer.max_epochs == -1
        self._loader = self._batches(
            self._training,
            self._training_episodes,
            self.batch_size,
            group_size=self.group_size,
            num_batches=stop if by_steps else None,
            stop=stop,
        )
        if self._collected is not None:                             # of a run that is resumed
            self._loader.extend(*(column.to(self.training_observations.device) for column in self._collected))
        return self._loader

    def val_dataloader(self) -> Batches | list[Any]:
        """The held-out episodes in large batches, all in one item; empty where nothing is held out."""
        if self._validation is None:
            return []
        first = self._training_episodes.stop
        held_out = range(first, first + int(self.source["validation_episodes"]))
        return self._batches(self._validation, held_out, VALIDATION_BATCH, group_size=len(self._validation[0]))

    def state_dict(self) -> dict[str, Any]:
        """What a test needs to know of the data, and a resumed run to recognise it; never the data."""
        return {
            "environment_id": self.environment_id,
            "source": self.source,
            "references": self.references.as_dict(),
            "collected": self._collected,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over references; refuse to go on with other data.

        Raises:
            InputError: if the file is not the one that the checkpoint's run learnt from.
        """
        before, now = state["source"].get("sha256"), self.source.get("sha256")
        if self.source and before != now:
            raise InputError(
                f"{self.path}: is not the file that this run began with (SHA-256 {now}, at its start {before}). "
                "Bring that file back, or start a new run without --ckpt_path."
            )
        self.source = state["source"]
        self._references = References(**state["references"])
        self._collected = state["collected"]

    def extend(self, observations: Tensor, actions: Tensor, lengths: Tensor) -> None:
        """Add episodes that were labelled while learning: see :meth:`Batches.extend`.

        They are in the checkpoint, and come back when it is resumed.
        """
        assert isinstance(self._loader, Batches), "train_dataloader() comes first"
        new = tuple(column.to(self.training_observations.device) for column in (observations, actions, lengths))
        old = self._collected
        self._collected = new if old is None else tuple(torch.cat(columns) for columns in zip(old, new, strict=True))
        self._loader.extend(*new)

    # What others ask of the data

    @property
    def training_observations(self) -> Tensor:
        """Observations of the training pairs, (pairs, observation_dim), on the training device."""
        assert self._training is not None, "setup('fit') comes first"
        return self._training[0]

    @property
    def training_actions(self) -> Tensor:
        """Actions of the training pairs, (pairs, action_dim), on the training device."""
        assert self._training is not None, "setup('fit') comes first"
        return self._training[1]

    @property
    def training_transitions(self) -> Transitions:
        """The training pairs that have a successor.

        The last pair of an episode that its time limit cut has none and is left out, and so is that of the file's last
        episode, which ``collect`` cuts where it has enough pairs; that of an episode that ended earlier is one that
        terminated, and its next observation is zero.
        """
        assert self._file is not None, "setup('fit') comes first"
        file, (starts, lengths) = self._file, self._episodes(self._file)
        rows = self._rows(starts, lengths, self._training_episodes)
        last_rows, limit = (starts + lengths - 1)[: len(self._training_episodes)], self.spaces.max_episode_steps
        cut = torch.full_like(lengths, self.spaces.can_terminate is False, dtype=torch.bool)
        if limit is not None:
            cut |= lengths >= limit
        cut[-1] = True
        rows = rows[~torch.isin(rows, last_rows[cut[: len(last_rows)]])]
        terminated = torch.isin(rows, last_rows)                    # those whose time was not up
        following = file.observations[(rows + 1).clamp(max=len(file.observations) - 1)]
        following = following * ~terminated.unsqueeze(-1)
        rewards = torch.zeros(len(rows)) if file.rewards is None else file.rewards[rows]
        columns = (file.observations[rows], file.actions[rows], rewards, following, terminated.float())
        return Transitions(*(column.to(self.training_observations.device) for column in columns))

    @property
    def expert_queries(self) -> int:
        """Labels that an expert was asked for while learning."""
        return 0 if self._collected is None else len(self._collected[0])

    @property
    def optimizer_steps(self) -> int | None:
        """Optimizer steps of the whole run under the Trainer's settings; None where these set no end."""
        trainer = self.trainer
        assert trainer is not None
        limits = []
        if trainer.max_steps > 0:
            limits.append(trainer.max_steps)
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            loader = self._loader or self.train_dataloader()
            assert isinstance(loader, Batches)
            limits.append(loader.num_batches * trainer.max_epochs)
        return min(limits, default=None)

    def pairs_seen(self, optimizer_steps: int) -> int:
        """Training pairs, with repetition, behind a number of optimizer steps; none where a strategy draws for itself."""
        if self._loader is None:
            return 0
        return self._loader.pairs_until(optimizer_steps)

    @property
    def references(self) -> References:
        """Returns of the random policy and of the expert; played or read at the first call."""
        if self._references is None:
            if self.path is None:
                self._references = references_without_file(self.environment_id)
                return self._references
            file = self._file
            assert file is not None, "setup('fit') comes first"
            if file.expert_returns is not None:
                expert, source = float(file.expert_returns.mean()), "expert's mean action, 100 test-bank episodes"
            else:
                expert, source = file.mean_reward, "mean_reward of the data file (no expert at hand)"
            if file.random_returns is not None:
                random = float(file.random_returns.mean())
            else:
                random = float(random_returns(self.environment_id).mean())
            self._references = References(random, expert, source)
        return self._references

    # Checks and cuts

    def _batches(self, pairs: Batch, episodes: range, batch_size: int, **options: Any) -> Batches:
        observations, actions = pairs
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        windows, (history, horizon) = None, self._window
        if history > 1 or horizon > 1:
            windows = Windows(self._lengths[episodes.start : episodes.stop], history, horizon, observations.device)
        return Batches(
            observations, actions, batch_size, self.seed, windows=windows, rank=rank, world_size=world_size, **options
        )

    @property
    def _window(self) -> tuple[int, int]:
        """History and horizon of the strategy that is trained."""
        model: Any = None if self.trainer is None else self.trainer.lightning_module
        return (1, 1) if model is None else (model.history, model.horizon)

    def _refuse_gaps_in_windows(self) -> None:
        history, horizon = self._window
        if self.subsample > 1 and (history > 1 or horizon > 1):
            raise InputError(
                f"--data.subsample {self.subsample}: leaves gaps in the windows (history {history}, horizon {horizon}) that "
                "this strategy learns from. Leave --data.subsample away, or set both to 1."
            )

    def _read(self) -> DemonstrationFile:
        """Read and check the file, once."""
        if self._file is None:
            assert self.path is not None
            file = read(self.path)
            self._check_fits(file)
            self._file = file
        return self._file

    def _check_fits(self, file: DemonstrationFile) -> None:
        made_on = file.metadata.get("environment_id")
        if made_on is not None and made_on != self.environment_id:
            raise InputError(
                f"{self.path}: holds demonstrations of {made_on}, and --env is {self.environment_id}. Leave --env away, or "
                "name demonstrations of that environment with --data.path."
            )
        low, high = self.spaces.action_low, self.spaces.action_high
        for key, tensor, wanted in (
            ("observations", file.observations, self.observation_dim),
            ("actions", file.actions, len(low)),
        ):
            if tensor.shape[1] != wanted:
                raise InputError(
                    f"{self.path}: {key} have {tensor.shape[1]} dimensions, those of {self.environment_id} have {wanted}. "
                    "Say with --env which environment the file is of."
                )
        low_tensor, high_tensor = torch.tensor(low), torch.tensor(high)
        tolerance = 1e-5 * (high_tensor - low_tensor)               # float32 rounding of an affine map
        outside = ((file.actions < low_tensor - tolerance) | (file.actions > high_tensor + tolerance)).any(dim=1)
        if outside.any():
            first = int(outside.nonzero()[0])
            raise InputError(
                f"{self.path}: actions[{first}] = {[round(a, 4) for a in file.actions[first].tolist()]} is outside the "
                f"bounds of {self.environment_id}, {self.action_low} to {self.action_high} (first of {int(outside.sum())}). "
                "Actions are expected in the environment's units, as they were played: clip them, or scale them back."
            )

    def _split(self, file: DemonstrationFile) -> tuple[Tensor, Tensor, int, int]:
        """Starts and lengths of all episodes, the number of those used, and how many of these are held out."""
        starts, lengths = self._episodes(file)
        used = len(lengths) if self.episodes is None else self.episodes
        if used > len(lengths):
            raise InputError(f"--data.episodes {used}: {self.path} holds {len(lengths)} episodes. Ask for as many or fewer.")
        if self.validation_fraction == 0 or used < FEWEST_EPISODES_TO_HOLD_OUT:
            return starts, lengths, used, 0
        return starts, lengths, used, min(max(1, round(used * self.validation_fraction)), used - 1)

    def _episodes(self, file: DemonstrationFile) -> tuple[Tensor, Tensor]:
        """Start and length of each episode in the file, (episodes,) each."""
        lengths = file.episode_lengths
        pairs = len(file.observations)
        if lengths is None:
            length = self.episode_length
            if length is None and self.spaces.can_terminate is False:
                length = self.spaces.max_episode_steps
            model = None if self.trainer is None else self.trainer.lightning_module
            learns_transitions = model is not None and model.needs is Needs.TRANSITIONS
            all_pairs = self.episodes is None and self.validation_fraction == 0 and self.subsample == 1
            if length is None and all_pairs and not learns_transitions:
                length = pairs                                      # nobody asks where episodes end
            if length is None:
                way_out = ", or take all pairs as they are with --data.validation_fraction 0"
                raise InputError(
                    f"{self.path}: has no episode_lengths, and episodes of {self.environment_id} may end early. Say how "
                    f"long they are with --data.episode_length N{'' if learns_transitions else way_out}."
                )
            lengths = torch.full((math.ceil(pairs / length),), length)
            lengths[-1] = pairs - length * (len(lengths) - 1)
        return lengths.cumsum(0) - lengths, lengths

    def _pairs(self, file: DemonstrationFile, starts: Tensor, lengths: Tensor, episodes: range) -> Batch:
        """The pairs of a run of episodes, every k-th of each, on the training device."""
        first, stop = int(starts[episodes[0]]), int((starts + lengths)[episodes[-1]])
        rows: Any = slice(first, stop) if self.subsample == 1 else self._rows(starts, lengths, episodes)
        device = self.trainer.strategy.root_device if self.trainer is not None else torch.device("cpu")
        return file.observations[rows].to(device), file.actions[rows].to(device)

    def _rows(self, starts: Tensor, lengths: Tensor, episodes: range) -> Tensor:
        """Every k-th row of each of a run of episodes."""
        starts_list, lengths_list = starts.tolist(), lengths.tolist()
        return torch.cat([torch.arange(starts_list[e], starts_list[e] + lengths_list[e], self.subsample) for e in episodes])
