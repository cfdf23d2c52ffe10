"""The border between the environment's units and a strategy's: crossed here and nowhere else."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_bc.errors import InputError

_LARGEST_OBSERVATION = 1e6
"""In standard deviations; beyond it products could overflow, and a policy must answer every finite observation."""

_MARGIN = 0.25
"""How far actions may go, on either side, beyond what demonstrations take, in shares of it."""

_LITTLE = 0.5
"""Where they take less of the range between their bounds, with the margins, they are scaled by it."""

_NARROWEST = 1e-3
"""What is left of the range for an action that does not vary."""

_INWARD = 1 - 1e-6
"""So much narrower that float32's rounding reaches over no bound."""

_UNSEEN = 1e30
"""A scale that makes 0 of what a policy is not to see."""

_MOST_TOLD = 4
"""Of so many dimensions it is said what is taken of their bounds."""


def _range(low: float, high: float) -> str:
    """In words, to a ten-thousandth of its width."""
    return " to ".join(f"{round(end / (high - low), 4) * (high - low):.4g}" for end in (low, high))


def _half_and_middle(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and bias of actions between ``low`` and ``high`` (action_dim,) float64, rounded once."""
    return ((high - low) / 2).float(), ((high + low) / 2).float()


def hidden_by(scale: Tensor) -> list[int]:
    """The entries of an observation that a border of this ``scale`` (observation_dim,) hides, of any precision."""
    return (scale.float() == _UNSEEN).nonzero().flatten().tolist()


class Border(nn.Module):
    """Observations come in normalised, actions go out in the environment's units.

        normalised = (observation - mean) / scale
        action     = action_scale * scaled + action_bias,    scaled in [-1, 1]
        action_scale = (high - low) / 2,    action_bias = (high + low) / 2

    Low and high are the bounds of the actions, unless demonstrations take little of the range between them: see ``narrow``.
    Mean and scale are the training pairs' mean and standard deviation. They are buffers, so that they live in the
    checkpoint. A dimension that does not vary in the data (standard deviation below 1e-6 of its magnitude, or 1e-12) is only
    centred: its scale is 1, so nothing is divided by zero and rounding noise is not blown up.

    Args:
        observation_dim: size of an observation.
        action_low: lower bounds of the actions, (action_dim,).
        action_high: upper bounds of the actions, (action_dim,).

    Raises:
        InputError: the bounds are none.
    """

    mean: Tensor
    scale: Tensor
    action_scale: Tensor
    action_bias: Tensor

    is_given: bool = False
    """Whether mean and scale came with weights that were learnt with them, so that ``fit`` leaves them as they are."""

    def __init__(self, observation_dim: int, action_low: Sequence[float], action_high: Sequence[float]) -> None:
        super().__init__()
        low, high = torch.tensor(action_low, dtype=torch.float64), torch.tensor(action_high, dtype=torch.float64)
        if low.dim() != 1 or low.shape != high.shape or not ((low < high) & (high - low).isfinite()).all():
            raise InputError(
                f"action_low {low.tolist()}, action_high {high.tolist()}: wanted as many finite numbers, one per action "
                "dimension, the upper above the lower."
            )
        self.register_buffer("mean", torch.zeros(observation_dim))
        self.register_buffer("scale", torch.ones(observation_dim))
        self.low, self.high = low, high
        scale, bias = _half_and_middle(low, high)
        self.register_buffer("action_scale", scale)
        self.register_buffer("action_bias", bias)

    @torch.no_grad()
    def fit(self, observations: Tensor) -> None:
        """Take mean and scale from ``observations`` (pairs, observation_dim), summed in float64."""
        deviation, mean = torch.std_mean(observations.double(), dim=0, correction=0)
        self.take(mean, deviation)

    @torch.no_grad()
    def take(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the mean and the standard deviation of observations, (observation_dim,) float64 each."""
        if self.is_given:
            return
        varies = deviation > 1e-6 * mean.abs().clamp(min=1e-6)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, deviation, 1.0))

    @torch.no_grad()
    def narrow(self, actions: Tensor) -> str:
        """Scale by what ``actions`` (pairs, action_dim) take of the range between the bounds, where that is little.

            low  = max(bound below, min(a) - m),    high = min(bound above, max(a) + m),    m = (max(a) - min(a)) / 4

        Where high - low is less than half of the range, as of actions that take a third of it: bounds that nobody comes near
        would cost resolution, with bins as wide as the range, and noise and floors in shares of it. An action that does not
        vary keeps a thousandth of the range. A border that came with weights stays as it is.

        Returns:
            What is to be said of it; nothing where the border is as wide as the bounds.
        """
        if self.is_given:
            return ""
        low, high = self.low.to(actions.device), self.high.to(actions.device)
        least, most = actions.amin(dim=0).double(), actions.amax(dim=0).double()
        margin = torch.maximum(_MARGIN * (most - least), _NARROWEST * (high - low) / 2)
        lower, upper = torch.maximum(low, least - margin), torch.minimum(high, most + margin)
        narrow = (upper - lower) < _LITTLE * (high - low)
        scale, bias = _half_and_middle(torch.where(narrow, lower, low), torch.where(narrow, upper, high))
        self.action_scale.copy_(torch.where(narrow, _INWARD * scale, scale))
        self.action_bias.copy_(bias)
        narrowed = self.narrowed
        return bool(narrowed) * (
            "actions: in some dimensions the demonstrations take little of the range between the bounds, and the policy "
            f"stays near what they take: {narrowed} (lightning_bc/border.py)"
        )

    @property
    def narrowed(self) -> str:
        """In words, what [-1, 1] stands for in the dimensions where that is less than the bounds; empty where in none."""
        reach, bounds = zip(*self.reach, strict=True), zip(self.low.tolist(), self.high.tolist(), strict=True)
        ranges = enumerate(zip(reach, bounds, strict=True))
        told = [f"{place}: {_range(*own)} of {_range(*whole)}" for place, (own, whole) in ranges if own != whole]
        more = f"; and {len(told) - _MOST_TOLD} more" if len(told) > _MOST_TOLD else ""
        return "; ".join(told[:_MOST_TOLD]) + more

    @property
    def reach(self) -> tuple[list[float], list[float]]:
        """What [-1, 1] stands for, lower and upper bounds: a border that is built with them is the same."""
        scale, bias = self.action_scale.cpu(), self.action_bias.cpu()
        half, middle = _half_and_middle(self.low, self.high)
        is_whole = (scale == half) & (bias == middle)
        scale, bias = scale.double(), bias.double()
        low, high = torch.where(is_whole, self.low, bias - scale), torch.where(is_whole, self.high, bias + scale)
        return low.tolist(), high.tolist()

    @torch.no_grad()
    def hide(self, dimensions: Sequence[int]) -> None:
        """Have 0 stand in place of some entries of every observation."""
        self.scale[[*dimensions]] = _UNSEEN

    @property
    def hidden(self) -> list[int]:
        """The entries that are hidden."""
        return hidden_by(self.scale)

    def observe(self, observations: Tensor) -> Tensor:
        """Normalise ``observations`` (..., observation_dim), and bound them at a million standard deviations."""
        return ((observations - self.mean) / self.scale).clamp(-_LARGEST_OBSERVATION, _LARGEST_OBSERVATION)

    def scaled(self, actions: Tensor) -> Tensor:
        """Bring ``actions`` (..., action_dim) from the environment's units to [-1, 1]."""
        return (actions - self.action_bias) / self.action_scale

    def unscaled(self, scaled: Tensor) -> Tensor:
        """Bring ``scaled`` actions (..., action_dim) from [-1, 1] to the environment's units."""
        return self.action_scale * scaled + self.action_bias
