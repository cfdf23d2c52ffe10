"""SIGINT (Ctrl-C) and SIGTERM: a command ends at once, but never within a write, and a second signal does no harm."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(KeyboardInterrupt):
    """A signal came.

    Args:
        number: of the signal; the exit status is 128 more.
        is_told: whether it has been printed what lies there and what goes on.
    """

    def __init__(self, number: int, is_told: bool = False) -> None:
        super().__init__(number)
        self.number, self.is_told = number, is_told


class Stopping:
    """What became of the signals of this process.

    Attributes:
        number: of the signal that came first; None before one has come.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._writes = 0                                            # that the main thread is in
        self._end: Callable[[int], None] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the block the first signal raises :class:`StoppedError`. Those that were ignored before still are."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.number, self._writes = None, 0
        heard = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.take) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.number = None

    @contextmanager
    def ending(self, end: Callable[[int], None]) -> Iterator[None]:
        """A signal that comes inside the block calls ``end`` with its number.

        Modules are imported there: nothing has begun yet, and libraries take the error for one of their own.
        """
        self._end = end
        try:
            yield
        finally:
            self._end = None

    def take(self, number: int, _: Any) -> None:
        """The handler: the first signal counts."""
        if self.number is None:
            self.number = number
            if self._end is not None:
                self._end(number)
            if not self._writes:
                raise StoppedError(number)

    def look(self) -> None:
        """Raise it again, where code of others that a signal met has taken the error for one of its own."""
        if self.number is not None:
            raise StoppedError(self.number)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """A signal that comes inside the block raises at its end: some libraries' writers cannot be left half-way."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = self.number
        self._writes += 1
        try:
            yield
        finally:
            self._writes -= 1
        if self.number != before and not self._writes:
            self.look()


STOPPING = Stopping()
"""Of this process."""
