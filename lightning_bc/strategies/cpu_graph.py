"""An update on the CPU as a list of kernels in fixed memory, recorded once and replayed: what a CUDA graph is on a GPU.

An update of a small network is a hundred kernels of some microseconds each. Python, autograd and the optimizer's own
bookkeeping stand before each, and each result is put into new memory. Here the update is made once while the kernels that it
calls are noted (``TorchDispatchMode``), those of the backward pass and the optimizer too; then they are called directly:

* a kernel whose result is a view has nothing left to do, and what is made of nothing is a constant;
* what leads to no result and changes nothing from before is left out, unless it draws random numbers;
* results go where they went at first, and results that are not needed at the same time share their memory.

The kernels and their order are the update's own, so all numbers are too, bit by bit.

An update is recorded twice in a row, and replayed where both recordings are the same: Python, NumPy, or a tensor that is put
in another's place would be missed at each replay.
"""

import pickle
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lightning_bc.acting import OF_SIZES


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies. A tensor itself would be held, and autograd copies gradients that others hold."""

    storage: torch.UntypedStorage
    dtype: torch.dtype
    offset: int
    size: torch.Size
    stride: tuple[int, ...]

    @classmethod
    def of(cls, value: Any) -> Any:
        """That of a tensor; what is none stays as it is."""
        if not isinstance(value, Tensor):
            return value
        return cls(value.untyped_storage(), value.dtype, int(value.storage_offset()), value.size(), value.stride())

    @property
    def memory(self) -> int:
        """The same number for all tensors that share their memory."""
        return self.storage._cdata

    def tensor(self, storage: torch.UntypedStorage) -> Tensor:
        """The tensor that lies so in ``storage``."""
        return torch.empty(0, dtype=self.dtype).set_(storage, self.offset, self.size, self.stride)


@dataclass(frozen=True)
class _Call:
    """A kernel that was called, with places in place of tensors."""

    kernel: Any
    args: list[Any]
    keywords: dict[str, Any]
    results: Any
    in_forward: bool
    """Whether gradients were enabled; some kernels keep more for the backward pass then."""

    @property
    def used(self) -> set[int]:
        """Memory of its arguments."""
        return _memory((self.args, self.keywords))

    @property
    def written(self) -> set[int]:
        """Memory of the arguments that it writes to."""
        schema = self.kernel._schema.arguments
        named = dict(zip((argument.name for argument in schema), self.args, strict=False)) | self.keywords
        undeclared = ("running_mean", "running_var") if "batch_norm" in self.kernel._schema.name else ()
        return _memory([named.get(one.name) for one in schema if _is_written(one) or one.name in undeclared])

    @property
    def made(self) -> set[int]:
        """Memory that it takes for its results."""
        return _memory(self.results) - self.used

    @property
    def is_view(self) -> bool:
        """Whether it computes nothing."""
        return not self.made and not self.written and not self.is_check

    @property
    def is_check(self) -> bool:
        """Whether it answers nothing, and raises where a number is not as it should be."""
        return not self.kernel._schema.returns

    @property
    def is_random(self) -> bool:
        """Whether it draws random numbers."""
        return torch.Tag.nondeterministic_seeded in self.kernel.tags

    @property
    def obstacle(self) -> bool:
        """Whether its result is a number, which the update may then decide by, or of a size that depends on numbers."""
        if torch.Tag.data_dependent_output in self.kernel.tags:
            return True
        if torch.Tag.dynamic_output_shape in self.kernel.tags:
            masks = [place for place in _places(self.args[1:]) if place.dtype in (torch.bool, torch.uint8)]
            return self.kernel.overloadpacket is not torch.ops.aten.index or bool(masks)
        return False


class _Recorder(TorchDispatchMode):
    """Note the kernels that are called, and the first one that cannot be replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.obstacle: str | None = None
        self._drawn, self._drawn_elsewhere = torch.get_rng_state(), _other_random_states()

    def finish(self) -> None:
        """Look whether random numbers were drawn past the kernels, or a generator was set."""
        if self.obstacle is None and (self._is_set() or _other_random_states() != self._drawn_elsewhere):
            self.obstacle = "random numbers are drawn outside of torch, or its generator is set"

    def _is_set(self) -> bool:
        return not torch.equal(torch.get_rng_state(), self._drawn)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and note the call."""
        if self.obstacle is not None or func.namespace == "profiler":
            return func(*args, **(kwargs or {}))
        # before the call, which may write to what it is given and change how it lies
        before = tree_map(_Place.of, (list(args), kwargs or {})) if _are_plain((args, kwargs)) else None
        is_random = torch.Tag.nondeterministic_seeded in func.tags
        if is_random and self._is_set():
            self.obstacle = "torch's random generator is set between kernels"
        result = func(*args, **(kwargs or {}))
        if is_random:
            self._drawn = torch.get_rng_state()
        if before is None or not _are_plain(result):
            self.obstacle = f"{func} of a tensor that is sparse, or none of torch's own"
            return result
        placed, keywords = before
        self.calls.append(_Call(func, placed, keywords, tree_map(_Place.of, result), torch.is_grad_enabled()))
        if self.calls[-1].obstacle:
            self.obstacle = f"{func} answers with what the next kernels can depend on"
        return result


class CPUGraph:
    """Two updates, made while they are recorded, one when this is built and one by :meth:`again`; then replayed.

    Args:
        update: takes tensors on the CPU and nothing else.
        inputs: of this update.

    Attributes:
        outputs: what the last update returned.
        obstacle: why it cannot be replayed; None where it can be, as far as is known.
    """

    def __init__(self, update: Callable[..., dict[str, Tensor]], inputs: Sequence[Tensor]) -> None:
        self.obstacle: str | None = None
        self._inputs = [tensor.clone() for tensor in inputs]
        self._first, _ = self._recorded(update)

    def again(self, update: Callable[..., dict[str, Tensor]], inputs: Sequence[Tensor]) -> None:
        """Make the next update, with other ``inputs`` of the same shapes; where nothing else changed, it can be replayed."""
        self._take(inputs)
        second, values = self._recorded(update)
        first, self._first = self._first, []
        self.obstacle = self.obstacle or _difference(first, second)
        if self.obstacle is None:
            calls = _needed(_varying(second), values)
            placed, self._values = _placed(calls, values)
            passes = groupby(zip(calls, placed, strict=True), lambda pair: pair[0].in_forward)
            self._passes = [(in_forward, [ready for _, ready in pairs]) for in_forward, pairs in passes]

    def _recorded(self, update: Callable[..., dict[str, Tensor]]) -> tuple[list[_Call], Any]:
        """Make an update; the kernels that it calls, and the place of what it returns."""
        values = None
        with _Recorder() as recorder:
            self.outputs = update(*(tensor.detach() for tensor in self._inputs))
            self._names = list(self.outputs)
            if all(value.dim() == 0 for value in self.outputs.values()):
                values = _Place.of(torch.stack([value.detach().float() for value in self.outputs.values()]))
        recorder.finish()
        self.obstacle = recorder.obstacle or (None if values is not None else "it returns what is no scalar")
        return recorder.calls, values

    def _take(self, inputs: Sequence[Tensor]) -> None:
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)

    def replay(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Make an update with ``inputs``, and return what it returns."""
        self._take(inputs)
        is_autocast = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False) if is_autocast else nullcontext():  # what it casts was recorded
            for in_forward, calls in self._passes:
                with torch.set_grad_enabled(in_forward):
                    for kernel, args, keywords in calls:
                        kernel(*args, **keywords)
        return dict(zip(self._names, self._values.clone().unbind(), strict=True))


