"""Whether a network of one's own answers with as many numbers as its factory was asked for.

Where it does not, a loss would mostly be computed all the same: torch repeats a single number for every action dimension.
"""

import copy
import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from lightning_bc.episodes import forked_random_state
from lightning_bc.errors import InputError
from lightning_bc.networks import MLP

_ROWS = 2


class _Asked(MLP):
    """Stands for a network, and remembers which sizes a strategy has asked its factory for."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__(input_size, output_size, hidden_sizes=())
        self.sizes = input_size, output_size


def refuse_other_sizes(strategy: nn.Module, settings: Mapping[str, Any]) -> None:
    """Run copies of a strategy's networks on zeros, and compare what they answer with what was asked for.

    What was asked for is seen by building the strategy once more with a factory that remembers it. A strategy that cannot be
    built so, or a network that cannot be copied or does not take zeros, is left alone.

    Args:
        settings: the arguments that the strategy was built with, without those that are callable.

    Raises:
        InputError: a network answers with another shape.
    """
    for name, (input_size, output_size) in _asked(type(strategy), settings).items():
        found = None
        with suppress(Exception), torch.no_grad(), forked_random_state(0, torch.device("cpu")):
            network = strategy.get_submodule(name)
            network = copy.deepcopy(getattr(network, "_orig_mod", network)).eval()  # of torch.compile, what it compiles
            zeros = torch.zeros(_ROWS, input_size)
            if (weights := next(network.parameters(), None)) is not None:
                zeros = zeros.to(weights)
            found = network(zeros)
        if isinstance(found, Tensor) and found.shape != (_ROWS, output_size):
            raise InputError(
                f"--model.network {type(strategy.get_submodule(name)).__name__}: the network answers {_ROWS} rows of inputs "
                f"with {tuple(found.shape)}, wanted {(_ROWS, output_size)}. Build its last layer with the output size, the "
                "second argument that it is built with."
            )


def _asked(cls: type, settings: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Input and output sizes by the name of each network that a strategy has a factory for."""
    parameters = inspect.signature(cls).parameters
    given = {name: settings[name] for name in parameters if name in settings and name not in ("network", "optimizer")}
    built = nn.Module()
    if "network" in parameters:
        with suppress(Exception), forked_random_state(0, torch.device("cpu")):
            built = cls(**given, network=_Asked)
    return {name: module.sizes for name, module in built.named_modules() if isinstance(module, _Asked)}
