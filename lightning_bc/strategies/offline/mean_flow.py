"""MeanFlow: the average velocity from noise to the action, so that one evaluation covers the whole way.

Everything happens before the tanh, on u = arctanh(a) (squashing.py); the velocity, which the paper calls u, is w here. Time
runs as in the paper, from the action at 0 to noise e ~ Normal(0, I) at 1 (in flow_matching.py it runs the other way):

    z_t = (1 - t) u + t e,    v = d z_t / dt = e - u

Flow matching learns E[v | z_t], the velocity at one time, and has to integrate it. The average velocity between two times
r <= t of a path through z_t,

    w(z_t, r, t) = 1 / (t - r) integral_r^t v(z_s, s) ds

leads from t to r in one step, z_r = z_t - (t - r) w(z_t, r, t). The derivative of (t - r) w by t along the path says which
function it is (the MeanFlow identity), and is what the network learns; the right side is taken as a constant:

    w = v - (t - r) d w / dt,    d w / dt = v d_z w + d_t w

where d w / dt is one product of the network's Jacobian with (v, 0, 1) by forward differentiation (``torch.func.jvp``). At
r = t this is flow matching, and so are all but a share of the pairs (r, t). Both times are uniform, and sorted.

Geng 2025, Mean Flows for One-step Generative Modeling, https://arxiv.org/abs/2505.13447. As in flow_matching.py, and for its
reason, the network predicts an action rather than a velocity, w = (z_t - f(z_t, r, t, o)) / t, and errors are those of the
action, t w (pixel MeanFlow: Lu 2026, https://arxiv.org/abs/2601.22158). A sample is then one evaluation, u = f(e, 0, 1, o).
The network sees both times as they are: features of high frequency, as those of diffusion.py, have large derivatives by t.

``deterministic=True`` begins at one fixed noise vector times the noise scale, the same for every observation. The way from
noise to action keeps the order of quantiles: at a noise scale of 0 it begins, and ends, at about the median; at 1 at one
quantile, which decides between two ways to act. With a history and a horizon above 1, u holds the next actions together, and
o the last observations.
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_bc.bounds import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from lightning_bc.errors import InputError
from lightning_bc.networks import MLP, NetworkFactory, SequenceNetwork
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.noise import fixed_noise
from lightning_bc.strategies.offline.windows import mean_squared_error
from lightning_bc.strategies.optimizers import DefaultAdamW


class MeanFlow(OfflineStrategy):
    """Learn the average velocity from noise to the expert's action; act by one step along it.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: maps (observations, points on the path, t and t - r) to horizon action_dim outputs.
        act_steps: steps of equal length when acting.
        interval_share: share of the training pairs with r < t; the others learn the velocity at one time. 0 is flow
            matching, which takes many act_steps.
        noise_scale: share of the fixed noise that a deterministic action begins with.
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
        "loss": Metric("squared, before the tanh", "mean over batch and dimensions of (t w - t (v - (t - r) d w / dt))^2"),
    }

    start_noise: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        act_steps: PositiveInt = 1,
        interval_share: ClosedUnitInterval = 0.5,
        noise_scale: ClosedUnitInterval = 0.03,
        history: PositiveInt = 1,
        horizon: PositiveInt = 1,
        chunk: PositiveInt = 1,
        temporal_ensembling: NonNegativeFloat | None = None,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.act_steps, self.interval_share, self.noise_scale = act_steps, interval_share, noise_scale
        self.set_windows(history, horizon, chunk, temporal_ensembling)
        size = horizon * self.action_dim
        self.network = network(self.input_size(size + 2), size)
        if isinstance(self.network, SequenceNetwork):
            name = type(self.network).__name__
            raise InputError(
                f"--model.network {name}: MeanFlow differentiates its network in forward mode, which torch cannot do with "
                "this one. Take MLP or ResidualMLP, or FlowMatching in place of MeanFlow."
            )
        self.register_buffer("start_noise", fixed_noise(size))

    def action(self, observations: Tensor, points: Tensor, before: Tensor, time: Tensor) -> Tensor:
        """f(z_t, r, t, o) of ``points`` z_t (batch, horizon action_dim), times r ``before`` and t ``time`` (batch,)."""
        times = torch.stack([time, time - before], dim=-1)          # (batch, 2)
        return self.network(torch.cat([observations.flatten(1), points, times], dim=-1))

    def loss(self, observations: Tensor, actions: Tensor, within: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Squared error of the MeanFlow identity at random times, as an error of the action."""
        wanted = self.squashing.unsquash(actions).flatten(1)        # (batch, horizon action_dim)
        noise = torch.randn_like(wanted)
        times = 1 - torch.rand(2, len(wanted), device=wanted.device)  # above 0
        time = times.amax(0)                                        # (batch,)
        is_interval = torch.rand(len(wanted), device=wanted.device) < self.interval_share
        before = torch.where(is_interval, times.amin(0), time)
        points, velocity = torch.lerp(wanted, noise, time.unsqueeze(-1)), noise - wanted

        def average(points: Tensor, time: Tensor) -> Tensor:        # w(z_t, r, t)
            return (points - self.action(observations, points, before, time)) / time.unsqueeze(-1)

        averages, slopes, *_ = torch.func.jvp(average, (points, time), (velocity, torch.ones_like(time)))
        target = velocity - (time - before).unsqueeze(-1) * slopes.detach()
        scale = time.unsqueeze(-1)
        return mean_squared_error(scale * averages, scale * target, within), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Step from the fixed noise, scaled, or from fresh noise to the action."""
        shape = (observations.shape[0], self.horizon * self.action_dim)
        start = self.noise_scale * self.start_noise
        points = start.expand(shape) if deterministic else torch.randn(shape, dtype=start.dtype, device=self.device)
        ones = observations.new_ones(observations.shape[:1])
        for step in range(self.act_steps, 0, -1):
            now, then = step / self.act_steps, (step - 1) / self.act_steps
            action = self.action(observations, points, then * ones, now * ones)
            points = torch.lerp(action, points, then / now)         # z - (now - then) (z - action) / now
        return self.first_chunk(self.squashing(points))
