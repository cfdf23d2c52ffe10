"""A trained policy in a script of one's own: load a checkpoint, and call it with observations."""

import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from numbers import Complex, Real
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from lightning_bc.aliases import StateDict
from lightning_bc.demonstrations import Demonstrations, load_expert
from lightning_bc.demonstrations.experts import Expert, callables, check_fits, environment_of_shipped, exported
from lightning_bc.errors import InputError
from lightning_bc.files import shipped
from lightning_bc.players import Memoryless, Player
from lightning_bc.references import References
from lightning_bc.runs import folders
from lightning_bc.runs.weights import check_weights
from lightning_bc.strategies import Strategy, strategy_of_checkpoint
from lightning_bc.strategies.base import evaluating
from lightning_bc.strategies.registry import take_weights

Module = TypeVar("Module", bound=nn.Module)

_NUMBERS = (Complex, Decimal, np.bool_)
"""Of which an array may be; NumPy counts durations among its whole numbers, which they are not."""


class Policy:
    """Observations to actions, both in the environment's units, without gradients and in evaluation mode.

    A strategy with a history or chunks of actions remembers the episode that each environment plays:

    * the first call after :meth:`reset` begins an episode in every row of the batch, and so does the very first call;
    * each further call is the next step of the same episodes, with the same number of rows;
    * :meth:`reset` with a mask begins new episodes at the next call in some of the rows.

    A strategy without memory answers each call by itself; resetting it changes nothing.

    Args:
        strategy: a trained strategy, or an expert.
        environment_id: Gymnasium id of the environment that it acts in; None where that is unknown.
        references: what returns are measured against; None where that is unknown.
        path: file that it comes from; None for one that was not loaded.
        step: Lightning's step of the checkpoint; None for others.
        max_episode_steps: of its run, steps after which episodes were cut off; None where nothing says it.

    Attributes:
        not_imported: environment that its file says, where that is not taken for ``environment_id`` since its module is not
            imported; None otherwise.
        observation_dim: size of an observation.
        action_dim: size of an action.
    """

    def __init__(
        self,
        strategy: Expert,
        environment_id: str | None = None,
        references: References | None = None,
        path: Path | None = None,
        step: int | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        self.strategy, self.environment_id, self.references = strategy, environment_id, references
        self.path, self.step, self.max_episode_steps = path, step, max_episode_steps
        self.not_imported: str | None = None
        self.observation_dim, self.action_dim = strategy.observation_dim, strategy.action_dim
        self._players = {deterministic: strategy.player(deterministic) for deterministic in (True, False)}
        self._remembers = not isinstance(self._players[True], Memoryless)
        stated = [getattr(strategy, "hparams", {}).get(name) for name in ("action_low", "action_high")]
        self._bounds = None if None in stated else torch.tensor(np.array(stated, np.float32))  # (2, action_dim)
        self._playing: bool | None = None                           # ``deterministic`` of the present episodes
        self._beginning = np.zeros(0, dtype=bool)                   # (batch,) rows whose episode begins at the next call

    def __repr__(self) -> str:
        """On one line; a strategy's own fills a page."""
        described = [type(self.strategy).__name__, f"{self.observation_dim} to {self.action_dim} dimensions"]
        described += [f"of {self.environment_id}"] if self.environment_id else []
        described += [f"from {self.path}"] if self.path is not None else []
        return f"Policy({', '.join(described)})"

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return device_of(self.strategy)

    @overload
    def __call__(self, observation: Tensor, deterministic: bool = True) -> Tensor: ...

    @overload
    def __call__(self, observation: ArrayLike, deterministic: bool = True) -> np.ndarray: ...

    def __call__(self, observation: Tensor | ArrayLike, deterministic: bool = True) -> Tensor | np.ndarray:
        """Choose actions.

        Args:
            observation: as the environment gives it, (observation_dim,) or (batch, observation_dim): a NumPy array, a
                list, or a torch tensor, of any real type.
            deterministic: the strategy's best single answer, else a sample drawn with torch's generator.

        Returns:
            (action_dim,) or (batch, action_dim) float32, within the action bounds: a tensor on the same device where a
            tensor was given, else a NumPy array.

        Raises:
            InputError: the observation has another size, is not finite in float32, or holds what is no real number (complex
                ones, masked ones); ``deterministic`` is neither True nor False; or, of a strategy with memory, the number
                of rows or ``deterministic`` has changed since the episodes began.
        """
        if not isinstance(deterministic, int | np.bool_) or deterministic not in (0, 1):
            raise InputError(f"deterministic={deterministic!r}: wanted True or False.")
        numbers = _numbers(observation)
        given = _float32(numbers)
        self._check(given, numbers)
        rows = given.reshape(-1, self.observation_dim).to(self.device)  # (batch, observation_dim)
        with without_gradients(self.strategy):
            actions = self._act(rows, deterministic).float()        # (batch, action_dim)
            if self._bounds is not None:                            # the border's products may round beyond a bound
                actions = actions.clamp(*self._bounds.to(actions.device))
        actions = actions.clone().to(given.device).reshape(*given.shape[:-1], self.action_dim)  # usable in autograd
        return actions if isinstance(observation, Tensor) else actions.numpy()

    def reset(self, rows: ArrayLike | None = None) -> None:
        """Begin new episodes at the next call.

        Args:
            rows: in which rows of the batch, (batch,) bool; None for all, of which there may then be another number.

        Raises:
            InputError: ``rows`` is not a mask of as many rows as are played.
        """
        if rows is None:
            self._playing = None
            return
        mask = np.asarray(rows.cpu() if isinstance(rows, Tensor) else rows)
        if mask.dtype != bool or mask.ndim != 1:
            raise InputError(f"reset: wanted a mask, one boolean per row; found {mask.dtype}, shape {mask.shape}.")
        if self._remembers and self._playing is not None:
            if len(mask) != len(self._beginning):
                raise InputError(f"reset: {len(mask)} rows, and {len(self._beginning)} episodes are played. Give one each.")
            self._beginning = self._beginning | mask

    def _act(self, rows: Tensor, deterministic: bool) -> Tensor:
        player, everyone = self._players[deterministic], torch.arange(len(rows), device=rows.device)
        if not self._remembers:
            return player.act(rows, everyone)
        if self._playing is None:
            self._playing, self._beginning = deterministic, np.ones(len(rows), dtype=bool)
        if len(rows) != len(self._beginning):
            raise InputError(
                f"observation: {len(rows)} rows, and {len(self._beginning)} episodes are played, which "
                f"{type(self.strategy).__name__} remembers. Call reset() where new episodes begin."
            )
        if deterministic != self._playing:
            raise InputError(
                f"deterministic={deterministic}: these episodes began with {self._playing}, and "
                f"{type(self.strategy).__name__} plays chunks of actions that it chose so. Call reset() before."
            )
        if self._beginning.any():
            beginning = torch.from_numpy(self._beginning).to(rows.device)
            player.begin(rows[beginning], everyone[beginning], len(rows))
            self._beginning = np.zeros_like(self._beginning)
        return player.act(rows, everyone)

    def _check(self, observation: Tensor, numbers: Tensor | np.ndarray) -> None:
        """Refuse another shape, and what is not finite in float32; messages name what was given, of ``numbers``."""
        wanted = f"wanted ({self.observation_dim},) or (batch, {self.observation_dim})"
        if observation.ndim not in (1, 2) or observation.shape[-1] != self.observation_dim:
            raise InputError(f"observation: has the shape {tuple(observation.shape)}, {wanted}.")
        if not observation.isfinite().all():
            first = tuple(observation.isfinite().logical_not().nonzero()[0].tolist())
            found = numbers[first].item() if isinstance(numbers, Tensor) else numbers[first]
            is_too_large = found not in (np.inf, -np.inf) and bool(observation[first].isinf())
            limit = f", at most {torch.finfo(torch.float32).max:.1e} in size, as float32 holds them" if is_too_large else ""
            raise InputError(f"observation{list(first)} is {found!s}: wanted finite numbers{limit}.")

    def player(self, deterministic: bool = True, replan: bool = False) -> Player:
        """What plays it with a memory of its own: see :meth:`lightning_bc.strategies.Strategy.player`."""
        return self.strategy.player(deterministic, replan)


def load(
    path: str | Path,
    strategy: Strategy | None = None,
    *,
    environment_id: str | None = None,
    device: torch.device | str = "cpu",
) -> Policy:
    """Load a policy; nothing in a file is run.

    Args:
        path: a checkpoint, the folder or the name of a run (its last checkpoint), a folder that ``export`` has written, or
            what ``collect --expert`` takes: a file of CleanRL or stable-baselines3, or ``package.module:function``.
        strategy: takes the weights. It is needed for checkpoints of a strategy that was built in Python with a network or
            other parts of one's own, which a checkpoint cannot name; build it as it was.
        environment_id: where it acts; default: what the checkpoint says. Files of other libraries do not say it.
        device: where the policy computes.

    Raises:
        InputError: there is no such file, it cannot be read, or it does not fit the environment or the strategy; or there is
            no such device.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"load: path is a {type(path).__name__}; wanted a file, a folder or the name of a run.")
    if exported.is_folder(path):
        return _exported(Path(path), strategy, environment_id, device)
    file = _file(path)
    content = _content(file)
    environment_id = environment_id or environment_of_shipped(file)
    if strategy is not None:
        if content is None:
            raise InputError(f"{file}: is not a checkpoint of a strategy. Leave strategy away.")
        theirs, ours = strategy_of_checkpoint(file, content).__name__, type(strategy).__name__
        if theirs != ours:
            raise InputError(f"{file}: is a checkpoint of {theirs}, and the given strategy is a {ours}.")
        check_weights(str(file), strategy, content["state_dict"])
        actor: Expert = take_weights(strategy, content["state_dict"])
    else:
        actor = load_expert(file, environment_id)
    if isinstance(actor, nn.Module):
        _moved(actor, device).eval().requires_grad_(False)
    content = content or {}
    data, step = content.get(Demonstrations.__qualname__, {}), content.get("global_step")
    said = data.get("environment_id") or None
    if "references" not in data or environment_id not in (None, said):
        return Policy(actor, environment_id, path=file, step=step)  # the checkpoint's references are another environment's
    limit = content.get("config", {}).get("rollouts", {}).get("max_episode_steps")
    return Policy(actor, said, References.from_dict(data["references"]), file, step, limit)


def _moved(actor: Module, device: torch.device | str) -> Module:
    """``actor`` on ``device``.

    Raises:
        InputError: torch does not have it here, or it is one that holds no numbers.
    """
    wanted = "Wanted one that torch has here; the CPU is always there."
    try:
        if torch.device(device).type == "meta":
            raise InputError(f"device={device!r}: holds no numbers, so that nothing can act there. {wanted}")
        return actor.to(device)
    except (AssertionError, RuntimeError, TypeError) as error:      # which of them, depends on how torch was built
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"device={device!r}: {reason}. {wanted}") from error


def _exported(folder: Path, strategy: Strategy | None, environment_id: str | None, device: torch.device | str) -> Policy:
    if strategy is not None:
        raise InputError(f"{folder}: is an exported policy, which says what its strategy is. Leave strategy away.")
    description = exported.read(folder)
    actor = _moved(exported.rebuilt(folder, description), device)
    if environment_id is not None:
        check_fits(actor, str(folder), environment_id)
    theirs, step = description["environment_id"], description["step"]
    if environment_id not in (None, theirs):
        return Policy(actor, environment_id, path=folder, step=step)
    module, not_imported = str(theirs).rpartition(":")[0], None
    if environment_id is None and module and module not in sys.modules:  # a folder does not choose what is imported
        warnings.warn(
            f"{folder}: acts in {theirs}, whose module is not imported for a file's sake. To play it there, name it: --env "
            "(environment_id in Python).",
            stacklevel=3,
        )
        not_imported, theirs = theirs, None
    limit = description["max_episode_steps"]
    policy = Policy(actor, theirs, exported.references_of(description), folder, step, limit)
    policy.not_imported = not_imported
    return policy


def environment_of(policy: Policy) -> str:
    """Where a policy acts, as its file says.

    Raises:
        InputError: nothing says it, or its module is not imported.
    """
    if policy.not_imported is not None:
        raise InputError(
            f"{policy.path}: acts in {policy.not_imported}, whose module is not imported for a file's sake. Give --env "
            f"{shlex.quote(policy.not_imported)}."
        )
    if policy.environment_id is None:
        raise InputError(f"{policy.path}: does not say of which environment it is. Give --env.")
    return policy.environment_id


def device_of(actor: object) -> torch.device:
    """Where an actor computes; the CPU for what is not a module."""
    weights = next(actor.parameters(), None) if isinstance(actor, nn.Module) else None
    return torch.device("cpu") if weights is None else weights.device


@contextmanager
def without_gradients(actor: object) -> Iterator[None]:
    """Inside the block nothing is recorded for gradients, and a module is in evaluation mode; after it as before."""
    # Where nothing trains no module is looked at: to walk through them takes as long as a small network.
    trained = evaluating(actor) if isinstance(actor, nn.Module) and actor.training else nullcontext()
    with trained, torch.inference_mode():
        yield


def _numbers(observation: Any) -> Tensor | np.ndarray:
    """An observation as it was given, a list as an array.

    Raises:
        InputError: it holds something else than real numbers.
    """
    kind = type(observation).__name__
    if _is_masked(observation):
        raise InputError(f"observation: is a {kind} with masked numbers; wanted all. Fill them in (numpy.ma.filled).")
    try:
        numbers = observation.detach() if isinstance(observation, Tensor) else np.asarray(observation)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # of rows of several lengths, or tensors elsewhere
        raise InputError(f"observation: is a {kind} that is no array of numbers ({error}).") from error
    if isinstance(numbers, Tensor):
        if numbers.is_meta:
            raise InputError("observation: is a Tensor on the device meta, which holds no numbers; wanted one that does.")
        is_complex = numbers.is_complex()
    else:
        holds = {type(value) for value in numbers.flat} if numbers.dtype == object else {numbers.dtype.type}
        is_complex = any(issubclass(one, Complex) and not issubclass(one, Real) for one in holds)
        others = [one.__name__ for one in holds if not issubclass(one, _NUMBERS) or issubclass(one, np.timedelta64)]
        if others:
            raise InputError(f"observation: is a {kind} that is no array of numbers (it holds {', '.join(sorted(others))}).")
    if is_complex:
        raise InputError(f"observation: is a {kind} of complex numbers; wanted real ones. Take their parts (.real, .imag).")
    return numbers


def _is_masked(observation: Any) -> bool:
    """Whether NumPy masks a number of it, which an array would hold as if it were one."""
    if isinstance(observation, list | tuple):
        return any(map(_is_masked, observation))
    return isinstance(observation, np.ma.MaskedArray) and np.ma.is_masked(observation)


def _float32(numbers: Tensor | np.ndarray) -> Tensor:
    """Real numbers as float32, wherever they lie; those that are too large for it are infinite."""
    if isinstance(numbers, Tensor):
        return numbers.to(torch.float32)
    try:
        with np.errstate(over="ignore"):                            # told by the check, as every number that is not finite
            # A copy in any case: torch takes neither negative strides nor another order of bytes, and warns of what is
            # read-only.
            return torch.from_numpy(np.array(numbers, np.float32, order="C"))
    except (TypeError, ValueError, OverflowError) as error:         # of whole numbers that Python alone can hold
        raise InputError(f"observation: holds a number that float32 does not ({error}).") from error


def _file(path: str | Path) -> Path:
    """The file that ``path`` means: one that lies there or is shipped, or a run's last checkpoint; or a function's name."""
    is_said = shipped(path).is_file() or callables.is_name(str(path))
    return Path(path) if is_said else folders.checkpoint_file(path)


def is_checkpoint(path: str | Path) -> bool:
    """Whether a file is a checkpoint of a strategy, and can be read."""
    return _content(Path(path)) is not None


def _content(path: Path) -> StateDict | None:
    """What a checkpoint of ours holds, its tensors mapped and not read; None for other files, of which experts know."""
    try:
        content = torch.load(shipped(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception:                                               # load_expert says what is wrong with it
        return None
    return content if isinstance(content, dict) and "pytorch-lightning_version" in content else None
