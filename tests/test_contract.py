"""What every strategy promises. They are found by themselves, and tested by what they say of themselves.

A strategy that is added, here or in a test, needs no line in this file: ``stochastic``, ``learns_by_acting`` and ``needs``
choose its tests.
"""

import functools
import gc
import inspect
import math
import pickle
import re
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, build_strategy, linear_problem, train
from torch.nn import functional as F

import lightning_bc
from lightning_bc.demonstrations.windows import Windows
from lightning_bc.networks import ResidualMLP
from lightning_bc.strategies import OfflineStrategy, strategies
from lightning_bc.strategies.contract import Transitions
from lightning_bc.strategies.online.demonstrated import AbsorbingStates

LOW, HIGH = torch.tensor([-2.0, 0.0]), torch.tensor([1.0, 3.0])  # build_strategy's bounds
PACKAGE = Path(lightning_bc.__file__).parent / "strategies"
ALL = strategies()
OFFLINE = {name: cls for name, cls in ALL.items() if issubclass(cls, OfflineStrategy)}
ONLINE = {name: cls for name, cls in ALL.items() if cls.learns_by_acting}
WINDOWED = {
    name: [one for one in ("history", "horizon", "chunk") if one in inspect.signature(cls).parameters]
    for name, cls in OFFLINE.items()
    if "history" in inspect.signature(cls).parameters
}
every_strategy = pytest.mark.parametrize("cls", ALL.values(), ids=ALL)
every_offline_strategy = pytest.mark.parametrize("cls", OFFLINE.values(), ids=OFFLINE)


def test_every_strategy_is_found():
    paths = [path for folder in ("offline", "online") for path in (PACKAGE / folder).glob("*.py")]
    derived = re.compile(r"^class (\w+)\((?:OfflineStrategy|OnlineStrategy|AdversarialImitation)\)", re.M)
    classes = {name for path in paths for name in derived.findall(path.read_text())} - {"AdversarialImitation"}
    assert {cls.__name__ for cls in ALL.values()} == classes
    assert len(OFFLINE) > 1 < len(ONLINE)


@every_strategy
def test_pickle_brings_a_strategy_to_another_process(cls):
    strategy = build_strategy(cls)
    copied = pickle.loads(pickle.dumps(strategy))
    assert [*copied.state_dict()] == [*strategy.state_dict()]


@every_strategy
def test_strategy_is_final(cls):
    assert cls.__subclasses__() == []


@every_strategy
@pytest.mark.parametrize("magnitude", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("deterministic", [True, False], ids=["deterministic", "sampled"])
def test_actions_are_finite_and_within_the_bounds(cls, magnitude, deterministic):
    strategy = build_strategy(cls)
    observations = magnitude * torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        actions = strategy(observations, deterministic=deterministic)
    assert actions.shape == (500, 2)
    assert actions.isfinite().all()
    assert (actions >= LOW).all()
    assert (actions <= HIGH).all()
    if magnitude == 1e6:
        assert (actions.amax(0) > actions.amin(0)).any()  # it answers what it sees, so the bounds were tried


@every_strategy
@pytest.mark.parametrize("deterministic", [True, False], ids=["deterministic", "sampled"])
def test_actions_in_double_precision(cls, deterministic):
    strategy = build_strategy(cls).double()
    with torch.inference_mode():
        assert strategy(torch.randn(5, 3, dtype=torch.float64), deterministic=deterministic).dtype == torch.float64


@every_strategy
def test_one_observation_is_a_batch(cls):
    strategy = build_strategy(cls)
    observations = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        alone = torch.cat([strategy(row[None], deterministic=True) for row in observations])
        torch.testing.assert_close(alone, strategy(observations, deterministic=True), rtol=1e-4, atol=1e-4)
        assert strategy(observations[:0], deterministic=True).shape == (0, 2)


@every_strategy
def test_deterministic_actions_repeat_themselves(cls):
    strategy = build_strategy(cls)
    observations = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.manual_seed(1)
        first = strategy(observations, deterministic=True)
        torch.manual_seed(2)
        assert torch.equal(strategy(observations, deterministic=True), first)
        assert torch.equal(strategy(observations), first)  # and are what is played unless told otherwise


@every_strategy
def test_samples_repeat_under_the_same_seed(cls):
    strategy = build_strategy(cls)
    observations = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))

    def sample(seed):
        torch.manual_seed(seed)
        with torch.inference_mode():
            return strategy(observations, deterministic=False)

    assert torch.equal(sample(1), sample(1))
    assert torch.equal(sample(1), sample(2)) != cls.stochastic


@every_strategy
def test_scale_brings_the_bounds_to_minus_one_and_one(cls):
    corners = torch.stack([LOW, HIGH])
    torch.testing.assert_close(build_strategy(cls).border.scaled(corners), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))


