"""Trained actors as CleanRL's (https://docs.cleanrl.dev), for ``collect`` here and for other people's code.

    hidden = relu(W2 relu(W1 o + b1) + b2)

and linear heads on it. What our networks see is normalised, n = (o - mean) / scale; the first layer takes that in:

    W n + b = (W / scale) o + (b - (W / scale) mean)
"""

from torch import Tensor, nn

from lightning_bc.errors import InputError
from lightning_bc.strategies import OfflineStrategy, Strategy, strategies

_LAYERS = [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]


def cleanrl_state(strategy: Strategy) -> dict[str, Tensor]:
    """The state dict of the CleanRL actor that acts as ``strategy`` does.

    Raises:
        InputError: there is none.
    """
    heads = strategy.cleanrl_heads
    if not heads:
        known = ", ".join(name for name, cls in strategies().items() if cls.cleanrl_heads)
        raise InputError(
            f"{type(strategy).__name__} chooses its actions otherwise than CleanRL's actors. {known} and MSE with "
            "squash: true can be exported; collect takes every checkpoint as it is."
        )
    if isinstance(strategy, OfflineStrategy) and not strategy.squashing.is_plain:
        raise InputError(
            "the demonstrations' actions saturate, so that this policy's bounds lie within the tanh's range, and CleanRL's "
            "lie at its ends. Export it with --onnx true, or as it is; collect takes every checkpoint."
        )
    layers = list(getattr(strategy.actor, "layers", []))
    if [type(layer) for layer in layers] != _LAYERS:
        raise InputError(
            "a CleanRL actor has exactly two hidden layers of ReLU, and this network is another. Train with "
            "--model.network MLP --model.network.hidden_sizes [256,256] --model.network.activation relu; collect takes "
            "every checkpoint as it is."
        )
    first, second, last = layers[::2]
    mean, scale = strategy.border.mean.double(), strategy.border.scale.double()
    weight = strategy.actor.input_scale * first.weight.double() / scale  # (hidden size, observation_dim)
    state = {
        "fc1.weight": weight.float(),
        "fc1.bias": (first.bias.double() - weight @ mean).float(),
        "fc2.weight": second.weight,
        "fc2.bias": second.bias,
        "action_scale": strategy.border.action_scale,
        "action_bias": strategy.border.action_bias,
    }
    for part in ("weight", "bias"):
        values = getattr(last, part).chunk(len(heads))              # means, then raw log standard deviations
        state |= {f"{head}.{part}": value for head, value in zip(heads, values, strict=True)}
    return {name: value.detach().clone() for name, value in state.items()}
