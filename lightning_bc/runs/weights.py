"""Whether weights that were saved fit a strategy that was built."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lightning_bc.aliases import StateDict
from lightning_bc.border import hidden_by
from lightning_bc.errors import InputError
from lightning_bc.runs.folders import checkpoint_file, open_checkpoint
from lightning_bc.strategies import OfflineStrategy, Strategy, strategy_of_checkpoint
from lightning_bc.strategies.registry import check_shapes, load_strategy


def check_weights(source: str, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Raise InputError unless ``weights`` are those of ``module``, by name and shape.

    Args:
        source: the flag that names them, with its value.
    """
    way_out = "Use a checkpoint of the same environment, network and strategy."
    check_shapes(source, f"this {type(module).__name__}", module.state_dict(), weights, way_out)


def initial_weights(source: str, strategy: Strategy, hidden: Sequence[int] | None) -> tuple[StateDict, bool]:
    """The weights that a new run of ``strategy`` starts from, and whether they are a clone's, which another one has learnt.

    Args:
        source: the checkpoint's file, or its run, as it was named.
        strategy: as it was built.
        hidden: entries of an observation that it was said to hide, if anything was said.

    Raises:
        InputError: they are not of the same strategy and shapes, and it cannot begin from the other strategy's; or they were
            learnt with other entries hidden.
    """
    path = checkpoint_file(source, "--model.init_from")
    checkpoint = open_checkpoint(path, "--model.init_from")
    theirs, ours = strategy_of_checkpoint(path, checkpoint).__name__, type(strategy).__name__
    weights, is_clone = checkpoint["state_dict"], theirs != ours
    if is_clone:
        clone = load_strategy(path)
        taken = strategy.weights_from(clone)
        squashing = clone.squashing if isinstance(clone, OfflineStrategy) and theirs in ("MSE", "Gaussian") else None
        if taken is None and squashing is not None and not squashing.is_plain and not clone.has_windows:
            raise InputError(
                f"--model.init_from {path}: its demonstrations' actions lie on their bounds, so that it acts by tanh(u) / "
                f"{float(squashing.range):.2g}, and an actor of {ours} by tanh(u). {ours} can learn from such "
                "demonstrations themselves, if they have rewards: --model.demonstrated 0.25 --data.path FILE, without "
                "--model.init_from."
            )
        if taken is None:
            means = "A clone that SAC begins from is of MSE, with squash: true, or of Gaussian, without history and horizon."
            raise InputError(
                f"--model.init_from {path}: is a checkpoint of {theirs}, and this run is of {ours}. {means}"
            )
        weights = taken
    check_weights(f"--model.init_from {path}", strategy, weights)
    unseen = hidden_by(weights["border.scale"])
    if hidden is not None and {*hidden} != {*unseen}:
        raise InputError(
            f"--data.hidden_dimensions {[*hidden]}: the weights of --model.init_from {path} were learnt with {unseen} "
            "hidden, and go on so. Leave --data.hidden_dimensions away."
        )
    return weights, is_clone
