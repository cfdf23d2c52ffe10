"""results.json: what is written is read again, and what cannot be read is named."""

import json
import math
from dataclasses import replace

import pytest
from conftest import REPOSITORY

from lightning_bc.errors import InputError
from lightning_bc.references import References
from lightning_bc.runs.results import Results, entries

KEPT = sorted((REPOSITORY / "tests" / "files").glob("*-results.json"))  # of an earlier version


def content():
    return json.loads(KEPT[0].read_text())


def test_what_is_written_is_read_again(tmp_path):
    results = replace(Results.read(KEPT[0]), metrics={"return_mean": 1.5})
    results.write(tmp_path / "new" / "results.json")
    assert Results.read(tmp_path / "new" / "results.json") == results
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]


@pytest.mark.parametrize("strategy", ["Diffusion", "SAC"])          # with demonstrations, and without any
def test_a_file_keeps_every_key_and_value(strategy):
    read = json.loads(next(path for path in KEPT if path.name.startswith(strategy)).read_text())
    written = Results.from_dict(read).as_dict()
    if read["data"]:
        assert written["data"].pop("files") == {}                   # of several
    assert {key: written[key] for key in read} == read
    assert set(written) - set(read) == {"metrics", "sampled_metrics", "search", "diverged"}


def test_what_is_not_known_is_null_in_the_file_and_nan_in_python(tmp_path):
    unknown = References(-300.0, math.nan, "no expert")
    unmeasured = {"normalized_return": math.nan}
    results = replace(Results.read(KEPT[0]), normalized=math.nan, references=unknown, metrics=unmeasured)
    results.write(tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["normalized"] is written["references"]["expert_return"] is written["metrics"]["normalized_return"] is None
    read = Results.read(tmp_path / "results.json")
    assert math.isnan(read.normalized)
    assert math.isnan(read.metrics["normalized_return"])
    assert not read.references.has_expert


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"score": "high"}, "score is 'high', wanted float"),
        ({"score": None}, "score is 'None', wanted float"),
        ({"score": True}, "score is 'True', wanted float"),
        ({"optimizer_steps": 1.5}, "optimizer_steps is '1.5', wanted int"),
        ({"returns": [1.0, "two"]}, r"returns\[1\] is 'two'"),
        ({"references": {"random_return": 1.0}}, r"lacks references\.expert_return"),
        ({"data": {"path": 3}}, r"data\.path is '3', wanted str"),
        ({"data": []}, "lacks|data is"),
        ({"action_latency_ms": {"1": "fast"}}, r"action_latency_ms\.1 is 'fast'"),
    ],
)
def test_a_wrong_entry_is_named_with_the_file_and_the_way_out(change, named, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content() | change))
    if change == {"data": []}:
        assert Results.read(path).data is None                      # no demonstrations
        return
    with pytest.raises(InputError, match=rf"results\.json: {named}.*python -m lightning_bc test"):
        Results.read(path)


@pytest.mark.parametrize("key", [key for key in content() if key != "data"])
def test_a_missing_entry_is_named(key):
    with pytest.raises(InputError, match=f"lacks {key}$"):
        Results.from_dict({name: value for name, value in content().items() if name != key})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\0"])
def test_a_file_that_holds_no_results_is_refused(text, tmp_path):
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=r"results\.json: (is no|cannot be read as JSON)"):
        Results.read(tmp_path / "results.json")


def test_every_entry_of_a_kept_file_is_documented():
    documented = dict(entries())
    read = content()
    for key in [*read, *(f"{part}.{key}" for part in ("references", "data") for key in read[part])]:
        assert documented[key].meaning
