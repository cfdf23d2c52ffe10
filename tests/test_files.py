"""Files: written whole or not at all."""

import pytest
import torch

from lightning_bc.errors import InputError
from lightning_bc.files import refuse_without_room, write


def content(**changes):
    return {"observations": torch.zeros(6, 3), "mean_reward": 12.5} | changes


def test_failed_write_leaves_the_old_file_whole_and_nothing_else(tmp_path):
    path = tmp_path / "cheetah.pt"
    write(path, content())
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        write(path, content(observations=torch.zeros(100_000, 3), metadata=(number for number in range(3))))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_no_file(tmp_path, monkeypatch):
    save = torch.save

    def interrupted(content, file):
        save(content, file)
        file.flush()
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "folder" / "cheetah.pt", content())
    assert list((tmp_path / "folder").iterdir()) == []


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_made(tmp_path):
    refuse_without_room(tmp_path / "a", 1)
    with pytest.raises(InputError, match=r"a: takes about 1e\+24 MB, and .* MB of space are left"):
        refuse_without_room(tmp_path / "a", 10**30)


def test_write_replaces_a_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "cheetah.pt"
    write(path, content())
    write(path, content(mean_reward=1.0))
    assert torch.load(path)["mean_reward"] == 1.0
    assert list(path.parent.iterdir()) == [path]
