"""What ``sweep`` searches: the command line and the files of ``--config``."""

import argparse
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lightning_bc.aliases import Config
from lightning_bc.errors import InputError, refuse_unknown
from lightning_bc.runs.plan import canonical
from lightning_bc.study.command import Parser, at_least_1
from lightning_bc.texts import yaml_of

FILE_KEYS = ("config", "grid", "search", "sampler", "trials", "seeds")

Setting = Mapping[str, Any]
"""Values by the flag of fit, as typed or as drawn from a range."""

DESCRIPTION = """Search settings of fit, judged on the selection bank; the best is run anew and scored on the test bank.

  python -m lightning_bc sweep --config configs/gmm.yaml --grid data.batch_size=500,1000 --grid model.optimizer.lr=1e-3,1e-4
  python -m lightning_bc sweep --config configs/mse.yaml --sampler tpe --trials 40 \\
      --search model.optimizer.lr=log:1e-5..1e-2 --search data.batch_size=int:100..2000
  python -m lightning_bc sweep --config configs/sweeps/baseline.yaml --jobs 2

The same command goes on where it was stopped, or with more --trials. Flags that are not listed here are fit's, for
every run. See docs/sweep.md."""


@dataclass(frozen=True)
class Search:
    """What the command line and the files of ``--config`` ask for.

    Attributes:
        given: sampler, seeds, prune, and where fits run.
        flags: what every fit is told.
        space: the values of each key, as typed, or its range.
        trials: how many settings are tried.
        stem: of the first configuration, for a name.
    """

    given: argparse.Namespace
    flags: list[str]
    space: dict[str, BaseDistribution]
    trials: int
    stem: str

    @classmethod
    def parse(cls, args: Sequence[str]) -> "Search":
        """Read the command line; everything but the values of fit's flags is checked here.

        Raises:
            InputError: naming the flag, the value found and the value wanted.
        """
        given, flags = _parser().parse_known_args(args)
        stem = Path((given.config or ["sweep"])[0]).stem
        files = [path for path in given.config if _is_sweep(_read(path))]
        if files:                                                   # what the command line says counts more
            expanded = [argument for path in files for argument in _expand(path, _read(path))]
            given, flags = _parser().parse_known_args([*expanded, *args])
            given.config = [path for path in given.config if path not in files]
        flags = [*(word for path in given.config for word in ("--config", path)), *flags]
        space = dict[str, BaseDistribution](given.space)
        ranges = [key for key, values in space.items() if not isinstance(values, CategoricalDistribution)]
        fixed = {word.partition("=")[0] for word in flags if word not in ("--config", "-c")}
        canonical([*flags, *(word for key in space for word in (f"--{key}", ""))], "sweep")
        grid = given.sampler == "grid"
        if not space:
            raise InputError("--grid: wanted what to search: --grid KEY=VALUE,VALUE or --search KEY=LOW..HIGH.")
        if twice := [key for key in space if f"--{key}" in fixed]:
            raise InputError(
                f"--{twice[0]}: is searched too, so its value would count for nothing. Leave it away, or search no other "
                f"value: --grid {twice[0]}=VALUE."
            )
        if grid and ranges:
            raise InputError(f"--search {ranges[0]}: wanted --sampler random or tpe with it; a grid needs values.")
        if grid and given.trials:
            raise InputError(f"--trials {given.trials}: wanted nothing, since a grid has its own number.")
        if not grid and not given.trials:
            raise InputError("--trials: wanted how many settings to try, at least 1.")
        if given.name is not None and Path(given.name).name != given.name:
            raise InputError(f"--name {given.name}: wanted a name, not a path.")
        trials = given.trials or math.prod(len(_ends(values)) for values in space.values())
        return cls(given, flags, space, trials, stem)

    @cached_property
    def identity(self) -> Config:
        """What is searched and how, as plain values; not how many trials, of which more may be wanted later."""
        space = {key: json.loads(optuna.distributions.distribution_to_json(self.space[key])) for key in self.space}
        chosen = {key: getattr(self.given, key) for key in ("sampler", "seeds", "prune")}
        configs = [_read(path) for path in self.given.config]
        return {"config": configs, "flags": self.flags, "space": space, **chosen}

    @cached_property
    def name(self) -> str:
        """As given, else made of the identity."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:8]
        return self.given.name or f"{self.stem}-{digest}"

    def settings(self) -> list[Setting]:
        """All settings of a grid, the last key fastest, or of a random search; none of TPE, whose depend on the others."""
        if self.given.sampler == "grid":
            return [dict(zip(self.space, cell, strict=True)) for cell in itertools.product(*map(_ends, self.space.values()))]
        draw = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        return [draw.ask(self.space).params for _ in range(self.trials * (self.given.sampler == "random"))]

    def probes(self) -> list[Setting]:
        """Settings to try on the parser: a grid's all; else each value and each end of a range, the other keys' first."""
        if self.given.sampler == "grid":
            return self.settings()
        values = {key: _ends(distribution) for key, distribution in self.space.items()}
        first = {key: listed[0] for key, listed in values.items()}
        return [first, *(first | {key: value} for key, listed in values.items() for value in listed[1:])]

    def told(self, setting: Setting) -> tuple[str, ...]:
        """What ``fit`` is told for a setting."""
        chosen = [word for key, value in setting.items() for word in (f"--{key}", str(value))]
        return canonical([*self.flags, *chosen], "sweep")


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    """The values of a list, the two ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low, distribution.high


