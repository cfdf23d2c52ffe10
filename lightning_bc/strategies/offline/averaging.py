"""Averaged weights: a second set that follows the trained ones slowly, and acts.

    w <- d_t w + (1 - d_t) w_trained    after each optimizer step t,    d_t = min(decay, (1 + t) / (10 + t))

An exponential moving average, over about the last 1 / (1 - decay) steps, takes the noise of single steps out of the weights
(Polyak 1992, https://doi.org/10.1137/0330046); diffusion policies act with it (Chi 2023, https://arxiv.org/abs/2303.04137).
The rising d_t forgets the initial weights sooner.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from lightning_bc.aliases import StateDict
from lightning_bc.errors import takes_state


class Averages:
    """The set of weights, trained or averaged, that the module does not hold at the moment.

    Between two training steps a module holds the averaged weights, so that whatever plays, measures or saves it then uses
    these; inside a training step it holds the trained ones.

    Args:
        decay: share of the average that a step keeps, from 0 to below 1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.others: list[Tensor] = []

    @torch.no_grad()
    def swap(self, parameters: Iterable[Tensor]) -> None:
        """Exchange the two sets; at first they are the same."""
        held = [*parameters]
        if not self.others:
            self.others = [parameter.detach().clone() for parameter in held]
        for place, (parameter, other) in enumerate(zip(held, self.others, strict=True)):
            kept = parameter.detach().clone()
            parameter.copy_(other)
            self.others[place] = kept

    def update(self, parameters: Iterable[Tensor], step: int) -> None:
        """Follow the trained weights, which the module holds, after optimizer step number ``step``."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        average(self.others, [parameter.detach() for parameter in parameters], 0)

    def state_dict(self) -> StateDict:
        """The set that the module does not hold."""
        return {"others": self.others}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from there."""
        self.others = state["others"]
