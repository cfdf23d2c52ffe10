"""Averaged weights act and are saved; the others are trained, as if nothing were averaged; runs resume exactly."""

from pathlib import Path

import pytest
import torch
from conftest import OFFLINE_FLAGS, assert_equal_weights, build_strategy, fit, last_checkpoint, refused
from test_resume import assert_equal_optimizers, assert_resumes, stop_here  # noqa: F401

from lightning_bc.strategies import MSE
from lightning_bc.strategies.offline.averaging import Averages

AVERAGED = "--trainer.callbacks+=lightning_bc.callbacks.AveragedWeights --trainer.callbacks.decay 0.9"


def test_the_average_is_its_definition_and_the_trained_weights_are_those_of_training_alone():
    plain, averaged = build_strategy(MSE), build_strategy(MSE)
    batches = [(torch.randn(8, 3), torch.rand(8, 2) - 0.5) for _ in range(30)]
    optimizers = [torch.optim.Adam(strategy.parameters(), lr=1e-2) for strategy in (plain, averaged)]
    averages, wanted = Averages(0.9), [p.detach().clone() for p in plain.parameters()]
    for step, batch in enumerate(batches, start=1):
        for strategy, optimizer in zip((plain, averaged), optimizers, strict=True):
            if strategy is averaged:
                averages.swap(averaged.parameters())
            optimizer.zero_grad()
            strategy.loss(*batch)[0].backward()
            optimizer.step()
        averages.update(averaged.parameters(), step)
        averages.swap(averaged.parameters())
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = [decay * w + (1 - decay) * p.detach() for w, p in zip(wanted, plain.parameters(), strict=True)]
    for held, average, other, trained in zip(
        averaged.parameters(), wanted, averages.others, plain.parameters(), strict=True
    ):
        torch.testing.assert_close(held.detach(), average)
        assert torch.equal(other, trained)
        assert not torch.allclose(average, trained)


def test_a_run_trains_as_without_and_its_checkpoint_acts_with_the_average(data):
    flags = f"{OFFLINE_FLAGS} --trainer.max_epochs 2"
    plain = last_checkpoint(fit(data, flags=f"{flags} --run plain"))
    averaged = last_checkpoint(fit(data, flags=f"{flags} --run averaged {AVERAGED}"))
    names = [name for name in plain["state_dict"] if name.startswith("network.")]
    for name, other in zip(names, averaged["averages"]["others"], strict=True):
        assert torch.equal(other, plain["state_dict"][name])
        assert not torch.equal(averaged["state_dict"][name], plain["state_dict"][name])
    assert_equal_optimizers(plain, averaged)


def test_a_stopped_run_resumes_bit_by_bit(data, stop_here):  # noqa: F811
    flags = ["--model", "MSE", "--data.path", data, *f"{OFFLINE_FLAGS} --trainer.max_epochs 4 {AVERAGED}".split()]
    first, second = assert_resumes(flags, stop_here)
    assert_equal_weights(first, second)
    for one, other in zip(first["averages"]["others"], second["averages"]["others"], strict=True):
        assert torch.equal(one, other)


def test_a_callback_by_itself_is_a_list_of_one(data):
    short = f"{OFFLINE_FLAGS} --trainer.max_epochs 1"
    listed, alone = (fit(data, flags=f"{short} {flags} --run {run}") for run, flags in (
        ("listed", AVERAGED), ("alone", AVERAGED.replace("+=", " ")),
    ))  # fmt: skip
    one, other = ((Path("lightning_logs") / run / "config.yaml").read_text().splitlines()[1:] for run in (listed, alone))
    assert one == [line.replace("alone", "listed") for line in other]
    assert_equal_weights(last_checkpoint(listed), last_checkpoint(alone))


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (f"--model MSE {AVERAGED}9e9", "--trainer.callbacks.decay 9.9e+08: wanted 0 to below 1"),
        (f"--model GAIL {AVERAGED}", "AveragedWeights: GAIL acts while it learns"),
    ],
)
def test_what_cannot_be_averaged_is_refused(flags, wanted, data, capsys):
    assert wanted in refused(capsys, "fit", "--data.path", data, *flags.split())
