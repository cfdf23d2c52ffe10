"""What is learnt from: experts, files of pairs, their collection, and the data module that serves them."""

from lightning_bc.demonstrations.batches import Batches
from lightning_bc.demonstrations.collect import collect
from lightning_bc.demonstrations.experts import load_expert
from lightning_bc.demonstrations.formats import DemonstrationFile, read
from lightning_bc.demonstrations.module import Demonstrations

__all__ = ["Batches", "DemonstrationFile", "Demonstrations", "collect", "load_expert", "read"]
