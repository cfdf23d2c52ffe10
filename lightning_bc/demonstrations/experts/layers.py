"""Layers of experts: made of tensors that a file holds, fixed, and without a draw from the random state."""

from torch import Tensor, nn


def fixed_linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A linear layer that is not trained, from ``weight`` (outputs, inputs) and ``bias`` (outputs,).

    Raises:
        RuntimeError, IndexError, AttributeError: the two do not make a layer.
    """
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0])  # draws nothing from the random state
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.requires_grad_(False)
