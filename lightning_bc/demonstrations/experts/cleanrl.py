"""CleanRL's soft actor-critic and TD3 actors.

A CleanRL actor file is a state dict. Its two buffers bring the network's output, which lies in [-1, 1], to the
environment's units and back:

    action = action_scale * output + action_bias,    action_scale = (high - low) / 2,    action_bias = (high + low) / 2

For HalfCheetah, whose bounds are -1 and 1, the scale is 1 and the bias 0, and both can be forgotten; for Pendulum, whose
torque lies in [-2, 2], the scale is 2. They are properties of the environment, not something that was learnt.
"""

from functools import partial

import torch
from torch import Tensor, nn

from lightning_bc.demonstrations.experts.layers import fixed_linear
from lightning_bc.errors import InputError
from lightning_bc.players import Memoryless, Player

_LOG_STANDARD_DEVIATION_RANGE = (-5.0, 2.0)  # CleanRL's LOG_STD_MIN and LOG_STD_MAX


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
        linear = {layer: fixed_linear(state[f"{layer}.weight"], state[f"{layer}.bias"]) for layer in layers}
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
