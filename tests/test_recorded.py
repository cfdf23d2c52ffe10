"""Updates that are recorded once and replayed. What only a CUDA device can do is tested with the marker ``gpu``."""

import contextlib
import warnings
from pathlib import Path

import pytest
import torch
from conftest import flags_of, last_checkpoint

from lightning_bc.cli import main
from lightning_bc.strategies import OfflineStrategy, base, recorded, strategies
from lightning_bc.strategies.recorded import Recorded

RECORDABLE = [name for name, cls in strategies().items() if cls.recordable]
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def weights_of(flags):
    """Those of the run that these flags of ``fit`` make, and its checkpoint."""
    before = set(runs())
    main(["fit", *flags])
    (run,) = set(runs()) - before
    checkpoint = last_checkpoint(run)
    return checkpoint["state_dict"], checkpoint


def runs():
    return [path.name for path in Path("checkpoints").glob("*")]


@pytest.fixture
def replayed_on_the_cpu(monkeypatch):
    """A graph is stood in for by the update itself; how often each was replayed."""
    replays = []

    class Graph(recorded._Graph):
        def __init__(self, update, inputs):
            self.update, self.inputs = update, [tensor.clone() for tensor in inputs]

        def replay(self, inputs):
            replays.append(len(inputs))
            for static, given in zip(self.inputs, inputs, strict=True):
                static.copy_(given)
            return self.update(*self.inputs)

    monkeypatch.setattr(recorded, "_Graph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    monkeypatch.setattr(Recorded, "_call", lambda self, inputs: self.update(*inputs))
    monkeypatch.setattr(Recorded, "_reading_on_device", lambda self: contextlib.nullcontext())
    monkeypatch.setattr(base.Strategy, "is_recorded", property(lambda self: self.recordable and self.cuda_graphs))
    return replays


@pytest.mark.parametrize("strategy", ["MSE", "SAC"])
def test_replayed_updates_are_counted_and_learn_as_others(strategy, data, replayed_on_the_cpu):
    flags = flags_of(strategy, data, epochs=2, environment_steps=120)
    replayed, one = weights_of(flags)
    assert len(replayed_on_the_cpu) > 10
    plain, other = weights_of([*flags, "--cuda_graphs", "false"])
    assert one["global_step"] == other["global_step"] > 0
    for name, value in plain.items():
        assert torch.equal(replayed[name], value), name


def test_what_may_be_recorded_says_so():
    assert {name for name, cls in strategies().items() if issubclass(cls, OfflineStrategy)} <= set(RECORDABLE)
    assert {"SAC", "TD3", "IQLearn"} <= set(RECORDABLE)
    assert "GAIL" not in RECORDABLE                                 # its discriminator counts terminations on the host


SEQUENCES = [f"GaussianMixture --model.history 3 --model.network {network}" for network in ("LSTM", "Transformer")]


@pytest.mark.parametrize("strategy", [*RECORDABLE, *SEQUENCES])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.gpu
@no_gpu
def test_a_graph_learns_what_kernels_launched_one_by_one_learn(strategy, precision, data):
    """The same random numbers, and weights equal to 1e-4: learning rates are 32-bit numbers on the device."""
    strategy, *network = strategy.split()
    flags = [*flags_of(strategy, data, epochs=3, environment_steps=200), *network]
    flags = [*flags, "--trainer.accelerator", "gpu", "--trainer.precision", precision]
    replayed, one = weights_of(flags)
    plain, other = weights_of([*flags, "--cuda_graphs", "false"])
    assert one["global_step"] == other["global_step"] > 0
    tolerance = 1e-4 if precision == "32-true" else 1e-2
    for name, value in plain.items():
        torch.testing.assert_close(replayed[name], value, atol=tolerance, rtol=tolerance, msg=name)


@pytest.mark.gpu
@no_gpu
def test_an_update_that_waits_for_the_device_is_not_recorded_and_goes_on():
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def update(target):
        loss = (weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        if loss.item() >= 0:
            optimizer.step()
        return {"loss": loss.detach()}

    wanted, given = Recorded(update, [optimizer]), torch.zeros(3, device="cuda")
    with pytest.warns(UserWarning, match="cannot be recorded as a CUDA graph") as warned:
        losses = [float(wanted(given)["loss"]) for _ in range(8)]
    assert len(warned) == 1
    assert losses == pytest.approx([3 * 0.64**step for step in range(8)], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["AdamW", "Adam", "SGD", "RMSprop", "NAdam"])
@pytest.mark.gpu
@no_gpu
def test_the_learning_rate_of_each_replay_is_the_present_one(optimizer):
    def losses(replays):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
        made = getattr(torch.optim, optimizer)([weight], lr=0.1)

        def update(target):
            loss = (weight - target).square().sum()
            made.zero_grad()
            loss.backward()
            made.step()
            return {"loss": loss.detach()}

        made_by = Recorded(update, [made]) if replays else update
        seen = []
        for step in range(10):
            made.param_groups[0]["lr"] = 0.1 / (1 + step)
            seen.append(float(made_by(torch.zeros(3, device="cuda"))["loss"]))
        return seen

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                             # that some optimizers cannot be recorded
        assert losses(True) == pytest.approx(losses(False), rel=1e-4)


# Mixed precision: autocast keeps casts of the weights until it ends, over steps that change them


def test_every_step_under_mixed_precision_sees_the_weights_before_it(data):
    """A group of ten steps and ten groups of one: the same weights."""
    flags = f"--model MSE --data.path {data} --data.batch_size 10 --rollouts.episodes 2 --trainer.precision bf16-mixed"
    several, single = (
        weights_of([*flags.split(), "--trainer.max_steps", "10", "--rollouts.eval_freq", group])[0] for group in ("10", "1")
    )
    for key, value in single.items():
        assert torch.equal(several[key], value), key
