"""How a data module serves its pairs: as a Trainer and its strategy want them."""

from torch import Tensor

from lightning_bc.demonstrations.batches import Batch, Batches, batches_per_pass
from lightning_bc.demonstrations.fitting import Wanted
from lightning_bc.demonstrations.mixture import Mixture
from lightning_bc.demonstrations.windows import Windows


def served(
    pairs: Batch,
    lengths: Tensor,
    wanted: Wanted,
    batch_size: int,
    seed: int,
    group_size: int,
    mixture: Mixture | None = None,
    trains: bool = False,
    rows: Tensor | None = None,
) -> Batches:
    """Batches of pairs, or of windows of them.

    Args:
        pairs: observations (pairs, observation_dim) and actions (pairs, action_dim).
        lengths: of their episodes, (episodes,).
        wanted: by the Trainer and its strategy.
        batch_size: pairs per batch on each rank.
        seed: of the order.
        group_size: batches per item.
        mixture: see :class:`Batches`.
        rows: which pairs, (served,); None for all.
        trains: whether they end where training does; an iteration spans all of it, unless it goes by epochs.
    """
    observations, actions = pairs
    return Batches(
        observations,
        actions,
        batch_size,
        seed,
        windows=Windows(lengths, wanted.history, wanted.horizon, wanted.device) if wanted.has_windows else None,
        mixture=mixture,
        rows=rows,
        group_size=group_size,
        num_batches=wanted.max_steps if trains and wanted.max_epochs is None else None,
        stop=wanted.max_steps if trains else None,
        rank=wanted.rank,
        world_size=wanted.world_size,
    )


def optimizer_steps(pairs: int, batch_size: int, wanted: Wanted) -> int | None:
    """Optimizer steps of the whole run on so many pairs; None where the Trainer's settings set no end."""
    if wanted.max_epochs is None:
        return wanted.max_steps
    steps = wanted.max_epochs * batches_per_pass(pairs, batch_size, wanted.world_size)
    return steps if wanted.max_steps is None else min(steps, wanted.max_steps)
