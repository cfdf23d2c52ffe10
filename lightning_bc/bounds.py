"""Bounds of numbers as types: ``--help`` shows them, and the command line refuses what lies outside.

The values stay plain numbers, which a checkpoint may hold.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jsonargparse.typing import register_type

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

        cls = type(name, (number,), {"__doc__": wanted, "__module__": __name__})
        register_type(cls, number, check, type_check=lambda value, _: type(value) is number and is_good(value))
        return cls

    ClosedUnitInterval = _bounded("ClosedUnitInterval", float, "0 to 1", lambda x: 0 <= x <= 1)
    NonNegativeFloat = _bounded("NonNegativeFloat", float, "0 or more", lambda x: 0 <= x < math.inf)
    NonNegativeInt = _bounded("NonNegativeInt", int, "a whole number, 0 or more", lambda x: x >= 0)
    PositiveFloat = _bounded("PositiveFloat", float, "above 0", lambda x: 0 < x < math.inf)
    PositiveInt = _bounded("PositiveInt", int, "a whole number, at least 1", lambda x: x >= 1)
    UnitIntervalAboveZero = _bounded("UnitIntervalAboveZero", float, "above 0, at most 1", lambda x: 0 < x <= 1)
    UnitIntervalBelowOne = _bounded("UnitIntervalBelowOne", float, "0 to below 1", lambda x: 0 <= x < 1)

__all__ = [
    "ClosedUnitInterval",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "UnitIntervalAboveZero",
    "UnitIntervalBelowOne",
]
