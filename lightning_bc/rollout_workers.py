"""Worker processes that play episodes while the process that started them does something else.

Each is spawned, computes with one thread, makes its sub-environments once and plays what it is sent: a player that holds a
frozen policy (:mod:`lightning_bc.acting`), so that it needs neither the strategy nor what that imports. A worker ends with
the process that started it, however that ends: it holds the reading end of a pipe that nobody writes to.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from lightning_bc.environments import Environments, episode_limit, limit_episodes, make
from lightning_bc.episodes import Episodes, play
from lightning_bc.errors import ExitedError, InputError
from lightning_bc.players import Player

HANGS_AFTER = 120.0
"""Seconds without a step of any worker, while somebody waits, after which they count as hanging."""

POLL_SECONDS = 0.1

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

WAY_OUT = "--rollouts.workers 0 plays in the training process."


@dataclass(frozen=True)
class Played:
    """Episodes, and how long it took to play them, in seconds."""

    episodes: Episodes
    seconds: float


class Workers:
    """A pool of them, which play the same number of episodes of one environment each time.

    Args:
        number: of processes.
        environment_id: where they play.
        num_envs: sub-environments of each.
    """

    def __init__(self, number: int, environment_id: str, num_envs: int) -> None:
        context = get_context("spawn")
        self.number = number
        reader, self._writer = context.Pipe(duplex=False)
        self._steps: Any = context.RawValue("q")                    # grows while any of them is alive and playing
        self._executor = ProcessPoolExecutor(
            number,
            mp_context=context,
            initializer=_begin,
            initargs=(reader, self._steps, environment_id, num_envs, episode_limit(environment_id)),
        )
        self._reader = reader                                       # until the processes, which start later, have it

    def submit(self, player: Player, seeds: Sequence[int], record: bool) -> Future[Played]:
        """Have an episode per seed played, in the order of submission."""
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(dict.fromkeys(ONE_THREAD, "1"))           # the first call starts the processes
        try:
            return self._executor.submit(_play, player, seeds, record)
        except BrokenProcessPool as error:
            raise _killed() from error
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    def result(self, future: Future[Played], look: Callable[[], None]) -> Played:
        """What was played, waited for.

        Args:
            future: of ``submit``.
            look: called some times a second while waiting.

        Raises:
            InputError: a worker failed, was killed or hangs.
            ExitedError: the environment has called ``sys.exit`` in one.
        """
        steps, since = self._steps.value, time.monotonic()
        while True:
            try:
                return future.result(timeout=POLL_SECONDS)
            except NotYetError:
                look()
            except BrokenProcessPool as error:
                raise _killed() from error
            except (InputError, ExitedError):
                raise
            except (Exception, SystemExit) as error:
                raise InputError(f"a rollout worker failed: {type(error).__name__}: {error}. {WAY_OUT}") from error
            if self._steps.value != steps:
                steps, since = self._steps.value, time.monotonic()
            if time.monotonic() - since > HANGS_AFTER:
                raise InputError(f"a rollout worker has not stepped for {HANGS_AFTER:.0f} s, so it hangs. {WAY_OUT}")

    def close(self) -> None:
        """End them, whatever they are at."""
        self._writer.close()
        self._reader.close()
        for process in [*(self._executor._processes or {}).values()]:   # one that still imports does not see the pipe
            process.kill()
        self._executor.shutdown(cancel_futures=True)


def _killed() -> InputError:
    return InputError(
        "a rollout worker ended by itself: it was killed, perhaps for its memory, or crashed. Fewer take less memory: "
        f"--rollouts.workers 1; {WAY_OUT} Each worker imports the script that starts it: one of your own needs "
        'if __name__ == "__main__": before the line that trains.'
    )


# In a worker

_environments: Environments
_counter: Any


def _begin(parent: Connection, steps: Any, environment_id: str, num_envs: int, limit: int | None) -> None:
    """Make what is needed at each point."""
    global _environments, _counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)                    # Ctrl-C is for the process that started it
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    if limit is not None:
        limit_episodes(environment_id, limit)
    _environments, _counter = make(environment_id, num_envs, threads=1), steps
    _counter.value += 1


def _end_with(parent: Connection) -> None:
    """End this process as soon as the pipe's other end is closed, by ``close`` or by the end of the process that held it."""
    wait([parent])
    os._exit(0)


def _play(player: Player, seeds: Sequence[int], record: bool) -> Played:
    started = time.perf_counter()
    episodes = play(player, _environments, seeds, record=record, on_step=_count)
    return Played(episodes, time.perf_counter() - started)


def _count(steps: int) -> None:
    _counter.value += steps
