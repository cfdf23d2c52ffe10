"""A ``fit`` that is parsed and built, but not run."""

from lightning.pytorch.trainer.states import TrainerFn

from lightning_bc.training import CommandLine


class Settled(CommandLine):
    """A command parsed, settled and built, but not run: refused as it would be; ``saved_config`` is what it means."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass

    def prepare_data(self) -> None:
        """Read, and where it is missing collect, the demonstrations, as the first thing that ``fit`` does."""
        self.trainer.strategy.connect(self.model)
        self.trainer.state.fn = TrainerFn.FITTING
        self.datamodule.trainer = self.trainer
        self.datamodule.prepare_data()
