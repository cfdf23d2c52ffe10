"""Validations while training: which held-out pairs they measure, and how often."""

from types import SimpleNamespace

import pytest
import torch
from conftest import build_strategy, write_pairs
from lightning.pytorch import Trainer

from lightning_bc.callbacks import Rollouts, points
from lightning_bc.demonstrations import Demonstrations
from lightning_bc.strategies import MSE, Diffusion, strategies

LENGTHS = (10,) * 24                                                # with validation_fraction 0.5 the last 12 are held out


def validated(tmp_path, monkeypatch, steps=12, freq=None, strategy=("MSE", {}), **options):
    """Optimizer steps of the validations of a run, and (episode, step) of what the last one measured."""
    data = Demonstrations(
        write_pairs(tmp_path / "pairs.pt", LENGTHS), "HalfCheetah-v5", validation_fraction=0.5, batch_size=30, **options
    )
    name, settings = strategy
    strategy = strategies()[name](data.observation_dim, data.action_low, data.action_high, **settings)
    seen = {}

    def measure(self, batches, batch_index):
        seen[self.global_step] = [(int(row[0]), int(row[1])) for batch in batches for row in batch[0].reshape(-1, 17)]

    monkeypatch.setattr(type(strategy), "validation_step", measure)
    monkeypatch.setattr(Rollouts, "_play_once", lambda *_: None)
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "num_sanity_val_steps": 0}
    rollouts = Rollouts(eval_freq=2, episodes=1, validation_freq=freq)
    data.group_size = 2
    trainer = Trainer(callbacks=[rollouts], accelerator="cpu", max_epochs=-1, max_steps=steps,
                      val_check_interval=1, check_val_every_n_epoch=None, **settings)  # fmt: skip
    trainer.fit(strategy, datamodule=data)
    return list(seen), list(seen.values())[-1]


def test_a_validation_measures_a_fixed_sample_spread_over_the_held_out_episodes(tmp_path, monkeypatch):
    steps, rows = validated(tmp_path, monkeypatch, validation_pairs=24, freq=4)
    assert steps == [4, 8, 12]
    assert sorted(rows) == [(episode, step) for episode in range(12, 24) for step in (0, 5)]
    _, everything = validated(tmp_path, monkeypatch, freq=4)
    assert len(everything) == 120
    assert len(validated(tmp_path, monkeypatch, validation_pairs=7, subsample=3, freq=12)[1]) == 7


def test_windows_of_the_sample_are_cut_out_of_their_episodes(tmp_path, monkeypatch):
    windows = ("FlowMatching", {"history": 2})
    _, rows = validated(tmp_path, monkeypatch, validation_pairs=12, freq=12, strategy=windows)
    assert sorted(set(rows)) == [(episode, 0) for episode in range(12, 24)]  # before the first row stands the first again
    assert len(rows) == 24


def test_by_default_validations_come_so_rarely_that_they_cost_little(tmp_path, monkeypatch):
    """24 pairs of two passes each, 30 trained pairs of three per step: 0.03 of the passes after 18 steps."""
    steps, _ = validated(tmp_path, monkeypatch, validation_pairs=24, steps=60)
    assert steps == [18, 36, 54]
    assert validated(tmp_path, monkeypatch, validation_pairs=24, steps=7)[0] == [6]


@pytest.mark.parametrize(
    ("name", "passes"), [("MSE", 1), ("Diffusion", 10), ("FlowMatching", 10), ("MIP", 2), ("MeanFlow", 1), ("VAE", 1 + 16)]
)
def test_passes_of_the_network_behind_an_action_are_counted(name, passes):
    strategy = build_strategy(strategies()[name])
    before = torch.get_rng_state()
    assert sum(strategy.network_calls()) == passes
    assert torch.equal(torch.get_rng_state(), before)


class Normalised(torch.nn.Sequential):
    """Batch normalisation, which wants several rows where it trains, and a layer that is never to train."""

    def __init__(self, input_size, output_size):
        super().__init__(torch.nn.BatchNorm1d(input_size), torch.nn.Dropout(0.5), torch.nn.Linear(input_size, output_size))
        self[1].eval()


def test_passes_of_a_torchscript_network_are_counted():
    strategy = build_strategy(strategies()["MSE"], network=lambda *sizes: torch.jit.script(torch.nn.Linear(*sizes)))
    assert strategy.network_calls() == [1]


