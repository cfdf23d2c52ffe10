"""Action chunking with transformers (ACT): a conditional variational autoencoder of the next actions, without the images.

Everything happens before the tanh, on the next actions U = (u_1, ..., u_horizon), u = arctanh(a) (squashing.py). In training
an encoder sees the chunk and guesses a style z, q(z | o, U) = Normal(m, diag(s^2)); a decoder makes the chunk of
observations and style:

    L = E_q | U - f(o, z) |_1 + beta KL(q || Normal(0, I)),    KL = 1/2 sum_j (m_j^2 + s_j^2 - 1 - log s_j^2)

with the absolute error as a mean over actions and dimensions. It acts with z = 0. Zhao 2023, Learning Fine-Grained Bimanual
Manipulation with Low-Cost Hardware, https://arxiv.org/abs/2304.13705.

    encoder    tokens (class, o_1 ... o_history, u_1 ... u_horizon) through a transformer; z is read from the class token
    decoder    tokens (z, o_1 ... o_history) through a transformer; learnt queries, one per action, attend to them

The absolute error asks for a median, and medians are the same before the tanh and after it. At the paper's beta of 10 the
style stays unused unless it saves more error than it costs: take less where there are several ways to act. There the chunks,
of 100 actions, are played by temporal ensembling (ensembling.py), as ``configs/act.yaml`` does with 10.

Here LayerNorm stands before attention and linear layers (Xiong 2020, https://arxiv.org/abs/2002.04745), and there is no
dropout. A sample draws z from Normal(0, I).
"""

from collections.abc import Sequence

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import NonNegativeFloat, PositiveInt
from lightning_bc.errors import InputError
from lightning_bc.networks import Network, learnt_tokens, transformer_encoder
from lightning_bc.strategies.base import Metrics, Schedule
from lightning_bc.strategies.contract import Metric
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.offline.latent import draw
from lightning_bc.strategies.offline.windows import mean_absolute_error
from lightning_bc.strategies.optimizers import DefaultAdamW


