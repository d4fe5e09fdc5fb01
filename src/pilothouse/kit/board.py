"""
A board that several processes share: each writes one number, all read all.

For numbers that are compared and not relied on, such as who has how many
connections. A process that no longer writes is soon not counted any more.
"""

import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

FRESH_S = 3.0
"""Older entries are of processes that ended or hang."""
_ENTRY_BYTES = 16


class Board:
    """
    Args:
        path: A file in a private folder; made when it is not there.
        places: How many processes share it.
        mine: The place of this one, from 0.
    """

    def __init__(
        self, path: Path, *, places: int, mine: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        size = max(places, mine + 1) * _ENTRY_BYTES
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if os.fstat(fd).st_size < size:
                os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self._numbers = memoryview(self._map).cast("q")
        self._mine = 2 * mine
        self._monotonic = monotonic

    def write(self, number: int) -> None:
        """Put up this process's number, at least every second or so."""
        self._numbers[self._mine] = number
        self._numbers[self._mine + 1] = int(self._monotonic() * 1000)

    def least_of_others(self) -> int | None:
        """The smallest number of the others that are alive; None when there is nobody."""
        oldest = int((self._monotonic() - FRESH_S) * 1000)
        numbers = self._numbers
        fresh = [
            numbers[at]
            for at in range(0, len(numbers), 2)
            if at != self._mine and numbers[at + 1] > max(oldest, 0)
        ]
        return min(fresh, default=None)

    def close(self) -> None:
        self._numbers.release()
        self._map.close()
