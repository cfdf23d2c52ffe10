"""The command line's parser: refuses unknown keys with the nearest known name."""

import difflib
import inspect
import re
from typing import Any, NoReturn

import torch
from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from lightning_bc.errors import InputError
from lightning_bc.networks import Network
from lightning_bc.strategies import strategies

_UNKNOWN = re.compile(r"unrecognized arguments: --([\w.]+)|Option '([\w.]+)' is not accepted|import path string: ([\w.]+)")


class HelpFormatter(DefaultHelpFormatter):
    """Leaves the lines of descriptions as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


class Parser(LightningArgumentParser):
    """Refuses unknown keys with the nearest known name."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message alone; the usage of a hundred flags would hide it."""
        if not self.exit_on_error:                                  # jsonargparse tries a type and asks for the outcome
            super().error(message, ex)
        unknown = [next(filter(None, groups)) for groups in _UNKNOWN.findall(message)]
        raise InputError("\n".join(self._nearest(name) for name in unknown) or message)

    def _nearest(self, name: str) -> str:
        classes: list[Any] = [*strategies().values(), *Network.__subclasses__(), torch.optim.AdamW]
        known = {action.dest for action in self._actions} | {cls.__name__ for cls in classes} | {"class_path", "init_args"}
        known |= {key for cls in classes for base in cls.__mro__ for key in inspect.signature(base.__init__).parameters}
        last = name.rpartition(".")[2]
        near = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(last, known, n=1)
        return f"unknown: {name}. " + (f"Nearest known: {near[0]}." if near else "See --help for what there is.")
