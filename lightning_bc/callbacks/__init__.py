"""What happens beside the training steps: the reward-over-time curve, checkpoints, progress, DAgger."""

from lightning_bc.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from lightning_bc.callbacks.dagger import DAgger
from lightning_bc.callbacks.progress import Progress
from lightning_bc.callbacks.rollouts import Rollouts

__all__ = ["AtomicCheckpointIO", "Checkpoints", "DAgger", "Progress", "Rollouts"]
