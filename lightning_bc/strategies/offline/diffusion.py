"""Diffusion: the action emerges from noise in a few denoising steps.

Everything happens before the tanh, on u = arctanh(a) (squashing.py). Forward, noise is mixed in along a schedule
abar_1 > ... > abar_T, with e ~ Normal(0, I):

    u_t = sqrt(abar_t) u + sqrt(1 - abar_t) e,    abar_t = f(t) / f(0),  f(t) = cos^2((t/T + s) / (1 + s) pi / 2)

and a network that sees u_t, t and o learns to undo it, by predicting the noise ("epsilon") or the action ("action"):

    L = E || e - e_theta(u_t, t, o) ||^2        or        L = E || u - u_theta(u_t, t, o) ||^2

Backward, from u_T ~ Normal(0, I), each step goes to an earlier time s < t, with the predicted action u' (clipped to the
bounds) and the noise e' that goes with it:

    u_s = sqrt(abar_s) u' + sqrt(1 - abar_s - sigma^2) e' + sigma z,    z ~ Normal(0, I)

where sigma^2 = (1 - abar_s) / (1 - abar_t) (1 - abar_t / abar_s) samples the true posterior (ancestral sampling, Ho 2020,
https://arxiv.org/abs/2006.11239; cosine schedule, Nichol 2021, https://arxiv.org/abs/2102.09672), and sigma = 0 follows a
deterministic path from the noise to the action (DDIM, Song 2021, https://arxiv.org/abs/2010.02502). Any number of steps up
to T may be taken. As a policy: Pearce 2023, Imitating Human Behaviour with Diffusion Models,
https://arxiv.org/abs/2301.10677. With a history and a horizon above 1, u holds the next actions together, and o the last
observations: a diffusion policy over action chunks (Chi 2023, https://arxiv.org/abs/2303.04137; there the windows run over
an episode's end with its last action repeated, here the error is taken within the episode alone).

``deterministic=True`` is DDIM from one fixed noise vector, the same for every observation, whose weight falls to the noise
scale on the way: each of n steps keeps the share g of the noise e' that it would have kept,

    u_s = sqrt(abar_s) u' + sqrt(1 - abar_s) g e',    g = noise_scale^(1/n)

DDIM maps quantiles of the noise to quantiles of the action, so one fixed noise at full strength (noise scale 1) is one fixed
quantile: an offset of about one standard deviation of the expert's noise, in the same direction at every step. The full
noise at the start still decides between two humps; what shrinks is the offset within the one that was chosen (low
temperatures: Kingma 2018, Glow, https://arxiv.org/abs/1807.03039; Ajay 2023, https://arxiv.org/abs/2211.15657).
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_bc.bounds import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from lightning_bc.errors import InputError
from lightning_bc.networks import MLP, TIME_FEATURES, NetworkFactory, sinusoidal_features
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.noise import fixed_noise
from lightning_bc.strategies.offline.windows import mean_squared_error
from lightning_bc.strategies.optimizers import DefaultAdamW

OFFSET = 0.008
"""s of the cosine schedule; without it the first steps would add next to no noise."""


class Diffusion(OfflineStrategy):
    """Learn to denoise the expert's action; act by denoising.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps (observations, noisy actions, time features) to horizon action_dim outputs.
        steps: denoising steps T in training.
        act_steps: denoising steps when acting, at most ``steps``; by default as many.
        prediction: what the network predicts, "epsilon" (the noise) or "action".
        noise_scale: each step multiplies a deterministic action's fixed noise by noise_scale^(1 / act_steps), all of them by
            noise_scale; the last network evaluation has all but the last step's, so that of one step nothing changes.
        history: how many observations the policy sees, the present one last.
        horizon: how many actions, from the present one on, are modelled together.
        chunk: how many of these are played before the policy is asked again.
        temporal_ensembling: ask at every step, and play the mean of overlapping chunks with weights exp(-this i), i = 0 for
            the oldest; default: chunks are played one after the other.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    multimodal = True
    recordable = True
    logs = {
        "loss": Metric(
            "squared, before the tanh",
            "mean over batch and dimensions of (f(o, noisy u, t) - u)^2; with `prediction: epsilon`, of the noise",
        ),
    }

    signal: Tensor
    start_noise: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        steps: PositiveInt = 10,
        act_steps: PositiveInt | None = None,
        prediction: Literal["epsilon", "action"] = "action",
        noise_scale: ClosedUnitInterval = 0.03,
        history: PositiveInt = 1,
        horizon: PositiveInt = 1,
        chunk: PositiveInt = 1,
        temporal_ensembling: NonNegativeFloat | None = None,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.steps, self.act_steps, self.prediction = steps, act_steps or steps, prediction
        self.noise_scale = noise_scale
        if self.act_steps > steps:
            raise InputError(f"--model.act_steps {act_steps}: wanted 1 to --model.steps, {steps}.")
        self.set_windows(history, horizon, chunk, temporal_ensembling)
        size = horizon * self.action_dim
        self.network = network(self.input_size(size + TIME_FEATURES), size)
        self.register_buffer("signal", cosine_schedule(steps))      # abar_0 ... abar_T, (steps + 1,)
        self.register_buffer("start_noise", fixed_noise(size))

    def loss(self, observations: Tensor, actions: Tensor, within: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Squared error of the prediction at a random denoising step."""
        clean = self.squashing.unsquash(actions).flatten(1)         # (batch, horizon action_dim)
        noise = torch.randn_like(clean)
        time = torch.randint(1, self.steps + 1, (len(actions),), device=actions.device)
        signal = self.signal[time].unsqueeze(-1)                    # (batch, 1)
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        target = noise if self.prediction == "epsilon" else clean
        return mean_squared_error(self._network_at(observations, noisy, time), target, within), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Denoise: by DDIM from the fixed noise, whose weight falls, or by ancestral sampling from fresh noise."""
        shape = (observations.shape[0], self.horizon * self.action_dim)
        noisy = self.start_noise.expand(shape) if deterministic else torch.randn(shape, device=self.device)
        times = torch.linspace(self.steps, 0, self.act_steps + 1).round().int().tolist()
        for now, then in itertools.pairwise(times):
            action = self._predict(observations, noisy, now)
            noisy, scale = self.step_back(noisy, action, now, then, deterministic)
            if not deterministic:
                noisy = noisy + scale * torch.randn_like(noisy)
        return self.first_chunk(self.squashing(noisy))

    def step_back(self, noisy: Tensor, action: Tensor, now: int, then: int, deterministic: bool) -> tuple[Tensor, Tensor]:
        """Mean (batch, horizon action_dim) and scale (scalar) of q(u_then | u_now = noisy, u = action); 0 in DDIM."""
        before, after = self.signal[now], self.signal[then]
        noise = (noisy - before.sqrt() * action) / (1 - before).sqrt()
        if deterministic:
            kept = self.noise_scale ** (1 / self.act_steps)
            return after.sqrt() * action + (1 - after).sqrt() * kept * noise, 0 * before
        variance = (1 - after) / (1 - before) * (1 - before / after)
        return after.sqrt() * action + (1 - after - variance).clamp(min=0).sqrt() * noise, variance.sqrt()

    def _network_at(self, observations: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        features = sinusoidal_features(time / self.steps)           # (batch, TIME_FEATURES)
        return self.network(torch.cat([observations.flatten(1), noisy, features], dim=-1))

    def _predict(self, observations: Tensor, noisy: Tensor, now: int) -> Tensor:
        """The action behind ``noisy`` at denoising step ``now``, within the bounds."""
        time = torch.full(observations.shape[:1], now, device=noisy.device)
        output = self._network_at(observations, noisy, time)        # (batch, horizon action_dim)
        if self.prediction == "epsilon":
            output = (noisy - (1 - self.signal[now]).sqrt() * output) / self.signal[now].sqrt()
        return self.squashing.bounded(output)


def cosine_schedule(steps: int) -> Tensor:
    """abar_0 ... abar_steps, (steps + 1,), from 1 to nearly 0; no step removes more than 0.999 of the signal."""
    times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    f = torch.cos((times + OFFSET) / (1 + OFFSET) * math.pi / 2).square()
    betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    return torch.cat([torch.ones(1), (1 - betas).cumprod(0)]).float()