class Encoder(nn.Module):
    """Mean and log standard deviation of the style, of observations and the actions that followed."""

    def __init__(self, observation_dim: int, action_dim: int, tokens: int, latent_dim: int, width: int, **of: int) -> None:
        super().__init__()
        self.embed_observation, self.embed_action = nn.Linear(observation_dim, width), nn.Linear(action_dim, width)
        self.style, self.positions = learnt_tokens(1, width), learnt_tokens(1 + tokens, width)
        self.transformer = transformer_encoder(width, **of)
        self.output = nn.Linear(width, 2 * latent_dim)

    def forward(self, observations: Tensor, actions: Tensor, within: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of (batch, history, observation_dim) and (batch, horizon, action_dim), of which ``within`` says what counts."""
        style = self.style.expand(len(actions), 1, -1)
        tokens = torch.cat([style, self.embed_observation(observations), self.embed_action(actions)], dim=1)
        hidden = None
        if within is not None:                                      # (batch, 1 + history + horizon), true is not seen
            hidden = torch.cat([torch.zeros_like(tokens[:, : -within.shape[1], 0], dtype=torch.bool), ~within], dim=1)
        read = self.transformer(tokens + self.positions, src_key_padding_mask=hidden)[:, 0]  # (batch, width)
        mean, log_scale = self.output(read).chunk(2, dim=-1)
        return mean, log_scale


class Decoder(Network):
    """The chunk, of observations and a style."""

    def __init__(
        self, observation_dim: int, action_dim: int, history: int, horizon: int, latent_dim: int, width: int, **of: int
    ) -> None:
        super().__init__()
        self.embed_observation, self.embed_style = nn.Linear(observation_dim, width), nn.Linear(latent_dim, width)
        self.positions, self.queries = learnt_tokens(1 + history, width), learnt_tokens(horizon, width)
        self.encoder = transformer_encoder(width, **of)
        layer = nn.TransformerDecoderLayer(width, of["heads"], 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.decoder = nn.TransformerDecoder(layer, of["layers"], nn.LayerNorm(width))
        self.output = nn.Linear(width, action_dim)

    def forward(self, observations: Tensor, style: Tensor) -> Tensor:
        """Of (batch, history, observation_dim) and (batch, latent_dim): (batch, horizon action_dim)."""
        tokens = torch.cat([self.embed_style(style).unsqueeze(1), self.embed_observation(observations)], dim=1)
        memory = self.encoder(tokens + self.positions)              # (batch, 1 + history, width)
        queries = self.queries.expand(observations.shape[0], -1, -1)
        return self.output(self.decoder(queries, memory)).flatten(1)


class ACT(OfflineStrategy):
    """Regress the next actions together, given a style that says which way they go.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).
        latent_dim: size of the style z.
        kl_weight: beta, the price of what the style tells.
        width: size of a token.
        layers: number of layers of each of the three transformers.
        heads: number of attention heads; they share the width.
        history: how many observations the policy sees, the present one last.
        horizon: how many actions, from the present one on, are modelled together.
        chunk: how many of these are played before the policy is asked again.
        temporal_ensembling: ask at every step, and play the mean of overlapping chunks with weights exp(-this i), i = 0 for
            the oldest; default: chunks are played one after the other.
        optimizer: which optimizer, with its learning rate and weight decay.
        schedule: "cosine" lowers the learning rate to zero over the run; "constant" leaves it.
    """

    recordable = True
    logs = {
        "loss": Metric("absolute, before the tanh", "mean over batch, actions and dimensions of abs(f(o, z) - u) + beta KL"),
        "absolute_error": Metric("before the tanh", "mean over batch, actions and dimensions of abs(f(o, z) - u)"),
        "style_kl": Metric("nat per chunk", "KL(q(z given o, U), Normal(0, I)), mean over the batch: what the style tells"),
    }

    network: Decoder

    def __init__(
        self,
        observation_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        latent_dim: PositiveInt = 32,
        kl_weight: NonNegativeFloat = 10.0,
        width: PositiveInt = 128,
        layers: PositiveInt = 2,
        heads: PositiveInt = 4,
        history: PositiveInt = 1,
        horizon: PositiveInt = 1,
        chunk: PositiveInt = 1,
        temporal_ensembling: NonNegativeFloat | None = None,
        optimizer: OptimizerCallable = DefaultAdamW,
        schedule: Schedule = "cosine",
    ) -> None:
        super().__init__(observation_dim, action_low, action_high, optimizer, schedule)
        if width % heads:
            raise InputError(f"--model.width {width}: wanted a multiple of --model.heads, {heads}.")
        self.set_windows(history, horizon, chunk, temporal_ensembling)
        self.latent_dim, self.kl_weight = latent_dim, kl_weight
        sizes, of = (observation_dim, self.action_dim), {"width": width, "heads": heads, "layers": layers}
        self.encoder = Encoder(*sizes, history + horizon, latent_dim, **of)
        self.network = Decoder(*sizes, history, horizon, latent_dim, **of)

    def loss(self, observations: Tensor, actions: Tensor, within: Tensor | None = None) -> tuple[Tensor, Metrics]:
        """Absolute error with a style from the encoder, and beta times the style's divergence."""
        seen = self._sequence(observations)
        chunk = self.squashing.unsquash(actions).reshape(len(actions), self.horizon, self.action_dim)
        mean, log_scale = self.encoder(seen, chunk, within)         # (batch, latent_dim)
        style, kl = draw(mean, log_scale)                           # (batch, latent_dim), (batch,)
        error = mean_absolute_error(self.network(seen, style), chunk.flatten(1), within)
        return error + self.kl_weight * kl.mean(), {"absolute_error": error.detach(), "style_kl": kl.detach().mean()}

    def acting_weights(self) -> StateDict:
        """All but the encoder's."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}

    def act(self, observations: Tensor, deterministic: bool) -> Tensor:
        """The chunk of the style 0, or of a style from the prior."""
        style = observations.new_zeros(observations.shape[0], self.latent_dim)
        style = style if deterministic else torch.randn_like(style)
        return self.first_chunk(self.squashing(self.network(self._sequence(observations), style)))

    def _sequence(self, observations: Tensor) -> Tensor:
        return observations.reshape(observations.shape[0], self.history, self.observation_dim)
