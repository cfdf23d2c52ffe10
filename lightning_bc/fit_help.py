"""What ``fit --help`` prints, and ``validate`` and ``test``: a line for each option that a newcomer asks for."""

import re
import textwrap
from argparse import SUPPRESS
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from jsonargparse import ArgumentParser

from lightning_bc import bounds
from lightning_bc.arguments import NOT_FLAGS, configured
from lightning_bc.networks import networks
from lightning_bc.strategies import Strategy, strategies
from lightning_bc.strategies.optimizers import DefaultAdamW
from lightning_bc.trainer_flags import SHOWN

WIDTH = 120
COLUMN = 33

TITLES = {
    "fit": "Train a strategy, draw its reward-over-time curve, and score it on the test bank.",
    "validate": "Loss, squared error and explained variance of a checkpoint on held-out episodes.",
    "test": "Score a checkpoint on the 100 episodes of the test bank, and write results.json.",
}

EXAMPLES = {
    "fit": (
        "--config configs/gmm.yaml",
        "--config configs/gmm.yaml --run mine      again: goes on, or prints the results",
        "--run mine --trainer.max_steps 40000      lengthens it",
        "--data.path mine.npz --env Hopper-v5      with the configuration that suits its pairs",
    ),
    "validate": ("--ckpt_path checkpoints/RUN/last.ckpt", "--run RUN"),
    "test": ("--ckpt_path checkpoints/RUN/last.ckpt", "--run RUN"),
}

RUN_FLAGS = {
    "config": "a configuration, of several the last counts; fit's default: what suits --data.path",
    "model": "the strategy, by its name; see below",
    "env": "Gymnasium id; default: the data file's, or the checkpoint's, else HalfCheetah-v5",
    "run": "name of the run: what has begun goes on, what is finished is printed; default: new",
    "ckpt_path": "a checkpoint to go on from, or last: the newest run with this configuration",
    "model.init_from": "a checkpoint or run from whose weights a new run starts, of SAC a clone too",
    "seed_everything": "seed of weights, order of pairs and random actions; default 0",
    "print_config": "print the whole configuration, and end",
}


OTHERS = {
    "record_updates": "false goes through Python and autograd at each update; default true",
    "trainer.NAME": "any other of Lightning's Trainer: https://lightning.ai/docs/pytorch/stable",
}


def page(parser: ArgumentParser, command: str, args: list[str]) -> str:
    """The text, with the options of the strategy that ``args`` choose, where they choose one."""
    lines = [f"usage: python -m lightning_bc {command} [--config FILE] [--OPTION VALUE ...]", "", TITLES[command], ""]
    lines += [f"  python -m lightning_bc {command} {example}" for example in EXAMPLES[command]]
    lines += _section("Which run", RUN_FLAGS)
    lines += _section("Data", _documented(parser, "data."))
    lines += _section("Curve", _documented(parser, "rollouts."))
    lines += _section("Length, machine and screen", {f"trainer.{name}": words for name, words in SHOWN.items()} | OTHERS)
    chosen = strategies().get(configured(args) or "")
    if chosen is None:
        lines += _section("Strategies; the options of one: fit --model NAME --help", _titles(strategies().values()), "")
        shared = {name: words for name, words in _arguments(strategies()["MSE"]).items() if _is_shared(name)}
        lines += _section("Every strategy takes", shared)
    else:
        lines += _section(f"Options of {chosen.__name__}: {_first_sentence(chosen.__doc__)}", _arguments(chosen))
    lines += _section("Networks, chosen by --model.network NAME", _titles(networks()), "")
    taken = {network.__name__: _arguments(network, "model.network.") for network in networks()}
    options: dict[str, str] = {}
    for flag in dict.fromkeys(flag for flags in taken.values() for flag in flags):
        by = [name for name, flags in taken.items() if flag in flags]
        words = taken[by[0]][flag]
        if any(taken[name][flag] != words for name in by):
            words = words.partition(";")[0]
        options[flag] = f"{words}; of {', '.join(by)}"
    lines += _section("", options)[2:]
    optimizer = _arguments(DefaultAdamW, "model.optimizer.")
    del optimizer["model.optimizer.fused"]                          # nobody needs to choose
    lines += _section("Optimizer, torch.optim's by --model.optimizer CLASS", optimizer)
    return "\n".join(lines) + "\n"


def _is_shared(name: str) -> bool:
    return all(name.removeprefix("model.") in _own(cls) for cls in strategies().values())


def _own(cls: type[Strategy]) -> list[str]:
    return [name.removeprefix("model.") for name in _arguments(cls)]


def _titles(classes: Iterable[type]) -> dict[str, str]:
    return {cls.__name__: _first_sentence(cls.__doc__) for cls in classes}


def _arguments(cls: type, prefix: str = "model.") -> dict[str, str]:
    """Flags of a class's constructor, and what they mean."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, as_group=False, skip={*NOT_FLAGS})
    return _documented(parser, "", prefix)


def _documented(parser: ArgumentParser, start: str, prefix: str = "") -> dict[str, str]:
    """The parser's flags that begin with ``start``, with their help and default."""
    found = {}
    for action in parser._actions:
        name = action.dest
        if name in ("help", "config", start.rstrip(".")) or not name.startswith(start) or name.endswith(".help"):
            continue
        if action.default == SUPPRESS:                              # set by another flag
            continue
        words = _first_sentence(str(action.help or ""))
        found[f"{prefix}{name}"] = "; ".join(filter(None, [words, _bound(action), _default(action.default)]))
    return found


def _bound(action: Any) -> str:
    """What a bounded number may be: see bounds.py."""
    kind = getattr(action, "_typehint", None)
    bounded = [one for one in (kind, *get_args(kind)) if getattr(one, "__module__", "") == bounds.__name__]
    return bounded[0].__doc__.removeprefix("a whole number, ") if bounded else ""


def _default(value: Any) -> str:
    if isinstance(value, Mapping) or hasattr(value, "class_path"):
        value = value["class_path"].rpartition(".")[2]
    if value is None or isinstance(value, type):
        return ""
    return f"default {str(value).lower() if isinstance(value, bool) else value}"


def _first_sentence(text: str | None) -> str:
    """Up to the first full stop or semicolon, without what is for the documentation alone."""
    words = " ".join((text or "").split())
    words = re.split(r"(?<!e\.g)[.;](?: |$)", words, maxsplit=1)[0]
    return words.replace("``", "").replace("%(default)s", "").strip()


def _section(title: str, rows: Mapping[str, str], dashes: str = "--") -> list[str]:
    lines = ["", title]
    for name, words in rows.items():
        flag = f"  {dashes}{name}"
        lines += textwrap.wrap(words, WIDTH, initial_indent=f"{flag:{COLUMN + 2}}", subsequent_indent=" " * (COLUMN + 2))
    return lines
