"""What happens beside the training steps: the reward-over-time curve, checkpoints, progress, DAgger, tabs."""

from lightning_bc.callbacks.averaged_weights import AveragedWeights
from lightning_bc.callbacks.checked import Checked
from lightning_bc.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lightning_bc.callbacks.dagger import DAgger
from lightning_bc.callbacks.init_from import InitFrom
from lightning_bc.callbacks.owner import Owner
from lightning_bc.callbacks.progress import Progress
from lightning_bc.callbacks.rollouts import Rollouts
from lightning_bc.callbacks.tabs import TensorBoardTabs

__all__ = [
    "AtomicCheckpointIO",
    "AveragedWeights",
    "Checked",
    "Checkpoints",
    "DAgger",
    "InitFrom",
    "Owner",
    "Progress",
    "Rollouts",
    "TensorBoardTabs",
]
