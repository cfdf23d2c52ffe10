"""Acting fast: a policy's answer as a short list of NumPy calls, with the weights of one moment.

On a single observation a network of 256 units spends most of its time on the way into torch's kernels. Here the policy is
run twice, on two and on three observations, while the kernels that it calls are recorded (``TorchDispatchMode``):

* what does not depend on the observations is a constant: weights, noise schedules, features of fixed times;
* a whole number that differs between the two recordings, in a shape, is linear in the number of observations;
* the rest is the list. Each entry is NumPy's function of the same meaning, or torch's kernel where NumPy has none.

The list holds copies of the weights, needs neither the strategy nor its class, and can be sent to another process. Its
arithmetic is that of ``forward`` with sums in another order, so that its answers are equal up to rounding.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_bc import numpy_kernels
from lightning_bc.frozen import OBSERVATIONS, Array, Call, Frozen, Linear, Value

OF_SIZES = tuple(getattr(torch.ops.aten, name) for name in ("ones_like", "zeros_like", "full_like", "new_zeros", "new_ones"))
"""Kernels that take no more of a tensor than its size and type."""


class CannotBeFrozenError(Exception):
    """The policy draws random numbers, writes into tensors, or decides by numbers which kernels it calls."""


class _Recorder(TorchDispatchMode):
    """Record the kernels that are called: (kernel, arguments, keywords, result)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and note the call."""
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


def freeze(policy: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device | str = "cpu") -> Frozen:
    """``policy`` with its present weights.

    Args:
        policy: observations (batch, *shape) to actions, each row by itself.
        shape: of one observation.
        device: where the policy computes.

    Raises:
        CannotBeFrozenError: see there.
    """
    runs = []
    generator = torch.Generator().manual_seed(0)
    for number in (2, 3):
        with torch.inference_mode(False), torch.no_grad():          # in inference mode compound kernels come as one
            observations = torch.randn(number, *shape, generator=generator).to(device)
            with _in_small_kernels(), _Recorder() as recorder:
                answer = policy(observations)
        runs.append((recorder.calls, observations, answer))
    (calls, observations, answer), (others, _, _) = runs
    if [call[0] for call in calls] != [call[0] for call in others]:
        raise CannotBeFrozenError("it calls other kernels for another number of observations")
    tape = _Tape(observations)
    for (kernel, args, settings, result), (_, other_args, other_settings, _) in zip(calls, others, strict=True):
        _check(kernel, args, settings, other_settings)
        tape.add(kernel, tape.numbered([*args], [*other_args]), settings, result)
    return tape.leading_to(answer)


@contextmanager
def _in_small_kernels() -> Iterator[None]:
    """Inside the block attention is computed by products and softmax, which NumPy has, in place of fused kernels."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Tape:
    """Calls by the numbers of what goes in and out, while they are taken over from two recordings."""

    def __init__(self, observations: Tensor) -> None:
        self.numbers = {id(observations): OBSERVATIONS}             # of tensors, by id: the recordings keep them alive
        self.is_floating = {OBSERVATIONS: True}
        self.constants: dict[int, Tensor] = {}
        self._known: dict[Any, int] = {}                            # constants by where they lie: each is kept once
        self.depending = {OBSERVATIONS}
        self.calls: list[Call] = []

    def numbered(self, one: Any, other: Any) -> Any:
        """An argument with numbers in place of tensors; ``other`` is the same argument with one observation more."""
        if isinstance(one, Tensor):
            if id(one) not in self.numbers:                         # a weight, or what else was there before
                if one.data_ptr() != other.data_ptr() and not torch.equal(one, other):
                    raise CannotBeFrozenError("it has a tensor that is made of the observations outside of torch")
                self._keep(one)
            return Value(self.numbers[id(one)])
        if isinstance(one, list | tuple):
            return [self.numbered(*pair) for pair in zip(one, other, strict=True)]
        if isinstance(one, int) and not isinstance(one, bool) and one != other:
            return Linear(one - 2 * (other - one), other - one)
        if one != other:
            raise CannotBeFrozenError(f"it has a number that depends on how many observations there are, {one}")
        return one

    def add(self, kernel: Any, template: list[Any], settings: dict[str, Any], result: Any) -> None:
        """Take over a call."""
        leaves = _leaves(template)
        used = [leaf for leaf in leaves if isinstance(leaf, Value)]
        depends = kernel.overloadpacket not in OF_SIZES and any(value in self.depending for value in used)
        several = isinstance(result, list | tuple)
        results = [*enumerate(result if several else [result])]
        results = [(index, one) for index, one in results if isinstance(one, Tensor)]
        if all(value in self.constants for value in used) and not any(isinstance(leaf, Linear) for leaf in leaves):
            for _, one in results:
                self._keep(one)
            return
        function = numpy_kernels.of(kernel, settings)
        if function is numpy_kernels.relu:
            template = [*template, 0]                               # for a plan to bring it to the array's shape
        mixes = not several and result.is_floating_point() and not all(self.is_floating[value] for value in used)
        if mixes and function not in numpy_kernels.SELECTING:
            function = partial(numpy_kernels.cast, function, numpy_kernels.numpy_type(result.dtype))
        made = self._next() if several else self._number(result)
        self._append(Call(function, template, made, depends))
        for index, one in results if several else []:
            self._append(Call(numpy_kernels.item, [Value(made), index], self._number(one), depends))

    def leading_to(self, answer: Tensor) -> Frozen:
        """What the answer needs, with copies of the constants among it."""
        uses = Counter([self.numbers[id(answer)]])
        calls: list[Call] = []
        for call in reversed(self.calls):
            if call.made in uses:
                uses.update(leaf for leaf in _leaves(call.template) if isinstance(leaf, Value))
                calls.insert(0, call)
        own: set[int] = set()                                       # products, also in another shape, that one call uses
        for index, call in enumerate(calls):
            is_view = call.function is numpy_kernels.reshape and call.template[0] in own
            if uses[call.made] == 1 and (call.function is numpy_kernels.addmm or is_view):
                own.add(call.made)
            if call.function is numpy_kernels.relu and call.template[0] in own:
                calls[index] = replace(call, function=numpy_kernels.relu_in_place)
        kept = {number: _copy(tensor) for number, tensor in self.constants.items() if number in uses}
        return Frozen(calls, kept, self.numbers[id(answer)])

    def _keep(self, constant: Tensor) -> None:
        place = (constant.data_ptr(), constant.shape, constant.stride(), constant.dtype)
        number = self._known.setdefault(place, self._number(constant))
        self.numbers[id(constant)] = number
        self.constants[number] = constant

    def _append(self, call: Call) -> None:
        self.calls.append(call)
        if call.depends:
            self.depending.add(call.made)

    def _next(self) -> int:
        """The number of a value that is no tensor, or of the next tensor."""
        self.is_floating[len(self.is_floating)] = True
        return len(self.is_floating) - 1

    def _number(self, tensor: Tensor) -> int:
        number = self.numbers.setdefault(id(tensor), len(self.is_floating))
        self.is_floating[number] = tensor.is_floating_point()
        return number


