"""What the tests of strategies that act while they learn share."""

import functools
import warnings
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import build_strategy
from lightning.pytorch import Callback, Trainer

from lightning_bc.demonstrations import Demonstrations
from lightning_bc.strategies import AIRL, GAIL, Needs, strategies
from lightning_bc.strategies.contract import Transitions
from lightning_bc.strategies.online.demonstrated import Demonstrated
from lightning_bc.strategies.online.soft_actor_critic import SoftActorCritic

LEARNERS = [cls for cls in strategies().values() if cls.learns_by_acting and cls.__module__.startswith("lightning_bc.")]
SOFT = [cls for cls in LEARNERS if cls.__annotations__.get("agent") is SoftActorCritic]


def each(classes):
    return pytest.mark.parametrize("cls", classes, ids=lambda cls: cls.__name__)


EVERY, EVERY_SOFT, ADVERSARIAL = each(LEARNERS), each(SOFT), each([GAIL, AIRL])


def transitions(batch=6, observation_dim=3, action_dim=2, terminated=None, seed=0):
    """Random ones, as agents see them."""
    generator = torch.Generator().manual_seed(seed)
    return Transitions(
        observations=torch.randn(batch, observation_dim, generator=generator),
        actions=2 * torch.rand(batch, action_dim, generator=generator) - 1,
        rewards=torch.randn(batch, generator=generator),
        next_observations=torch.randn(batch, observation_dim, generator=generator),
        terminated=torch.zeros(batch) if terminated is None else torch.as_tensor(terminated, dtype=torch.float32),
    )


def at_rest(actions, terminated=0.0):
    """Transitions with these 1-D ``actions`` (batch,), where every observation is zero."""
    actions = torch.as_tensor(np.asarray(actions), dtype=torch.float32)
    zeros = torch.zeros(len(actions))
    observations = zeros.unsqueeze(-1)
    return Transitions(observations, actions.unsqueeze(-1), zeros, observations, zeros + torch.as_tensor(terminated))


def one_dimensional(cls, hidden_sizes=(8,), **options):
    bounds = {"observation_dim": 1, "action_low": (-1.0,), "action_high": (1.0,)}
    return build_strategy(cls, hidden_sizes=hidden_sizes, **bounds, **options)


def demonstrate(strategy, expert):
    """Give ``strategy`` these demonstrations, whose actions are scaled to [-1, 1] already."""
    in_units = replace(expert, actions=strategy.border.unscaled(expert.actions))
    strategy.demonstrated = Demonstrated(in_units, strategy.border)
    return strategy


def built(cls, expert=None, **options):
    """A small strategy, with demonstrations where it needs them."""
    strategy = build_strategy(cls, **options)
    return demonstrate(strategy, transitions(seed=1) if expert is None else expert)


def descending(strategy):
    """Steps an optimizer of each part, without a Trainer."""
    optimizers = {name: strategy.optimizer(parameters) for name, parameters in strategy.parts().items()}

    def descend(part, loss):
        optimizers[part].zero_grad()
        loss.backward()
        optimizers[part].step()

    return descend


def tiny(cls, action_low=(-3.0,), action_high=(3.0,), observation_dim=4, **options):
    """A strategy for InvertedPendulum-v5 unless told otherwise, with a budget of a second."""
    budget = {"total_environment_steps": 40, "num_envs": 2, "learning_starts": 8, "batch_size": 8, "updates_per_step": 1}
    return build_strategy(cls, observation_dim, action_low, action_high, (8,), **budget | options)


class Keep(Callback):
    """Keeps what exists only while a strategy trains."""

    def on_train_end(self, trainer, module):
        self.interaction = module.interaction


Trained = namedtuple("Trained", "trainer interaction")


def train(strategy, environment_id="InvertedPendulum-v5", path=None, callbacks=(), ckpt_path=None):
    """Lightning's loop and no more: no curve, no checkpoints."""
    keep = Keep()
    trainer = Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*callbacks, keep],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                             # Lightning's, of workers and of what it was not given
        data = Demonstrations(path=path if strategy.needs is Needs.TRANSITIONS else None, environment_id=environment_id)
        trainer.fit(strategy, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return Trained(trainer, keep.interaction)


def warnings_of(call, *values):
    """The messages of the warnings that ``call`` gives, value after value."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in values:
            call(value)
    return [str(warning.message) for warning in caught]


faster = functools.partial(torch.optim.Adam, lr=1e-3)
