"""How much of the expert's variation is explained, also where an action dimension hardly varies."""

from typing import Any

import torch
import torchmetrics
from torch import Tensor

_VARIES = 1e-6
"""Of the magnitude: a deviation below it is rounding, as in :class:`lightning_bc.border.Border`."""


class ExplainedVariance(torchmetrics.ExplainedVariance):
    """Mean over the dimensions whose targets vary of 1 - Var(target - prediction) / Var(target); NaN where none does.

    It is summed in float64, whatever the strategy's own precision: in float32 the variance of a dimension that hardly varies
    is rounding.
    """

    def __init__(self) -> None:
        super().__init__()
        for name in [*self._defaults]:
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _apply(self, fn: Any, exclude_state: Any = "") -> torch.nn.Module:
        """Go to the strategy's device, and keep the precision; MPS has no float64, so there the sums stay on the CPU."""
        device = fn(torch.zeros(1)).device
        return super()._apply(lambda value: value.to("cpu" if device.type == "mps" else device), exclude_state)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch, (batch, action_dim) each."""
        device = self.num_obs.device
        super().update(preds.to(device).double(), target.to(device).double())

    def compute(self) -> Tensor:
        """What was said above of all batches."""
        number = self.num_obs
        mean = self.sum_target / number                             # (action_dim,)
        variance = self.sum_squared_target / number - mean.square()
        unexplained = self.sum_squared_error / number - (self.sum_error / number).square()
        varies = variance > (_VARIES * mean.abs().clamp(min=_VARIES)).square()
        return (1 - unexplained / variance)[varies].mean().float()
