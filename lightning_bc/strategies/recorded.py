"""An update as a graph: recorded once, then replayed.

A small network's update is some hundred kernels of a few microseconds each. On a GPU the host takes longer to launch them
than the device to run them, and a CUDA graph is launched as one (Nguyen 2021,
https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs/). On the CPU what is left out is Python and autograd:
see cpu_graph.py.

What is recorded is fixed: the kernels, and where their tensors lie. So inputs are copied to where the first ones lay,
learning rates are tensors that are filled before a replay where they changed, and other numbers that change from update to
update have to be tensors too. Random numbers are drawn anew at each replay, from the same stream as without a graph.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from lightning_bc.strategies.cpu_graph import CPUGraph

Update = Callable[..., dict[str, Tensor]]
"""Takes tensors, changes weights, and returns scalars by name."""

Shapes = tuple[tuple[torch.Size, torch.dtype], ...]

MOST_SHAPES = 8
"""Graphs that are kept; with inputs of still other shapes the update is called as it is."""

WARM_UP = 3
"""Updates without a graph before it is recorded, so that libraries and optimizers have made what they make once."""


class Recorded:
    """An update on one device, replayed from a graph from its fourth call on, on the CPU from its sixth.

    Inputs of other shapes or types have a graph of their own. Where the update waits for the device, or does what else a
    graph cannot hold, it is called as it is for good, on a GPU with a warning. On the CPU learning rates can be tensors only
    where the optimizers are fused, as ours are: with others it is called as it is too.

    Args:
        update: takes tensors on the device and nothing else; anything else that it depends on is read while it is recorded,
            and never again. On the CPU that is noticed where it changes from one update to the next.
        optimizers: those whose steps it takes.
    """

    def __init__(self, update: Update, optimizers: Sequence[Optimizer]) -> None:
        self.update, self.optimizers = update, optimizers
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        self._device: torch.device = self._groups[0]["params"][0].device
        self._rates: list[tuple[float, Tensor]] = []                # of each group, as it was read last and on the device
        self._calls: dict[Shapes, int] = {}
        self._once: dict[Shapes, CPUGraph] = {}                     # recorded once
        self._graphs: dict[Shapes, _CUDAGraph | CPUGraph] = {}
        self._gave_up = self._on_cpu and not all(group.get("fused") for group in self._groups)
        self._stream = None if self._on_cpu else torch.cuda.Stream()

    @property
    def _on_cpu(self) -> bool:
        return self._device.type == "cpu"

    def __call__(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Make an update with ``inputs``, and return what it returns."""
        self._read_rates()
        if self._gave_up:
            return self._call(inputs)
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in inputs)
        if shapes in self._graphs:
            return self._graphs[shapes].replay(inputs)
        self._calls[shapes] = self._calls.get(shapes, 0) + 1
        is_one_more = shapes not in self._once and len(self._once) + len(self._graphs) >= MOST_SHAPES
        if self._calls[shapes] <= WARM_UP or is_one_more:
            return self._call(inputs)
        return self._record_on_cpu(shapes, inputs) if self._on_cpu else self._record_on_gpu(shapes, inputs)

    def _read_rates(self) -> None:
        """Bring learning rates to the device that have changed."""
        if not self._rates:
            exactly = torch.float64 if self._on_cpu else torch.float32
            self._rates = [(math.nan, torch.zeros((), device=self._device, dtype=exactly)) for _ in self._groups]
        for number, (group, (last, rate)) in enumerate(zip(self._groups, self._rates, strict=True)):
            if group["lr"] != last:
                rate.fill_(group["lr"])
                self._rates[number] = group["lr"], rate

    def _record_on_cpu(self, shapes: Shapes, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Make the update, and record it if that can be done; twice."""
        with self._reading_on_device():
            if shapes in self._once:
                graph = self._graphs[shapes] = self._once.pop(shapes)
                graph.again(self.update, inputs)
            else:
                graph = self._once[shapes] = CPUGraph(self.update, inputs)
        if graph.obstacle is not None:
            self._gave_up, self._once, self._graphs = True, {}, {}
        elif shapes in self._graphs:                                # replays leave gradients where nobody finds them
            for group in self._groups:
                for parameter in group["params"]:
                    parameter.grad = None
        return graph.outputs

    def _record_on_gpu(self, shapes: Shapes, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Record the update if that can be done, and make it."""
        try:
            with self._reading_on_device():
                self._graphs[shapes] = _CUDAGraph(self.update, inputs)
        except RuntimeError as error:
            self._gave_up = True
            warnings.warn(
                "an update cannot be recorded as a CUDA graph, so each of its kernels is launched by itself, which can take "
                f"ten times as long: {str(error).strip().splitlines()[0]}",
                stacklevel=4,
            )
            return self._call(inputs)
        return self._graphs[shapes].replay(inputs)

    def _call(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The update as it is; on a GPU on a stream of its own, as torch wants it before a graph is recorded."""
        if self._stream is None:
            return self.update(*inputs)
        present = torch.cuda.current_stream()
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream), self._reading_on_device():
            outputs = self.update(*inputs)
        present.wait_stream(self._stream)
        return outputs

    @contextmanager
    def _reading_on_device(self) -> Iterator[None]:
        """Let optimizers read their learning rates there, and count there; schedules and checkpoints go on with numbers."""
        changed = ("lr",) if self._on_cpu else ("lr", "capturable")
        before: list[dict[str, Any]] = [{name: group[name] for name in changed if name in group} for group in self._groups]
        for values, group, (_, rate) in zip(before, self._groups, self._rates, strict=True):
            group.update(dict.fromkeys(values, True) | {"lr": rate})
        for optimizer in self.optimizers if not self._on_cpu else ():
            for parameter, state in optimizer.state.items():
                if isinstance(state.get("step"), Tensor):
                    state["step"] = state["step"].to(parameter.device)
        try:
            yield
        finally:
            for values, group in zip(before, self._groups, strict=True):
                group.update(values)


class _CUDAGraph:
    """One recorded update, with the tensors that it reads and writes."""

    def __init__(self, update: Update, inputs: Sequence[Tensor]) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # other threads play and write meanwhile
            outputs = update(*self.inputs)
            self.names, self.values = list(outputs), torch.stack([value.detach().float() for value in outputs.values()])

    def replay(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        if inputs:
            torch._foreach_copy_(self.inputs, list(inputs))
        self.graph.replay()
        return dict(zip(self.names, self.values.clone().unbind(), strict=True))