def _check(kernel: Any, args: Sequence[Any], settings: dict[str, Any], other_settings: dict[str, Any]) -> None:
    """Refuse a call that is not the same function of its arguments each time."""
    if torch.Tag.nondeterministic_seeded in kernel.tags and not _has_no_dropout(kernel, args):
        raise CannotBeFrozenError(f"it draws random numbers: {kernel}")
    by_numbers = bool({torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & set(kernel.tags))
    if kernel is torch.ops.aten.index.Tensor:                       # only where a mask chooses
        by_numbers = any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1])
    if by_numbers:
        raise CannotBeFrozenError(f"it decides by numbers: {kernel}")
    if kernel._schema.is_mutable:
        raise CannotBeFrozenError(f"it writes into a tensor: {kernel}")
    if any(isinstance(leaf, Tensor) for leaf in _leaves(list(settings.values()))) or settings != other_settings:
        raise CannotBeFrozenError(f"it calls {kernel} with tensors as keywords")


def _copy(tensor: Tensor) -> Array:
    """As an array, row by row: of few rows and such a matrix OpenBLAS makes the product in a third of the time."""
    return tensor.detach().cpu().numpy().copy("C")


def _has_no_dropout(kernel: Any, args: Sequence[Any]) -> bool:
    """Whether it is a kernel, as that of attention, which would draw for its dropout alone, and has none."""
    for index, argument in enumerate(kernel._schema.arguments):
        if argument.name in ("dropout", "dropout_p"):
            return (args[index] if index < len(args) else argument.default_value) == 0
    return False


def _leaves(nested: Any) -> list[Any]:
    return [leaf for one in nested for leaf in _leaves(one)] if isinstance(nested, list | tuple) else [nested]
