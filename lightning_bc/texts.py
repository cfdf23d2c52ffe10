"""Text files that are read: JSON and YAML, whatever lies there, and JSON that knows whether it is what was written."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning_bc.errors import InputError
from lightning_bc.files import write_text

CHECKSUM = "checksum"
"""Under this key a JSON file says the SHA-256 of what else is in it."""

DEEPEST = 100
"""Levels of a YAML file: libyaml's parser would end the process at very many."""

LARGEST = 10**6
"""Values of a YAML file, those that are named and repeated counted each time."""


def json_of(path: str | Path) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: it holds none, or cannot be read.
    """
    return _parsed(path, "JSON", json.loads)


def checked_json_of(path: str | Path, parse_constant: Callable[[str], Any] | None = None) -> Any:
    """What :func:`write_json` wrote; a file without a checksum, as of another program, is as it is.

    Args:
        parse_constant: called for NaN and infinities, for which JSON itself has no word.

    Raises:
        InputError: it cannot be read, or is not what was written.
    """
    content = _parsed(path, "JSON", partial(json.loads, parse_constant=parse_constant))
    if isinstance(content, dict) and CHECKSUM in content and content.pop(CHECKSUM) != _digest(content):
        raise InputError(f"{path}: is not what was written, by its {CHECKSUM}")
    return content


def yaml_of(path: str | Path) -> Any:
    """What a YAML file holds, of plain values.

    Raises:
        InputError: it holds none, or cannot be read.
    """
    return _parsed(path, "YAML", parse_yaml)


def parse_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises:
        ValueError, yaml.YAMLError: there is none, or it is nested too deep or too large.
    """
    import yaml  # here alone: a task on a Ray node does without it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if sum(map(text.count, ("[", "{", "- -", "? ?", "-\n", "?\n"))) > DEEPEST:
        depth = 0
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"is nested more than {DEEPEST} levels deep")
    content = yaml.load(text, loader)  # either loader is a safe one
    if "*" in text and _size(content, {}) > LARGEST:
        raise ValueError("repeats what it names more often than memory holds")
    return content


def _size(value: Any, known: dict[int, float]) -> float:
    """Number of values in it; infinite where it holds itself."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")                             # while it is looked at
        inner = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(one, known) for one in inner)
    return known[id(value)]


def _parsed(path: str | Path, kind: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(Path(path).read_text())
    except Exception as error:                                      # parsers have many kinds, RecursionError among them
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        raise InputError(f"{path}: cannot be read as {kind} ({reason})") from error


def write_json(path: str | Path, content: Mapping[str, Any], allow_nan: bool = False) -> None:
    """Write ``content``, plain values, as JSON with a checksum, as :func:`lightning_bc.files.replacing` does.

    Args:
        allow_nan: whether numbers may be none, for which JSON itself has no word.

    Raises:
        TypeError, ValueError: it is no plain values; nothing is written then.
    """
    text = json.dumps({**content, CHECKSUM: _digest(content)}, indent=1, allow_nan=allow_nan)
    write_text(path, text + "\n")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
