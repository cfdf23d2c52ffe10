"""The command line's parser: its own help, and one line for what it refuses, with the nearest known name."""

import difflib
import importlib
import inspect
import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser

from lightning_bc.errors import InputError
from lightning_bc.files import shipped
from lightning_bc.networks import Network, networks
from lightning_bc.strategies import Strategy, strategies
from lightning_bc.strategies.optimizers import DefaultAdam, DefaultAdamW
from lightning_bc.strategies.registry import known_classes
from lightning_bc.texts import yaml_of

CONFIGS = Path("configs")
"""Folder of the ready configurations, which ``--config`` also names without folder and ending: gmm."""

TAKE_SEVERAL = ("--data.observation_keys",)
"""Flags after which several values may stand."""

NOT_FLAGS = {"self", "observation_dim", "action_low", "action_high", "input_size", "output_size", "params"}
"""Arguments of constructors that the data or the strategy sets."""

_UNRECOGNIZED = re.compile(
    r"unrecognized arguments: --([\w.]+)|^(?:Subcommand '\w+' does not accept option|Option) '([\w.]+)'"
)
_NOT_IN_GROUP = re.compile(r"Group '([\w.]+)' does not accept option '([\w.]+)'")
_NOT_ACCEPTED = re.compile(r"Option '([\w.]+)' is not accepted(?:. Got value: Namespace\(class_path='([\w.]+)')?")
_KEY = re.compile(r'Parser key "([\w.]+)"')
_CLASS = re.compile(r"given class_path '([\w.]+)'")
_UNKNOWN_CLASS = re.compile(r"import path string: ([\w.]+)")
_BOUND = re.compile(r"Not of type \w+: (.*): (wanted .*?)(?:\. Got value|$)", re.MULTILINE)
_TYPE = re.compile(
    r"Expected a (?:<class '(\w+)'>|typing\.Literal\[(.*?)\])(?:\. Got value: (.*?)(?:\. Got value.*)?)?$", re.MULTILINE
)
_GIVEN = re.compile(r"Given value: (?:NestedArg\(key='[\w.]+', val=)?'?(.*?)'?\)?$", re.MULTILINE)
_PATHS = re.compile(r"(?<![^'])([A-Za-z_]\w*(?:\.\w+)+)(?![^'])")  # one, or quoted within a list
_NESTED = re.compile(r"Given value: NestedArg\(key='([\w.]+)'")
_NO_FILE = re.compile(r"File does not exist: '(.*?)'")
_REQUIRED = re.compile(r"arguments are required: (?:\w+\.)?(.*)")

_BESIDES = re.compile(r"^( *)- Problem with given class_path 'lightning\.Callback':\n(?:\1 .*\n)*", re.MULTILINE)
"""jsonargparse tries a list of callbacks first, and then a callback alone; the second says nothing of what was given."""

_IS_ABSTRACT = "Expected an instantiatable class, but is abstract"

_IN_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}

_BASES = {"model": Strategy, "network": Network, "callbacks": Callback}

_WANTED = {
    "seed_everything": f"a whole number, 0 to {2**32 - 1}",
    "trainer.gradient_clip_val": "a finite number above 0",
}
"""In words, of flags whose types say less."""


NEEDS_CHECKPOINT = (
    "--ckpt_path is needed: the file of a checkpoint or the name of a run, whose configuration is then found by itself, or "
    "last with a --config for the newest run that has it; or --run."
)