def _other_random_states() -> Any:
    return random.getstate(), pickle.dumps(np.random.get_state())


def _difference(calls: list[_Call], others: list[_Call]) -> str | None:
    """What two recordings in a row do not have in common, so that a replay would not be the next update."""
    if [(call.kernel, call.in_forward) for call in calls] != [(call.kernel, call.in_forward) for call in others]:
        return "it calls other kernels at each update"
    own = set().union(*(call.made for call in others))
    same: dict[int, int] = {}                                       # memory of a result -> of that of the other recording
    for call, other in zip(calls, others, strict=True):
        for one, two in zip(*(tree_leaves((each.args, each.keywords)) for each in (call, other)), strict=True):
            if not isinstance(one, _Place) or not isinstance(two, _Place):
                if type(one) is not type(two) or one != two:
                    return f"{call.kernel} is given numbers that change, {one} and {two}"
            elif (one.dtype, one.offset, one.size, one.stride) != (two.dtype, two.offset, two.size, two.stride):
                return f"{call.kernel} is given tensors that lie otherwise at each update"
            elif same.get(one.memory, one.memory) != two.memory and (
                one.memory in same or two.memory in own or not torch.equal(one.tensor(one.storage), two.tensor(two.storage))
            ):
                return f"{call.kernel} is given a tensor that is made outside of torch, or put in another's place"
        results = zip(_places(call.results), _places(other.results), strict=True)
        same |= {one.memory: two.memory for one, two in results if one.memory in call.made}
    return None


