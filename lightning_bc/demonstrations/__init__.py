"""What is learnt from: experts, files of pairs, their collection, and the data module that serves them."""

from lightning_bc.demonstrations.batches import Batches
from lightning_bc.demonstrations.collect import collect
from lightning_bc.demonstrations.experts import load_expert
from lightning_bc.demonstrations.module import Demonstrations
from lightning_bc.demonstrations.readers import peek, read
from lightning_bc.demonstrations.trajectories import Origin, Trajectories

__all__ = ["Batches", "Demonstrations", "Origin", "Trajectories", "collect", "load_expert", "peek", "read"]
