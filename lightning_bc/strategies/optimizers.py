"""The optimizers that strategies begin with; ``--model.optimizer`` takes any of torch's in their place."""

from collections.abc import Iterable

import torch
from torch import Tensor

from lightning_bc.bounds import NonNegativeFloat, PositiveFloat


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101).

    Args:
        params: what is optimized.
        lr: learning rate.
        weight_decay: share of each weight that an update of learning rate 1 would take away.
        fused: one kernel for all parameters.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: PositiveFloat = 3e-3, weight_decay: NonNegativeFloat = 1e-4, fused: bool = True
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=fused)


class Adam(torch.optim.Adam):
    """Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980).

    Args:
        params: what is optimized.
        lr: learning rate.
        fused: one kernel for all parameters.
    """

    def __init__(self, params: Iterable[Tensor], lr: PositiveFloat = 5e-4, fused: bool = True) -> None:
        super().__init__(params, lr=lr, fused=fused)
