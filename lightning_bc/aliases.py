"""Names for dictionaries whose values may be of any type."""

from collections.abc import Mapping
from typing import Any

StateDict = dict[str, Any]
"""What ``state_dict()`` gives and a checkpoint holds; PyTorch and Lightning demand this type."""

Config = Mapping[str, Any]
"""A configuration as YAML has it: nested, or flat with dotted keys."""
