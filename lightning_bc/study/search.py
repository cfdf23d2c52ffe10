"""What ``sweep`` searches: the command line and the files of ``--config``."""

import argparse
import difflib
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from lightning_bc.aliases import Config
from lightning_bc.errors import InputError
from lightning_bc.runs.plan import canonical
from lightning_bc.study.command import Parser, add_engine

FILE_KEYS = ("config", "grid", "search", "sampler", "trials", "seeds")

Setting = Mapping[str, Any]
"""Values by the flag of fit, as typed or as drawn from a range."""

DESCRIPTION = """Search settings of fit, judged on the selection bank; the best is run anew and scored on the test bank.

  python -m lightning_bc sweep --config configs/gmm.yaml --grid data.batch_size=500,1000 --grid model.optimizer.lr=1e-3,1e-4
  python -m lightning_bc sweep --config configs/mse.yaml --sampler tpe --trials 40 \\
      --search model.optimizer.lr=log:1e-5..1e-2 --search data.batch_size=int:100..2000
  python -m lightning_bc sweep --config configs/sweeps/baseline.yaml --jobs 2

The same command goes on where it was stopped. Flags that are not listed here are fit's, for every run. See docs/sweep.md."""


@dataclass(frozen=True)
class Search:
    """What the command line and the files of ``--config`` ask for.

    Attributes:
        flags: what every fit is told.
        space: the values of each key, as typed, or its range.
        given: where fits run.
        identity: what is searched and how, as plain values; the name is made of it.
    """

    flags: list[str]
    space: dict[str, BaseDistribution]
    sampler: str
    trials: int
    seeds: int
    prune: bool
    name: str
    given: argparse.Namespace
    identity: Config = field(repr=False)

    @classmethod
    def parse(cls, args: Sequence[str]) -> "Search":
        """Read the command line; everything but the values of fit's flags is checked here.

        Raises:
            InputError: naming the flag, the value found and the value wanted.
        """
        given, flags = _parser().parse_known_args(args)
        paths = given.config
        files = [path for path in paths if _is_sweep(_read(path))]
        if files:                                                   # what the command line says counts more
            expanded = [argument for path in files for argument in _expand(path, _read(path))]
            given, flags = _parser().parse_known_args([*expanded, *args])
            given.config = [path for path in given.config if path not in files]
        flags = [*(word for path in given.config for word in ("--config", path)), *flags]
        space: dict[str, BaseDistribution] = {
            key: _listed(f"--grid {key}", values) for key, values in _assignments("--grid", given.grid)
        }
        space |= {key: _range(f"--search {key}", values) for key, values in _assignments("--search", given.search)}
        canonical([*flags, *(word for key in space for word in (f"--{key}", ""))], "sweep")
        grid = given.sampler == "grid"
        ranges = [key for key, distribution in space.items() if not isinstance(distribution, CategoricalDistribution)]
        if not space:
            raise InputError("--grid: wanted what to search: --grid KEY=VALUE,VALUE or --search KEY=LOW..HIGH.")
        if grid and ranges:
            raise InputError(f"--search {' '.join(ranges)}: wanted --sampler random or tpe with it; a grid needs values.")
        if grid and given.trials:
            raise InputError(f"--trials {given.trials}: wanted nothing, since a grid has its own number.")
        if not grid and (given.trials or 0) < 1:
            raise InputError(f"--trials {given.trials}: wanted at least 1, how many settings to try.")
        if given.seeds < 1:
            raise InputError(f"--seeds {given.seeds}: wanted at least 1.")
        if given.name is not None and Path(given.name).name != given.name:
            raise InputError(f"--name {given.name}: wanted a name, not a path.")
        trials = math.prod(len(ends(values)) for values in space.values()) if grid else given.trials
        identity = {
            "config": [_read(path) for path in given.config],
            "flags": flags,
            "space": {key: json.loads(optuna.distributions.distribution_to_json(space[key])) for key in space},
            **{key: getattr(given, key) for key in ("sampler", "seeds", "prune")},
            "trials": trials,
        }
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
        name = given.name or f"{Path((paths or ['sweep'])[0]).stem}-{digest}"
        return cls(flags, space, given.sampler, trials, given.seeds, given.prune, name, given, identity)

    def setting(self, index: int) -> Setting | None:
        """The ``index``-th setting of a grid, the last key fastest, or of a random search; TPE's depends on the others."""
        if self.sampler == "tpe":
            return None
        if self.sampler == "random":
            draw = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=index))
            return draw.ask(self.space).params
        cells = itertools.product(*map(ends, self.space.values()))
        return dict(zip(self.space, next(itertools.islice(cells, index, None)), strict=True))

    def probes(self) -> list[Setting]:
        """Settings to try on the parser: a grid's all; else each value and each end of a range, the other keys' first."""
        if self.sampler == "grid":
            return [dict(zip(self.space, cell, strict=True)) for cell in itertools.product(*map(ends, self.space.values()))]
        values = {key: ends(distribution) for key, distribution in self.space.items()}
        first = {key: listed[0] for key, listed in values.items()}
        return [first, *(first | {key: value} for key, listed in values.items() for value in listed[1:])]

    def told(self, setting: Setting) -> tuple[str, ...]:
        """What ``fit`` is told for a setting."""
        chosen = [word for key, value in setting.items() for word in (f"--{key}", str(value))]
        return canonical([*self.flags, *chosen], "sweep")


