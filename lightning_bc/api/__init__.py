"""What ``import lightning_bc`` offers beside the command line: see docs/python.md."""

from lightning_bc.api.collection import collect, write_demonstrations
from lightning_bc.api.evaluation import Evaluation, evaluate
from lightning_bc.api.policy import Policy, load

__all__ = ["Evaluation", "Policy", "collect", "evaluate", "load", "write_demonstrations"]
