"""Conditional variational autoencoder: a latent code says which of several ways to act is meant.

    z ~ Normal(g(o), I),    u ~ Normal(f(o, z), diag(sigma^2)),    a = tanh(u)

The density of the action is an integral over z, of which a lower bound is maximised (Kingma 2014,
https://arxiv.org/abs/1312.6114; conditional: Sohn 2015, https://papers.nips.cc/paper/5775). An encoder that sees the action
guesses the code, q(z | o, u) = Normal(m(o, u), diag(s(o, u)^2)), and

    - log p(a | o) <= L = E_q[ - log Normal(u; f(o, z), sigma) ] + KL(q || Normal(g(o), I)) + sum_d log(1 - a_d^2)

    KL = 1/2 sum_j ((m_j - g_j)^2 + s_j^2 - 1 - log s_j^2)

so L is in nat per pair, and comparable with the losses of gaussian.py and gmm.py from above. Why before the tanh:
squashing.py. The standard deviations sigma are learnt, do not depend on the observation and have a floor, for the reasons
given in gaussian.py. They start near the floor: a wide sigma explains two humps without a code, and the code then stays
unused (posterior collapse; Bowman 2016, https://arxiv.org/abs/1511.06349). As a policy: the style variable of action
chunking (Zhao 2023, https://arxiv.org/abs/2304.13705).

The prior's mean g(o) is learnt (Sohn). With Normal(0, I) for every observation the model could say as much, but training
gets stuck: the encoder sees the action, so the code soon tells what the observation tells too, such as which way a switching
expert pushes, and once actions are decoded exactly nothing makes the decoder learn it from the observation; codes of the
prior then push at random. Here g learns it from the codes, as a regression of m(o, u) on o.

A sample draws the code from the prior and adds the noise. The usual single answer, f(o, g(o)), may lie between two humps,
since codes near the prior's mean are where one hump passes into the other. Here it is the likeliest of K decoded codes
z_k = g(o) + e_k, the same fixed e_1 ... e_K for every observation, by the density that they estimate:

    argmax_k sum_j Normal(f(o, z_k); f(o, z_j), diag(sigma^2))
"""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import PositiveFloat, PositiveInt
from lightning_bc.networks import MLP, Network, NetworkFactory
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.latent import draw
from lightning_bc.strategies.offline.noise import fixed_noise
from lightning_bc.strategies.optimizers import DefaultAdamW


class VAE(OfflineStrategy):
    """Maximise a lower bound of the expert's log-probability, with a latent code.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        network: the encoder maps (observation, action) to 2 latent_dim outputs, the decoder (observation, code) to
            action_dim, and the prior observation to latent_dim.
        latent_dim: size of the code z.
        act_codes: number K of fixed codes among which a deterministic action is chosen; 1 is the prior's mean.
        minimum_scale: floor of the standard deviations before the tanh.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    multimodal = True
    recordable = True
    logs = {
        "loss": Metric(
            "nat per pair",
            "(1/B) sum_pairs [KL(q(z given o, u), Normal(g(o), I)) - log Normal(u; f(o, z), sigma) + sum_d log(1 - a_d^2)], "
            "z from q",
        ),
        "kl": Metric("nat per pair", "KL(q(z given o, u), Normal(g(o), I)), mean over the batch: what the code tells"),
        "scale": Metric("before the tanh", "mean of sigma over dimensions and, in a mixture, components"),
    }

    codes: Tensor

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        network: NetworkFactory = MLP,
        latent_dim: PositiveInt = 2,
        act_codes: PositiveInt = 16,
        minimum_scale: PositiveFloat = 0.1,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        self.latent_dim, self.minimum_scale = latent_dim, minimum_scale
        self.encoder = network(observation_dim + self.action_dim, 2 * latent_dim)
        self.prior = network(observation_dim, latent_dim)
        self.network = network(observation_dim + latent_dim, self.action_dim)
        self.raw_scale = nn.Parameter(torch.full((self.action_dim,), -3.0))
        codes = fixed_noise(act_codes, latent_dim)
        self.register_buffer("codes", codes if act_codes > 1 else torch.zeros(1, latent_dim))

    @property
    def scale(self) -> Tensor:
        """sigma, (action_dim,)."""
        return self.minimum_scale + F.softplus(self.raw_scale)

    def loss(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Metrics]:
        """The bound L, with one code per pair."""
        before_tanh = self.squashing.unsquash(actions)              # (batch, action_dim)
        mean, log_scale = self.encoder(torch.cat([observations, before_tanh], dim=-1)).chunk(2, dim=-1)
        code, kl = draw(mean, log_scale, self.prior(observations))  # (batch, latent_dim), (batch,)
        error = (before_tanh - self.decode(observations, code)) / self.scale
        log_normal = (-0.5 * error.square() - self.scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)
        loss = (kl - log_normal + self.squashing.log_volume(actions)).mean()
        return loss, {"kl": kl.detach().mean(), "scale": self.scale.detach().mean()}

    @property
    def actors(self) -> list[Network]:
        """The prior and the decoder."""
        return [self.prior, self.network]

    def acting_weights(self) -> StateDict:
        """All but the encoder's."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The likeliest of the fixed codes' actions, or a sample."""
        expected = self.prior(observations)                         # (batch, latent_dim)
        if not deterministic:
            outputs = self.decode(observations, expected + torch.randn_like(expected))  # (batch, action_dim)
            return self.squashing(outputs + self.scale * torch.randn_like(outputs))
        shape = (observations.shape[0], len(self.codes), -1)
        codes = expected.unsqueeze(1) + self.codes                  # (batch, K, latent_dim)
        rows = observations.unsqueeze(1).expand(shape).flatten(0, 1)  # (batch K, observation_dim)
        outputs = self.decode(rows, codes.flatten(0, 1)).unflatten(0, shape[:2])  # (batch, K, action_dim)
        scaled = outputs / self.scale
        distances = (scaled.unsqueeze(1) - scaled.unsqueeze(2)).square().sum(-1)  # (batch, K, K)
        likeliest = (-0.5 * distances).exp().sum(-1).argmax(-1)     # (batch,)
        return self.squashing(outputs[torch.arange(outputs.shape[0], device=outputs.device), likeliest])

    def decode(self, observations: Tensor, code: Tensor) -> Tensor:
        """f(o, z), (batch, action_dim), of ``observations`` (batch, observation_dim) and ``code`` (batch, latent_dim)."""
        return self.network(torch.cat([observations, code], dim=-1))
