"""Hostile files of every kind that is read: nothing in them is run, no place is chosen, and the page shows them as text."""

import io
import json
import pickle
import re
import shutil
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Payload, json_to_edit, refused

from faults.trials import tell, working_folder
from lightning_bc.cli import main
from lightning_bc.demonstrations import read
from lightning_bc.demonstrations.experts import load_expert
from lightning_bc.errors import InputError
from lightning_bc.runs import folders
from lightning_bc.runs.records import read_records
from lightning_bc.texts import yaml_of

pytestmark = [pytest.mark.faults, pytest.mark.filterwarnings("ignore")]

BUDGET = "--trainer.max_steps 2 --rollouts.eval_freq 2 --rollouts.episodes 2 --data.batch_size 16"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A working folder with a run."""
    with working_folder(tmp_path_factory, f"{BUDGET} --run one") as here:
        yield here


@pytest.fixture
def canary(tmp_path):
    """An object that makes a folder when it is unpickled."""
    folder = tmp_path / "ran"
    return Payload(folder), folder


def as_zip(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)


def objects(payload):
    array = np.empty(2, dtype=object)
    array[:] = [payload, payload]
    return array


def torch_bytes(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


WRITERS = {
    "a.pt": lambda path, bomb: torch.save({"observations": bomb, "actions": bomb}, path),
    "b.pt": lambda path, bomb: torch.save({"observations": bomb}, path, _use_new_zipfile_serialization=False),
    "c.pkl": lambda path, bomb: path.write_bytes(pickle.dumps({"observations": bomb, "actions": [bomb]})),
    "d.pkl": lambda path, bomb: path.write_bytes(pickle.dumps([bomb], protocol=0)),
    "e.npz": lambda path, bomb: np.savez(path, observations=objects(bomb), actions=objects(bomb)),
    "f.zip": lambda path, bomb: as_zip(
        path, data=json.dumps({"policy_class": {":serialized:": "gASV"}}), policy__pth=torch_bytes({"a": bomb})
    ),
    "g.ckpt": lambda path, bomb: torch.save({"run": "x", "config": {}, "state_dict": bomb}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_no_pickled_object_runs_whichever_reader_opens_it(name, canary, run, tmp_path, monkeypatch):
    monkeypatch.chdir(run)
    bomb, folder = canary
    path = tmp_path / name
    WRITERS[name](path, bomb)
    for reading in (lambda: read(str(path)), lambda: load_expert(path), lambda: folders.open_checkpoint(path)):
        with pytest.raises(InputError, match=name):
            reading()
    for command in ("inspect FILE", "evaluate FILE --env InvertedPendulum-v5", "export --ckpt_path FILE --output x"):
        with pytest.raises(SystemExit):
            main(command.replace("FILE", str(path)).split())
    assert not folder.exists()
    tell("hostile", kind=f"pickled object in {name}", readers=6)


TAGS = [
    "!!python/object/apply:os.mkdir [ran]",
    "!!python/object/new:os.mkdir [[ran]]",
    "!!python/name:os.system ''",
    "!!python/module:os ''",
    "a: !!python/object/apply:os.mkdir [ran]",
]


@pytest.mark.parametrize("text", TAGS)
def test_yaml_makes_no_objects(text, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run / "lightning_logs", "lightning_logs")
    Path("lightning_logs/one/config.yaml").write_text(text)
    Path("study.yaml").write_text(text)
    with pytest.raises(InputError):
        yaml_of("study.yaml")
    assert len(read_records(Path("lightning_logs"))[2]) == 1
    refused(capsys, "study", "study.yaml")
    refused(capsys, "fit", "--config", "study.yaml")
    assert not Path("ran").exists()
    tell("hostile", kind="YAML tag", readers=4)


DEEP = {
    "brackets": "[" * 300_000,
    "dashes": "- " * 300_000 + "a",
    "questions": "? " * 300_000 + "a",
    "laughs": "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)),
    "itself": "a: &a {b: *a}",
    "json": '{"a":' * 300_000,
}


@pytest.mark.parametrize("kind", DEEP)
def test_texts_that_are_nested_without_end_end_no_process(kind, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run / "lightning_logs", "lightning_logs")
    Path("lightning_logs/one/config.yaml").write_text(DEEP[kind])
    assert len(read_records(Path("lightning_logs"))[2]) == 1
    Path("lightning_logs/one/results.json").write_text(DEEP[kind])
    assert len(read_records(Path("lightning_logs"))[2]) == 1
    with pytest.raises(InputError, match="config"):
        yaml_of("lightning_logs/one/config.yaml")
    tell("hostile", kind=f"nested {kind}", readers=3)


class Scripts(HTMLParser):
    """Tags and attributes of a page by which a browser would run something."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [(tag, name) for name, _ in attributes if name.startswith("on")]
        self.found += [(tag, value) for _, value in attributes if str(value).strip().lower().startswith("javascript:")]
        if tag in ("img", "iframe", "object", "embed", "svg", "base", "meta", "script", "link"):
            self.found.append((tag, str(dict(attributes))))


RUN = "document.documentElement.dataset.ran=1"
CANARIES = [
    f'"><img src=x onerror={RUN}>',
    f"</script><script>{RUN}</script>",
    f"<svg/onload={RUN}>",
    f"' onmouseover='{RUN}",
    f"<iframe src=javascript:parent.{RUN}>",
    "{{7*7}}{% for x in y %}",
]
FIELDS = ["environment_id", "strategy", "run", "checkpoint", "diverged", "data.path", "references.expert_source"]


def page_of(folder):
    main(["report", "lightning_logs", "--output", str(folder)])
    return Path(folder, "report.html").read_text()


@pytest.mark.parametrize("field", FIELDS)
def test_the_page_of_a_report_shows_what_runs_say_as_text(field, run, tmp_path, monkeypatch):
    """Where there is no browser: a page with the canary has the same tags that could run something as one without."""
    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run / "lightning_logs", "lightning_logs")
    honest = Scripts()
    honest.feed(page_of("honest"))
    path = Path("lightning_logs/one/results.json")
    results = json_to_edit(path)
    for number, canary in enumerate(CANARIES):
        made = json.loads(json.dumps(results))
        *parts, last = field.split(".")
        inner = made[parts[0]] if parts else made
        inner[last] = canary
        if field == "diverged":
            made |= {"score": None, "normalized": None}
        path.write_text(json.dumps(made))
        config = yaml.safe_load(Path("lightning_logs/one/config.yaml").read_text())
        config["env"] = canary
        Path("lightning_logs/one/config.yaml").write_text(yaml.safe_dump(config))
        page = page_of(f"out{number}")
        found = Scripts()
        found.feed(page)
        assert len(found.found) == len(honest.found), canary
        assert "49" not in re.sub(r"[\d.]*49[\d.]*", "", page) or "{{7*7}}" in page or "{{7*7}}" not in canary
        assert not [path for path in Path(f"out{number}").rglob("*") if tmp_path not in path.resolve().parents]
    tell("hostile", kind=f"HTML in {field}", readers=len(CANARIES))
