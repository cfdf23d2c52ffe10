"""Every strategy by its class name: a file in ``offline/`` or ``online/`` is enough to be found."""

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.errors import InputError, NotImportedError
from lightning_bc.files import refuse_damaged
from lightning_bc.networks import networks
from lightning_bc.strategies.base import Strategy
from lightning_bc.strategies.optimizers import DefaultAdam, DefaultAdamW

FOLDERS = ("offline", "online")

TRUSTED = ("lightning_bc.", "torch.optim.", "lightning.pytorch.")
"""Packages whose classes a checkpoint may name."""

_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_TEXT = {
    *("path", "expert", "env", "environment_id", "ckpt_path", "init_from"),
    *("default_root_dir", "dirpath", "filename", "monitor"),
}
"""Settings that are text, whatever they look like."""


@functools.cache
def _import_all() -> None:
    for folder in FOLDERS:
        for module in pkgutil.iter_modules([str(Path(__file__).parent / folder)]):
            importlib.import_module(f"lightning_bc.strategies.{folder}.{module.name}")


def strategies() -> dict[str, type[Strategy]]:
    """Every final strategy: those of the two folders, and those of a user that have been imported."""
    _import_all()
    found: dict[str, type[Strategy]] = {}
    queue: list[type[Strategy]] = [*Strategy.__subclasses__()]
    while queue:
        cls = queue.pop()
        queue += cls.__subclasses__()
        if not cls.__abstractmethods__:
            found[cls.__name__] = cls
    return dict(sorted(found.items()))


def known_classes() -> dict[str, type]:
    """What a configuration of a model can name: strategies, networks and optimizers, by their names."""
    optimizers = [cls for cls in vars(torch.optim).values() if inspect.isclass(cls)]
    return {cls.__name__: cls for cls in (*optimizers, DefaultAdamW, DefaultAdam, *networks(), *strategies().values())}


def strategy_of_checkpoint(path: str | Path, checkpoint: StateDict) -> type[Strategy]:
    """The class that a checkpoint holds the weights of.

    Lightning's ``SomeStrategy.load_from_checkpoint`` takes another strategy's file without complaint, so the class is
    read from the file; only classes that are already imported are accepted, so that a file cannot choose what runs.

    Raises:
        InputError: if it is no checkpoint of a known strategy; a :class:`NotImportedError` if it names another.
    """
    name = checkpoint.get("strategy")
    cls = strategies().get(str(name))
    if cls is None:
        known = f"which is not a known strategy. Known: {', '.join(strategies())}."
        if not isinstance(name, str):
            raise InputError(f"{path}: is a checkpoint of something else, {known}")
        raise NotImportedError(
            f"{path}: is a checkpoint of {name}, {known} A checkpoint does not choose what is imported: if the strategy is "
            "yours, import the module that defines it first, or give the command in the folder in which fit trained it, "
            "where lightning_logs/RUN/config.yaml names it.",
            checkpoint.get("run"),
            [name],
        )
    return cls


def programs(config: Any, key: str = "") -> set[str]:
    """What a configuration, or a part of it under ``key``, would import or call that is of no trusted package.

    Where a class or a function is expected, an import path such as os.kill is one; so every text that looks like one counts.
    """
    if isinstance(config, Mapping):
        return set().union(*(programs(value, str(name)) for name, value in config.items()))
    if isinstance(config, list | tuple):
        return set().union(*(programs(value, key) for value in config))
    if not isinstance(config, str) or key in _TEXT or not _IMPORT_PATH.fullmatch(config):
        return set()
    return set() if config.startswith(TRUSTED) else {config}


def check_shapes(
    source: str, owner: str, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], way_out: str
) -> None:
    """Raise InputError unless ``weights`` are the ``wanted`` ones, by name and shape.

    Args:
        source: the file or flag that they come from.
        owner: whose the wanted ones are, in words.
        wanted: by name.
        weights: by name.
        way_out: what to do, a sentence.
    """
    ours = {name: tuple(value.shape) for name, value in wanted.items()}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*ours, *theirs]:
        if ours.get(name) != theirs.get(name):
            raise InputError(
                f"{source}: holds {name} {theirs.get(name, 'not at all')}, and {owner} has it "
                f"{ours.get(name, 'not at all')}. {way_out}"
            )


def take_weights(strategy: Strategy, weights: Mapping[str, Tensor]) -> Strategy:
    """``strategy`` with ``weights`` as they are: those of a run with --trainer.precision 64-true are float64."""
    if all(value.dtype == torch.float64 for value in weights.values() if value.is_floating_point()):
        strategy.double()
    strategy.load_state_dict(weights)
    return strategy


def load_strategy(path: str | Path) -> Strategy:
    """Rebuild the strategy that a checkpoint holds, whichever it is.

    Raises:
        InputError: if it is no checkpoint of a known strategy, or what it says of the strategy does not fit its weights.
    """
    refuse_damaged(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        kind = type(error).__name__
        raise InputError(f"{path}: cannot be read ({kind}). It is truncated, or not a checkpoint.") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: is not a checkpoint that lightning_bc fit has saved.")
    cls = strategy_of_checkpoint(path, checkpoint)
    settings = checkpoint.get("hyper_parameters", {})
    if not isinstance(settings, dict):
        raise InputError(f"{path}: is not whole: its hyper_parameters are a {type(settings).__name__}, wanted dict.")
    settings = {name: value for name, value in settings.items() if name != "_class_path"}
    if found := programs(settings) - {f"{known.__module__}.{known.__qualname__}" for known in known_classes().values()}:
        raise NotImportedError(
            f"{path}: names {', '.join(sorted(found))}, which would be imported. A checkpoint is no program: build the "
            "strategy in Python as it was, and load the weights with lightning_bc.load(path, strategy); a network of "
            "lightning_bc.networks.Network is known once its module is imported.",
            checkpoint.get("run"),
            found,
        )
    try:
        strategy = cls.load_from_checkpoint(path, map_location="cpu", weights_only=True)
        return take_weights(strategy, checkpoint["state_dict"])
    except InputError as error:                                     # of a constructor: as if a flag had said it
        raise InputError(f"{path}: {cls.__name__} cannot be built from it: {error}") from error
    except Exception as error:                                      # of Lightning, constructors and torch; there are many
        raise InputError(
            f"{path}: {cls.__name__} cannot be built from it: {' '.join(str(error).split())[:200]}. Either it is not whole, "
            "or another version wrote it, or the strategy was built in Python with a network of one's own, which a "
            "checkpoint cannot name: build it as it was, and load the weights with lightning_bc.load(path, strategy)."
        ) from error
