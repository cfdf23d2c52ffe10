"""What a run warns of: each subject once, however often the run is resumed."""

import warnings

import torch
from torch import Tensor

from lightning_bc.aliases import StateDict
from lightning_bc.errors import takes_state


class Watch:
    """Running means that say when something goes wrong, and what has been warned of already."""

    def __init__(self) -> None:
        self.means: dict[str, Tensor] = {}
        self.warned_of: list[str] = []

    def follow(self, name: str, value: Tensor, rate: float, first: float) -> None:
        """Move the running mean ``name``, which begins at ``first``, by ``rate`` of the way to ``value``."""
        mean = self.means.get(name, torch.tensor(first))
        self.means[name] = mean + rate * (value.detach() - mean)

    def warn(self, subject: str, message: str) -> None:
        """Warn, once per run, of a ``subject``."""
        if subject not in self.warned_of:
            self.warned_of.append(subject)
            warnings.warn(message, stacklevel=3)

    def state_dict(self) -> StateDict:
        """Both, for checkpoints."""
        return {"means": self.means, "warned_of": self.warned_of}

    @takes_state
    def load_state_dict(self, state: StateDict) -> None:
        """Go on from there."""
        self.means, self.warned_of = dict(state["means"]), list(state["warned_of"])
