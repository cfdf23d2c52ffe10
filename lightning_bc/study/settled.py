"""A ``fit`` that is parsed and built, but not run."""

from collections.abc import Sequence

from lightning.pytorch.trainer.states import TrainerFn

from lightning_bc import trainer_flags
from lightning_bc.arguments import found_configurations, with_lists
from lightning_bc.training import CommandLine


class Settled(CommandLine):
    """Flags of ``fit`` parsed, settled and built: refused as it would, and ``saved_config`` is all that they mean."""

    def __init__(self, flags: Sequence[str]) -> None:
        trainer_flags.quiet_lightning()
        super().__init__("fit", with_lists(found_configurations(list(flags))))

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def prepare_data(self) -> None:
        """Read, and where it is missing collect, the demonstrations, as the first thing that ``fit`` does."""
        self.trainer.strategy.connect(self.model)
        self.trainer.state.fn = TrainerFn.FITTING
        self.datamodule.trainer = self.trainer
        self.datamodule.prepare_data()
