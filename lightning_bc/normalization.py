"""Mean and scale of observations, kept as buffers so that they live in the checkpoint."""

import torch
from torch import Tensor, nn


class Normalization(nn.Module):
    """Standardise observations: (o - mean) / scale, with the training pairs' mean and standard deviation.

    A dimension that does not vary in the data (standard deviation below 1e-6 of its magnitude, or zero) is only
    centred: its scale is 1, so nothing is divided by zero and rounding noise is not blown up.

    Args:
        dimension: size of an observation.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dimension))
        self.register_buffer("scale", torch.ones(dimension))

    @torch.no_grad()
    def fit(self, observations: Tensor) -> None:
        """Take mean and scale from ``observations`` (pairs, dimension), summed in float64."""
        deviation, mean = torch.std_mean(observations.double(), dim=0, correction=0)
        varies = deviation > 1e-6 * mean.abs().clamp(min=1e-6)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, deviation, 1.0))

    def forward(self, observations: Tensor) -> Tensor:
        """Standardise ``observations`` (batch, dimension)."""
        return (observations - self.mean) / self.scale
