"""curve.csv: what is appended is read again, whatever a kill has left of it."""

import csv
import math

import numpy as np
import pytest

from lightning_bc.errors import InputError
from lightning_bc.runs.curve import Curve, columns, read_curve

POINT = {"seconds": 0.1 + 0.2, "rollout/return_mean": -1e-17, "rollout/normalized_return": math.nan}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "curve.csv"


def write(path, steps, **more):
    curve = Curve(path)
    for step in steps:
        curve.append(step, POINT | {"optimizer_steps": step} | more)
    return curve


def test_what_is_appended_is_read_bit_by_bit(path):
    write(path, [0, 80, 10_000_000])
    read = read_curve(path)
    assert read["step"].tolist() == read["optimizer_steps"].tolist() == [0, 80, 10_000_000]
    for name, value in POINT.items():
        np.testing.assert_array_equal(read[name], [value] * 3)
    with path.open() as file:                                       # as any other reader of CSV sees it
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "80", "10000000"]


def test_a_point_is_on_the_disk_when_append_returns(path):
    curve = Curve(path)
    for number in range(3):
        curve.append(number, POINT)
        assert len(read_curve(path)["step"]) == number + 1


def test_a_resumed_curve_forgets_what_came_after_the_checkpoint_and_what_a_kill_tore(path):
    write(path, [0, 10, 20, 30])
    with path.open("a") as file:
        file.write("40,0.3,-1")
    curve = Curve(path)
    curve.resume(10)
    curve.append(20, POINT | {"optimizer_steps": 20.5})
    assert read_curve(path)["optimizer_steps"].tolist() == [0, 10, 20.5]


def test_a_new_run_has_nothing_to_resume(path):
    Curve(path).resume(-1)
    assert not path.exists()


def test_a_metric_that_comes_or_goes_between_two_sessions_is_empty_where_it_was_not_measured(path):
    write(path, [0, 10], old=1.0)
    curve = Curve(path)
    curve.resume(10)
    curve.append(20, POINT | {"optimizer_steps": 20, "new": 2.0})
    curve.append(30, POINT | {"optimizer_steps": 30, "new": 3.0})
    read = read_curve(path)
    np.testing.assert_array_equal(read["old"], [1, 1, math.nan, math.nan])
    np.testing.assert_array_equal(read["new"], [math.nan, math.nan, 2, 3])
    assert read["step"].tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_torn_last_line_is_left_out_wherever_it_was_cut(path, cut):
    write(path, [0, 10])
    path.write_text(path.read_text()[:-cut])
    assert read_curve(path)["step"].tolist() == [0]


def remove_checksums(path):
    """As earlier versions wrote it."""
    path.write_text("".join(line.rpartition(",")[0] + "\n" for line in path.read_text().splitlines()))


DAMAGE = [
    ("\n10,", "\n10;", "line 3"),
    ("\n10,", "\n10,5,", "line 3"),
    ("\n10,", "\n0,", "line 3: step 0 does not come after 0"),
    ("\n10,", "\nten,", "line 3"),
    ("\n0,", "\n,", "line 2"),
    ("step,", "steps,", "is no curve"),
    ("seconds", "step", "is no curve"),
]


@pytest.mark.parametrize(("old", "new", "named"), DAMAGE)
@pytest.mark.parametrize("has_checksums", [True, False])
def test_damage_is_named_and_a_run_does_not_go_on_over_it(path, old, new, named, has_checksums):
    write(path, [0, 10, 20])
    if not has_checksums:
        remove_checksums(path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match="is damaged in line" if has_checksums else named):
        read_curve(path)
    with pytest.raises(InputError, match=r"curve\.csv: is .*Move it away"):
        Curve(path).resume(10)


def test_a_curve_without_checksums_is_read_and_has_them_once_its_run_goes_on(path):
    write(path, [0, 10])
    remove_checksums(path)
    assert read_curve(path)["step"].tolist() == [0, 10]
    Curve(path).resume(10)
    assert read_curve(path)["step"].tolist() == [0, 10]
    assert "crc32" in path.read_text()


def test_every_axis_of_a_curve_has_a_unit_and_a_meaning():
    assert all(metric.unit and metric.meaning for metric in columns().values())