def _varying(calls: list[_Call]) -> list[_Call]:
    """Without views, and without what is made of constants and written by nobody, which is a constant itself."""
    written = set().union(*(call.written for call in calls))
    constants: set[int] = set()
    kept = []
    for call in calls:
        if call.is_view:
            continue
        is_made_of_nothing = call.used <= constants or call.kernel.overloadpacket in OF_SIZES
        if is_made_of_nothing and not (call.is_random or call.is_check or call.written or call.made & written):
            constants |= call.made
        else:
            kept.append(call)
    return kept


def _needed(calls: list[_Call], values: _Place) -> list[_Call]:
    """Those that lead to ``values``, or to what was there before and is written to, that draw random numbers, or check."""
    own = set().union(*(call.made for call in calls))
    needed, kept = {values.memory}, []
    for call in reversed(calls):
        if call.is_random or call.is_check or call.written - own or (call.written | call.made) & needed:
            needed |= call.used
            kept.append(call)
    return kept[::-1]


def _placed(calls: list[_Call], values: _Place) -> tuple[list[tuple[Any, list[Any], dict[str, Any]]], Tensor]:
    """The calls with tensors in place of places, and ``values``; results share memory that nobody needs any more."""
    last = {memory: number for number, call in enumerate(calls) for memory in call.used | call.made}
    last[values.memory] = len(calls)
    storages: dict[int, torch.UntypedStorage] = {}                  # of results
    free: defaultdict[int, list[torch.UntypedStorage]] = defaultdict(list)  # by size

    def tensor(place: Any) -> Any:
        return place.tensor(storages.get(place.memory, place.storage)) if isinstance(place, _Place) else place

    placed = []
    for number, call in enumerate(calls):
        for memory, size in {place.memory: place.storage.nbytes() for place in _places(call.results)}.items():
            if memory in call.made:
                storages[memory] = free[size].pop() if free[size] else torch.UntypedStorage(size)
        args, keywords, results = tree_map(tensor, (call.args, call.keywords, call.results))
        kernel, keywords = _with_results(call, keywords, results)
        placed.append((kernel, args, keywords))
        for memory in call.used | call.made:
            if last[memory] == number and memory in storages:
                free[storages[memory].nbytes()].append(storages[memory])
    return placed, tensor(values)


def _with_results(call: _Call, keywords: dict[str, Any], results: Any) -> tuple[Any, dict[str, Any]]:
    """What puts the results of a call into ``results``: the kernel itself, its variant that does, or a copy."""
    if not call.made:
        return call.kernel, keywords
    variant = _out_variant(call.kernel)
    if variant is not None and all(isinstance(result, Tensor) for result in tree_leaves(results)):
        kernel, names = variant
        return kernel, keywords | dict(zip(names, results if len(names) > 1 else [results], strict=True))

    plain = call.kernel                                             # not the call, which holds the recording's memory

    def copying(*args: Any, **given: Any) -> None:
        made = tree_leaves(plain(*args, **given))
        for result, value in zip(tree_leaves(results), made, strict=True):
            if isinstance(result, Tensor):
                result.copy_(value)

    return copying, keywords


@cache
def _out_variant(kernel: Any) -> tuple[Any, list[str]] | None:
    """The overload of a kernel that takes tensors for its results, and the names of these; None where there is none."""
    wanted = [(argument.name, str(argument.type)) for argument in kernel._schema.arguments]
    if any(_is_written(argument) for argument in kernel._schema.arguments):
        return None
    for name in kernel.overloadpacket.overloads():
        overload = getattr(kernel.overloadpacket, name)
        arguments = overload._schema.arguments
        results = [argument.name for argument in arguments if _is_written(argument)]
        others = [(argument.name, str(argument.type)) for argument in arguments if not _is_written(argument)]
        if results and others == wanted:
            return overload, results
    return None


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _are_plain(tree: Any) -> bool:
    """Whether where they lie says all of the tensors."""
    tensors = [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
    own = all(type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout is torch.strided for tensor in tensors)
    return own and not any(tensor.is_conj() or tensor.is_neg() for tensor in tensors)


def _places(tree: Any) -> Iterator[_Place]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, _Place))


def _memory(tree: Any) -> set[int]:
    return {place.memory for place in _places(tree)}
