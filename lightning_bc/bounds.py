"""Bounds of numbers as types: ``--help`` shows them, and the command line refuses what lies outside.

The values stay plain numbers, which a checkpoint may hold.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from jsonargparse.typing import register_type

from lightning_bc.errors import InputError

if TYPE_CHECKING:
    ClosedUnitInterval = float
    NonNegativeFloat = float
    NonNegativeInt = int
    PositiveFloat = float
    PositiveInt = int
    UnitIntervalAboveZero = float
    UnitIntervalBelowOne = float
else:

    def _bounded(name: str, number: type, wanted: str, is_good: Callable[[Any], bool]) -> type:
        """A type that jsonargparse knows: a ``number`` that ``is_good``, ``wanted`` in words."""

        def check(value: Any) -> Any:
            try:
                converted = number(value)
            except (TypeError, ValueError, OverflowError):
                converted = math.nan
            is_exact = isinstance(value, str) or converted == value  # 2.5 is no whole number
            if isinstance(value, bool) or not is_exact or not is_good(converted):
                raise ValueError(f"{value}: wanted {wanted}")
            return converted

        parts = {"__doc__": wanted, "__module__": __name__, "number": number, "is_good": staticmethod(is_good)}
        cls = type(name, (number,), parts)
        register_type(cls, number, check, type_check=lambda value, _: type(value) is number and is_good(value))
        return cls

    ClosedUnitInterval = _bounded("ClosedUnitInterval", float, "0 to 1", lambda x: 0 <= x <= 1)
    NonNegativeFloat = _bounded("NonNegativeFloat", float, "0 or more", lambda x: 0 <= x < math.inf)
    NonNegativeInt = _bounded("NonNegativeInt", int, "a whole number, 0 or more", lambda x: x >= 0)
    PositiveFloat = _bounded("PositiveFloat", float, "above 0", lambda x: 0 < x < math.inf)
    PositiveInt = _bounded("PositiveInt", int, "a whole number, at least 1", lambda x: x >= 1)
    UnitIntervalAboveZero = _bounded("UnitIntervalAboveZero", float, "above 0, at most 1", lambda x: 0 < x <= 1)
    UnitIntervalBelowOne = _bounded("UnitIntervalBelowOne", float, "0 to below 1", lambda x: 0 <= x < 1)


def check_arguments(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """From Python, where no command line looks: are numbers within their bounds, and words among those that are known?

    Args:
        function: whose parameters say what is wanted.
        given: their values by name; others, and other types, are left alone.

    Raises:
        InputError: naming the first that is not.
    """
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):                                  # a user's, which cannot be looked up
        return
    for name, hint in hints.items():
        if name in given and (wanted := _refusals(hint, given[name])):
            value = f'"{given[name]}"' if isinstance(given[name], str) else repr(given[name])
            raise InputError(f"{name}={value}: wanted {' or '.join(wanted)}.")


def _refusals(hint: Any, value: Any) -> list[str]:
    """What a type wants instead of ``value``, in words; empty where it takes it, or says nothing of it."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return [] if value in parts else [f'"{part}"' for part in parts]
    if get_origin(hint) in (list, Sequence) and (wanted := _refusals(parts[0], None)):
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        is_good = is_list and not any(_refusals(parts[0], one) for one in value)
        return [] if is_good else [f"a list, each {' or '.join(wanted)}"]
    if NoneType in parts:
        refusals = [[] if value is None else _refusals(part, value) for part in parts if part is not NoneType]
        return [] if [] in refusals else [f"{' or '.join(itertools.chain(*refusals))}, or None"]
    if hint is int or hasattr(hint, "is_good"):
        kind = Integral if getattr(hint, "number", int) is int else Real
        is_number = isinstance(value, kind) and not isinstance(value, bool)
        is_good = is_number and getattr(hint, "is_good", lambda _: True)(value)
        return [] if is_good else ["a whole number" if hint is int else hint.__doc__]
    return []


__all__ = [
    "ClosedUnitInterval",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "UnitIntervalAboveZero",
    "UnitIntervalBelowOne",
    "check_arguments",
]
