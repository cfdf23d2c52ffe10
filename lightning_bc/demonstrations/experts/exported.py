"""An exported policy, a folder of two files that are data alone: what it is in JSON, and its weights in safetensors.

    policy.json           strategy, settings, sizes, bounds, normalisation, environment, SHA-256 of the weights
    policy.safetensors    the weights that acting needs; those that only learning needs are left behind

Nothing in the folder chooses what runs: strategies and networks are found by name among those that are known here, settings
are checked against their constructors as flags are, and a key that is not known is refused.
"""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import torch
from jsonargparse import ArgumentError, ArgumentParser
from safetensors.torch import load_file, save

from lightning_bc import versions
from lightning_bc.errors import InputError
from lightning_bc.files import replacing, sha256
from lightning_bc.networks import networks
from lightning_bc.references import References
from lightning_bc.strategies import Strategy, strategies
from lightning_bc.strategies.registry import check_shapes, programs
from lightning_bc.texts import checked_json_of, write_json

DESCRIPTION, WEIGHTS = "policy.json", "policy.safetensors"

_FORMAT = 1
_NOT_SETTINGS = {"observation_dim", "action_low", "action_high", "network", "optimizer", "schedule"}
"""Arguments of strategies that stand elsewhere in the description, or matter to learning alone."""


def is_folder(path: str | Path) -> bool:
    """Whether an exported policy lies there."""
    return (Path(path) / DESCRIPTION).is_file()


