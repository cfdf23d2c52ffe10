"""Acting with averaged weights."""

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_bc.errors import InputError
from lightning_bc.strategies import OfflineStrategy
from lightning_bc.strategies.offline.averaging import Averages


class AveragedWeights(Callback):
    """Act, measure and save with an exponential moving average of the weights, under any offline strategy; train the others.

    The checkpoint holds the averaged weights where every checkpoint has its weights, and beside them the trained ones, from
    which a run goes on exactly.

    Args:
        decay: share of the average that an optimizer step keeps; it reaches back about 1 / (1 - decay) steps.

    Raises:
        InputError: it is not from 0 to below 1.
    """

    names_method = True
    """Tables name the method by it."""

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"--trainer.callbacks.decay {decay:g}: wanted 0 to below 1.")
        self.decay = decay

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Have the strategy average.

        Raises:
            InputError: it does not learn from demonstrations alone.
        """
        if not isinstance(module, OfflineStrategy):
            raise InputError(
                f"AveragedWeights: {type(module).__name__} acts while it learns; weights are averaged of strategies that "
                "learn from demonstrations alone. Leave the callback away."
            )
        if stage == "fit":
            module.averages = Averages(self.decay)
