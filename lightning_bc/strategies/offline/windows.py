"""What strategies with a history or a horizon share: windows as flat vectors, and errors within the episode alone."""

from torch import Tensor
from torch.nn import functional as F


def mean_squared_error(predictions: Tensor, targets: Tensor, within: Tensor | None) -> Tensor:
    """Mean of (p - u)^2 over the actions that lie within the episode.

    Args:
        predictions: p, (batch, horizon action_dim).
        targets: u, likewise.
        within: which of the window's actions lie within the episode, (batch, horizon) bool; None where all do.
    """
    return _mean(F.mse_loss(predictions, targets, reduction="none"), within)


def mean_absolute_error(predictions: Tensor, targets: Tensor, within: Tensor | None) -> Tensor:
    """Mean of abs(p - u) over the same, with the same arguments."""
    return _mean(F.l1_loss(predictions, targets, reduction="none"), within)


def _mean(errors: Tensor, within: Tensor | None) -> Tensor:
    if within is None:
        return errors.mean()
    per_action = errors.unflatten(-1, (within.shape[1], -1)).mean(-1)  # (batch, horizon)
    return (per_action * within).sum() / within.sum()
