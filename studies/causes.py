"""What studies/causes.yaml needs beside its flags.

    python -m studies.causes

writes its file of one trajectory 2400 times.
"""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_bc.callbacks import DAgger

ALL = Path("data/HalfCheetah-v5-deterministic-2400000.pt")
REPEATED = Path("data/HalfCheetah-v5-one-trajectory-2400-times.pt")


class RestartingDAgger(DAgger):
    """DAgger whose learner begins anew after each round: its first weights, and nothing in the optimizer's memory."""

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Remember the first weights."""
        self._first = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int
    ) -> None:
        """After a round, go back to them."""
        before = self.rounds_done
        super().on_train_batch_end(trainer, module, outputs, batch, batch_index)
        if self.rounds_done > before:
            module.load_state_dict(self._first, strict=False)
            trainer.optimizers[0].state.clear()


if __name__ == "__main__":
    content = torch.load(ALL, weights_only=True, mmap=True)
    columns = {name: content[name][:1000].repeat(2400, 1) for name in ("observations", "actions")}
    returns = {name: content[name] for name in ("mean_reward", "std_reward")}
    torch.save(columns | returns | {"episode_lengths": [1000] * 2400}, REPEATED)
