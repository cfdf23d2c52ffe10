"""Demonstrations from Python: play any policy and keep what it did."""

from dataclasses import replace
from pathlib import Path

from lightning_bc.api.evaluation import Function, as_expert
from lightning_bc.api.policy import Policy, load, without_gradients
from lightning_bc.bounds import check_arguments
from lightning_bc.demonstrations.collect import Actions, Rounds, check_seed, demonstrate, with_reference_returns
from lightning_bc.demonstrations.experts import Expert, expert_sha256
from lightning_bc.demonstrations.readers import torch_file
from lightning_bc.demonstrations.trajectories import Trajectories
from lightning_bc.demonstrations.writing import new_data, write
from lightning_bc.environments import environment_spaces, limit_episodes
from lightning_bc.errors import InputError


def collect(
    environment_id: str,
    expert: str | Path | Policy | Expert | Function,
    pairs: int,
    *,
    actions: Actions = "sampled",
    seed: int = 0,
    output: str | Path | None = None,
    max_episode_steps: int | None = None,
    progress: bool = True,
) -> Trajectories:
    """Play an expert and return what it saw and did, with the returns that it and random actions have on the test bank.

    Args:
        environment_id: Gymnasium id.
        expert: a file or run that :func:`lightning_bc.load` takes, a policy, a strategy, or a function as in
            :func:`lightning_bc.evaluate`.
        pairs: how many; the last episode is cut there.
        actions: "sampled", "deterministic" or "exploratory": see ``python -m lightning_bc collect --help``. A function has
            only one answer, which all three record.
        seed: of the first episode; episode i has seed + i.
        output: a .pt file, or a folder that ends in .shards, to write them to as well; by default none.
        max_episode_steps: where the environment has no time limit, steps after which an episode is cut off, here and in
            all that is played later in this process; default 1000.
        progress: show a bar.

    Raises:
        InputError: the expert cannot be loaded or does not fit the environment, or the file exists.
    """
    check_arguments(collect, locals())
    check_seed(pairs, seed)
    if max_episode_steps is not None:
        limit_episodes(environment_id, max_episode_steps)
    actor = load(expert, environment_id=environment_id) if isinstance(expert, str | Path) else expert
    player = as_expert(actor, environment_spaces(environment_id))
    path = None if output is None else new_data(output)
    with without_gradients(actor.strategy if isinstance(actor, Policy) else actor):
        kept = Rounds()
        origin = demonstrate(player, environment_id, pairs, actions, seed, "collecting" if progress else None, kept.add)
        origin = replace(with_reference_returns(origin, player, environment_id), path=str(path or "memory"))
    if isinstance(actor, Policy) and actor.path is not None:
        origin = replace(origin, expert=str(actor.path), expert_sha256=expert_sha256(actor.path))
    made = kept.together(origin)
    if path is not None:
        write(path, made)
    return made


def write_demonstrations(path: str | Path, demonstrations: Trajectories) -> Path:
    """Write demonstrations to a .pt file, or to a folder that ends in .shards, whole or not at all.

    It is the counterpart of ``read_demonstrations``.

    Raises:
        InputError: the file exists, has another ending or cannot be made, or ``read_demonstrations`` would refuse it; or
            they are no Trajectories.
    """
    if not isinstance(demonstrations, Trajectories):
        raise InputError(f"demonstrations: is a {type(demonstrations).__name__}; wanted lightning_bc.Trajectories(...).")
    file = new_data(path)
    write(file, torch_file.checked(file, demonstrations))
    return file
