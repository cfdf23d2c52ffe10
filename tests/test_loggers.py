"""Where metrics go: the same names in every logger, and what is printed fits it."""

import csv
import os
import queue
import signal
import time
from pathlib import Path

import pytest
from conftest import curve, refused
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_bc.cli import main
from lightning_bc.loggers import loggers_of
from lightning_bc.stopping import STOPPING, StoppedError

SMALL = (
    "--model MSE --model.network.hidden_sizes [8] --trainer.max_steps 2 --rollouts.eval_freq 1 --rollouts.episodes 1 "
    "--data.batch_size 16 --trainer.enable_progress_bar false --run"
)


def fit(data, run, *flags):
    main(["fit", "--data.path", data, *SMALL.split(), run, *flags])


def rows(run):
    with Path(f"lightning_logs/{run}/metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_list_of_loggers_has_the_same_names_and_values_in_the_runs_folder(data, capsys):
    fit(data, "a (b)", "--trainer.logger+=CSVLogger", "--trainer.logger+=TensorBoardLogger")
    out = capsys.readouterr().out
    assert "view the curve    'lightning_logs/a (b)/metrics.csv'; tensorboard --logdir lightning_logs\n" in out
    tags = EventAccumulator("lightning_logs/a (b)").Reload().Tags()["scalars"]
    assert set(rows("a (b)")[0]) - {"step"} == set(tags)
    written = [(int(row["step"]), float(row["rollout/return_mean"])) for row in rows("a (b)") if row["rollout/return_mean"]]
    assert written == [(step, pytest.approx(value)) for step, value in curve("a (b)")]
    assert [step for step, _ in written] == [0, 1, 2]


def test_a_logger_from_a_file_and_none_at_all(data, capsys):
    Path("csv.yaml").write_text("trainer: {logger: {class_path: CSVLogger}}")
    fit(data, "mine", "--config", "csv.yaml")
    out = capsys.readouterr().out
    assert "tensorboard" not in out
    assert "curve: lightning_logs/mine/metrics.csv" in out
    assert rows("mine")
    fit(data, "quiet", "--trainer.logger", "false")
    assert "view the curve    lightning_logs/quiet/curve.csv" in capsys.readouterr().out


def test_weights_and_biases_offline(data, capsys, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    fit(data, "mine", "--trainer.logger", "WandbLogger", "--trainer.logger.offline", "true")
    assert "view the curve    wandb sync wandb/latest-run" in capsys.readouterr().out
    wandb.finish()
    (events,) = Path("wandb").glob("offline-run-*/run-mine.wandb")
    assert b"rollout/return_mean" in events.read_bytes()


def test_without_the_extra_weights_and_biases_says_what_to_install(data, capsys, monkeypatch):
    gone = type("Gone", (), {"__bool__": lambda self: False, "__str__": lambda self: "Module not found: 'wandb'"})
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", gone())
    command = ["fit", "--data.path", data, *SMALL.split(), "mine", "--trainer.logger", "WandbLogger"]
    assert "WandbLogger needs the optional extra wandb: pip install 'lightning_bc[wandb]'" in refused(capsys, *command)


def test_a_signal_within_tensorboards_writer_waits_for_its_end_and_the_writer_ends_at_once(tmp_path, monkeypatch):
    """Between the item in the writer's queue and the word to its thread the thread would sleep for two minutes."""
    monkeypatch.chdir(tmp_path)
    (logger,) = loggers_of(None, "run", None)
    logger.log_metrics({"before": 0.0}, 0)
    put, signals = queue.Queue._put, iter([None])

    def meeting(self, item):
        put(self, item)
        if next(signals, "no more") is None:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(queue.Queue, "_put", meeting)
    with pytest.raises(StoppedError), STOPPING.listening():
        logger.log_metrics({"loss": 1.0}, 1)
    started = time.monotonic()
    logger.finalize("failed")
    assert time.monotonic() - started < 20
    assert EventAccumulator("lightning_logs/run").Reload().Scalars("loss")[0].value == 1.0