def ends(distribution: BaseDistribution) -> Sequence[Any]:
    """The values of a list, the two ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low, distribution.high


def _parser() -> Parser:
    parser = Parser("python -m lightning_bc sweep", None, DESCRIPTION, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("-c", "--config", action="append", default=[], help="a configuration of fit, or a file of configs/sweeps")
    add("--grid", action="append", default=[], metavar="KEY=VALUE,VALUE", help="values of a flag of fit; may be repeated")
    words = "a range for --sampler random or tpe, LOW..HIGH, behind int: for whole numbers, log: for a logarithmic scale"
    add("--search", action="append", default=[], metavar="KEY=RANGE", help=f"{words}, or int:log: for both; may be repeated")
    add("--sampler", choices=["grid", "random", "tpe"], default="grid", help="default: grid, every setting once")
    add("--trials", type=int, help="how many settings a random or tpe search tries")
    add("--seeds", type=int, default=3, help="runs per setting, seeds 0, 1, ...; the best is run anew with as many others")
    add("--name", help="name of the sweep; default: made from the configuration and what is searched")
    add("--prune", action="store_true", help="give up a setting whose mean after a seed is below the others' median")
    add_engine(parser)
    return parser


def _read(path: str) -> Any:
    try:
        return yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--config {path}: cannot be read ({error}). Ready configurations lie in configs/.") from error


def _is_sweep(content: Any) -> bool:
    return isinstance(content, Mapping) and not content.keys().isdisjoint(("grid", "search"))


def _expand(path: str, content: Config) -> Iterator[str]:
    """A file's entries as flags."""
    for key, value in content.items():
        if key not in FILE_KEYS:
            near = difflib.get_close_matches(key, FILE_KEYS, n=1) or [", ".join(FILE_KEYS)]
            raise InputError(f"--config {path}: unknown: {key}. Nearest known: {near[0]}.")
        if key in ("grid", "search"):
            if not isinstance(value, Mapping):
                raise InputError(f"--config {path}: {key}: wanted  KEY: [VALUE, VALUE]  below it.")
            value = [f"{name}={','.join(map(_text, v)) if isinstance(v, list) else _text(v)}" for name, v in value.items()]
        for item in value if isinstance(value, list) else [value]:
            yield from (f"--{key}", str(item))


def _text(value: Any) -> str:
    """A YAML value as it would be typed."""
    return value if isinstance(value, str) else json.dumps(value)


def _assignments(flag: str, given: Sequence[str]) -> list[tuple[str, str]]:
    for text in given:
        if not all(text.partition("=")):
            raise InputError(f"{flag} {text}: wanted KEY=VALUES, as in --grid data.batch_size=500,1000.")
    return [(text.partition("=")[0], text.partition("=")[2]) for text in given]


def _listed(flag: str, text: str) -> CategoricalDistribution:
    """Values between commas; commas within brackets belong to a value, as in [256,256],[512,512]."""
    values = [value.strip() for value in re.split(r",(?![^\[\]{}]*[\]}])", text)]
    if not all(values) or len(set(values)) < len(values):
        raise InputError(f"{flag}={text}: wanted values between commas, no two of them the same.")
    return CategoricalDistribution(values)


def _range(flag: str, text: str) -> BaseDistribution:
    """LOW..HIGH, behind int: for whole numbers and log: for a logarithmic scale."""
    match = re.fullmatch(r"(int:)?(log:)?(.+?)\.\.(.+)", text)
    try:
        if match is None:
            raise ValueError("not of the form LOW..HIGH")
        whole, log, low, high = match.groups()
        if whole:
            return IntDistribution(int(low), int(high), log=bool(log))
        return FloatDistribution(float(low), float(high), log=bool(log))
    except ValueError as error:
        raise InputError(f"{flag}={text}: wanted LOW..HIGH, log:1e-5..1e-2 or int:100..2000 ({error}).") from error
