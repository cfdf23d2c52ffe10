"""Flow matching: a velocity field carries noise to the action along straight lines.

Everything happens before the tanh, on u = arctanh(a) (squashing.py). Between noise e ~ Normal(0, I) at time 0 and the
expert's u at time 1 the path and its velocity are

    u_t = (1 - t) e + t u,    d u_t / dt = u - e = (u - u_t) / (1 - t)

so a velocity is known as soon as the path's end is. A network predicts that end at a random time t ~ Uniform(0, 1):

    L = E || u_theta(u_t, t, o) - u ||^2,    v_theta = (u_theta - u_t) / (1 - t)

Its minimiser is the mean velocity at each point, and following it from u_0 ~ Normal(0, I) transports the noise to the
conditional distribution of the action (Lipman 2023, Flow Matching, https://arxiv.org/abs/2210.02747; Liu 2023, rectified
flow, https://arxiv.org/abs/2209.03003). Acting is n steps of Euler's method, and one is allowed: it gives the conditional
mean of u. The times between steps are

    t_k = 1 - (1 - k / n)^spacing,    k = 0 ... n

so a spacing above 1 makes the last ones short. Where two ways to act are close beside the noise, whose deviation is 1, their
paths part near t = 1, and a network that has learnt both ends between them less often after short last steps: measured in
docs/gates.md.

Why predict the end. The minimiser is the same as that of E || v_theta - (u - e) ||^2, which is this loss weighted by
1 / (1 - t)^2. But a velocity is nearly all noise, of size 1, and the action is what remains when the noise is subtracted
again: small errors of the network become errors of the action. Predicting the end, the network outputs the action itself (Li
2025, Back to Basics: Let Denoising Generative Models Denoise, https://arxiv.org/abs/2511.13720).

With a history and a horizon above 1, u holds the next actions together, and o the last observations, as in diffusion.py.

``deterministic=True`` starts from one fixed noise vector, the same for every observation, whose weight falls to the noise
scale on the way, for the reason and by the rule given in diffusion.py.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_bc.bounds import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt
from lightning_bc.networks import MLP, TIME_FEATURES, NetworkFactory, sinusoidal_features
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.noise import fixed_noise
from lightning_bc.strategies.offline.windows import mean_squared_error
from lightning_bc.strategies.optimizers import DefaultAdamW

_LEAST_TIME = 1e-6
"""Nearer to its end a path has no direction that float32 can tell; only a very large ``spacing`` goes there."""


class FlowMatching(OfflineStrategy):
    """Learn the velocity from noise to the expert's action; act by following it.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps (observations, point on the path, time features) to horizon action_dim outputs.
        act_steps: Euler steps when acting.
        spacing: 1 for steps of equal length, above it shorter ones towards the action.
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
    default_steps = 40_000                                          # after 20,000 a Hopper still falls in rare states
    default_passes = 500
    logs = {
        "loss": Metric("squared, before the tanh", "mean over batch and dimensions of (f(o, point, t) - u)^2"),
    }

    start_noise: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        act_steps: PositiveInt = 10,
        spacing: PositiveFloat = 1.0,
        noise_scale: ClosedUnitInterval = 0.03,
        history: PositiveInt = 1,
        horizon: PositiveInt = 1,
        chunk: PositiveInt = 1,
        temporal_ensembling: NonNegativeFloat | None = None,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.act_steps, self.spacing, self.noise_scale = act_steps, spacing, noise_scale
        self.set_windows(history, horizon, chunk, temporal_ensembling)
        size = horizon * self.action_dim
        self.network = network(self.input_size(size + TIME_FEATURES), size)
        self.register_buffer("start_noise", fixed_noise(size))

    def end(self, observations: Tensor, points: Tensor, time: Tensor) -> Tensor:
        """u_theta: where paths through ``points`` (batch, horizon action_dim) at ``time`` (batch,) end on average."""
        return self.network(torch.cat([observations.flatten(1), points, sinusoidal_features(time)], dim=-1))

    def time_of(self, step: int) -> float:
        """The time after so many of the steps."""
        share = step / self.act_steps
        return share if self.spacing == 1 else 1 - (1 - share) ** self.spacing

    def loss(self, observations: Tensor, actions: Tensor, within: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Squared error of the path's end at a random time."""
        end = self.squashing.unsquash(actions).flatten(1)           # (batch, horizon action_dim)
        noise = torch.randn_like(end)
        time = torch.rand(len(end), device=end.device)
        points = torch.lerp(noise, end, time.unsqueeze(-1))
        return mean_squared_error(self.end(observations, points, time), end, within), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Follow the velocity from the fixed noise, whose weight falls, or from fresh noise."""
        shape = (observations.shape[0], self.horizon * self.action_dim)
        points = self.start_noise.expand(shape) if deterministic else torch.randn(shape, device=self.device)
        kept = self.noise_scale ** (1 / self.act_steps) if deterministic else 1.0
        for step in range(self.act_steps):
            now, then = self.time_of(step), self.time_of(step + 1)
            end = self.end(observations, points, torch.full(observations.shape[:1], now, device=self.device))
            noise = (points - now * end) / max(1 - now, _LEAST_TIME)  # where a straight path through point and end began
            points = torch.lerp(kept * noise, end, then)            # kept = 1: Euler's step along v_theta
        return self.first_chunk(self.squashing(points))
