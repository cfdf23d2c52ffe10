"""How long a thread of OpenMP that waits for the others keeps its core busy with waiting.

GNU's OpenMP, which PyTorch's kernels on the CPU run on, has waiting threads look 300,000 times whether the others are done
before they sleep (https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html). Where somebody else needs the core, one
of these others waits for that core meanwhile, and each of an update's many short kernels ends so. A thirtieth of it is long
enough where nobody does: benchmarks/waiting.py measures both.
"""

import os

SPINS = 10_000


def spin_briefly() -> None:
    """Have threads give up their core sooner, unless the user has said how they wait; before torch is imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
