"""What is learnt from: experts, files of pairs, their collection, and the data module that serves them."""

from lightning_bc.demonstrations.batches import Batches
from lightning_bc.demonstrations.collect import collect
from lightning_bc.demonstrations.experts import load_expert
from lightning_bc.demonstrations.formats import DemonstrationFile, read, write
from lightning_bc.demonstrations.module import Demonstrations
from lightning_bc.demonstrations.references import References

__all__ = ["Batches", "DemonstrationFile", "Demonstrations", "References", "collect", "load_expert", "read", "write"]
