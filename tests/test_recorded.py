"""Updates that are recorded once and replayed. What only a CUDA device can do is tested with the marker ``gpu``."""

import random
import warnings
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import flags_of, last_checkpoint
from lightning.pytorch import Callback, Trainer

from lightning_bc.cli import main
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.strategies import MSE, OfflineStrategy, strategies
from lightning_bc.strategies.cpu_graph import CPUGraph
from lightning_bc.strategies.recorded import MOST_SHAPES, Recorded

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
def replays(monkeypatch):
    """How many inputs each update had that was replayed on the CPU."""
    found = []
    replay = CPUGraph.replay
    monkeypatch.setattr(CPUGraph, "replay", lambda self, inputs: found.append(len(inputs)) or replay(self, inputs))
    return found


SEQUENCES = [f"GaussianMixture --model.history 3 --model.network {network}" for network in ("LSTM", "Transformer")]


SETTINGS = [
    "MSE --trainer.gradient_clip_val 0.01",
    "Diffusion --model.history 2 --model.horizon 4 --model.chunk 2",
    "FlowMatching --trainer.callbacks lightning_bc.callbacks.AveragedWeights",
    "MSE --data.batch_size 7",                                      # the last batch of a pass has another shape
]


EXACT = [(name, "32-true") for name in (*RECORDABLE, *SEQUENCES, *SETTINGS)]
MIXED = [
    pytest.param(name, "bf16-mixed", marks=() if name in ("MSE", "SAC") else pytest.mark.slow)
    for name, _ in EXACT
]


@pytest.mark.parametrize(("strategy", "precision"), [*EXACT, *MIXED])
def test_replayed_updates_are_counted_and_learn_bit_for_bit_as_others(strategy, precision, data, replays):
    strategy, *network = strategy.split()
    flags = [*flags_of(strategy, data, epochs=2, environment_steps=120), *network, "--trainer.precision", precision]
    replayed, one = weights_of(flags)
    assert len(replays) > 10
    plain, other = weights_of([*flags, "--record_updates", "false"])
    assert one["global_step"] == other["global_step"] > 0
    for name, value in plain.items():
        assert torch.equal(replayed[name], value), name


def test_what_may_be_recorded_says_so():
    assert {name for name, cls in strategies().items() if issubclass(cls, OfflineStrategy)} <= set(RECORDABLE)
    assert {"SAC", "TD3", "IQLearn"} <= set(RECORDABLE)
    assert "GAIL" not in RECORDABLE                                 # its discriminator counts terminations on the host


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
    plain, other = weights_of([*flags, "--record_updates", "false"])
    assert one["global_step"] == other["global_step"] > 0
    tolerance = 1e-4 if precision == "32-true" else 1e-2
    for name, value in plain.items():
        torch.testing.assert_close(replayed[name], value, atol=tolerance, rtol=tolerance, msg=name)


def made_by(update, optimizers, steps, inputs, before=lambda step: None):
    """The losses of so many updates, recorded and replayed."""
    recorded, losses = Recorded(update, optimizers), []
    for step in range(steps):
        before(step)
        losses.append(float(recorded(*inputs)["loss"]))
    return losses


def squares(device, optimizer_of):
    """An update of a weight towards a target, its optimizer, and the weight."""
    weight = torch.nn.Parameter(torch.ones(3, device=device))
    optimizer = optimizer_of([weight])

    def update(target):
        loss = (weight - target).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach()}

    return update, optimizer, weight


@pytest.mark.gpu
@no_gpu
def test_an_update_that_waits_for_the_device_is_not_recorded_and_goes_on():
    update, optimizer, _ = squares("cuda", lambda weights: torch.optim.SGD(weights, lr=0.1))

    def waiting(target):
        outputs = update(target)
        assert outputs["loss"].item() >= 0
        return outputs

    with pytest.warns(UserWarning, match="cannot be recorded as a CUDA graph") as warned:
        losses = made_by(waiting, [optimizer], 8, [torch.zeros(3, device="cuda")])
    assert len(warned) == 1
    assert losses == pytest.approx([3 * 0.64**step for step in range(8)], rel=1e-4)


