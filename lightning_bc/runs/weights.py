"""Whether weights that were saved fit a strategy that was built."""

from collections.abc import Mapping

from torch import Tensor, nn

from lightning_bc.errors import InputError


def check_weights(source: str, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise InputError unless ``weights`` are those of ``module``, by name and shape.

    Args:
        source: the flag that names them, with its value.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise InputError(
                f"{source}: holds {name} {found.get(name, 'not at all')}, and this {type(module).__name__} has it "
                f"{wanted.get(name, 'not at all')}. Use a checkpoint of the same environment, network and strategy."
            )
