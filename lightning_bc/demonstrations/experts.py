"""Actors that demonstrate: CleanRL's soft actor-critic and TD3 actors, and checkpoints of our own strategies.

A CleanRL actor file is a state dict. Its two buffers bring the network's output, which lies in [-1, 1], to the
environment's units and back:

    action = action_scale * output + action_bias,    action_scale = (high - low) / 2,    action_bias = (high + low) / 2

For HalfCheetah, whose bounds are -1 and 1, the scale is 1 and the bias 0, and both can be forgotten; for Pendulum, whose
torque lies in [-2, 2], the scale is 2. They are properties of the environment, not something that was learnt.
"""

from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from lightning_bc.episodes import Memoryless, Player
from lightning_bc.errors import InputError
from lightning_bc.files import shipped
from lightning_bc.strategies import load_strategy

SHIPPED_EXPERTS = Path("checkpoints/experts")

_LOG_STANDARD_DEVIATION_RANGE = (-5.0, 2.0)  # CleanRL's LOG_STD_MIN and LOG_STD_MAX


class Expert(Protocol):
    """What demonstrates: a CleanRL actor or a trained strategy."""

    observation_dim: int
    action_dim: int

    def player(self, deterministic: bool = True, replan: bool = False) -> Player:
        """What plays it: see :meth:`lightning_bc.strategies.Strategy.player`."""
        ...


class CleanRLActor(nn.Module):
    """An actor trained by CleanRL (https://docs.cleanrl.dev): SAC where the state dict holds ``fc_mean``, else TD3.

    Both are two rectified hidden layers, read off the tensors' shapes. The soft actor-critic head is a tanh-squashed
    Gaussian (Haarnoja 2018, https://arxiv.org/abs/1812.05905, appendix C):

        u ~ Normal(m(o), exp(l(o))),    l = -5 + 7 (tanh(raw) + 1) / 2,    action = action_scale * tanh(u) + action_bias

    and its deterministic action is u = m(o). TD3 (Fujimoto 2018) is deterministic: action_scale * tanh(mu(o)) +
    action_bias.

    Args:
        state: the state dict.

    Raises:
        InputError: if the keys are neither a SAC's nor a TD3's.
    """

    fc1: nn.Linear
    fc2: nn.Linear
    action_scale: Tensor
    action_bias: Tensor

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        is_sac = "fc_mean.weight" in state
        layers = ["fc1", "fc2", *(("fc_mean", "fc_logstd") if is_sac else ("fc_mu",))]
        wanted = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")} | {"action_scale", "action_bias"}
        if set(state) != wanted:
            raise InputError(
                f"a CleanRL actor holds the keys {sorted(wanted)}; "
                f"missing here: {sorted(wanted - set(state))}, unknown: {sorted(set(state) - wanted)}"
            )
        linear = {layer: _linear(state[f"{layer}.weight"], state[f"{layer}.bias"]) for layer in layers}
        self.fc1, self.fc2 = linear["fc1"], linear["fc2"]
        self.mean = linear["fc_mean" if is_sac else "fc_mu"]
        self.raw_log_deviation = linear.get("fc_logstd")
        self.observation_dim, self.action_dim = self.fc1.in_features, self.mean.out_features
        for name in ("action_scale", "action_bias"):                # CleanRL keeps (num_envs, action_dim) or (action_dim,)
            self.register_buffer(name, state[name].reshape(-1, self.action_dim)[0].clone())

    def forward(self, observations: Tensor, deterministic: bool = True) -> Tensor:
        """Act on ``observations`` (batch, observation_dim); actions (batch, action_dim) in the environment's units."""
        hidden = torch.relu(self.fc2(torch.relu(self.fc1(observations))))
        pre_tanh = self.mean(hidden)                                # (batch, action_dim)
        if self.raw_log_deviation is not None and not deterministic:
            low, high = _LOG_STANDARD_DEVIATION_RANGE
            log_deviation = low + (high - low) * (torch.tanh(self.raw_log_deviation(hidden)) + 1) / 2
            pre_tanh = pre_tanh + log_deviation.exp() * torch.randn_like(pre_tanh)
        return self.action_scale * torch.tanh(pre_tanh) + self.action_bias

    def player(self, deterministic: bool = True, replan: bool = False) -> Player:
        """What plays it; it answers every step anew, so ``replan`` changes nothing."""
        return Memoryless(partial(self, deterministic=deterministic))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])  # draws nothing from the random state
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.requires_grad_(False)


def load_expert(path: str | Path) -> Expert:
    """Load an actor that answers ``expert(observations, deterministic)`` from a CleanRL state dict or our checkpoint.

    Nothing in the file is executed: it is read with ``weights_only=True``.

    Raises:
        InputError: if the file is missing, unreadable, or holds no such actor; the message names it and the way out.
    """
    path = shipped(path)
    if not path.is_file():
        experts = ", ".join(str(SHIPPED_EXPERTS / p.name) for p in sorted(shipped(SHIPPED_EXPERTS).glob("*.pt"))) or "none"
        raise InputError(f"{path}: no such expert file. Shipped experts: {experts}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as an expert ({type(error).__name__}). Wanted: the state dict of a CleanRL SAC or "
            "TD3 actor saved with torch.save, or a checkpoint of this package. Pickled objects are refused, not run."
        ) from error
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        return load_strategy(path).eval().requires_grad_(False)
    if isinstance(content, tuple) and content:                      # CleanRL's TD3 script saves (actor, critic, critic)
        content = content[0]
    try:
        actor = CleanRLActor(content).eval()
        actor(torch.zeros(1, actor.observation_dim))                # raises where the layers do not fit together
    except (InputError, AttributeError, TypeError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: not an expert that can be loaded: {error}") from error
    return actor