class Parser(LightningArgumentParser):
    """Refuses in one line; ``page``, where it is set, makes the text of ``--help``, and ``strategy`` is the chosen one."""

    page: Callable[[], str] | None = None
    strategy: str = ""

    def format_help(self, *args: Any) -> str:
        """The page, else what jsonargparse makes of the arguments."""
        return super().format_help(*args) if self.page is None else self.page()

    def dump(self, *args: Any, **options: Any) -> str:
        """As jsonargparse does, but what was parsed is not checked again, which takes a tenth of a second."""
        if "skip_none" in options:                                  # so Lightning calls what jsonargparse calls skip_unset
            options["skip_unset"] = options.pop("skip_none")
        return super().dump(*args, **({"skip_validation": True} | options))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what was wrong alone; the usage of a hundred flags would hide it."""
        if not self.exit_on_error:                                  # jsonargparse tries a type and asks for the outcome
            super().error(message, ex)
        raise InputError(self._in_words(message))

    def _in_words(self, message: str) -> str:
        """A message of jsonargparse as one line that names flag, value found and value wanted."""
        flags = [action.dest for action in self._actions]
        if found := _REQUIRED.search(message):
            if found[1] == "model":
                return ready_configurations() if "fit.model" in message else NEEDS_CHECKPOINT
            return f"missing: {found[1]}. See --help for what it is."
        if found := _NO_FILE.search(message):
            return f"--config {found[1]}: no such file. {ready_configurations()}"
        subparsers = getattr(self, "_subcommands_action", None)
        commands = [] if subparsers is None else list(subparsers.choices.values())
        if commands:                                                # files are checked by the parser of all commands
            flags = [action.dest for parser in commands for action in parser._actions]
        message = _BESIDES.sub("", message)
        if names := [one or other for one, other in _UNRECOGNIZED.findall(message)]:
            chosen = next((one.strategy for one in (self, *commands) if one.strategy), "")
            return "\n".join(_unknown(name, [*flags, *_model_flags(chosen)], "--") for name in names)
        if found := _NOT_IN_GROUP.search(message):
            return _unknown(f"{found[1]}.{found[2]}", flags)
        key = ".".join(dict.fromkeys(_KEY.findall(message)))
        if found := _NOT_ACCEPTED.search(message):
            name, cls = f"{key}.{found[1]}", found[2] or (classes[-1] if (classes := _CLASS.findall(message)) else "")
            return _not_accepted(name, cls.rpartition(".")[2])
        if found := _UNKNOWN_CLASS.search(message):
            known = [cls.__name__ for cls in networks()]
            return _unknown(found[1], [*strategies(), *known, "AdamW", "Adam"], instead=_choices(key))
        if _IS_ABSTRACT in message and (given := _GIVEN.search(message)) and (possible := _choices(key)):
            return f"--{key} {given[1]}: is a base class; wanted one of {', '.join(possible)}."
        if key and (found := _BOUND.search(message)):
            return f"--{key} {found[1]}: {found[2].rstrip('.')}."
        if key == "model" and not _CLASS.search(message) and (found := _NESTED.search(message)):
            return f"--model.{found[1]}: comes before the strategy. Name it first: --model NAME, or --config FILE."
        if key and (found := _TYPE.search(message)):
            kind, choices, value = found.groups()
            wanted = _IN_WORDS.get(kind, kind) if kind else " or ".join(re.findall(r"'(.*?)'", choices))
            wanted = "a number" if kind == "int" and "Expected a <class 'float'>" in message else wanted
            wanted = _WANTED.get(key, wanted)
            given = _GIVEN.search(message)
            value = value or (given[1] if given else "")
            if base := _BASES.get(key.rpartition(".")[2]):
                for named in _PATHS.findall(value.strip("[]")):
                    if why := _why_not(named, base):
                        return f"--{key} {named}: {why}"
            return f"--{key} {'null' if value == 'None' else value}: wanted {wanted}."
        return message


def _why_not(path: str, base: type) -> str | None:
    """Why a class that is named by its import path cannot be used where a ``base`` is wanted; None if it can."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:                                      # of the user's module, whatever it does
        return f"{module} cannot be imported ({type(error).__name__}: {error})."
    if isinstance(found, type) and issubclass(found, base):
        return None
    return f"{module} has no {name}." if found is None else f"is no subclass of {base.__module__}.{base.__name__}."


def _choices(key: str) -> list[str]:
    """What a flag that takes a strategy or a network can name."""
    known = {"model": [*strategies()], "network": [cls.__name__ for cls in networks()]}
    return known.get(key.rpartition(".")[2], [])


def ready_configurations() -> str:
    """What can be named with ``--config`` and ``--model``."""
    listed = [f"  --config {path.stem:14}   {_title(path)}" for path in sorted(shipped(CONFIGS).glob("*.yaml"))]
    words = "\n".join(["Name a ready configuration:", *listed]) + "\n" if listed else "Name a configuration, --config FILE, "
    words += f"or a strategy, --model NAME: {', '.join(strategies())}."
    return f"{words}\nWith --data.path FILE alone, fit takes the configuration that suits the file's pairs."


def leaves_method_open(args: Sequence[str]) -> bool:
    """Whether the flags of ``fit`` name a data file, and no method to learn from it."""
    names = {arg.partition("=")[0] for arg in args}
    named = names & {"-c", "--config", "-h", "--help"} or any(name.startswith("--model") for name in names)
    return bool(names & {"--data.path", "--data.path+"}) and not named


