"""Callbacks that refuse a run before it begins."""

from typing import Protocol, runtime_checkable

from lightning.pytorch import LightningModule


@runtime_checkable
class Checked(Protocol):
    """A callback with a ``check``, which ``fit`` calls before any folder is made."""

    def check(self, module: LightningModule, environment_id: str) -> None:
        """Raise InputError where the callback cannot work under the strategy or in the environment."""
