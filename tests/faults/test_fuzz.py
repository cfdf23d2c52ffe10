"""Anything at all in place of results, configurations and checkpoints: read, or refused in one line that names the file."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import json_to_edit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faults.trials import sized, tell, working_folder
from lightning_bc.errors import InputError
from lightning_bc.runs import folders, resume
from lightning_bc.runs.folders import open_checkpoint
from lightning_bc.runs.held_out import in_words, read_results
from lightning_bc.runs.plan import Study
from lightning_bc.runs.records import read_records
from lightning_bc.runs.settle import Opened
from lightning_bc.strategies import load_strategy
from lightning_bc.texts import yaml_of

pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore")]

EXAMPLES = 10_000
BUDGET = "--trainer.max_steps 2 --rollouts.eval_freq 2 --rollouts.episodes 2 --data.batch_size 16"
FUZZ = settings(max_examples=sized(EXAMPLES), deadline=None, suppress_health_check=list(HealthCheck), database=None)

numbers = st.one_of(st.booleans(), st.integers(-300, 300), st.floats(), st.sampled_from([2**40, 2**70]))
plain = st.one_of(st.none(), numbers, st.text(max_size=8), st.sampled_from(["", "../x", "a/b"]))
values = st.recursive(
    plain, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3))
)
tensors = st.sampled_from([torch.zeros(0), torch.ones(3), torch.tensor(float("nan")), torch.zeros(2, 2, dtype=torch.int64)])


def places(content, path=()):
    """Every place in nested dictionaries and lists."""
    yield path
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from places(content[key], (*path, key))


@st.composite
def changed(draw, content, values=values):
    """The content with up to three things in it removed, replaced or added."""
    made = content
    for _ in range(draw(st.integers(1, 3))):
        every = list(places(made))
        made = replaced(made, every[draw(st.integers(0, 10**6)) % len(every)], draw, values)
    return made


def replaced(content, place, draw, values):
    if not place or not isinstance(content, dict | list):
        return draw(values)
    key, *rest = place
    copy = dict(content) if isinstance(content, dict) else list(content)
    if rest:
        copy[key] = replaced(copy[key], rest, draw, values)
    elif draw(st.booleans()):
        del copy[key]
    else:
        copy[key] = draw(values)
    return copy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tiny = "--model.network MLP --model.network.hidden_sizes [4]"
    with working_folder(tmp_path_factory, f"{BUDGET} --run one {tiny}", f"{BUDGET} --run two --rollouts.episodes 0") as here:
        yield here


def told(call, name):
    """1 if it is refused in one line that names the file, 0 if it is read."""
    try:
        call()
    except InputError as error:
        if name not in str(error):
            raise AssertionError(f"does not name {name}") from error
        return 1
    return 0


def fuzzed(kind, content, try_one):
    """Try that on many changes of the content."""
    refused = []

    @FUZZ
    @given(changed(content))
    def trying(made):
        refused.append(try_one(made))

    trying()
    tell("fuzzing", kind=kind, examples=len(refused), refused=sum(refused))


@pytest.mark.parametrize("run", ["one", "two"])
def test_results(run, folder, monkeypatch):
    monkeypatch.chdir(folder)
    path = folder / f"{run}.json"

    def try_one(made):
        path.write_text(json.dumps(made))
        return told(lambda: in_words(read_results(path)), path.name)

    fuzzed(f"results.json of {run}", json_to_edit(f"lightning_logs/{run}/results.json"), try_one)


def test_configurations_of_runs(folder, monkeypatch):
    """The run is left out, and named, by the report and by what looks for a run to go on with."""
    monkeypatch.chdir(folder)
    content = yaml.safe_load(Path("lightning_logs/one/config.yaml").read_text())
    path = folder / "logs/one/config.yaml"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(folders, "LOGS", folder / "logs")

    def try_one(made):
        path.write_text(yaml.safe_dump(made))
        found = folders.read_config("one")
        if found is not None:
            resume.differences(found, content)
        records, _, broken = read_records(folder / "logs")
        assert len(records) + len(broken) >= 1
        return int(len(broken) > 0)

    fuzzed("config.yaml", content, try_one)


def test_checkpoints(folder, monkeypatch):
    monkeypatch.chdir(folder)
    content = torch.load("checkpoints/one/last.ckpt", weights_only=True)
    Path("any.ckpt").write_bytes(Path("checkpoints/one/last.ckpt").read_bytes())
    now = content["config"]
    holder, tried = {}, []
    monkeypatch.setattr(torch, "load", lambda *_, **__: holder["made"])

    def try_one(made):
        holder["made"] = made

        def opened():
            checkpoint = Opened.at(Path("any.ckpt"))
            _ = checkpoint.run, checkpoint.step
            resume.differences(checkpoint.config, now, resume.data_sha256(checkpoint.content))

        tried.append(made)
        first = told(opened, "any.ckpt")
        if len(tried) % 25:                                         # to build a strategy takes a long time
            return first
        return max(first, told(lambda: load_strategy("any.ckpt"), "any.ckpt"))

    fuzzed("checkpoint", content, try_one)


def test_any_text_in_place_of_yaml_and_json(folder, monkeypatch):
    monkeypatch.chdir(folder)
    path, refused = folder / "text.yaml", []
    parts = st.sampled_from(["[", "{", "- ", "? ", "a: ", "&a [*a, ", "!!", '{"a":'])
    whole = ["!!timestamp 2026-99-99", "!!python/object/apply:os.system [id]", "&a [*a]", "\0", "\ufeff", "1e999"]
    text = st.one_of(
        st.text(),
        st.binary().map(lambda raw: raw.decode("latin-1")),
        st.builds(lambda part, times: part * times, parts, st.integers(1, 3000)),
        st.sampled_from(whole),
    )

    @FUZZ
    @given(text)
    def trying(words):
        path.write_bytes(words.encode("utf-8", "surrogatepass"))
        one = told(lambda: yaml_of(path), path.name)
        two = told(lambda: read_results(path), path.name)
        three = told(lambda: Study.read(str(path)), path.name)
        refused.append(one + two + three)

    trying()
    tell("fuzzing", kind="any text", examples=len(refused), refused=sum(count > 0 for count in refused))


def test_open_checkpoint_reads_what_hypothesis_has_saved(folder, monkeypatch):
    """A part of the same through real files."""
    monkeypatch.chdir(folder)
    content, refused = torch.load("checkpoints/one/last.ckpt", weights_only=True), []

    @settings(FUZZ, max_examples=sized(300))
    @given(changed(content, st.one_of(values, tensors)))
    def trying(made):
        torch.save(made, "saved.ckpt")
        refused.append(told(lambda: open_checkpoint("saved.ckpt"), "saved.ckpt"))

    trying()
    Path("saved.ckpt").unlink()
    tell("fuzzing", kind="checkpoint files", examples=len(refused), refused=sum(refused))
