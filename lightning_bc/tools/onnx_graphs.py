"""A policy as ONNX graphs: border, network and the whole sampler, its loops unrolled and its schedules constants.

    policy.onnx            observations -> actions               the deterministic action, which is what scores are of
    policy_sampled.onnx    observations, noise -> actions        a sample, of strategies that have other actions than that

A graph draws no random numbers. What a strategy draws while it samples comes from ``noise`` (batch, noise_dim), which is
standard Normal: z where it draws z ~ Normal(0, 1), and where it chooses among categories with probabilities p_1 ... p_K, the
first k with

    p_1 + ... + p_k >= Phi(z),    Phi the distribution function of the standard Normal, so that Phi(z) ~ Uniform(0, 1)
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_bc.api import Policy, evaluate
from lightning_bc.errors import InputError, needs_extra
from lightning_bc.files import sha256
from lightning_bc.players import Player
from lightning_bc.strategies import Strategy

DETERMINISTIC, SAMPLED = "policy.onnx", "policy_sampled.onnx"

TOLERANCE = 1e-5
"""Largest difference between a graph's actions and the policy's, in the units in which actions lie in [-1, 1]."""

FEWEST_EPISODES = 10
"""Whose mean return is compared with the policy's: of fewer, four standard errors are passed by chance."""

_OBSERVATIONS = 256                                                 # random ones, for that comparison
_MOST_TIES = 0.5                                                    # share of them that may be left out of it


class Drawn(TorchFunctionMode):
    """Inside the block what torch would draw is taken from given numbers instead, in the order of the draws.

    Args:
        take: answers a number n with the next (batch, n) numbers, standard Normal.
    """

    def __init__(self, take: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.take = take

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """Answer torch's draws; leave all else as it is."""
        if func is torch.randn:
            return self._normal(args[0] if isinstance(args[0], tuple) else args)
        if func is torch.randn_like:
            return self._normal(args[0].shape)
        if func is torch.normal:                                    # of mean and scale, as distributions.Normal calls it
            return args[0] + args[1] * self._normal(args[0].shape)
        if func is torch.multinomial:                               # of probabilities (batch, K), one choice
            below = args[0].cumsum(-1)                              # (batch, K)
            chosen = below < torch.special.ndtr(self.take(1)) * below[:, -1:]
            return chosen.sum(-1, keepdim=True).clamp(max=below.shape[-1] - 1)
        return func(*args, **(kwargs or {}))

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        return self.take(math.prod(shape[1:])).reshape(shape)


class Rounded(TorchFunctionMode):
    """Inside the block each result is off by about a rounding error (Monte Carlo arithmetic: Parker 1997)."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        """The function's result, a little off."""
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor) or not result.is_floating_point():
            return result
        return result * (1 + torch.finfo(result.dtype).eps * torch.randn(result.shape, generator=self.generator))