@every_strategy
def test_forward_normalises_what_it_observes(cls):
    strategy = build_strategy(cls)
    observations = 500 + 20 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    normalized = (observations - observations.mean(0)) / observations.std(0, correction=0)
    with torch.inference_mode():
        wanted = strategy(normalized, deterministic=True)
        strategy.border.fit(observations)
        torch.testing.assert_close(strategy(observations, deterministic=True), wanted, rtol=1e-3, atol=1e-3)


@every_strategy
def test_weights_bounds_and_normalization_travel_in_the_state_dict(cls):
    source = build_strategy(cls)
    source.border.fit(3 + torch.randn(100, 3))
    target = build_strategy(cls, action_low=[-5.0, -5.0], action_high=[5.0, 5.0])
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.mul_(1.5)
    target.load_state_dict(source.state_dict())
    observations = torch.randn(20, 3)
    with torch.inference_mode():
        assert torch.equal(target(observations), source(observations))


@every_offline_strategy
def test_loss_is_a_finite_scalar_and_every_parameter_learns_from_it(cls):
    strategy, batch = build_strategy(cls), linear_problem()
    train(strategy, lambda: batch, steps=3)  # past layers that begin at zero
    loss, metrics = strategy.loss(*batch)
    strategy.zero_grad()
    loss.backward()
    assert loss.shape == ()
    assert loss.isfinite()
    for name, parameter in strategy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    for name, metric in metrics.items():
        assert torch.as_tensor(metric).numel() == 1, name
        assert math.isfinite(metric), name
        assert not metric.requires_grad, name


@every_offline_strategy
def test_loss_is_finite_for_actions_at_the_bounds_and_far_observations(cls):
    observations = 1e3 * torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    actions = torch.ones(64, 2)
    actions[::2] = -1
    loss, _ = build_strategy(cls).loss(observations, actions)
    assert loss.isfinite()


@every_offline_strategy
def test_training_lowers_the_loss_and_finds_the_action(cls):
    strategy, batch = build_strategy(cls), linear_problem()
    torch.manual_seed(0)
    with torch.inference_mode():
        before = F.mse_loss(strategy.act(batch[0], deterministic=True), batch[1])
    losses = train(strategy, lambda: batch)
    with torch.inference_mode():
        after = F.mse_loss(strategy.act(batch[0], deterministic=True), batch[1])
    assert np.mean(losses[-20:]) < np.mean(losses[:20])
    assert after < before / 2


@pytest.mark.parametrize("cls", [cls for cls in OFFLINE.values() if "network" in inspect.signature(cls).parameters])
def test_strategy_takes_another_network(cls):
    strategy = build_strategy(cls, network=lambda size_in, size_out: ResidualMLP(size_in, size_out, width=16, blocks=1))
    loss, _ = strategy.loss(*linear_problem())
    assert loss.isfinite()
    assert any(isinstance(module, ResidualMLP) for module in strategy.modules())


@every_offline_strategy
def test_loss_and_actions_under_mixed_precision(cls):
    """Layers answer in 16 bits; the loss takes it, and a policy acts as it does without."""
    strategy = build_strategy(cls)
    observations, actions = linear_problem()
    wanted = strategy(observations)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = strategy.loss(observations, actions)
        found = strategy(observations)
    loss.backward()
    assert loss.isfinite()
    assert torch.equal(found, wanted)


# The meta device, whose tensors have a shape and no values: one that was left on the CPU does not mix with them, and what
# waits for a value (item, bool, tolist, cpu, a mask as an index) fails, as it would make a CUDA device wait


def on_meta(cls, monkeypatch, **options):
    """A strategy on the meta device that trains without a Trainer."""
    strategy = build_strategy(cls, **options).to("meta")
    monkeypatch.setattr(strategy, "manual_backward", lambda loss: loss.backward())
    monkeypatch.setattr(strategy, "lr_schedulers", lambda: None)
    for name in ("log", "log_dict"):
        monkeypatch.setattr(strategy, name, lambda *_, **__: None)
    return strategy


def meta_batch(cls, rows=16, history=1, horizon=1):
    """Pairs; of windows, windows of episodes of 8."""
    observations, actions = torch.empty(64, 3, device="meta"), torch.empty(64, 2, device="meta")
    chosen = torch.randint(64, (rows,), device="meta")
    if history == horizon == 1:
        return observations[chosen], actions[chosen]
    windows = Windows(torch.full((8,), 8), history, horizon, torch.device("cpu"))
    windows.first, windows.last, windows.past, windows.future = (
        tensor.to("meta") for tensor in (windows.first, windows.last, windows.past, windows.future)
    )
    return windows.cut(observations, actions, chosen)


