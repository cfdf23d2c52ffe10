"""Latent codes: what strategies share whose encoder guesses a code of which the decoder makes actions.

    q = Normal(m, diag(s^2)),    KL(q || Normal(g, I)) = 1/2 sum_j ((m_j - g_j)^2 + s_j^2 - 1 - log s_j^2)
"""

import torch
from torch import Tensor

LARGEST_LOG_SCALE = 10.0
"""Of a code; the prior's is 0. Far from the data an encoder could answer with more than float32 holds the square of."""


def draw(mean: Tensor, log_scale: Tensor, expected: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """A code from q, (batch, latent_dim), and the divergence in nats from the prior, (batch,).

    Args:
        mean: m, (batch, latent_dim).
        log_scale: log s, likewise.
        expected: g, the prior's mean, likewise.
    """
    log_scale = log_scale.clamp(max=LARGEST_LOG_SCALE)
    code = mean + log_scale.exp() * torch.randn_like(mean)
    return code, 0.5 * ((mean - expected).square() + (2 * log_scale).exp() - 1 - 2 * log_scale).sum(-1)