class Act(nn.Module):
    """What a graph is made of: the policy, with its noise as an argument."""

    def __init__(self, strategy: Strategy, deterministic: bool) -> None:
        super().__init__()
        self.strategy, self.deterministic = strategy, deterministic
        for name in ("action_low", "action_high"):
            self.register_buffer(name, torch.tensor(strategy.hparams[name], dtype=torch.float32))

    def forward(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        """Actions within the bounds; ``noise`` is (batch, noise_dim)."""
        taken = 0

        def take(count: int) -> Tensor:
            nonlocal taken
            assert noise is not None
            taken += count
            return noise[:, taken - count : taken]

        with Drawn(take):
            actions = self.strategy(observations, deterministic=self.deterministic)
        return actions.clamp(self.action_low, self.action_high)     # the border's products may round beyond a bound


def noise_dim(strategy: Strategy) -> int:
    """How many numbers a sample is made of."""
    counts = []

    def count(size: int) -> Tensor:
        counts.append(size)
        return torch.zeros(2, size)

    observations = random_observations(strategy, 2)
    with torch.inference_mode(), Drawn(count):
        strategy(observations, deterministic=False)
    return sum(counts)


def check_extra() -> None:
    """Raise InputError unless what writes and runs graphs is installed."""
    if missing := [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]:
        raise needs_extra("--onnx true", "onnx", ", ".join(missing))


def write(folder: Path, strategy: Strategy) -> dict[str, Any]:
    """Write the graphs of ``strategy`` into ``folder`` and try them; what a description says of them.

    Raises:
        InputError: the strategy cannot be written as a graph, or a graph acts otherwise than the policy.
    """
    graphs: dict[str, Any] = {}
    for name, deterministic in ((DETERMINISTIC, True), (SAMPLED, False)):
        if deterministic or strategy.stochastic:
            numbers = 0 if deterministic else noise_dim(strategy)
            act = Act(strategy, deterministic).eval()
            _write(folder / name, act, _inputs(strategy, 2, numbers))
            difference = _difference(folder / name, act, strategy, numbers)
            if not difference <= TOLERANCE:
                raise InputError(
                    f"{name}: in onnxruntime its actions are up to {difference:.2g} from the policy's, where bounds are -1 "
                    f"and 1; wanted at most {TOLERANCE:g}. Nothing was exported; --onnx false leaves the graphs away."
                )
            graphs[name] = {"noise_dim": numbers, "largest_difference": difference, "sha256": sha256(folder / name)}
    return graphs


def compare_episodes(folder: Path, policy: Policy, environment_id: str, episodes: int) -> str:
    """Play the policy and its deterministic graph in the same episodes of the selection bank; the outcome in words.

    Actions that differ in their last bit lead a chaotic environment elsewhere in time, so single returns may differ; the
    mean of ``FEWEST_EPISODES`` may not, by more than a thousandth of itself and four standard errors of the episodes'
    differences.

    Raises:
        InputError: it does.
    """
    graph = evaluate(GraphActor(folder / DETERMINISTIC, policy.strategy), environment_id, episodes, bank="selection")
    ours = evaluate(policy, environment_id, episodes, bank="selection")
    differences = graph.returns - ours.returns
    equal = int((differences == 0).sum())
    words = (
        f"{episodes} episodes of {environment_id}: return {ours.mean:.6g} of the policy, {graph.mean:.6g} of "
        f"{DETERMINISTIC}; {equal} of {episodes} returns are equal, the largest difference is {abs(differences).max():.2g}"
    )
    error = float(differences.std() / math.sqrt(episodes))
    if episodes >= FEWEST_EPISODES and not abs(differences.mean()) <= 1e-3 * abs(ours.mean) + 4 * error:
        raise InputError(f"{words}. Nothing was exported.")
    return words


class GraphActor:
    """A deterministic graph as a policy that can be played.

    Args:
        path: of the graph.
        strategy: that it was made of.
    """

    def __init__(self, path: Path, strategy: Any) -> None:
        self.observation_dim, self.action_dim = strategy.observation_dim, strategy.action_dim
        self._strategy, self._session = strategy, _session(path)

    def __call__(self, observations: Tensor) -> Tensor:
        """Actions for ``observations``, shaped as the strategy's."""
        return torch.from_numpy(_run(self._session, (observations,)))

    def player(self, deterministic: bool = True, replan: bool = False) -> Player:
        """What plays it, with the memory of its strategy."""
        player: Player = self._strategy.remembering(self, replan)
        return player


def _write(path: Path, act: Act, inputs: tuple[Tensor, ...]) -> None:
    batch = torch.export.Dim("batch")
    names, shapes = ["observations", "noise"][: len(inputs)], ({0: batch}, {0: batch})[: len(inputs)]
    try:
        with torch.no_grad(), _quiet():
            program = torch.export.export(act, inputs, dynamic_shapes=shapes, strict=False)
            graph = torch.onnx.export(
                program, inputs, input_names=names, output_names=["actions"], dynamo=True, verbose=False
            )
            assert graph is not None
            for node in graph.model.graph.all_nodes():              # else a stack trace each, with this machine's paths
                node.metadata_props.clear()
            graph.save(path)
    except Exception as error:                                      # whatever torch says of a user's strategy
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{type(act.strategy).__name__} cannot be written as an ONNX graph: {reason}") from error


def _difference(path: Path, act: Act, strategy: Strategy, numbers: int) -> float:
    """Largest difference of scaled actions, in a batch and of one observation.

    A strategy that chooses among actions (the likeliest component, bin or code) may choose another one where two are equally
    likely but for rounding. Such rows are left out, as long as they are few.
    """
    session, largest = _session(path), 0.0
    for batch in (_OBSERVATIONS, 1):
        inputs = _inputs(strategy, batch, numbers)
        with torch.inference_mode():
            wanted = act(*inputs)
            differences = _scaled_difference(torch.from_numpy(_run(session, inputs)), wanted, strategy)
            if differences.max() > TOLERANCE:
                decided = ~_are_ties(act, inputs, wanted)
                if decided.float().mean() >= 1 - _MOST_TIES:
                    differences = differences[decided]
        largest = max(largest, float(differences.max().nan_to_num(math.inf)))
    return largest


def _are_ties(act: Act, inputs: tuple[Tensor, ...], wanted: Tensor) -> Tensor:
    """In which rows the policy itself acts otherwise once its numbers are rounded otherwise, (batch,) bool."""
    ties = torch.zeros(len(wanted), dtype=torch.bool)
    for seed in range(16):
        with Rounded(seed):
            ties |= _scaled_difference(act(*inputs), wanted, act.strategy) > TOLERANCE
    return ties


def _scaled_difference(actions: Tensor, others: Tensor, strategy: Strategy) -> Tensor:
    """Largest of each row, (batch,)."""
    return ((actions - others).abs() / strategy.border.action_scale).flatten(1).amax(1)


def _inputs(strategy: Strategy, batch: int, numbers: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(batch)
    noise = torch.randn(batch, numbers, generator=generator)
    return (random_observations(strategy, batch), noise) if numbers else (random_observations(strategy, batch),)


def random_observations(strategy: Strategy, batch: int) -> Tensor:
    """Random ones of twice the training pairs' spread."""
    shape = (batch, *([strategy.history] if strategy.has_windows else []), strategy.observation_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return strategy.border.mean + 2 * strategy.border.scale * noise


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1                                # a small batch, and episodes beside it
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(session: Any, inputs: tuple[Tensor, ...]) -> np.ndarray:
    names = ("observations", "noise")
    return session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=False)})[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
