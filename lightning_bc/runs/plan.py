"""Studies: which fits a YAML file asks for, each under a name that is made of its content; see docs/study.md."""

import difflib
import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lightning_bc.errors import InputError
from lightning_bc.runs import folders

SET_BY_STUDY = ("--seed_everything", "--run", "--ckpt_path", "--search")


@dataclass(frozen=True)
class Fit:
    """One training.

    Attributes:
        flags: what ``fit`` is told, in canonical order.
        row: of the study's table.
        column: likewise.
    """

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
    """

    path: str
    fits: tuple[Fit, ...]
    demonstrations: Mapping[str, list[str]]
    figures: tuple[str, ...]

    @classmethod
    def read(cls, path: str) -> "Study":
        """Read the file.

        Raises:
            InputError: naming the file, the key, what was found and what was wanted.
        """
        try:
            content = yaml.safe_load(Path(path).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{path}: cannot be read ({error}). Studies lie in studies/.") from error
        known = ("flags", "seeds", "rows", "columns", "demonstrations", "figures")
        if not isinstance(content, dict) or not isinstance(content.get("rows"), dict) or not content["rows"]:
            raise InputError(f"{path}: wanted rows, and below it  NAME: flags of fit.")
        for key in content:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1) or [", ".join(known)]
                raise InputError(f"{path}: unknown: {key}. Nearest known: {near[0]}.")
        columns = _mapping(content, "columns", path) or None
        shared = [*_words(content.get("flags", ""), f"{path}: flags"), "--seeds", str(content.get("seeds", 3))]
        fits: list[Fit] = []
        for row, cells in content["rows"].items():
            by_column = cells if isinstance(cells, dict) else dict.fromkeys(columns or [""], cells)
            for column, flags in by_column.items():
                place = f"{path}: rows: {row}" + f": {column}" * (column != "")
                if columns is not None and column not in columns:
                    raise InputError(f"{place}: is none of the columns, {', '.join(map(str, columns))}.")
                of_column = _words((columns or {}).get(column, ""), f"{path}: columns: {column}")
                words = [*shared, *of_column, *_words(flags, place)]
                flags, seeds = _without_seeds(canonical(words, place), place)
                fits += [Fit(flags, seed, str(row), str(column)) for seed in range(seeds)]
        demonstrations = {
            file: _words(flags, f"{path}: demonstrations: {file}")
            for file, flags in _mapping(content, "demonstrations", path).items()
        }
        fits.sort(key=lambda fit: fit.seed)
        return cls(path, tuple(fits), demonstrations, tuple(content.get("figures") or ()))

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


def _mapping(content: Mapping[str, Any], key: str, path: str) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: {key}: wanted  NAME: flags  below it.")
    return value


def _words(flags: Any, place: str) -> list[str]:
    """Flags as words, from a text or a list."""
    if isinstance(flags, list):
        return [str(word) for word in flags]
    if not isinstance(flags, str | None):
        raise InputError(f"{place}: {flags!r}: wanted flags, as in  --config configs/mse.yaml.")
    return shlex.split(flags or "")


def _without_seeds(flags: tuple[str, ...], place: str) -> tuple[tuple[str, ...], int]:
    """The flags of ``fit``, and how many seeds there are."""
    at = flags.index("--seeds")
    seeds = flags[at + 1]
    if not seeds.isdecimal() or int(seeds) < 1:
        raise InputError(f"{place}: seeds {seeds}: wanted a whole number of at least 1.")
    return (*flags[:at], *flags[at + 2 :]), int(seeds)
