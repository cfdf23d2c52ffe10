"""The curve of a run: TensorBoard and curve.csv say the same, and a resumed run has the curve of an uninterrupted one."""

import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import curve, write_pendulum
from learners import warnings_of
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_bc.callbacks import Rollouts
from lightning_bc.callbacks.rollouts import largest_group
from lightning_bc.cli import main
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.episodes import play
from lightning_bc.runs import folders
from lightning_bc.runs.curve import columns, read_curve
from lightning_bc.strategies import strategies

BUDGET = (
    "--trainer.max_steps 4 --rollouts.eval_freq 1 --rollouts.episodes 2 --rollouts.validation_freq 2 --data.batch_size 16 "
    "--data.validation_pairs 5"
)
TIMES = {"seconds", "training_seconds", "rollout/seconds"}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_pendulum("small.pt")


def newest(logs="lightning_logs"):
    return max(Path(logs).iterdir(), key=lambda folder: folder.stat().st_mtime)


def test_the_curve_in_the_file_is_the_one_in_tensorboard(data):
    main(["fit", "--model", "MSE", "--data.path", data, *BUDGET.split()])
    read = read_curve(newest() / "curve.csv")
    assert list(read) == list(columns("InvertedPendulum-v5"))
    assert read["step"].tolist() == [0, 1, 2, 3, 4]
    assert (read["training_seconds"] < read["seconds"]).all()       # which playing takes too
    events = EventAccumulator(str(newest()), size_guidance={"scalars": 0}).Reload()
    assert not {"time/environment_steps", "time/expert_queries"} & set(events.Tags()["scalars"])  # they stay 0 here
    for name in columns("InvertedPendulum-v5").keys() - {"step", "environment_steps", "expert_queries"}:
        points = events.Scalars(name if "/" in name else f"time/{name}")
        assert [point.step for point in points] == read["step"].tolist()
        np.testing.assert_array_equal(np.float32(read[name]), [point.value for point in points])


def test_a_killed_runs_curve_goes_on_as_if_nothing_had_happened(data, monkeypatch):
    """The killed session played points after its last checkpoint, and tore the line of the last of them."""
    main(["fit", "--model", "MSE", "--data.path", data, *BUDGET.split()])
    run = newest().name
    whole = read_curve(newest() / "curve.csv")

    class KilledError(Exception):
        pass

    def die(self, trainer):
        if trainer.global_step == 2:
            path = next(path for path in Path("lightning_logs").glob("*/curve.csv") if path.parent.name != run)
            path.write_text(path.read_text() + "3,3,0,0,4")
            raise KilledError
        save(self, trainer)

    from lightning_bc.callbacks import Checkpoints

    save = Checkpoints._save
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "_save", die)
        with pytest.raises(KilledError):
            main(["fit", "--model", "MSE", "--data.path", data, *BUDGET.split()])
    (killed,) = (folder for folder in Path("lightning_logs").iterdir() if folder.name != run)
    assert read_curve(killed / "curve.csv")["step"].tolist() == [0, 1, 2]
    checkpoint = folders.last_checkpoint(killed.name)
    assert torch.load(checkpoint)["point"]["optimizer_steps"] == 1
    main(["fit", "--config", str(killed / "config.yaml"), "--ckpt_path", str(checkpoint)])
    resumed = read_curve(killed / "curve.csv")
    for name in columns("InvertedPendulum-v5").keys() - TIMES:
        np.testing.assert_array_equal(resumed[name], whole[name])
    losses = curve(run, "validation/loss")
    assert [step for step, _ in losses] == [2, 4]
    assert curve(killed.name, "validation/loss") == losses
    assert (np.diff(resumed["seconds"]) > 0).all()
    assert not any(math.isnan(value) for value in resumed["seconds"])


def test_in_python_there_is_no_file_unless_one_is_asked_for(data):
    demonstrations = Demonstrations(path=data, environment_id="InvertedPendulum-v5", batch_size=16)
    strategy = strategies()["MSE"](demonstrations.observation_dim, demonstrations.action_low, demonstrations.action_high)
    rollouts = Rollouts(eval_freq=1, episodes=1)
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_steps": 1}
    Trainer(callbacks=[rollouts], accelerator="cpu", val_check_interval=1, check_val_every_n_epoch=None, **settings).fit(
        strategy, datamodule=demonstrations
    )
    assert rollouts.point["optimizer_steps"] == 1
    assert not list(Path().rglob("curve.csv"))


def test_sigterm_ends_a_run_while_it_plays(data, monkeypatch, capsys):
    played = []

    def stopped(*arguments, on_step, **options):
        def and_stop(steps):
            played.append(steps)
            if len(played) == 3:
                os.kill(os.getpid(), signal.SIGTERM)                # Lightning's handler takes a note of it
            on_step(steps)

        return play(*arguments, on_step=and_stop, **options)

    monkeypatch.setattr("lightning_bc.callbacks.points.play", stopped)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--model", "MSE", "--data.path", data, *BUDGET.split()])
    assert end.value.code == 143
    assert len(played) == 3                                         # not to the end of the episodes
    assert "stopped; there is no checkpoint yet" in capsys.readouterr().out


def points(*halves, steps=10_000, points_a_half=10):
    """A curve of (environment steps, normalized return), its halves around the given means."""
    noise = 0.01 * (-1.0) ** np.arange(points_a_half)
    returns = np.concatenate([mean + noise for mean in halves])
    return [(steps * number, value) for number, value in enumerate(returns)]


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (points(0.04, 0.04), 1),
        (points(0.04, 0.02), 1),
        (points(0.0, 0.3, 0.3), 1),
        ([(number, 0.0) for number in range(0, 300_000, 100_000)], 0),
        (points(0.04, 0.04, steps=5_000), 0),
        (points(0.9, 0.9), 0),
        (points(math.nan, math.nan), 0),
        ([(10_000 * number, 0.01 * number) for number in range(50)], 0),
    ],
    ids=["flat", "falling", "flat after a rise", "few points", "few steps", "arrived", "no expert", "slow but steady"],
)
def test_a_return_that_does_not_move_is_warned_of_once(curve, expected):
    rollouts = Rollouts()
    messages = warnings_of(lambda point: rollouts.stalled.look(*point), *curve)
    assert len(messages) == expected
    assert all("has not moved for 1" in message for message in messages)
    resumed = Rollouts()
    resumed.load_state_dict(rollouts.state_dict() | {"metrics": {"seconds": 2.0, "training_seconds": 1.0}})
    flat = [(curve[-1][0] + 20_000 * number, 0.0) for number in range(1, 40)]
    again = warnings_of(lambda point: resumed.stalled.look(*point), *flat)
    assert len(messages) + len(again) == 1                          # once per run, and not again where it is resumed


@pytest.mark.parametrize(("eval_freq", "size"), [(80, 80), (800, 100), (5000, 100), (132, 66), (101, 1), (1, 1)])
def test_so_many_optimizer_steps_share_a_training_step(eval_freq, size):
    """All that fit between two points of the curve, but no more than memory and signals can wait for."""
    assert largest_group(eval_freq) == size
