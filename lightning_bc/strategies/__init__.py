"""How actions are modelled, one file each: ``offline/`` learns from demonstrations, ``online/`` acts while it learns.

``from lightning_bc.strategies import Gaussian`` works for every strategy, by its class name.
"""

from typing import Any

from lightning_bc.strategies.base import Strategy
from lightning_bc.strategies.contract import Data, Needs, data_of
from lightning_bc.strategies.offline.base import OfflineStrategy
from lightning_bc.strategies.registry import load_strategy, strategies, strategy_of_checkpoint

__all__ = [
    "Data",
    "Needs",
    "OfflineStrategy",
    "Strategy",
    "data_of",
    "load_strategy",
    "strategies",
    "strategy_of_checkpoint",
]


def __getattr__(name: str) -> Any:
    """A strategy by its class name."""
    if name.startswith("_") or name not in (known := strategies()):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return known[name]