def write(
    folder: Path,
    strategy: Strategy,
    environment_id: str | None,
    references: References | None,
    step: int | None,
    max_episode_steps: int | None = None,
) -> dict[str, Any]:
    """Write weights and description into ``folder``, which exists; the description is returned.

    Args:
        environment_id: where it acts; None where that is unknown.
        references: what returns there are measured against; None where that is unknown.
        step: of the checkpoint; None where that is unknown.
        max_episode_steps: of its run, steps after which episodes were cut off; None where nothing says it.

    Raises:
        InputError: the strategy was built with parts of one's own, which a description cannot name.
    """
    weights = {name: value.cpu().contiguous() for name, value in strategy.acting_weights().items()}
    border = {name: weights.pop(f"border.{name}") for name in ("mean", "scale", "action_scale", "action_bias")}
    low, high = strategy.border.reach
    with replacing(folder / WEIGHTS) as file:
        file.write(save(weights))
    settings = {name: value for name, value in strategy.hparams.items() if name in _parameters(type(strategy))}
    known = None                                                    # nor without a simulator, where nothing was played
    if references is not None and not math.isnan(references.random_return):
        known = {**references.as_dict(), "expert_return": _number(references.expert_return)}
    description = {
        "format": _FORMAT,
        "strategy": type(strategy).__name__,
        "hyper_parameters": {name: value for name, value in settings.items() if name not in _NOT_SETTINGS},
        "network": _network_of(strategy),
        "observation_dim": strategy.observation_dim,
        "action_dim": strategy.action_dim,
        "action_low": low,
        "action_high": high,
        "observation_mean": border["mean"].tolist(),
        "observation_scale": border["scale"].tolist(),
        "history": strategy.history,
        "horizon": strategy.horizon,
        "chunk": strategy.chunk,
        "environment_id": environment_id,
        "references": known,
        "step": step,
        "versions": versions(),
        "weights_sha256": sha256(folder / WEIGHTS),
        "onnx": None,
    }
    if max_episode_steps is not None:                               # earlier versions refuse what they do not know
        description["max_episode_steps"] = max_episode_steps
    write_description(folder, description)
    return description


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write the description, in place of one that is there."""
    try:
        write_json(folder / DESCRIPTION, description)
    except (TypeError, ValueError) as error:
        raise InputError(f"its settings are no plain values ({error}), so that JSON cannot hold them.") from error


def read(folder: str | Path) -> dict[str, Any]:
    """The description in ``folder``, checked.

    Raises:
        InputError: it is no JSON, a key is unknown, missing or of another type, or the weights are not those it was
            written with.
    """
    path = Path(folder) / DESCRIPTION
    try:
        found = checked_json_of(path, _refuse_constant)
    except InputError as error:
        raise InputError(f"{error}. Copy or export the folder again.") from error
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        given = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise InputError(f"{path}: format {given}: wanted {_FORMAT}, which this version of lightning_bc reads and writes.")
    found.setdefault("max_episode_steps", None)
    if unknown := found.keys() - _WANTED.keys():
        raise InputError(f"{path}: unknown: {', '.join(sorted(unknown))}. Known: {', '.join(_WANTED)}.")
    for key, (is_good, wanted) in _WANTED.items():
        if key not in found:
            raise InputError(f"{path}: {key} is missing; wanted {wanted}.")
        if not is_good(found[key]):
            raise InputError(f"{path}: {key} {json.dumps(found[key])[:80]}: wanted {wanted}.")
    for key, size in _SIZES.items():
        if len(found[key]) != found[size]:
            raise InputError(f"{path}: {key} holds {len(found[key])} numbers; wanted {size}, {found[size]}.")
    if min(found["observation_scale"]) <= 0:
        raise InputError(f"{path}: observation_scale {min(found['observation_scale'])}: wanted numbers above 0.")
    if any(low >= high for low, high in zip(found["action_low"], found["action_high"], strict=True)):
        raise InputError(f"{path}: action_low {found['action_low']}: wanted numbers below action_high.")
    weights = Path(folder) / WEIGHTS
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; the weights lie beside {DESCRIPTION}. Copy the whole folder.")
    if sha256(weights) != found["weights_sha256"]:
        raise InputError(
            f"{weights}: its SHA-256 is not weights_sha256 of {DESCRIPTION}: it is damaged, or of another policy. Copy or "
            "export the folder again."
        )
    return found


def references_of(description: Mapping[str, Any]) -> References | None:
    """What returns are measured against; None where that is unknown."""
    known = description["references"]
    if known is None:
        return None
    return References(**{**known, "expert_return": math.nan if known["expert_return"] is None else known["expert_return"]})


def load(folder: str | Path) -> Strategy:
    """Read the description and rebuild the strategy: see :func:`read` and :func:`rebuilt`."""
    return rebuilt(folder, read(folder))


def rebuilt(folder: str | Path, description: Mapping[str, Any]) -> Strategy:
    """The strategy of a description; it acts bit by bit as the one that was exported. What only learning needs starts anew.

    Raises:
        InputError: the strategy or the network is not known, or does not fit the settings or the weights.
    """
    path = Path(folder) / DESCRIPTION
    cls = _known(path, "strategy", description["strategy"], strategies())
    settings = _checked(path, "hyper_parameters", cls, description["hyper_parameters"], _NOT_SETTINGS)
    if (network := description["network"]) is not None:
        if "network" not in _parameters(cls):
            raise InputError(f"{path}: network: {cls.__name__} has none to choose.")
        network_cls = _known(path, "network", network["name"], {known.__name__: known for known in networks()})
        sizes = set([*_parameters(network_cls)][:2])
        settings["network"] = partial(network_cls, **_checked(path, "network", network_cls, network["settings"], sizes))
    try:
        with torch.random.fork_rng(devices=[]):                     # weights that are drawn are replaced at once
            strategy = cls(*(description[key] for key in ("observation_dim", "action_low", "action_high")), **settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: {cls.__name__} cannot be built from it: {' '.join(str(error).split())[:200]}.") from error
    for key in ("history", "horizon", "chunk"):
        if description[key] != getattr(strategy, key):
            raise InputError(f"{path}: {key} {description[key]}: by hyper_parameters it is {getattr(strategy, key)}.")
    _fill(strategy, Path(folder) / WEIGHTS, description)
    return strategy.eval().requires_grad_(False)


def _fill(strategy: Strategy, path: Path, description: Mapping[str, Any]) -> None:
    try:
        weights = load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}).") from error
    wanted = {name: value for name, value in strategy.acting_weights().items() if not name.startswith("border.")}
    owner = f"{type(strategy).__name__} as {DESCRIPTION} describes it"
    check_shapes(str(path), owner, wanted, weights, "Export the policy again.")
    strategy.load_state_dict(weights, strict=False)
    strategy.border.mean.copy_(torch.tensor(description["observation_mean"]))
    strategy.border.scale.copy_(torch.tensor(description["observation_scale"]))


def _checked(path: Path, key: str, cls: type, given: dict[str, Any], skip: set[str]) -> dict[str, Any]:
    """Settings of ``cls`` as the command line would take them, with the defaults of those that are left away."""
    known = [name for name in _parameters(cls) if name not in skip]
    if unknown := given.keys() - set(known):
        raise InputError(f"{path}: {key}: unknown: {', '.join(sorted(unknown))}. {cls.__name__} takes {', '.join(known)}.")
    if found := programs(given):
        raise InputError(f"{path}: {key}: names {', '.join(sorted(found))}; a policy is no program, and imports nothing.")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, skip={*skip})
    try:
        return parser.parse_object(given).as_dict()
    except ArgumentError as error:
        raise InputError(f"{path}: {key}: {' '.join(str(error).split())}") from error


def _known(path: Path, key: str, name: str, classes: Mapping[str, type]) -> Any:
    if name not in classes:
        raise InputError(
            f"{path}: {key} {name}: is not known. Known: {', '.join(classes)}. One of your own is known "
            "in Python, once its module is imported."
        )
    return classes[name]


def _parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(cls).parameters


def _network_of(strategy: Strategy) -> dict[str, Any] | None:
    """Name and settings of what maps observations; None where the strategy has nothing to choose there."""
    if "network" not in _parameters(type(strategy)):
        return None
    return {"name": type(strategy.actor).__name__, "settings": dict(getattr(strategy.actor, "settings", {}))}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"holds {name}")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < torch.finfo(torch.float32).max


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_settings(value: object) -> bool:
    return isinstance(value, dict) and all(
        _is_plain(setting) or (isinstance(setting, list) and all(map(_is_plain, setting))) for setting in value.values()
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_network(value: object) -> bool:
    named = isinstance(value, dict) and value.keys() == {"name", "settings"} and _is_text(value["name"])
    return named and _is_settings(value["settings"]) if isinstance(value, dict) else value is None


def _is_references(value: object) -> bool:
    if not isinstance(value, dict):
        return value is None
    keys = {"random_return", "expert_return", "expert_source"}
    return value.keys() == keys and _is_settings(value) and _is_text(value["expert_source"])


def _or_none(is_good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_good(value)


_NUMBERS = (lambda value: isinstance(value, list) and all(map(_is_number, value)), "a list of finite numbers")
_SIZE = (_is_size, "a whole number, at least 1")
_WANTED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "format": (_is_size, f"{_FORMAT}"),
    "strategy": (_is_text, "the name of a strategy"),
    "hyper_parameters": (_is_settings, "an object of numbers, texts, true, false or null, and lists of them"),
    "network": (_is_network, 'null, or an object {"name": ..., "settings": {...}}'),
    "observation_dim": _SIZE,
    "action_dim": _SIZE,
    **dict.fromkeys(("action_low", "action_high", "observation_mean", "observation_scale"), _NUMBERS),
    **dict.fromkeys(("history", "horizon", "chunk"), _SIZE),
    "environment_id": (_or_none(_is_text), "null, or the id of an environment"),
    "references": (_is_references, "null, or an object of random_return, expert_return and expert_source"),
    "step": (_or_none(lambda value: isinstance(value, int)), "null, or a whole number"),
    "versions": (_is_settings, "an object of texts"),
    "weights_sha256": (_is_text, f"the SHA-256 of {WEIGHTS}"),
    "max_episode_steps": (_or_none(_is_size), "null, or a whole number, at least 1"),
    "onnx": (_or_none(lambda value: isinstance(value, dict)), "null, or an object"),
}
"""The keys of a description, what each must be, and that in words."""

_SIZES = {
    "action_low": "action_dim",
    "action_high": "action_dim",
    "observation_mean": "observation_dim",
    "observation_scale": "observation_dim",
}
