"""A new run from another run's weights."""

from collections.abc import Mapping

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_bc.strategies import Strategy


class InitFrom(Callback):
    """Put ``weights`` into the strategy before the first step, once it has taken its statistics from the data.

    What a strategy has in buffers, mean and scale of observations among it, comes from the checkpoint too, since the
    weights are of use with them alone. Counters of steps, which are no buffers, begin anew.

    Args:
        source: where the weights come from, for people.
        weights: the state dict.
        is_clone: whether the actor in it is a clone that another strategy has learnt.
    """

    def __init__(self, source: str, weights: Mapping[str, Tensor], is_clone: bool = False) -> None:
        self.source, self.weights, self.is_clone = source, weights, is_clone

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Load them; setup is over."""
        assert isinstance(module, Strategy)
        module.load_state_dict(self.weights)
        module.border.is_given = True
        if self.is_clone:
            module.take_over()
        weights = "a cloned actor" if self.is_clone else "weights"
        narrow = f"; actions reach no further than its demonstrations': {reach}" if (reach := module.border.narrowed) else ""
        rank_zero_only(print)(f"{weights}, with the scales of observations and actions, from {self.source}{narrow}\n")
