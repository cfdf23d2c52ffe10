"""A ``fit`` that is parsed and built, but not run."""

from functools import cache

from lightning.pytorch.trainer.states import TrainerFn

from lightning_bc.aliases import Config
from lightning_bc.arguments import found_configurations, with_lists
from lightning_bc.training import CommandLine


class Settled(CommandLine):
    """A command parsed, settled and built, but not run: refused as it would be; ``saved_config`` is what it means."""

    def __init__(self, command: str, args: list[str]) -> None:
        super().__init__(command, with_lists(found_configurations(args)))

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def prepare_data(self) -> None:
        """Read, and where it is missing collect, the demonstrations, as the first thing that ``fit`` does."""
        self.trainer.strategy.connect(self.model)
        self.trainer.state.fn = TrainerFn.FITTING
        self.datamodule.trainer = self.trainer
        self.datamodule.prepare_data()


@cache
def meaning(flags: tuple[str, ...]) -> Config:
    """The whole configuration that flags of ``fit`` mean.

    Raises:
        InputError: ``fit`` would refuse them.
    """
    return Settled("fit", list(flags)).saved_config
