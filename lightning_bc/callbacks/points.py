"""One point of the curve, as it is measured between two training steps, and as it is logged."""

from functools import partial

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_bc.acting import CannotBeFrozenError
from lightning_bc.environments import Environments
from lightning_bc.episode_metrics import measure_all, recording_is_needed
from lightning_bc.episodes import SELECTION_BANK, Episodes, play
from lightning_bc.errors import DivergedError, NotFiniteError
from lightning_bc.ranks import STOP
from lightning_bc.references import References
from lightning_bc.runs.curve import Point
from lightning_bc.strategies import OfflineStrategy, Strategy, data_of
from lightning_bc.strategies.base import evaluating


def held_out_point(trainer: Trainer, module: Strategy) -> Point:
    """Where nothing is played: what is measured on the held-out pairs."""
    assert isinstance(module, OfflineStrategy)
    with evaluating(module):
        measured = module.held_out_figures(data_of(trainer).held_out())
    return {f"validation/{name}": value for name, value in measured.items()}


def played_point(trainer: Trainer, module: Strategy, environments: Environments, episodes: int) -> Point:
    """What is measured of the first ``episodes`` of the selection bank.

    Raises:
        DivergedError: an action, an observation or a return is not finite.
    """
    data = data_of(trainer)
    with evaluating(module):
        try:
            player, device = module.remembering(module.frozen()), torch.device("cpu")
        except CannotBeFrozenError:
            player, device = module.player(), module.device
        try:
            played = play(
                player,
                environments,
                SELECTION_BANK.seeds(episodes),
                record=recording_is_needed(data.environment_id),
                device=device,
                on_step=partial(honour_signals, trainer),
            )
        except NotFiniteError as error:
            raise DivergedError(module.steps_taken["optimizer_steps"], str(error).rstrip(".")) from error
    return of_episodes(played, data.references)


def of_episodes(played: Episodes, references: References) -> Point:
    """What is measured of them."""
    return {f"rollout/{name}": value for name, value in measure_all(played, references).items()}


def honour_signals(trainer: Trainer, steps: int) -> None:
    """End the run where SIGTERM has come: Lightning looks only between batches, and playing may take long."""
    if trainer.received_sigterm or STOP.is_wanted:
        raise SIGTERMException


def log(trainer: Trainer, metrics: dict[str, float], step: int | None = None) -> None:
    """Log at the optimizer step, by default the present one; by itself, Lightning would count calls of training_step.

    TensorBoard shows groups in the order of their names and opens the first: rollout, with the return. What the curve may be
    drawn over stands behind it in a group of its own; a count of 0, which may stay so, is left out.
    """
    shown = {name if "/" in name else f"time/{name}": value for name, value in metrics.items()}
    for name in ("time/environment_steps", "time/expert_queries"):
        if shown.get(name) == 0:
            del shown[name]
    for logger in trainer.loggers:
        logger.log_metrics(shown, step=trainer.global_step if step is None else step)
