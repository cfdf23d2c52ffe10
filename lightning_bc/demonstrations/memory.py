"""How much memory pairs may take, by default: a share of what is free where they would lie."""

import os
import resource
from pathlib import Path

import torch

SHARE = 0.4
"""Of what is free: statistics, copies and what else runs need the rest."""


def for_pairs(device: torch.device) -> int:
    """Bytes that pairs may take on ``device`` and in this process, unless they are told."""
    free = free_in_process()
    if device.type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    return int(SHARE * free / int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def free_in_process() -> int:
    """Bytes that this process may still take: what the machine has free, or its limits leave."""
    taken = _in_bytes(Path("/proc/self/status"), "VmData:")
    of_machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found = [_in_bytes(Path("/proc/meminfo"), "MemAvailable:") or of_machine]
    for limit in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        soft = resource.getrlimit(limit)[0]
        if soft != resource.RLIM_INFINITY:
            found.append(soft - taken)
    group = Path("/sys/fs/cgroup") / _own_group()
    for folder in (group, *group.parents):                          # a limit of the groups above counts too
        most, used = (_number(folder / f"memory.{name}") for name in ("max", "current"))
        if most is not None and used is not None:
            found.append(most - used)
    return max(0, min(found))


def _own_group() -> str:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):                                   # "max" is no limit
        return None


def _in_bytes(file: Path, name: str) -> int:
    """The value of a line that begins with ``name`` and ends with kB; 0 where there is none."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), 0)
