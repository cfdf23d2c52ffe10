"""docs/lightning_bc.ipynb runs from its first cell to its last, and is kept without outputs."""

import gymnasium
import matplotlib
import nbformat
import numpy as np
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient

PATH = REPOSITORY / "docs" / "lightning_bc.ipynb"
NOTEBOOK = nbformat.read(PATH, as_version=4)
CODE = [cell for cell in NOTEBOOK.cells if cell.cell_type == "code"]


def test_it_is_kept_without_outputs():
    nbformat.validate(NOTEBOOK)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in CODE)
    assert PATH.stat().st_size < 10_000


def test_training_takes_about_ten_lines():
    train = next(cell.source for cell in CODE if "trainer.fit" in cell.source)
    assert len(train.splitlines()) <= 10


def test_its_cells_run_and_the_clone_balances(tmp_path, monkeypatch, capsys):
    """Without a kernel, and without the graphs, which take longer than all else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gymnasium.spec("InvertedPendulum-v5"), "max_episode_steps", 60)  # and afterwards as before
    matplotlib.use("Agg")
    names = {}
    for cell in CODE:
        if "onnx" not in cell.metadata.get("tags", ()):
            exec(cell.source, names)
    assert names["result"].mean == 60                              # until the end of every episode
    assert names["points"][:, 0].tolist() == list(range(0, 201, 20))
    np.testing.assert_array_equal(names["action"], names["policy"](names["observation"]))


@pytest.mark.slow
def test_it_runs_in_a_kernel(tmp_path):
    executed = nbformat.from_dict(NOTEBOOK.copy())
    NotebookClient(executed, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]
    assert "normalized 1.000" in "".join(output.text for output in outputs if output.output_type == "stream")
    assert (tmp_path / "policy-onnx" / "policy.onnx").is_file()
