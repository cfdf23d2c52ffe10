"""Which of a run's parameters differ from the defaults, read from the signatures of what its configuration names."""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, Trainer

import lightning_bc.callbacks  # noqa: F401  so that those that name a method are known
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.strategies import Strategy, strategies
from lightning_bc.strategies.registry import known_classes

Chosen = Mapping[str, Any]
"""A class that a configuration names, {class_path, init_args}, or a part of a configuration."""

Parameters = dict[str, Any]
"""Values by the parameter's name."""

TRAINER_PARAMETERS = (
    "max_epochs",
    "max_steps",
    "precision",
    "gradient_clip_val",
    "devices",
    "num_nodes",
)
"""The Trainer's settings that change what is learnt; the others are about the machine and the screen."""

WHICH_PAIRS = ("path", "episodes", "first_steps", "subsample", "validation_fraction", "episode_length")
"""The settings of the data that say which pairs were learnt from; the column Demonstrations has them."""


def changed_parameters(config: Chosen) -> Parameters:
    """The parameters of a run that differ from the defaults, by name.

    Where another network or optimizer than the strategy's was chosen, its name and what differs from its own defaults.
    Arguments of a class that is not known here are all given, as nothing says which of them are defaults.
    """
    given = {name: config["trainer"].get(name) for name in TRAINER_PARAMETERS}
    trainer = {name: value for name, value in given.items() if value is not None}
    usual = _defaults(Trainer) | {"max_epochs": -1}                 # the length of those that act is total_environment_steps
    strategy = strategies().get(class_name(config["model"]), Strategy)
    passes = config["data"].get("max_passes", strategy.default_passes)  # earlier runs do not say it
    if trainer.get("max_epochs", -1) == -1 and trainer.get("max_steps", -1) != -1 and passes == strategy.default_passes:
        usual["max_steps"] = strategy.default_steps
    data = {name: value for name, value in config["data"].items() if name not in (*WHICH_PAIRS, "max_passes")}
    data |= {"max_passes": passes} if passes not in (None, strategy.default_passes) else {}
    found = _differing(trainer, usual) | _differing(data, _defaults(Demonstrations)) | _differing_arguments(config["model"])
    for callback in naming_callbacks(config):
        found |= _differing_arguments(callback)
    source = config.get("init_from")
    if source is not None and (run := _run_of(Path(source))):       # whose name says more
        source = re.sub(rf"[-_]?(seed)?[-_]?{config.get('seed_everything')}$", "", run)  # one per seed
    others = {"init_from": source, "max_episode_steps": config.get("rollouts", {}).get("max_episode_steps")}
    return found | {name: value for name, value in others.items() if value is not None}


def _run_of(checkpoint: Path) -> str | None:
    """The run that is meant, by its name, its folder or its own checkpoints; None for a file of another name."""
    if checkpoint.stem in ("last", "best"):
        return checkpoint.parent.name
    return None if checkpoint.suffix == ".ckpt" else checkpoint.name


def naming_callbacks(config: Chosen) -> list[Chosen]:
    """The callbacks of a run that change its policy, as their classes say by ``names_method = True``.

    Others (a monitor of the learning rate, a class that is not known here) do not make another method of it.
    """
    callbacks: Sequence[Chosen] = config["trainer"].get("callbacks") or []
    return [callback for callback in callbacks if getattr(_known_classes().get(class_name(callback)), "names_method", False)]


def class_name(chosen: Chosen) -> str:
    """The last part of a class_path."""
    return chosen["class_path"].rpartition(".")[2]


def _differing(values: Chosen, defaults: Chosen) -> Parameters:
    """Those of ``values`` that are not their ``defaults``; a class that was chosen, by its name, with its own arguments."""
    found: Parameters = {}
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(value, dict) and "class_path" in value:
            if default and _is_or_extends(class_name(default), class_name(value)):
                usual = _defaults(_known_classes().get(class_name(value))) | default["init_args"]
                found |= _differing(value.get("init_args") or {}, usual)
            else:
                found |= {name: class_name(value)} | _differing_arguments(value)
        elif value != default:
            found[name] = value
    return found


def _is_or_extends(default: str, chosen: str) -> bool:
    """Whether a class, by name, is the other or a subclass of it, as the default optimizers are of torch's."""
    known = _known_classes()
    return default == chosen or (default in known and chosen in known and issubclass(known[default], known[chosen]))


def _differing_arguments(chosen: Chosen) -> Parameters:
    """The arguments of a {class_path, init_args} that differ from what the class's own signature says."""
    return _differing(chosen.get("init_args") or {}, _defaults(_known_classes().get(class_name(chosen))))


@functools.cache
def _defaults(cls: type | None) -> Parameters:
    """The defaults of all arguments of ``cls``, as a configuration writes them; of a class that is not known, none."""
    if cls is None:
        return {}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    return yaml.safe_load(parser.dump(parser.get_defaults(), skip_unset=False, skip_validation=True))


def _known_classes() -> dict[str, type]:
    """Strategies, networks, optimizers and callbacks, by name. Nothing that a configuration names is imported for it."""
    return known_classes() | {cls.__name__: cls for cls in _subclasses(Callback)}


def _subclasses(cls: Any) -> Iterator[type]:
    """All of them, of the subclasses too."""
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
