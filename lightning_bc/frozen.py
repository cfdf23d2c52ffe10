"""A policy as a short list of NumPy calls: what acting.py makes of a recording, and what workers are sent.

On few observations a call's time is not the arithmetic: NumPy fits a vector or a Python number to a matrix, call after call.
So a plan keeps them at the matrix's size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_bc import numpy_kernels
from lightning_bc.players import ArrayPolicy

Array = np.ndarray
Place = tuple[list[Any], int, int]
"""Where an argument stands, and which value it is: (list, index, number of the value)."""
Step = tuple[Callable[..., Any], list[Any], list[Place], int]
"""A function, its arguments, which of them are values, and the number of the value that it makes."""

OBSERVATIONS = 0
"""Number of the value that is given."""

FEW = 32
"""Observations, up to which constants are kept at the size of what they are added to."""

ELEMENTWISE = {
    function: slice(None)
    for function in (np.add, np.subtract, np.multiply, np.true_divide, np.maximum, np.minimum, numpy_kernels.clamp)
} | {numpy_kernels.relu: slice(1, 2), numpy_kernels.relu_in_place: slice(1, 2), numpy_kernels.addmm: slice(0, 1)}
"""Functions that fit arguments to the result's shape: which of them."""


class Value(int):
    """In the template of a call's arguments: the number of a value."""


@dataclass(frozen=True)
class Linear:
    """In a template: a whole number that is ``offset + slope * number of observations``."""

    offset: int
    slope: int


@dataclass(frozen=True)
class Call:
    """One entry of the list.

    Attributes:
        function: NumPy's, or torch's kernel behind arrays.
        template: its arguments.
        made: number of the value that it makes.
        depends: whether that depends on the observations, rather than on their number alone.
    """

    function: Callable[..., Any]
    template: list[Any]
    made: int
    depends: bool


class Frozen(ArrayPolicy):
    """A policy with the weights that it had when it was frozen; made by :func:`freeze`. It can be pickled.

    Called with observations (batch, ...), float32 on the CPU, it answers with actions (batch, ...), as the policy does.

    Args:
        calls: the list.
        constants: values by number.
        answer: number of the value that is the answer.
    """

    def __init__(self, calls: list[Call], constants: dict[int, Array], answer: int) -> None:
        self._calls, self._constants, self._answer = calls, constants, answer
        self._plans: dict[int, tuple[list[Any], list[Step], int]] = {}  # by number of observations

    def __getstate__(self) -> dict[str, Any]:
        """Without the plans, which hold what the last call computed."""
        return self.__dict__ | {"_plans": {}}

    def answer(self, observations: Array) -> Array:
        """The actions; there may be any number of observations."""
        number = len(observations)
        if number not in self._plans:
            self._plans[number] = self._plan(observations)
        values, steps, answer = self._plans[number]
        values[OBSERVATIONS] = observations
        for function, arguments, places, made in steps:
            for container, index, value in places:
                container[index] = values[value]
            values[made] = function(*arguments)
        return values[answer]

    def _plan(self, observations: Array) -> tuple[list[Any], list[Step], int]:
        """What each call on as many ``observations`` computes, and the value that is the answer.

        What does not depend on them is computed here, and a value that comes back to a shape that it had is not made again.
        """
        values: list[Any] = [None] * (1 + max([OBSERVATIONS, *self._constants, *(call.made for call in self._calls)]))
        values[OBSERVATIONS] = observations
        for index, constant in self._constants.items():
            values[index] = constant
        depending = {OBSERVATIONS, *(call.made for call in self._calls if call.depends)}
        origins: dict[int, int] = {}                                # of values in another shape
        stands_for: dict[int, int] = {}
        steps: list[Step] = []
        for call in self._calls:
            places: list[Place] = []
            arguments = _filled(call.template, len(observations), places)
            for container, index, value in places:
                container[index] = values[value]
            result = values[call.made] = call.function(*arguments)
            if not call.depends:
                continue
            changing = [
                (container, index, stands_for.get(value, value)) for container, index, value in places if value in depending
            ]
            reshapes = call.function in numpy_kernels.RESHAPING and np.size(arguments[0]) == result.size
            if reshapes or call.function is numpy_kernels.relu_in_place:
                (container, index, value), *_ = changing
                origin = origins[call.made] = origins.get(value, value)
                if reshapes and values[origin].shape == result.shape:
                    stands_for[call.made] = origin
                    continue
                if not reshapes:                                    # what lies in the same memory is changed too
                    stands_for[call.made] = stands_for.get(value, value)
                    container[index] = result = values[origin]
                    changing = [(container, index, origin)]
            if len(observations) <= FEW:
                _fit(arguments, {index for _, index, _ in changing}, result, call.function)
            steps.append((call.function, arguments, changing, call.made))
        answer = stands_for.get(self._answer, self._answer)
        return values, _needed(steps, answer), answer


def _needed(steps: list[Step], answer: int) -> list[Step]:
    """The ``steps`` without those that made a value which another one stands for now."""
    used, kept = {answer}, []
    for step in reversed(steps):
        function, _, changing, made = step
        if made in used or function is numpy_kernels.relu_in_place:
            used.update(value for _, _, value in changing)
            kept.append(step)
    return kept[::-1]


def _fit(arguments: list[Any], changing: set[int], result: Any, function: Callable[..., Any]) -> None:
    """Bring those of the ``arguments`` that are constant to the shape, and the order in memory, of the ``result``."""
    for index in range(len(arguments))[ELEMENTWISE.get(function, slice(0))]:
        one = arguments[index]
        is_number = type(one) in (int, float)
        if index not in changing and (is_number or (isinstance(one, Array) and one.dtype == result.dtype)):
            arguments[index] = np.empty_like(result)
            arguments[index][...] = one


def _filled(template: list[Any], number: int, places: list[Place]) -> list[Any]:
    """``template`` for a number of observations; what values go where is added to ``places``."""
    filled: list[Any] = []
    for index, one in enumerate(template):
        if isinstance(one, Value):
            places.append((filled, index, int(one)))
        if isinstance(one, list):
            filled.append(_filled(one, number, places))
        else:
            filled.append(one.offset + one.slope * number if isinstance(one, Linear) else one)
    return filled
