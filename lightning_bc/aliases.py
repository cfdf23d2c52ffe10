"""Names for dictionaries whose values may be of any type."""

from collections.abc import Mapping
from typing import Any

StateDict = dict[str, Any]
"""What ``state_dict()`` gives and a checkpoint holds; PyTorch and Lightning demand this type."""

Config = Mapping[str, Any]
"""A configuration as YAML has it: nested, or flat with dotted keys."""

Columns = dict[str, Any]
"""Arrays of a data file by name, of any library and before they are checked; observations may be entries by their keys."""

Infos = dict[str, Any]
"""What Gymnasium's ``reset`` takes as options, and what ``reset`` and ``step`` tell beside the observations."""
