"""The error that is meant for a person."""

from collections.abc import Iterable
from typing import Any


class InputError(ValueError):
    """Something that the user gave cannot be used: a file, a flag, an environment.

    The message names it, the value found, the value wanted and the way out; the command line prints it alone, without a
    traceback.
    """


def refuse_unless_good(prefix: str, settings: Iterable[tuple[str, Any, str, bool]]) -> None:
    """Refuse the first of ``settings``, each (name, value, what is wanted in words, whether it is good), that is not good.

    Raises:
        InputError: naming ``prefix`` and the setting, the value found and the value wanted.
    """
    for name, value, wanted, good in settings:
        if not good:
            raise InputError(f"{prefix}{name} {value}: wanted {wanted}.")
