"""Tables as Markdown, LaTeX and CSV, and figures in words."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(_on_one_line(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def latex_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as LaTeX; it needs the package booktabs."""
    lines = [" & ".join(map(_latex, line)) + r" \\" for line in rows]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * len(header)}}}",
            r"\toprule",
            " & ".join(map(_latex, header)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def with_tables(text: str, tables: Mapping[str, str]) -> str:
    """A document with each of ``tables`` put between its markers.

        <!-- table: NAME -->
        <!-- end -->

    Raises:
        ValueError: the document has no such markers, or has them twice.
    """
    for name, table in tables.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        parts = re.split(f"{re.escape(begin)}.*?{end}", text, flags=re.DOTALL)
        if len(parts) != 2:
            raise ValueError(f"{len(parts) - 1} places for table {name}; wanted one: {begin}{end}")
        text = f"{parts[0]}{begin}{table}{end}{parts[1]}"
    return text


_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
})


def _latex(text: str) -> str:
    return _on_one_line(text).translate(_LATEX)


def _on_one_line(text: str) -> str:
    """A cell, which would end its row at a line break."""
    return " ".join(text.splitlines())


def csv_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of equal keys as CSV; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _known(value) for key, value in row.items()})
    return text.getvalue()


def _known(value: object) -> object:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


# Cells


def show_interval(value: float, low: float | None, high: float | None, decimals: int = 3) -> str:
    """A value and its 95% interval over runs, in words."""
    if low is None:
        return f"{value:.{decimals}f} (1 seed, no interval)"
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def show_duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h"
