"""Studies: which fits a YAML file asks for, each under a name that is made of its content; see docs/study.md."""

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_bc.errors import InputError, refuse_unknown
from lightning_bc.runs import folders
from lightning_bc.texts import yaml_of

KEYS = ("flags", "seeds", "demonstrations", "rows", "columns", "figures", "aggregated")
SET_BY_STUDY = ("--seed_everything", "--run", "--ckpt_path", "--search")
PRINTING = ("--help", "--print_config")


@dataclass(frozen=True)
class Fit:
    """One training: what ``fit`` is told, in canonical order, and where it stands in the study's table."""

    flags: tuple[str, ...]
    seed: int
    row: str = ""
    column: str = ""

    @cached_property
    def name(self) -> str:
        """The run's name: the same flags and seed have the same one in every study."""
        digest = hashlib.sha256(json.dumps(self.flags).encode()).hexdigest()[:10]
        values = dict(zip(self.flags, self.flags[1:], strict=False))
        return f"{Path(values.get('--config') or values.get('--model', 'fit')).stem}-{digest}-{self.seed}"

    @property
    def place(self) -> str:
        """Row, column and seed in words."""
        return ", ".join(filter(None, (self.row, self.column, f"seed {self.seed}")))

    def arguments(self) -> list[str]:
        """What stands behind ``python -m lightning_bc``."""
        return ["fit", *self.flags, "--seed_everything", str(self.seed), "--run", self.name]

    def command(self) -> list[str]:
        """The command, run by this Python."""
        return [sys.executable, "-m", "lightning_bc", *self.arguments()]

    def is_done(self) -> bool:
        """Whether the run has its results."""
        return folders.results_path(self.name).is_file()


def canonical(words: Sequence[str], source: str) -> tuple[str, ...]:
    """The same flags in one order, so that one fit has one name wherever it is asked for.

    Configurations come first and callbacks last, both as they stand; the others are sorted, and of a flag that is given
    twice the last counts.

    Args:
        source: where the words stand.

    Raises:
        InputError: a word is neither a flag nor a flag's value.
    """
    pairs: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            pairs.append([word] if name.endswith("+") or not equals else [name, value])
        elif word == "-c":
            pairs.append(["--config"])
        elif pairs and len(pairs[-1]) == 1 and "+=" not in pairs[-1][0]:
            pairs[-1].append(word)
        else:
            raise InputError(f"{source}: {word!r} stands behind no flag; wanted --FLAG VALUE, as fit takes them.")
    if own := [name for name, *_ in pairs if name in SET_BY_STUDY]:
        raise InputError(f"{source}: {own[0]} is set by the study itself. How many seeds there are is seeds, or --seeds N.")
    if printing := [name for name, *_ in pairs if name in PRINTING]:
        raise InputError(f"{source}: {printing[0]} prints and trains nothing. Leave it away.")
    first = [pair for pair in pairs if pair[0] == "--config"]
    last = [pair for pair in pairs if pair[0].startswith("--trainer.callbacks")]
    others = {pair[0]: pair for pair in pairs if pair not in first and pair not in last}
    return tuple(word for pair in (*first, *(others[name] for name in sorted(others)), *last) for word in pair)


@dataclass(frozen=True)
class Study:
    """What a file of studies/ asks for.

    Attributes:
        path: the file.
        fits: every fit of every cell, all of the first seed before those of the second.
        demonstrations: flags of ``collect`` by the file that they make.
        figures: of the table with a line per cell; none where the table is a grid of rows and columns.
        aggregated: whether the rows of a grid, whose columns are tasks then, are also compared over all of them.
    """

    path: str
    fits: tuple[Fit, ...]
    demonstrations: Mapping[str, list[str]]
    figures: tuple[str, ...]
    aggregated: bool = False

    @classmethod
    def read(cls, path: str) -> "Study":
        """Read the file.

        Raises:
            InputError: naming the file, the key, what was found and what was wanted.
        """
        try:
            content = yaml_of(path)
        except InputError as error:
            raise InputError(f"{error}. Studies lie in studies/.") from error
        content = content if isinstance(content, dict) else {}
        refuse_unknown(path, content, KEYS)
        for key in ("demonstrations", "rows", "columns"):
            if not isinstance(content.setdefault(key, {}), dict) or (key == "rows" and not content[key]):
                raise InputError(f"{path}: wanted {key}, and below it  NAME: flags.")
        columns, fits = content["columns"], []
        for row, cells in content["rows"].items():
            of_row = cells if isinstance(cells, dict) else dict.fromkeys(columns or [""], cells)
            for column, flags in of_row.items():
                place = f"{path}: rows: {row}" + f": {column}" * (column != "")
                if columns and column not in columns:
                    raise InputError(f"{place}: is none of the columns, {', '.join(map(str, columns))}.")
                words = [*_words(content.get("flags"), path), "--seeds", str(content.get("seeds", 3))]
                words += [*_words(columns.get(column), f"{path}: columns: {column}"), *_words(flags, place)]
                fits += _seeds(canonical(words, place), str(row), str(column), place)
        demonstrations = {file: _words(flags, f"{path}: {file}") for file, flags in content["demonstrations"].items()}
        figures, aggregated = content.get("figures") or [], content.get("aggregated", False)
        if not isinstance(figures, list):
            raise InputError(f"{path}: figures: {figures}: wanted a list, as in  figures: [score, normalized].")
        if aggregated not in (True, False) or (aggregated and (figures or len(columns) < 2)):
            raise InputError(f"{path}: aggregated: {aggregated}: wanted true, with columns and no figures, or false.")
        return cls(path, tuple(sorted(fits, key=lambda fit: fit.seed)), demonstrations, tuple(figures), aggregated)

    def part(self, only: str | None) -> list[Fit]:
        """Each fit once; of ``only`` K/N, the K-th of N equal parts; none of 0/N.

        Raises:
            InputError: ``only`` is no such part.
        """
        fits = list({fit.name: fit for fit in reversed(self.fits)}.values())[::-1]
        try:
            part, parts = map(int, (only or "1/1").split("/"))
        except ValueError:
            part, parts = 0, 0
        if not 0 <= part <= parts or not parts:
            raise InputError(f"--only {only}: wanted K/N, as 1/4 for the first of four parts.")
        return fits[part - 1 :: parts] if part else []


def _words(flags: Any, place: str) -> list[str]:
    """Flags as words."""
    if not isinstance(flags, str | None):
        raise InputError(f"{place}: {flags!r}: wanted flags, as in  --config configs/mse.yaml.")
    try:
        return shlex.split(flags or "")
    except ValueError as error:
        raise InputError(f"{place}: {flags!r}: {error}. Wanted flags, as in  --config configs/mse.yaml.") from error


def _seeds(flags: tuple[str, ...], row: str, column: str, place: str) -> list[Fit]:
    """A cell's fits: ``--seeds`` among the flags says how many."""
    at = flags.index("--seeds")
    seeds = "".join(flags[at + 1 : at + 2])                         # empty where the value is missing
    if not seeds.isdecimal() or int(seeds) < 1:
        raise InputError(f"{place}: seeds {seeds!r}: wanted a whole number of at least 1.")
    return [Fit((*flags[:at], *flags[at + 2 :]), seed, row, column) for seed in range(int(seeds))]
