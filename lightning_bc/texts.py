"""Text files that are read: JSON, YAML and CSV, whatever lies there; those that we write know what was written."""

import csv
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning_bc.errors import InputError
from lightning_bc.files import write_text

CHECKSUM = "checksum"
"""Under this key a JSON file says the SHA-256 of what else is in it."""

FIRST_LINE = "# sha256 "
"""So a YAML file begins that says the SHA-256 of what follows."""

ROW_CHECKSUM = "crc32"
"""The last column of a CSV file whose rows say the CRC-32 of the header and of themselves."""

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


def checked_yaml_of(path: str | Path) -> Any:
    """What :func:`write_yaml` wrote; a file without a checksum, as of another program, is as it is.

    Raises:
        InputError: it cannot be read, or is not what was written.
    """
    return _parsed(path, "YAML", _parse_checked_yaml)


def _parse_checked_yaml(text: str) -> Any:
    first, _, rest = text.partition("\n")
    if first.startswith(FIRST_LINE.rstrip()) and first != _first_line(rest):
        raise ValueError("is not what was written, by the checksum in its first line")
    return parse_yaml(text)


def parse_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises:
        ValueError, yaml.YAMLError: there is none, it has a key twice, of which YAML would drop the first, or it is nested
            too deep or too large.
    """
    import yaml  # here alone: a task on a Ray node does without it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(loader):  # type: ignore[misc, valid-type]
        def flatten_mapping(self, node: Any) -> None:
            if node not in checked:                                 # the first time; later it has what it merges too
                checked.add(node)
                keys = Counter((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
                if twice := [key for (tag, key), number in keys.items() if number > 1 and not tag.endswith(":merge")]:
                    raise ValueError(f"has {twice[0]} twice, in line {node.start_mark.line + 1} and below")
            super().flatten_mapping(node)

    checked = set[Any]()
    if sum(map(text.count, ("[", "{", "- -", "? ?", "-\n", "?\n"))) > DEEPEST:
        depth = 0
        for event in yaml.parse(text, loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"is nested more than {DEEPEST} levels deep")
    content = yaml.load(text, Loader)  # either loader is a safe one
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


def write_yaml(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write ``content``, plain values, as YAML with a checksum, as :func:`lightning_bc.files.replacing` does."""
    import yaml  # here alone: a task on a Ray node does without it

    text = yaml.safe_dump(content, sort_keys=False)
    write_text(path, f"{_first_line(text)}\n{text}")


def _first_line(rest: str) -> str:
    return FIRST_LINE + hashlib.sha256(rest.encode()).hexdigest()


def csv_rows(names: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Rows of CSV under the columns ``names``, each with its checksum behind it."""
    before = _crc(_line([*names, ROW_CHECKSUM]))
    lines = [_line(row) for row in rows]
    return "".join(f"{line[:-1]},{_crc(line, before):08x}\n" for line in lines)


def csv_text(names: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """A whole CSV file, of which each row has its checksum."""
    return _line([*names, ROW_CHECKSUM]) + csv_rows(names, rows)


def parse_csv(text: str) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows of what :func:`csv_text` made; what has no checksums, of another program, is as it is.

    Raises:
        ValueError: a line is not what was written, or is no CSV.
    """
    lines = [f"{line}\n" for line in text.split("\n")[:-1]]
    reader = csv.reader(lines, strict=True)
    try:
        names = next(reader, [])
        has_checksums = names[-1:] == [ROW_CHECKSUM]
        rows, before, begin = [], _crc("".join(lines[: reader.line_num])), reader.line_num
        for row in reader:
            if len(row) != len(names):
                raise ValueError(f"is damaged in line {begin + 1}: {len(row)} cells under {len(names)} columns")
            if has_checksums:
                line = "".join(lines[begin : reader.line_num]).rpartition(",")[0] + "\n"
                if row.pop() != f"{_crc(line, before):08x}":
                    raise ValueError(f"is damaged in line {begin + 1}, or in the first, by its {ROW_CHECKSUM}")
            rows.append(row)
            begin = reader.line_num
    except csv.Error as error:
        raise ValueError(f"is damaged in line {reader.line_num}: {error}") from error
    return names[:-1] if has_checksums else names, rows


def _line(cells: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _crc(text: str, before: int = 0) -> int:
    return zlib.crc32(text.encode(), before)
