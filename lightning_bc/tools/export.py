"""The ``export`` command: a checkpoint as a folder that acts without Lightning, or as an actor of CleanRL."""

import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lightning_bc.api import Policy, load
from lightning_bc.api.policy import is_checkpoint
from lightning_bc.bounds import NonNegativeInt
from lightning_bc.demonstrations.experts import CleanRLActor, exported
from lightning_bc.errors import InputError
from lightning_bc.files import creating, new_file, write, write_text
from lightning_bc.strategies import Strategy
from lightning_bc.tools import onnx_graphs
from lightning_bc.tools.cleanrl import cleanrl_state
from lightning_bc.tools.folder_readme import readme

README = "README.md"


def export(
    ckpt_path: str,
    output: str,
    format: Literal["folder", "cleanrl"] = "folder",
    onnx: bool = False,
    episodes: NonNegativeInt = 20,
) -> None:
    """Write a checkpoint's policy as a folder (JSON, safetensors, ONNX), or its actor under CleanRL's names.

    Args:
        ckpt_path: the checkpoint, for example checkpoints/RUN/last.ckpt; or the name or folder of a run.
        output: the folder to write, or of CleanRL the file, for example expert.pt.
        format: "folder" for policy.json, policy.safetensors and a README.md, of every strategy; "cleanrl" for the state dict
            of a CleanRL SAC actor, or a TD3 actor where the policy is deterministic.
        onnx: add ONNX graphs of the whole sampler to the folder.
        episodes: of the selection bank, that policy and graph play, to be compared; 0 plays none.

    Raises:
        InputError: the checkpoint cannot be read or exported so, what was written acts otherwise, or ``output`` exists.
    """
    if format == "cleanrl" and onnx:
        raise InputError("--onnx true: is of --format folder; a CleanRL actor is one file.")
    if onnx:
        onnx_graphs.check_extra()
    policy, strategy = _load(ckpt_path)
    if onnx and strategy.temporal_ensembling is not None:
        raise InputError(
            f"--onnx true: a graph answers with chunks, and {ckpt_path} plays the means of overlapping ones "
            f"(temporal_ensembling {strategy.temporal_ensembling:g}). Leave it away; lightning_bc.load plays the folder so."
        )
    path = new_file(output)
    try:
        if format == "cleanrl":
            _write_cleanrl(path, strategy)
        else:
            _write_folder(path, policy, strategy, onnx, episodes)
    except InputError as error:
        raise InputError(f"--ckpt_path {ckpt_path}: {error}") from error


def _load(ckpt_path: str) -> tuple[Policy, Strategy]:
    path = Path(ckpt_path)
    if path.is_file() and not is_checkpoint(path):
        raise InputError(f"--ckpt_path {path}: is not a checkpoint that lightning_bc has saved, or it is damaged.")
    policy = load(ckpt_path)
    if not isinstance(policy.strategy, Strategy):
        raise InputError(f"--ckpt_path {path}: is not the checkpoint of a strategy.")
    return policy, policy.strategy.float()                          # the formats hold float32


def _write_cleanrl(path: Path, strategy: Strategy) -> None:
    state = cleanrl_state(strategy)
    _check_cleanrl(state, strategy)
    write(path, state)
    print(f"{path}: the state dict of a CleanRL {'SAC' if 'fc_logstd.weight' in state else 'TD3'} actor")


def _check_cleanrl(state: dict[str, Tensor], strategy: Strategy) -> None:
    """That CleanRL's class acts as the policy does.

    Raises:
        InputError: it does not: a first layer that takes observations as they are rounds large ones before it centres them.
    """
    observations = onnx_graphs.random_observations(strategy, 256)
    with torch.inference_mode():
        actions, wanted = CleanRLActor(state)(observations), strategy(observations)
    difference = float(((actions - wanted).abs() / strategy.border.action_scale).max().nan_to_num(math.inf))
    if not difference <= onnx_graphs.TOLERANCE:
        raise InputError(
            f"as a CleanRL actor its actions are up to {difference:.2g} from the policy's, where bounds are -1 and 1; "
            f"wanted at most {onnx_graphs.TOLERANCE:g}. Normalisation becomes part of the first layer, which rounds "
            "observations that are far from 0 compared with how much they vary. Nothing was exported; use --format folder."
        )


def _write_folder(path: Path, policy: Policy, strategy: Strategy, onnx: bool, episodes: int) -> None:
    found: list[str] = []
    with creating(path) as folder:
        description = exported.write(
            folder, strategy, policy.environment_id, policy.references, policy.step, policy.max_episode_steps
        )
        _check_return(folder, strategy)
        if onnx:
            graphs = onnx_graphs.write(folder, strategy)
            description["onnx"] = graphs
            exported.write_description(folder, description)
            found += [
                f"{name}: actions within {graph['largest_difference']:.1g} of the policy's, where bounds are -1 and 1"
                for name, graph in graphs.items()
            ]
            if episodes and policy.environment_id is not None:
                found.append(onnx_graphs.compare_episodes(folder, policy, policy.environment_id, episodes))
            elif episodes:
                found.append("no episodes were played: the environment is not known")
        write_text(folder / README, readme(strategy, description, found))
    print(f"{path}: {type(strategy).__name__}{''.join(f'{chr(10)}  {line}' for line in found)}")


def _check_return(folder: Path, strategy: Strategy) -> None:
    """That what was written is the policy, bit by bit.

    Raises:
        InputError: it is not, as where the network is one of the user's own.
    """
    try:
        again = exported.load(folder)
    except InputError as error:
        is_own = not getattr(strategy.actor, "settings", {})
        own = " A network of your own names its arguments in self.settings: docs/your-strategy.md." * is_own
        raise InputError(f"{type(strategy).__name__} cannot be rebuilt from a description: {error}{own}") from error
    observations = onnx_graphs.random_observations(strategy, 100)
    with torch.inference_mode():
        wanted = strategy(observations, deterministic=True)
        if not torch.equal(again(observations, deterministic=True), wanted):
            raise InputError(f"{type(strategy).__name__} acts otherwise when it is rebuilt from its description.")