def _parser() -> Parser:
    parser = Parser("sweep", DESCRIPTION)
    add = parser.add_argument
    add("-c", "--config", action="append", default=[], help="a configuration of fit, or a file of configs/sweeps")
    words = "values of a flag of fit; may be repeated"
    add("--grid", dest="space", type=_listed, action="append", default=[], metavar="KEY=VALUE,VALUE", help=words)
    words = "a range for --sampler random or tpe, LOW..HIGH, behind int: for whole numbers, log: for a logarithmic scale"
    words += ", or int:log: for both; may be repeated"
    add("--search", dest="space", type=_range, action="append", default=[], metavar="KEY=RANGE", help=words)
    add("--sampler", choices=["grid", "random", "tpe"], default="grid", help="default: grid, every setting once")
    add("--trials", type=at_least_1, help="how many settings a random or tpe search tries")
    words = "runs per setting, seeds 0, 1, ...; the best is run anew with as many others; default: 3"
    add("--seeds", type=at_least_1, default=3, help=words)
    add("--name", help="name of the sweep; default: made from the configuration and what is searched")
    add("--prune", action="store_true", help="give up a setting whose mean after a seed is below the others' median")
    parser.add_engine()
    return parser


def _read(path: str) -> Any:
    try:
        return yaml_of(path)
    except InputError as error:
        raise InputError(f"--config {error}. Ready configurations lie in configs/.") from error


def _is_sweep(content: Any) -> bool:
    return isinstance(content, Mapping) and any(content.get(key) for key in ("grid", "search"))  # of a run search is null


def _expand(path: str, content: Config) -> Iterator[str]:
    """A file's entries as flags."""
    refuse_unknown(f"--config {path}", content, FILE_KEYS)
    for key, value in content.items():
        if key in ("grid", "search"):
            if not isinstance(value, Mapping):
                raise InputError(f"--config {path}: {key}: wanted  KEY: [VALUE, VALUE]  below it.")
            value = [f"{name}={','.join(map(_text, v)) if isinstance(v, list) else _text(v)}" for name, v in value.items()]
        for item in value if isinstance(value, list) else [value]:
            yield from (f"--{key}", str(item))


def _text(value: Any) -> str:
    """A YAML value as it would be typed."""
    return value if isinstance(value, str) else json.dumps(value)


def _listed(text: str) -> tuple[str, BaseDistribution]:
    """KEY, and values between commas; commas within brackets belong to a value, as in [256,256],[512,512]."""
    key, _, listed = text.partition("=")
    values = [value.strip() for value in re.split(r",(?![^\[\]{}]*[\]}])", listed)]
    if not key or not all(values) or len(set(values)) < len(values):
        words = f"{text}: wanted KEY=VALUES, as in data.batch_size=500,1000, no two of them the same."
        raise argparse.ArgumentTypeError(words)
    return key, CategoricalDistribution(values)


def _range(text: str) -> tuple[str, BaseDistribution]:
    """KEY, and LOW..HIGH, behind int: for whole numbers and log: for a logarithmic scale."""
    match = re.fullmatch(r"(.+?)=(int:)?(log:)?(.+?)\.\.(.+)", text)
    try:
        if match is None:
            raise ValueError("not of the form KEY=LOW..HIGH")
        key, whole, log, low, high = match.groups()
        if whole:
            return key, IntDistribution(int(low), int(high), log=bool(log))
        if not math.isfinite(float(low) - float(high)):             # Optuna would draw for ever
            raise ValueError("not a finite range")
        return key, FloatDistribution(float(low), float(high), log=bool(log))
    except ValueError as error:
        words = f"{text}: wanted KEY=LOW..HIGH, as in lr=log:1e-5..1e-2 or size=int:100..2000 ({error})."
        raise argparse.ArgumentTypeError(words) from error
