"""More pairs than memory holds: the speed and the memory of training on a folder of shards that is streamed from the disk.

A folder of random pairs, of 17 observations and 6 actions in episodes of 1000, is written and trained on by ``Trainer.fit``
in batches of 1000, each run in a process of its own: streamed under a cap of 2 GB, and read into memory without one. The
processor's time per pair holds on a busy machine too. The cap is RLIMIT_DATA: a process that allocates more fails. Libraries
and the pages of files that are mapped do not count; the peak of the resident memory, where they do, is given beside it.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Row, Settings

DIMS = 17, 6
EPISODE = 1000
BATCH = 1000
CAP = 2.0
"""GB."""


def write(folder: Path, pairs: int) -> None:
    """Random pairs of HalfCheetah-v5's dimensions, in shards."""
    from lightning_bc.demonstrations.trajectories import Origin, Trajectories
    from lightning_bc.demonstrations.writing import writing

    generator = torch.Generator().manual_seed(0)
    returns = {"random_returns": (-300.0,) * 100, "expert_returns": (9000.0,) * 100}
    origin = Origin("random", environment_id="HalfCheetah-v5", mean_return=9000.0, **returns)
    with writing(folder) as writer:
        for _ in range(0, pairs, 100 * EPISODE):
            observations = torch.randn(100 * EPISODE, DIMS[0], generator=generator)
            actions = observations[:, : DIMS[1]].tanh()
            writer.add(Trajectories(observations, actions, torch.full((100,), EPISODE), torch.zeros(len(actions))))
        writer.close(origin)


def trained(folder: str, memory: float, steps: int, batch_size: int, cap: float | None) -> dict[str, float]:
    """Train MSE in this process; pairs per second after the first quarter, seconds to the first step, and peaks in GB."""
    import logging
    import warnings

    from lightning.pytorch import Callback, Trainer

    from lightning_bc.demonstrations import Demonstrations
    from lightning_bc.strategies import MSE
    from lightning_bc.trainer_flags import TRAINER_DEFAULTS

    if cap is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(cap * 1e9), int(cap * 1e9)))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    started, times, used = time.perf_counter(), [time.perf_counter()], [time.process_time()]

    class Clock(Callback):
        """Notes when each training step, of many optimizer steps, has ended."""

        def on_train_batch_end(self, *_: Any) -> None:
            times.append(time.perf_counter())
            used.append(time.process_time())

    data = Demonstrations(folder, batch_size=batch_size, validation_fraction=0, memory=memory)
    settings: dict[str, Any] = TRAINER_DEFAULTS | {"max_epochs": -1, "max_steps": steps, "accelerator": "cpu"}
    trainer = Trainer(
        **settings, callbacks=[Clock()], logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    model = MSE(observation_dim=data.observation_dim, action_low=data.action_low, action_high=data.action_high)
    trainer.fit(model, datamodule=data)
    warm = len(times) // 4
    measured = (len(times) - 1 - warm) * data.group_size * batch_size
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "pairs_per_second": measured / (times[-1] - times[warm]),
        "pairs_per_processor_second": measured / (used[-1] - used[warm]),
        "seconds_to_first": times[1] - started,
        "resident": int(status["VmHWM"].split()[0]) / 1e6,
    }


def in_a_process(folder: Path, memory: float, steps: int, batch_size: int, cap: float | None) -> dict[str, float]:
    """The same in a process of its own."""
    arguments = json.dumps([str(folder), memory, steps, batch_size, cap])
    code = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
    code += "from benchmarks import larger_than_memory as one; print(json.dumps(one.trained(*json.loads(sys.argv[1]))))"
    done = subprocess.run([sys.executable, "-c", code, arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def rows(settings: Settings) -> list[Row]:
    """Streamed beside in memory: pairs per second by the clock and of a core, and the peak of memory."""
    pairs, steps = settings.sized(24_000_000, 100_000), settings.sized(3200, 400)
    folder = settings.folder / "random.shards"
    write(folder, pairs)
    streamed, in_memory = [], []
    for _ in range(min(settings.rounds, settings.sized(3, 1))):
        streamed.append(in_a_process(folder, 0, steps, BATCH, CAP))
        in_memory.append(in_a_process(folder, 1e3, steps, BATCH, None))
    found = []
    for unit, key in (("pairs/s", "pairs_per_second"), ("pairs/s of a core", "pairs_per_processor_second")):
        ours, other = ([run[key] for run in runs] for runs in (streamed, in_memory))
        ratios = tuple(a / b for a, b in zip(ours, other, strict=True))
        found.append(
            Row(f"{pairs:,} pairs, streamed", "in memory", statistics.median(ours), statistics.median(other), unit, ratios)
        )
    for name, runs in ((f"peak of memory, streamed under {CAP:g} GB", streamed), ("peak of memory, in memory", in_memory)):
        found.append(Row(name, "", max(run["resident"] for run in runs), 0, "GB", ()))
    return found
