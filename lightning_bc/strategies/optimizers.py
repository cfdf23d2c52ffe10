"""The optimizers that strategies begin with, in whose place ``--model.optimizer`` takes any of torch's; and the schedule.

They are not called as torch's are: ``--model.optimizer AdamW`` is found by its last name, which must be one class's alone.
"""

import warnings
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_bc.aliases import StateDict
from lightning_bc.bounds import NonNegativeFloat, PositiveFloat
from lightning_bc.errors import InputError, takes_state


class DefaultAdamW(torch.optim.AdamW):
    """torch's AdamW, Adam with decoupled weight decay, with our defaults.

    Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.


    Args:
        params: what is optimized.
        lr: learning rate.
        weight_decay: share of a weight taken away, times the learning rate.
        fused: one kernel for all parameters.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: PositiveFloat = 3e-3, weight_decay: NonNegativeFloat = 1e-4, fused: bool = True
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=fused)


class DefaultAdam(torch.optim.Adam):
    """torch's Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980), with our defaults.

    Args:
        params: what is optimized.
        lr: learning rate.
        fused: one kernel for all parameters.
    """

    def __init__(self, params: Iterable[Tensor], lr: PositiveFloat = 5e-4, fused: bool = True) -> None:
        super().__init__(params, lr=lr, fused=fused)


def take_a_step(optimizer: Callable[[Iterable[Tensor]], Optimizer], parameters: Iterable[Tensor]) -> None:
    """Build the optimizer for weights like ``parameters``, all 0, and take one step.

    Raises:
        InputError: that cannot be done; the message is torch's.
    """
    weights = [nn.Parameter(torch.zeros_like(one)) for one in parameters]
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    try:
        optimizer(iter(weights)).step()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"--model.optimizer: no step can be taken: {' '.join(str(error).split())}.") from error


class Cosine(torch.optim.lr_scheduler.CosineAnnealingLR):
    """Half a cosine from the optimizer's learning rate to zero (Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983).

        lr_t = lr_0 (1 + cos(pi t / T)) / 2

    A run that goes on with another length T goes on where the cosine over the new length stands at its step t: torch's own
    state would bring the old length back, and its recursion from lr_t to lr_(t + 1) the old learning rate.
    """

    @takes_state
    def load_state_dict(self, state_dict: StateDict) -> None:
        """Take the step of a checkpoint; the length is this run's. The optimizer's state was loaded before."""
        length, steps = self.T_max, state_dict["last_epoch"]
        super().load_state_dict(state_dict)
        if self.T_max == length:
            return
        self.T_max, self.last_epoch, self._step_count = length, 0, 1
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                         # that the optimizer takes no steps meanwhile
            for _ in range(steps):                                  # the recursion, as an uninterrupted run takes it
                self.step()