@pytest.mark.parametrize("optimizer", ["AdamW", "Adam", "SGD", "RMSprop", "NAdam"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])])
def test_the_learning_rate_of_each_replay_is_the_present_one(optimizer, device):
    def losses(replays):
        fused = {"fused": True} if device == "cpu" and optimizer in ("AdamW", "Adam", "SGD") else {}
        update, made, _ = squares(device, lambda weights: getattr(torch.optim, optimizer)(weights, lr=0.1, **fused))

        def before(step):
            made.param_groups[0]["lr"] = 0.1 / (1 + step)

        inputs = [torch.zeros(3, device=device)]
        if replays:
            return made_by(update, [made], 10, inputs, before)
        return [before(step) or float(update(*inputs)["loss"]) for step in range(10)]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                             # that some optimizers cannot be recorded
        assert losses(True) == pytest.approx(losses(False), rel=1e-4 if device == "cuda" else 0)


# What a list of kernels must not lose


def replayed_and_plain(update, steps=8, seed=0):
    """What it returns at each of so many updates, on inputs that differ."""
    found = []
    for replays in (True, False):
        torch.manual_seed(seed)
        call = Recorded(update, [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], fused=True)]) if replays else update
        generator = torch.Generator().manual_seed(seed)
        found.append([{k: v.clone() for k, v in call(torch.randn(5, 4, generator=generator)).items()} for _ in range(steps)])
    return found


def equal(one, other):
    return all(torch.equal(a[name].float(), b[name].float()) for a, b in zip(one, other, strict=True) for name in b)


UPDATES = {
    "values that are needed late": lambda x: {"a": (x.exp() * x.sin().cos().exp() + x).sum(), "b": x.exp().sum()},
    "views of results": lambda x: {"a": (x + 1).t()[1:, ::2].reshape(-1)[2], "b": (x * 2).view(-1).split(7)[1].mean()},
    "writing into results": lambda x: {"a": torch.zeros_like(x).add_(x)[0].mul_(3).sum(), "b": x.clone().relu_().sum()},
    "constants": lambda x: {"a": (torch.arange(4.0) * x + torch.linspace(0, 1, 4).square()).sum()},
    "a constant that is written": lambda x: {"a": torch.zeros(4).add_(x[0]).sum()},
    "several results": lambda x: {"a": x.max(dim=1).values.sum(), "b": torch.linalg.qr(x).R.diagonal().abs().sum()},
    "random numbers": lambda x: {"a": torch.randn_like(x).sum(), "b": torch.bernoulli(x.sigmoid()).sum()},
    "random numbers that lead nowhere": lambda x: {"a": (torch.rand(3), torch.randn(()))[1]},
    "several types": lambda x: {"a": x.double().mean(), "b": x.argmax(), "c": (x > 0).sum(), "d": x.bfloat16().sum()},
    "an input that asks for gradients": lambda x: {"a": torch.autograd.grad(x.requires_grad_().square().sum(), x)[0].sum()},
    "batch normalisation": lambda x: {"a": F.batch_norm(x, None, None, training=True)[0].sum(), "b": x.new_tensor(3.0)},
    "an index": lambda x: {"a": x[x.argmax(dim=0)].sum(), "b": x.gather(1, x.argsort(dim=1))[:, 0].sum()},
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_replays_give_the_numbers_of_the_update(update, replays):
    assert equal(*replayed_and_plain(update))
    assert len(replays) == 3                                        # 3 warm up, 2 are recorded


OBSTACLES = {
    "a number": lambda x: {"a": x.sum() if float(x[0, 0]) > 0 else -x.sum()},
    "a mask": lambda x: {"a": x[x > 0].sum()},
    "places": lambda x: {"a": (x > 0).nonzero().sum()},
    "unequal": lambda x: {"a": x.sum() if torch.equal(x, x.abs()) else x.mean()},
    "sparse": lambda x: {"a": torch.sparse.mm(x.to_sparse(), x.t()).sum()},
    "NumPy": lambda x: {"a": torch.from_numpy(np.sort(x.numpy(), axis=0))[0].sum()},
    "a list": lambda x: {"a": torch.tensor(x.tolist()).sum()},
    "no scalar": lambda x: {"a": x.sum(0)},
}


@pytest.mark.parametrize("update", OBSTACLES.values(), ids=OBSTACLES)
def test_what_cannot_be_replayed_is_not(update, replays):
    assert equal(*replayed_and_plain(update))
    assert not replays


def test_what_was_there_before_is_written_to_at_each_replay(replays):
    count, total = torch.zeros(()), torch.zeros(4)

    def update(x):
        count.add_(1)
        total[1:3] += x[0, 1:3]
        return {"count": count}

    recorded, wanted = Recorded(update, [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], fused=True)]), torch.zeros(4)
    for number in range(1, 9):
        x = torch.randn(2, 4)
        wanted[1:3] += x[0, 1:3]
        assert float(recorded(x)["count"]) == number
    assert torch.equal(total, wanted)
    assert replays


