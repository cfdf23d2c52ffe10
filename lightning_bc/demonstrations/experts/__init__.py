"""Who demonstrates, one file per kind: actors of CleanRL and of stable-baselines3, our checkpoints and exports, callables.

A file is data: nothing in it is run. A callable, ``package.module:function``, is a program of the user's.
"""

import re
import zipfile
from pathlib import Path
from typing import Protocol

import gymnasium
import torch

from lightning_bc.border import Border
from lightning_bc.demonstrations.experts import callables, exported, stable_baselines3
from lightning_bc.demonstrations.experts.cleanrl import CleanRLActor
from lightning_bc.demonstrations.experts.scripted import SCRIPTED_EXPERTS
from lightning_bc.demonstrations.fitting import beyond_bounds
from lightning_bc.environments import environment_spaces, gates_of
from lightning_bc.errors import InputError
from lightning_bc.files import checkpoint_of_run, refuse_damaged, sha256, shipped
from lightning_bc.players import Player
from lightning_bc.strategies import Strategy, load_strategy

__all__ = [
    "SHIPPED_EXPERTS",
    "CleanRLActor",
    "Expert",
    "check_fits",
    "environment_of_shipped",
    "expert_file",
    "expert_sha256",
    "load_expert",
    "shipped_expert",
]

SHIPPED_EXPERTS = Path("checkpoints/experts")

KINDS = (
    "the state dict of a CleanRL SAC or TD3 actor saved with torch.save, a stable-baselines3 .zip, a checkpoint of this "
    "package or the name of its run, a folder that export has written, or a function of yours as package.module:function"
)


class Expert(Protocol):
    """What demonstrates: an actor from a file, a trained strategy, or a callable."""

    observation_dim: int
    action_dim: int

    def player(self, deterministic: bool = True, replan: bool = False) -> Player:
        """What plays it: see :meth:`lightning_bc.strategies.Strategy.player`."""
        ...


def shipped_expert(environment_id: str) -> str | None:
    """The expert that comes with the package for this environment, as ``--expert`` takes it; None where there is none."""
    if gates_of(environment_id) is not None:
        return SCRIPTED_EXPERTS[environment_id.rpartition(":")[2]]
    path = shipped(SHIPPED_EXPERTS / f"{environment_id}.pt")
    return str(path) if path.is_file() else None


def expert_file(expert: str | Path) -> str:
    """Where an expert lies: of a run, by its name or a folder of it, the last checkpoint; everything else as it is."""
    path = shipped(expert)
    is_one = path.is_file() or exported.is_folder(path) or callables.is_name(str(expert))
    return str(expert if is_one else checkpoint_of_run(expert) or expert)


def load_expert(expert: str | Path, environment_id: str | None = None) -> Expert:
    """Load an expert from a file, or import it by its name.

    Files are recognised by their contents, and nothing in them is executed: they are read with ``weights_only=True``.
    ``package.module:function`` is imported, unless a file has that name.

    Args:
        expert: the file, the folder of an exported policy, the name or a folder of a run, or the name of a callable.
        environment_id: the environment that it acts in; its dimensions and action bounds must be the expert's. A callable
            needs it; a stable-baselines3 file does where it does not hold its action bounds as text.

    Raises:
        InputError: the file is missing, unreadable or holds no such actor, the callable cannot be imported or answers
            otherwise than it should, or the expert is not one for the environment. The message names it and the way out.
    """
    expert = expert_file(expert)
    path, spaces = shipped(expert), None if environment_id is None else environment_spaces(environment_id)
    is_there = path.is_file() or exported.is_folder(path)
    if not is_there and callables.is_name(expert):
        return callables.load(expert, spaces)
    if not is_there:
        experts = ", ".join(str(SHIPPED_EXPERTS / p.name) for p in sorted(shipped(SHIPPED_EXPERTS).glob("*.pt"))) or "none"
        raise InputError(
            f"{path}: no such expert file, and no checkpoint of such a run. Shipped experts: {experts}. Wanted: {KINDS}."
        )
    if exported.is_folder(path):
        loaded: Expert = exported.load(path)
    else:
        refuse_damaged(path)
        loaded = stable_baselines3.load(path, spaces) if stable_baselines3.is_file(path) else _load_torch_file(path)
    if environment_id is not None:
        of = environment_of_shipped(path)
        if of is not None and of != environment_id.rpartition(":")[2]:
            raise InputError(f"{path}: is the shipped expert of {of}, not of {environment_id}. Name another.")
        check_fits(loaded, str(path), environment_id)
    return loaded


