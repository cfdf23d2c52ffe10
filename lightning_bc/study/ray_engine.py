"""Runs fits on a Ray cluster: one task per fit, with its CPUs and GPUs declared; no disk is shared.

The files that a fit reads are put into Ray's store once, and each node keeps them by their SHA-256. What a run has saved
comes home while it runs. When its node dies it begins elsewhere with what has come home, and so it does when this process
died and the same command is given again. Ray ends the tasks of a process that died.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

from lightning_bc.aliases import Config
from lightning_bc.errors import InputError
from lightning_bc.files import sha256
from lightning_bc.runs import folders
from lightning_bc.runs.plan import Fit
from lightning_bc.study import on_node
from lightning_bc.study.process import failure
from lightning_bc.study.settled import Settled

DEATHS = 5
"""So many times in succession, without a new checkpoint, a fit is begun elsewhere: it may be what kills its nodes."""

MODULE = re.compile(r"\w+([.:][\w-]+)+")
"""The name of something in a module: my_envs:Point-v0, package.module.Class."""


class Ray:
    """A Ray cluster.

    Args:
        address: HOST:PORT of its head; None for the cluster of this machine, which is started if there is none.
        cpus: of each fit.
        gpus: of each fit.
        words: what Python is told to run a fit.
        files: paths of what a fit reads.
        every: seconds between two looks at what a fit has saved.

    Raises:
        InputError: there is no such cluster, or no node of it has room for a fit.
    """

    def __init__(
        self,
        address: str | None = None,
        cpus: float = 1,
        gpus: float = 0,
        words: Callable[[Fit], list[str]] = lambda fit: fit.command()[1:],
        files: Callable[[Fit], Iterable[str]] = lambda fit: files_of(fit),
        every: float = 30.0,
    ) -> None:
        if cpus < 0 or gpus < 0 or not cpus + gpus:
            raise InputError(f"--cpus {cpus:g} --gpus {gpus:g}: wanted what a fit needs, more than nothing.")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError(
                f"--address {address}: no Ray cluster could be joined ({error}). Start this command on a machine of the "
                "cluster, whose head was started by  ray start --head  and which joined by  ray start --address HOST:PORT."
            ) from error
        self.needs = {name: number for name, number in (("CPU", cpus), ("GPU", gpus)) if number}
        self.words, self.files, self.every = words, files, every
        if not self._room():
            raise InputError(f"--cpus {cpus:g} --gpus {gpus:g}: no node of the cluster has as many.")
        self._task: Any = ray.remote(on_node.run).options(
            num_cpus=cpus, num_gpus=gpus, max_retries=0, num_returns="streaming", scheduling_strategy="SPREAD"
        )
        self._stored = cache(lambda path: (sha256(path), ray.put(np.fromfile(path, dtype=np.uint8))))
        self._stopping = False

    @property
    def slots(self) -> int:
        """How many fits the nodes that are alive have room for; 1 where all have died, so that fits wait for another."""
        return max(1, self._room())

    def _room(self) -> int:
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return sum(int(min(node.get(name, 0) / number for name, number in self.needs.items())) for node in alive)

    def start(self, fit: Fit) -> Callable[[], str | None]:
        """Store what the fit reads; it is queued with Ray by what is returned."""
        return partial(self._run, fit, {path: self._stored(path) for path in self.files(fit)})

    def _run(self, fit: Fit, brought: on_node.Brought) -> str | None:
        """Run a fit to its end, wherever; its last lines if it failed."""
        logs = folders.LOGS / fit.name
        own = [folder.as_posix() for folder in (logs, folders.last_checkpoint(fit.name).parent)]
        deaths = 0
        while deaths < DEATHS and not self._stopping:
            begun = on_node.read_files(Path(), on_node.written(Path(), own))
            try:
                for result in self._task.remote(self.words(fit), brought, begun, own, self.every):
                    status, new = ray.get(result)
                    on_node.write_files(Path(), new)
                    deaths = 0
                    if status is not None:
                        return failure(status, logs)
            except ray.exceptions.RayTaskError as error:            # as of a full disk, or an installation
                return str(error)
            except ray.exceptions.RayError as error:
                deaths += 1
                if not self._stopping:
                    print(f"{fit.name} lost its node ({type(error).__name__}), and goes on elsewhere", flush=True)
        return "stopped" if self._stopping else f"its node died {DEATHS} times"

    def stop(self) -> None:
        """Begin nothing more. Ray ends what runs with this process; it goes on from the checkpoints that have come home."""
        self._stopping = True


def files_of(fit: Fit) -> set[str]:
    """Paths below the working folder of what a fit reads: all that its flags and its whole configuration name.

    Of a folder it is all files, of a module (``my_envs:Point-v0``) its file or package. What lies elsewhere, as on a disk
    that is shared, each node must have at the same place.
    """
    found = set()
    for text in {*fit.flags, *_texts(_meaning(fit.flags))}:
        path = Path(text)
        if MODULE.fullmatch(text) and not text.startswith("lightning_bc"):
            name = re.split("[.:]", text)[0]
            found |= {Path(f"{name}.py"), *Path(name).rglob("*.py")}
        if path.parts and not path.is_absolute() and ".." not in path.parts:
            found |= {path, *path.rglob("*")}
    return {path.as_posix() for path in found if path.is_file()}


@cache
def _meaning(flags: tuple[str, ...]) -> Config:
    return Settled(flags).saved_config


def _texts(value: Any) -> Iterator[str]:
    """Every text in a nested configuration, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _texts(entry)
