"""The results that the README shows: the report over the kept logs of both studies, and its chart in the README.

    python benchmarks/action_models.py run --only models originals
    python benchmarks/interaction.py run --only adversarial labels
    python benchmarks/results.py

The first two train what is missing, and keep the logs of the chart's runs in docs/results/runs. The last one reads these
alone, and can be run by whoever has the repository.
"""

import re
from pathlib import Path

from study import KEPT_LOGS, write_tables

from lightning_bc.report.report import report

OUTPUT = KEPT_LOGS.parent

if __name__ == "__main__":
    report(str(KEPT_LOGS), str(OUTPUT))
    sentence = re.search(r"^\*\*.*\*\*$", (OUTPUT / "report.md").read_text(), re.MULTILINE)
    assert sentence is not None
    chart = (OUTPUT / "HalfCheetah-v5" / "chart.md").read_text()
    write_tables(Path("README.md"), {"chart": f"{chart}\n{sentence[0]}\n"})