def test_replays_need_no_more_memory_than_is_needed_at_once():
    def update(x):
        for _ in range(50):
            x = x * 1.01 + 1
        return {"a": x.sum()}

    graph = CPUGraph(update, [torch.ones(1000)])
    graph.again(update, [torch.ones(1000)])
    values = [value for _, calls in graph._passes for _, args, keywords in calls for value in [*args, *keywords.values()]]
    placed = {value.untyped_storage().data_ptr() for value in values if isinstance(value, torch.Tensor) and value.dim()}
    assert len(placed) <= 4                                         # the input, and two or three in turn


class Looks(Callback):
    """Looks at gradients between the backward pass and the step."""

    norms: ClassVar[list[float]] = []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.norms.append(sum(float(parameter.grad.square().sum()) for parameter in module.network.parameters()))


def test_a_callback_that_looks_at_gradients_sees_those_of_every_step(data, replays):
    Looks.norms.clear()
    flags = flags_of("MSE", data, epochs=2, environment_steps=0)
    _, checkpoint = weights_of([*flags, "--trainer.callbacks", "test_recorded.Looks"])
    assert len(Looks.norms) == checkpoint["global_step"] > 10
    assert len(set(Looks.norms)) == len(Looks.norms)
    assert not replays


# Mixed precision: autocast keeps casts of the weights until it ends, over steps that change them


def test_every_step_under_mixed_precision_sees_the_weights_before_it(data):
    """A group of ten steps and ten groups of one: the same weights."""
    flags = f"--model MSE --data.path {data} --data.batch_size 10 --rollouts.episodes 2 --trainer.precision bf16-mixed"
    several, single = (
        weights_of([*flags.split(), "--trainer.max_steps", "10", "--rollouts.eval_freq", group])[0] for group in ("10", "1")
    )
    for key, value in single.items():
        assert torch.equal(several[key], value), key


class Surrounded:
    """An update that depends on what is no tensor, and changes it: begun anew, it does the same."""

    def __init__(self, kind):
        self.kind, self.calls, self.mean = kind, 0, torch.zeros(4)
        random.seed(0)
        np.random.seed(0)

    def __call__(self, x):
        self.calls += 1
        match self.kind:
            case "a number that grows":
                return {"a": x.sum() * self.calls}
            case "Python's random numbers":
                return {"a": x.sum() if random.random() < 0.5 else x.mean()}
            case "NumPy's random numbers":
                return {"a": x.sum() * float(np.random.rand() < 0.9)}
            case "a generator that is set":
                torch.manual_seed(self.calls // 2)
                return {"a": torch.randn_like(x).sum()}
            case "a tensor in another's place":
                self.mean = 0.9 * self.mean + x.mean(0)
                return {"a": self.mean.sum()}


SURROUNDINGS = (
    "a number that grows",
    "Python's random numbers",
    "NumPy's random numbers",
    "a generator that is set",
    "a tensor in another's place",
)


@pytest.mark.parametrize("kind", SURROUNDINGS)
def test_what_depends_on_more_than_tensors_is_not_replayed(kind, replays):
    found = []
    for replaying in (True, False):
        torch.manual_seed(0)
        update, generator = Surrounded(kind), torch.Generator().manual_seed(0)
        call = Recorded(update, [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], fused=True)]) if replaying else update
        found.append([float(call(torch.randn(5, 4, generator=generator))["a"]) for _ in range(8)])
    assert found[0] == found[1]
    assert not replays


