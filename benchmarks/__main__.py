"""Measure, and write the tables into docs/benchmarks.md: ``python -m benchmarks [PART ...] [--quick] [--long]``."""

import argparse
import importlib
import os
import platform
import re
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.measure import Row

PARTS = (
    *("training", "playing", "latency", "protocol", "physics", "collection", "soft_actor_critic", "recorded", "cuda_graphs"),
    *("imitation", "larger_than_memory", "report", "growth"),
)
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main(arguments: list[str] | None = None) -> None:
    """Run the parts one after another; each writes its table as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each pair; the median counts")
    parser.add_argument("--quick", action="store_true", help="measure next to nothing, to see that all runs")
    parser.add_argument("--long", action="store_true", help="also how cost grows, for an hour")
    parser.add_argument("--output", type=Path, default=PAGE, help="the page whose tables are replaced")
    parser.add_argument("--imitation", type=Path, help="the Python of an environment with imitation, for that part")
    given = parser.parse_args(arguments)
    if unknown := sorted({*given.parts} - {*PARTS}):
        parser.error(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS)}")

    from benchmarks.measure import Settings  # torch, which rollout workers need not import twice

    check(given.output, given.parts or PARTS)
    for part in given.parts or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            rows = importlib.import_module(f"benchmarks.{part}").rows(
                Settings(1 if given.quick else given.rounds, given.quick, given.long, Path(folder), given.imitation)
            )
        if rows:
            lines = table(rows)
            print(f"{part}\n\n{lines}\n", flush=True)
            write(given.output, part, f"{machine()}\n\n{lines}")


def machine() -> str:
    """What it was measured on."""
    import torch

    from lightning_bc.environments import usable_cores

    return (
        f"{usable_cores()} cores, {processor()}, {torch.get_num_threads()} training threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the end."
    )


def processor() -> str:
    """Its name, where the system says it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def table(rows: "Sequence[Row]") -> str:
    """In Markdown."""
    lines = ["| | beside | ours | the other | ratio of speed | of each round |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row.what, row.beside, f"{_number(row.ours)} {row.unit}"]
        if row.ratios:
            cells += [_number(row.other), f"**{statistics.median(row.ratios):.2f}**"]
            cells += [f"{min(row.ratios):.2f} to {max(row.ratios):.2f}"]
        lines.append(f"| {' | '.join(cells + [''] * (6 - len(cells)))} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write(page: Path, part: str, content: str) -> None:
    """Put ``content`` between the marks of the part."""
    page.write_text(_marks(part).sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", page.read_text()))


def check(page: Path, parts: "Sequence[str]") -> None:
    """Refuse a page without marks for a part, before minutes of measuring."""
    for part in parts:
        if not page.is_file() or not _marks(part).search(page.read_text()):
            raise SystemExit(f"{page}: has no marks <!-- measured: {part} --> and <!-- end -->")


def _marks(part: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- measured: {part} -->\n).*?(<!-- end -->)", re.DOTALL)


if __name__ == "__main__":
    main()
