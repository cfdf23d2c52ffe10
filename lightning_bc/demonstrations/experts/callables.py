"""Any callable as an expert: ``package.module:function``, a program of the user's that is imported and called.

    function(observations) -> actions        or        function(observations, deterministic) -> actions

``observations`` are a NumPy array (batch, observation_dim) float32, as the environment gives them; ``actions`` are an array
(batch, action_dim), or what NumPy makes one of, in the environment's units and within its bounds. A function with a
parameter ``deterministic`` is told whether its best answer or a sample is asked for.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_bc.demonstrations.fitting import beyond_bounds
from lightning_bc.environments import EnvironmentSpaces, make
from lightning_bc.errors import InputError, raised_by
from lightning_bc.players import Memoryless, Player

_NAME = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attributes>[^\W\d]\w*(\.[^\W\d]\w*)*)")


def is_name(text: str) -> bool:
    """Whether ``text`` has the form package.module:function."""
    return _NAME.fullmatch(text) is not None


class CallableExpert:
    """A function of the user's that is checked at every answer.

    Args:
        name: of the function, for messages.
        function: from observations (batch, observation_dim) to actions (batch, action_dim), both arrays; whether it has
            samples, its parameter ``deterministic`` says.
        spaces: of the environment.
    """

    def __init__(self, name: str, function: Callable[..., Any], spaces: EnvironmentSpaces) -> None:
        self.name, self.function, self.spaces = name, function, spaces
        self.observation_dim, self.action_dim = spaces.observation_dim, spaces.action_dim
        self.has_samples = _has_parameter(function, "deterministic")

    def __call__(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Actions (batch, action_dim) float32 for ``observations`` (batch, observation_dim), on the same device.

        Raises:
            InputError: the function raises, or its answer is no finite array of that shape within the bounds.
        """
        given = observations.cpu().numpy().copy()                   # what the function writes into is its own
        try:
            answer = self.function(given, deterministic=deterministic) if self.has_samples else self.function(given)
            actions = np.asarray(answer, dtype=np.float32)
        except Exception as error:                                  # whatever the user's program raises
            raise InputError(
                f"{self.name}: {raised_by(error)}, called with observations of shape {given.shape}."
            ) from error
        wanted = (len(given), self.action_dim)
        if actions.shape != wanted:
            raise InputError(
                f"{self.name}: answers an array of shape {actions.shape} to observations of shape {given.shape}; wanted "
                f"{wanted}, one action per observation."
            )
        if not np.isfinite(actions).all():
            row = int(np.flatnonzero(~np.isfinite(actions).all(axis=1))[0])
            raise InputError(
                f"{self.name}: answers {actions[row].tolist()} to the observation {given[row].tolist()}; wanted finite "
                "numbers."
            )
        outside = beyond_bounds(torch.from_numpy(actions), self.spaces).any(dim=1)
        if outside.any():
            first = actions[int(outside.nonzero()[0])]
            raise InputError(
                f"{self.name}: answers {[round(value, 4) for value in first.tolist()]}, outside the bounds of "
                f"{self.spaces.environment_id}, {self.spaces.action_low.tolist()} to {self.spaces.action_high.tolist()}. "
                "Actions are in the environment's units: scale or clip them."
            )
        kept = actions.clip(self.spaces.action_low, self.spaces.action_high)  # a copy: the function may use its memory again
        return torch.from_numpy(kept).to(observations.device)

    def player(self, deterministic: bool = True, replan: bool = False) -> Player:
        """What plays it; without samples it has one answer to every observation, whatever is asked for."""
        return Memoryless(partial(self, deterministic=deterministic))


def load(name: str, spaces: EnvironmentSpaces | None) -> CallableExpert:
    """Import the callable ``name``, also from the working directory, and try it on two first observations.

    Raises:
        InputError: it cannot be imported, is not callable or answers otherwise than it should, or no environment is given.
    """
    if spaces is None:
        raise InputError(f"{name}: a function says nothing of its dimensions: give --env (environment_id in Python).")
    function = reduce(_attribute(name), _parts(name)[1].split("."), _module(name))
    if not callable(function):
        raise InputError(f"{name}: is a {type(function).__name__}; wanted a function from observations to actions.")
    expert = CallableExpert(name, function, spaces)
    environments = make(spaces.environment_id, 2)
    observations, _ = environments.reset(seed=[0, 1])
    environments.close()
    expert(torch.as_tensor(observations, dtype=torch.float32))
    return expert


def source_file(name: str) -> Path | None:
    """The file of a callable's module; None where it has none."""
    file = getattr(_module(name), "__file__", None)
    return None if file is None else Path(file)


def _has_parameter(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except ValueError:                                              # some functions written in C do not say
        return False


def _parts(name: str) -> tuple[str, str]:
    module, _, attributes = name.partition(":")
    return module, attributes


def _module(name: str) -> object:
    module, folder = _parts(name)[0], str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:               # as python -m does
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise InputError(f"{name}: its module imports {error.name}, which is missing. Install it.") from error
        meant = f" Did you mean {module.removesuffix('.py')}{name.removeprefix(module)}?" if module.endswith(".py") else ""
        raise InputError(
            f"{name}: there is no module {error.name}, neither installed nor in {folder}, and no file {name}.{meant}"
        ) from error
    except Exception as error:                                      # whatever the user's program raises
        raise InputError(f"{name}: its module, imported, {raised_by(error)}.") from error


def _attribute(name: str) -> Callable[[object, str], Any]:
    def get(owner: object, attribute: str) -> Any:
        if not hasattr(owner, attribute):
            known = [key for key, value in vars(owner).items() if callable(value) and not key.startswith("_")]
            raise InputError(f"{name}: there is no {attribute}. Callables there: {', '.join(known) or 'none'}.")
        return getattr(owner, attribute)

    return get