def test_what_raises_for_wrong_numbers_raises_at_a_replay(replays):
    weight = torch.nn.Parameter(torch.ones(1))
    call = Recorded(lambda x: {"a": torch.linalg.cholesky(x).sum()}, [torch.optim.SGD([weight], fused=True)])
    for _ in range(6):
        call(torch.eye(3))
    assert replays
    with pytest.raises(RuntimeError, match="positive-definite"):
        call(-torch.eye(3))


def test_running_statistics_are_kept_where_nothing_else_is(replays):
    found = []
    for replaying in (True, False):
        mean, variance = torch.zeros(4), torch.ones(4)

        def update(x, mean=mean, variance=variance):
            F.batch_norm(x, mean, variance, training=True)
            return {"a": x.sum()}

        call = Recorded(update, [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], fused=True)]) if replaying else update
        generator = torch.Generator().manual_seed(0)
        for _ in range(8):
            call(torch.randn(5, 4, generator=generator))
        found.append((mean, variance))
    assert replays
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(("times", "kept", "recordings"), [(7, "_graphs", 2 * MOST_SHAPES), (4, "_once", 0)])
def test_shapes_without_end_do_not_fill_the_memory(times, kept, recordings, replays):
    """Nor do those that come four times each, too rarely to be recorded."""
    update, optimizer, _ = squares("cpu", lambda weights: torch.optim.SGD(weights, lr=0.1, fused=True))
    call = Recorded(lambda x: update(x.mean()), [optimizer])
    for size in range(1, 20):
        for _ in range(times):
            call(torch.zeros(size))
    assert len(getattr(call, kept)) == MOST_SHAPES
    assert len(replays) == recordings


# What callbacks and users change between training steps


class Between(Callback):
    """Changes something after the second training step."""

    def __init__(self, kind: str) -> None:
        self.kind, self.steps = kind, 0

    def on_train_batch_end(self, trainer, module, *_):
        self.steps += 1
        if self.steps != 2:
            return
        first = module.network.layers[0]
        match self.kind:
            case "frozen":
                first.requires_grad_(False)
            case "weight decay":
                trainer.optimizers[0].param_groups[0]["weight_decay"] = 0.5
            case "storage":
                first.weight.data = 0.5 * first.weight.data
            case "state":
                trainer.optimizers[0].load_state_dict(trainer.optimizers[0].state_dict())
                for state in trainer.optimizers[0].state.values():
                    state["exp_avg"] = torch.zeros_like(state["exp_avg"])


@pytest.mark.parametrize("kind", ["frozen", "weight decay", "storage", "state"])
def test_updates_are_recorded_anew_where_a_callback_changes_what_they_read(kind, data, replays):
    flags = flags_of("MSE", data, epochs=2, environment_steps=0)
    flags += ["--rollouts.eval_freq", "10", "--trainer.callbacks", "test_recorded.Between", "--trainer.callbacks.kind", kind]
    replayed, _ = weights_of(flags)
    assert len(replays) > 10
    plain, _ = weights_of([*flags, "--record_updates", "false"])
    for name, value in plain.items():
        assert torch.equal(replayed[name], value), name


class Failing(Callback):
    """Fails after the second training step, as Ctrl-C would."""

    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_end(self, trainer, module, *_):
        self.steps += 1
        if self.steps == 2:
            raise RuntimeError("once")


def test_a_module_that_is_fitted_again_after_an_error_learns_with_its_new_optimizer(data):
    found = []
    for replaying in (True, False):
        torch.manual_seed(0)
        pairs = Demonstrations(str(data), "InvertedPendulum-v5", validation_fraction=0, batch_size=50, group_size=10)
        module = MSE(pairs.observation_dim, pairs.action_low, pairs.action_high)
        module.record_updates = replaying
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
        failing = Failing()
        with pytest.raises(RuntimeError, match="once"):
            Trainer(max_steps=100, callbacks=[failing], accelerator="cpu", **quiet).fit(module, datamodule=pairs)
        again = Trainer(max_steps=100, accelerator="cpu", **quiet)
        again.fit(module, datamodule=pairs)
        assert len(again.optimizers[0].state) == len([*module.parameters()])
        found.append(module.state_dict())
    for name, value in found[1].items():
        assert torch.equal(found[0][name], value), name
