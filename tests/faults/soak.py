"""Load and evaluate a policy over and over: does memory grow, are handles and threads let go?

python tests/faults/soak.py --minutes 120
"""

import argparse
import ctypes
import gc
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import lightning_bc
from lightning_bc.strategies import strategies

ENVIRONMENT = "InvertedPendulum-v5"
EPISODES = 4


def resident():
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def open_now():
    """How many handles and threads there are."""
    return len([*Path("/proc/self/fd").iterdir()]), len([*Path("/proc/self/task").iterdir()])


def export(folder):
    """An exported policy of random weights."""
    from lightning_bc.demonstrations.experts import exported

    torch.manual_seed(0)
    strategy = strategies()["MSE"](4, [-3.0], [3.0])
    Path(folder).mkdir()
    exported.write(Path(folder), strategy, ENVIRONMENT, None, None)


def main():
    """Run, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    words = "before each look at memory give back what the C library holds free, which is no leak (Linux)"
    parser.add_argument("--trim", action="store_true", help=words)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        export(f"{folder}/policy")
        started, samples, evaluations = time.monotonic(), [], 0
        while time.monotonic() - started < 60 * given.minutes:
            policy = lightning_bc.load(f"{folder}/policy", environment_id=ENVIRONMENT)
            lightning_bc.evaluate(policy, ENVIRONMENT, EPISODES, bank="selection", deterministic=evaluations % 2 == 0)
            evaluations += 1
            if evaluations % 20 == 0:
                if given.trim:
                    gc.collect()
                    ctypes.CDLL("libc.so.6").malloc_trim(0)
                samples.append((evaluations, resident(), *open_now()))
    number, memory, handles, threads = np.array(samples[len(samples) // 5 :]).T  # the first fifth warms up
    print(
        json.dumps(
            {
                "minutes": given.minutes,
                "trimmed": given.trim,
                "evaluations": evaluations,
                "MB_per_1000_evaluations": round(1000 * float(np.polyfit(number, memory, 1)[0]), 3),
                "MB_first": memory[0],
                "MB_last": memory[-1],
                "handles": [int(handles.min()), int(handles.max())],
                "threads": [int(threads.min()), int(threads.max())],
            }
        )
    )


if __name__ == "__main__":
    main()