def found_configurations(args: list[str]) -> list[str]:
    """``args``, each ``--config`` in front, so that flags override it wherever they stand.

    One that names a ready configuration becomes its path: gmm, or configs/gmm.yaml from elsewhere.
    """
    configurations, flags, previous = list[str](), list[str](), ""
    for arg in args:
        name, equals, value = arg.partition("=")
        if previous in ("-c", "--config"):
            configurations.append(_configuration(arg))
        elif name == "--config" and equals:
            configurations.append(f"--config={_configuration(value)}")
        else:
            (configurations if arg in ("-c", "--config") else flags).append(arg)
        previous = arg if not equals else ""
    return [*configurations, *flags]


def with_lists(args: list[str]) -> list[str]:
    """``args``, the values after a flag that takes several as one list: ``--data.observation_keys a b``."""
    found, taken = list[str](), -1
    for index, arg in enumerate(args):
        if index <= taken:
            continue
        found.append(arg)
        if arg in TAKE_SEVERAL:
            values = list(itertools.takewhile(lambda value: not value.startswith("--"), args[index + 1 :]))
            taken = index + len(values)
            is_list = values == ["null"] or (len(values) == 1 and values[0].startswith("["))
            found += values if is_list or not values else [json.dumps(values)]
    return found


def _configuration(name: str) -> str:
    if Path(name).exists():
        return name
    ready = shipped(CONFIGS / f"{name}.yaml")
    return str(ready if ready.exists() else shipped(name))


def _title(path: Path) -> str:
    """The comment in a configuration's first line."""
    return path.read_text().partition("\n")[0].lstrip("# ")


def options(cls: type) -> list[str]:
    """What can be set of a strategy, network or optimizer, by name."""
    return [name for name in inspect.signature(cls).parameters if name not in NOT_FLAGS]


def _model_flags(strategy: str) -> list[str]:
    """Every flag under --model, of one strategy where it is known, else of all."""
    chosen = [cls for name, cls in strategies().items() if name == strategy] or list(strategies().values())
    names = [f"model.{name}" for cls in chosen for name in options(cls)]
    names += [f"model.network.{name}" for cls in networks() for name in options(cls)]
    names += [f"model.optimizer.{name}" for cls in (DefaultAdamW, DefaultAdam) for name in options(cls)]
    return [*names, "model.init_from"]


def _not_accepted(name: str, cls: str) -> str:
    """Refuse an option that a class does not take."""
    known = known_classes().get(cls)
    if known is None:
        return _unknown(name, _model_flags(""))
    prefix, _, option = name.rpartition(".")
    takes = ", ".join(f"--{prefix}.{flag}" for flag in options(known))
    near = difflib.get_close_matches(option, options(known), n=1)
    if near or prefix == "model":
        return _unknown(name, _model_flags(cls))
    others = [other.__name__ for other in networks() if option in options(other)] if issubclass(known, Network) else []
    listed = " and ".join(filter(None, [", ".join(others[:-1]), *others[-1:]]))
    way_out = f" {listed} take{'s' * (len(others) == 1)} it: --{prefix} {others[0]} --{name} VALUE." if others else ""
    return f"unknown: --{name}. {cls} takes {takes}.{way_out}"


def _unknown(name: str, known: list[str], dashes: str = "", instead: Sequence[str] = ()) -> str:
    """Refuse a name, with the nearest that is known: one with the same last part, else one that is spelt alike.

    Args:
        name: as given, without dashes.
        known: flags, or names of classes.
        dashes: of a name that was given as a flag.
        instead: what may stand in its place, where none is near.
    """
    last = name.rpartition(".")[2]
    same = [flag for flag in known if flag.rpartition(".")[2] == last]
    near = difflib.get_close_matches(name, same, n=1, cutoff=0) or difflib.get_close_matches(name, known, n=1)
    near = near or difflib.get_close_matches(last, known, n=1)
    near = near or [one for one in known if one.lower() == last.lower()]
    dashes = dashes or ("--" if "." in name else "")
    near_dashes = "--" if near and (dashes or "." in near[0]) else ""
    listed = f"Known: {', '.join(instead)}." if instead else "See --help for what there is."
    words = f"Nearest known: {near_dashes}{near[0]}." if near else listed
    return f"unknown: {dashes}{name}. {words}"


def configured(args: list[str]) -> str | None:
    """The strategy that ``args`` choose, by --model or in the files of --config, as far as that can be read."""
    chosen = None
    for name, value in zip(args, [*args[1:], ""], strict=False):
        name, _, inline = name.partition("=")
        if name == "--model":
            chosen = inline or value
        elif name in ("-c", "--config") and Path(inline or value).is_file():
            content = yaml_of(inline or value)
            model = content.get("model") if isinstance(content, dict) else None
            chosen = model.get("class_path") if isinstance(model, dict) else model or chosen
    return None if chosen is None else chosen.rpartition(".")[2]
