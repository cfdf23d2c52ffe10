"""How much memory pairs may take, by default: a share of what there is where they would lie.

Of what there is, and not of what is free at the time: all processes of a run, and a run that goes on, have to choose alike.
"""

import os
import resource
from pathlib import Path

import torch

SHARE = 0.25
"""Reading and checking them takes 2.7 times as much: 5.9 GB for 2.2 in benchmarks/larger_than_memory.py."""


def for_pairs(device: torch.device, processes: int) -> int:
    """Bytes that pairs may take on ``device`` and in this process, one of so many on this machine."""
    found = of_machine() / processes
    if device.type == "cuda":
        found = min(found, torch.cuda.get_device_properties(device).total_memory)
    return int(SHARE * found)


def of_machine() -> int:
    """Bytes that the machine has, or that a limit of the process or of a control group leaves."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits = (resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_DATA, resource.RLIMIT_AS))
    found += [limit for limit in limits if limit != resource.RLIM_INFINITY]
    group = Path("/sys/fs/cgroup") / _own_group()
    for folder in (group, *group.parents):                          # a limit of the groups above counts too
        try:
            found.append(int((folder / "memory.max").read_text()))
        except (OSError, ValueError):                               # "max" is no limit
            continue
    return min(found)


def _own_group() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