def assert_learns_on_meta(strategy, batch, monkeypatch):
    optimizer = torch.optim.AdamW(strategy.parameters(), lr=1e-3, foreach=False)
    monkeypatch.setattr(strategy, "optimizers", lambda: optimizer)
    strategy.training_step([batch, batch], 0)
    for name, parameter in strategy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.device.type == "meta", name
    for deterministic in (True, False):
        assert strategy(batch[0], deterministic).device.type == "meta"


@every_offline_strategy
def test_an_offline_strategy_learns_and_acts_without_leaving_its_device(cls, monkeypatch):
    assert_learns_on_meta(on_meta(cls, monkeypatch), meta_batch(cls), monkeypatch)


@pytest.mark.parametrize("name", WINDOWED)
def test_a_strategy_of_windows_learns_and_acts_without_leaving_its_device(name, monkeypatch):
    sizes = {size: {"history": 2, "horizon": 4, "chunk": 3}[size] for size in WINDOWED[name]}
    strategy = on_meta(OFFLINE[name], monkeypatch, **sizes)
    assert_learns_on_meta(strategy, meta_batch(OFFLINE[name], history=2, horizon=strategy.horizon), monkeypatch)


@pytest.mark.parametrize("name", WINDOWED)
def test_a_history_is_seen_and_answered_by_a_chunk(name):
    strategy, observations = build_strategy(OFFLINE[name], history=3), torch.randn(5, 3, 3)
    with torch.no_grad():
        actions = strategy(observations)
        assert actions.shape == strategy(observations, deterministic=False).shape == (5, 1, 2)
        changed = observations.clone()
        changed[:, 0] += 1e3
        assert not torch.equal(strategy(changed), actions)


def transitions(rows, device):
    wide = functools.partial(torch.zeros, rows, device=device)
    return Transitions(wide(4), wide(1), torch.zeros(rows, device=device), wide(4), torch.zeros(rows, device=device))


@pytest.mark.parametrize("cls", ONLINE.values(), ids=ONLINE)
def test_a_strategy_that_acts_updates_without_leaving_its_device(cls, monkeypatch):
    """A whole training_step: acting, replay, demonstrations and every update; what goes to the CPU are played actions, and
    the number of episodes that terminated in the batches of a discriminator.
    """
    options = {"total_environment_steps": 1000, "num_envs": 2, "learning_starts": 16, "batch_size": 8, "updates_per_step": 4}
    strategy = on_meta(cls, monkeypatch, observation_dim=4, action_low=[-3.0], action_high=[3.0], **options)
    data = types.SimpleNamespace(
        environment_id="InvertedPendulum-v5", seed=0, hidden_dimensions=[], training_transitions=transitions(50, "meta")
    )

    class Trainer:
        datamodule, should_stop, global_step = data, False, 1
        global_rank, world_size = 0, 1

    trainer = Trainer()
    monkeypatch.setattr(type(strategy), "trainer", trainer, raising=False)
    monkeypatch.setattr(type(strategy), "global_step", 1, raising=False)

    class Optimizer(torch.optim.AdamW):
        """As Lightning wraps one."""

        @property
        def optimizer(self):
            return self

    strategy.optimizer = functools.partial(Optimizer, lr=1e-3, foreach=False)
    optimizers = strategy.configure_optimizers()
    monkeypatch.setattr(strategy, "optimizers", lambda: optimizers)
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(
        torch.Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape) if tensor.shape == (2, 1) else cpu(tensor)
    )  # played actions, (num_envs, action_dim)
    monkeypatch.setattr(AbsorbingStates, "count_ends", lambda states, batch: 1)  # read once per discriminator's update
    strategy.on_train_start()
    for _ in range(2):
        strategy.training_step([], 0)
    strategy.teardown("fit")
    assert strategy(torch.empty(5, 4, device="meta")).device.type == "meta"


# A newcomer


def test_the_page_for_newcomers_shows_a_strategy_that_passes():
    """The example of docs/your-strategy.md is found, learns and acts like those that are here."""
    code, *_ = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "your-strategy.md").read_text(), flags=re.DOTALL)
    module = types.ModuleType("a_newcomers_strategy")
    exec(code, vars(module))
    (cls,) = (value for value in vars(module).values() if inspect.isclass(value) and value.__module__ == module.__name__)
    assert len(inspect.cleandoc(code).splitlines()) <= 45
    assert strategies()[cls.__name__] is cls
    test_samples_repeat_under_the_same_seed(cls)
    test_actions_are_finite_and_within_the_bounds(cls, 1e6, True)
    test_deterministic_actions_repeat_themselves(cls)
    test_weights_bounds_and_normalization_travel_in_the_state_dict(cls)
    test_loss_is_a_finite_scalar_and_every_parameter_learns_from_it(cls)
    test_loss_is_finite_for_actions_at_the_bounds_and_far_observations(cls)
    test_training_lowers_the_loss_and_finds_the_action(cls)
    name = cls.__name__
    del code, cls, module
    gc.collect()                                                    # tests that follow find the strategies of the package
    assert name not in strategies()
