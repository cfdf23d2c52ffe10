"""Flow matching: a velocity field carries noise to the action along straight lines.

Between noise e ~ Normal(0, I) at time 0 and the expert's action a at time 1 the path and its velocity are

    a_t = (1 - t) e + t a,    d a_t / dt = a - e

and a network regresses that velocity at a random time t ~ Uniform(0, 1):

    L = E || v_theta(a_t, t, o) - (a - e) ||^2

Its minimiser is the mean velocity at each point, and following it from a_0 ~ Normal(0, I) transports the noise to the
conditional distribution of the action (Lipman 2023, Flow Matching, https://arxiv.org/abs/2210.02747; Liu 2023, rectified
flow, https://arxiv.org/abs/2209.03003). Acting is n steps of Euler's method; the paths are nearly straight, so few are
enough, and one is allowed: it gives the action's conditional mean.

``deterministic=True`` starts from Gaussian noise of a fixed seed, the same for every observation.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_bc.errors import InputError
from lightning_bc.networks import MLP, TIME_FEATURES, NetworkFactory, sinusoidal_features
from lightning_bc.strategies.base import Metrics, OfflineStrategy


class FlowMatching(OfflineStrategy):
    """Learn the velocity from noise to the expert's action; act by following it.

    Args:
        network: maps (observation, point on the path, time features) to action_dim outputs.
        act_steps: Euler steps when acting.
        options: those of every strategy: optimizer, schedule.
    """

    start_noise: Tensor

    def __init__(self, network: NetworkFactory = MLP, act_steps: int = 5, **options: Any) -> None:
        super().__init__(**options)
        if act_steps < 1:
            raise InputError(f"--model.act_steps {act_steps}: wanted at least 1.")
        self.act_steps = act_steps
        self.network = network(self.observation_dim + self.action_dim + TIME_FEATURES, self.action_dim)
        noise = torch.randn(self.action_dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("start_noise", noise)

    def velocity(self, observations: Tensor, points: Tensor, time: Tensor) -> Tensor:
        """v_theta at ``points`` (batch, action_dim) and ``time`` (batch,), (batch, action_dim)."""
        return self.network(torch.cat([observations, points, sinusoidal_features(time)], dim=-1))

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """Squared error of the velocity at a random time."""
        noise = torch.randn_like(actions)                           # (batch, action_dim)
        time = torch.rand(len(actions), device=actions.device)
        points = torch.lerp(noise, actions, time.unsqueeze(-1))
        return F.mse_loss(self.velocity(observations, points, time), actions - noise), {}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """Follow the velocity from fixed noise, or from fresh noise."""
        shape = (len(observations), self.action_dim)
        points = self.start_noise.expand(shape) if deterministic else torch.randn(shape, device=self.device)
        for step in range(self.act_steps):
            time = torch.full((len(observations),), step / self.act_steps, device=self.device)
            points = points + self.velocity(observations, points, time) / self.act_steps
        return points
