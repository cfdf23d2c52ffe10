"""docs/metrics.md says what the code says. If it does not, this writes its tables anew:

    python -m lightning_bc.report.documentation docs/metrics.md
"""

import pytest
from conftest import REPOSITORY

from lightning_bc.report.documentation import tables
from lightning_bc.report.tables import with_tables
from lightning_bc.strategies import OfflineStrategy, strategies

PAGE = REPOSITORY / "docs" / "metrics.md"


def test_the_page_of_metrics_is_what_the_code_makes():
    assert with_tables(PAGE.read_text(), tables()) == PAGE.read_text()


@pytest.mark.parametrize("strategy", [name for name, cls in strategies().items() if issubclass(cls, OfflineStrategy)])
def test_every_loss_has_its_equation(strategy):
    assert f"| {strategy} | {strategies()[strategy].logs['loss'].meaning} |" in tables()["losses"]


def test_a_page_without_a_tables_markers_is_refused():
    with pytest.raises(ValueError, match="0 places for table curve"):
        with_tables("nothing", {"curve": "x"})
    assert with_tables("a\n<!-- table: t -->\nold\n<!-- end -->\nb", {"t": "new\n"}).split("\n")[2] == "new"