def test_explained_variance_is_that_of_float64_and_leaves_out_what_does_not_vary():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(6000, 4, generator=generator)
    targets = torch.tensor([0.0, 0.9, 0.7, 0.5]) + torch.tensor([0.5, 6e-5, 1e-9, 0.0]) * noise  # the last two are constant
    predictions = targets + 3e-5 * torch.randn(6000, 4, generator=generator)
    strategy = build_strategy(strategies()["MSE"])
    metric = strategy.validation_metrics["explained_variance"]
    strategy.float().to(torch.float32)                              # the sums stay in float64
    for part in range(0, 6000, 1000):
        metric.update(predictions[part : part + 1000], targets[part : part + 1000])
    wanted = 1 - (targets - predictions).double().var(0) / targets.double().var(0)
    assert 0.7 < wanted[1] < 0.8
    assert float(metric.compute()) == pytest.approx(wanted[:2].mean().item(), abs=1e-6)
    metric.reset()
    metric.update(predictions[:, 2:], targets[:, 2:])
    assert metric.compute().isnan()


def test_passes_are_counted_without_training_and_every_module_goes_on_as_before():
    strategy = build_strategy(strategies()["MSE"], network=Normalised)
    seen = strategy.network[0].num_batches_tracked.clone()
    assert sum(strategy.network_calls()) == 1
    assert strategy.network[0].training
    assert not strategy.network[1].training
    assert strategy.network[0].num_batches_tracked == seen


# Figures of held-out pairs


def pairs(number, seed, *window):
    """Random ones within the bounds of a small strategy; windows of so many actions, or single ones."""
    generator = torch.Generator().manual_seed(seed)
    observations = torch.randn(number, *([1] if window else []), 3, generator=generator)
    actions = torch.rand(number, *window, 2, generator=generator) * 3 + torch.tensor([-2.0, 0.0])
    return observations, actions


def test_held_out_figures_are_means_over_pairs_however_unequal_the_batches():
    strategy, batches = build_strategy(MSE, squash=False), [pairs(5, 0), pairs(2, 1)]
    figures = strategy.held_out_figures([[batch] for batch in batches])
    observations, actions = (torch.cat(columns) for columns in zip(*batches, strict=True))
    errors = strategy(observations) - actions                       # in the environment's units; half the range is 1.5
    assert figures["loss"] == pytest.approx((errors / 1.5).square().mean().item(), rel=1e-5)
    assert figures["action_mean_squared_error"] == pytest.approx((errors / 1.5).square().mean().item(), rel=1e-5)
    assert figures["action_mean_absolute_error"] == pytest.approx(errors.abs().mean().item(), rel=1e-5)
    assert figures["action_root_mean_squared_error"] == pytest.approx(errors.square().mean().sqrt().item(), rel=1e-5)
    explained = 1 - (errors.var(0) / actions.var(0)).mean()
    assert figures["explained_variance"] == pytest.approx(explained.item(), rel=1e-4)


def test_of_windows_the_loss_is_over_the_actions_within_and_the_error_that_of_the_first():
    strategy = build_strategy(MSE, squash=False, horizon=3, chunk=2)
    masks = torch.tensor([[1, 1, 1]] * 2).bool(), torch.tensor([[1, 0, 0]] * 5).bool()
    batches = [(*pairs(len(mask), seed, 3), mask) for seed, mask in enumerate(masks)]
    figures = strategy.held_out_figures([[batch] for batch in batches])
    observations, actions, within = (torch.cat(columns) for columns in zip(*batches, strict=True))
    predictions = strategy.network(strategy.border.observe(observations).flatten(1)).unflatten(-1, (3, 2))
    errors = predictions - strategy.border.scaled(actions)          # (pairs, horizon, action_dim)
    assert figures["loss"] == pytest.approx(errors[within].square().mean().item(), rel=1e-5)
    assert figures["action_mean_squared_error"] == pytest.approx(errors[:, 0].square().mean().item(), rel=1e-5)


def test_a_loss_that_draws_noise_draws_the_same_at_each_validation_and_disturbs_no_training():
    strategy, batch = build_strategy(Diffusion), pairs(8, 0)
    before = torch.get_rng_state()
    first = strategy.held_out_figures([[batch]])["loss"]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert strategy.held_out_figures([[batch]])["loss"] == first


def test_held_out_figures_are_those_of_the_network_as_it_acts(monkeypatch):
    strategy, seen = build_strategy(MSE).train(), []
    strategy.network.register_forward_hook(lambda module, *_: seen.append(module.training))
    monkeypatch.setattr(points, "data_of", lambda trainer: SimpleNamespace(held_out=lambda: [[pairs(4, 0)]]))
    points.held_out_point(None, strategy)
    assert seen
    assert not any(seen)
    assert strategy.training