def environment_of_shipped(path: str | Path) -> str | None:
    """The Gymnasium id of the environment that an expert that comes with the package is of; None for other files.

    The id begins its name, as in HalfCheetah-v5.pt and HalfCheetah-v5-TD3.pt.
    """
    path = shipped(path)
    found = re.match(r".+-v\d+(?=-|$)", path.stem)
    if found is None or path.parent.resolve() != shipped(SHIPPED_EXPERTS).resolve():
        return None
    return found[0] if found[0] in gymnasium.registry else None     # one may keep experts of one's own there


def check_fits(actor: Expert, name: str, environment_id: str) -> None:
    """Raise InputError unless the dimensions of the actor, called ``name`` in the message, are the environment's, and its
    actions, where it says how far they reach, are within the bounds."""
    spaces = environment_spaces(environment_id)
    for what, found, wanted in (
        ("observations", actor.observation_dim, spaces.observation_dim),
        ("actions", actor.action_dim, spaces.action_dim),
    ):
        if found != wanted:
            raise InputError(
                f"{name}: is an expert for {found}-dimensional {what}; {environment_id} has {wanted}-dimensional ones."
            )
    units = actor.border if isinstance(actor, Strategy) else actor
    if isinstance(units, Border | CleanRLActor):
        reach = torch.stack([units.action_bias - units.action_scale, units.action_bias + units.action_scale]).cpu()
        if beyond_bounds(reach, spaces).any():
            raise InputError(
                f"{name}: its actions reach from {reach[0].tolist()} to {reach[1].tolist()}; {environment_id} takes those "
                f"from {spaces.action_low.tolist()} to {spaces.action_high.tolist()}. It is of another environment, or "
                "learnt from actions beyond these bounds; --data.action_low and --data.action_high state them then."
            )


def expert_sha256(expert: str | Path) -> str | None:
    """SHA-256 of an expert's file, or of the file of a callable's module; None where there is no such file.

    Of an exported policy it is that of its description, which holds that of its weights.
    """
    expert = expert_file(expert)
    if exported.is_folder(shipped(expert)):
        return sha256(shipped(expert) / exported.DESCRIPTION)
    path = shipped(expert) if shipped(expert).is_file() else callables.source_file(expert)
    return None if path is None else sha256(path)


def _load_torch_file(path: Path) -> Expert:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        kind = " It is a zip archive without a policy.pth." if zipfile.is_zipfile(path) and path.suffix == ".zip" else ""
        raise InputError(
            f"{path}: cannot be read as an expert ({type(error).__name__}): it is truncated, or of another kind.{kind} "
            f"Wanted: {KINDS}. "
            "Pickled objects are refused, not run."
        ) from error
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        return load_strategy(path).eval().requires_grad_(False)
    if isinstance(content, tuple) and content:                      # CleanRL's TD3 script saves (actor, critic, critic)
        content = content[0]
    try:
        actor = CleanRLActor(content).eval()
        actor(torch.zeros(1, actor.observation_dim))                # raises where the layers do not fit together
    except (InputError, AttributeError, TypeError, RuntimeError, IndexError) as error:
        raise InputError(f"{path}: not an expert that can be loaded: {error}") from error
    return actor
