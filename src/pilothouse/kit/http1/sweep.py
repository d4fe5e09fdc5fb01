"""
One coarse clock for all timeouts: no timer object per request.

Everything with a deadline is in a set and is looked at four times a second.
Deadlines are kept as plain attributes, so that arming one costs a store.
"""

import asyncio
import time
from typing import Protocol

from pilothouse.kit.beat import until_beat

PERIOD_S = 0.25


class Swept(Protocol):
    def sweep(self, now: float) -> None:
        """Look at your deadlines; `now` is `time.monotonic()`."""
        ...


class Sweeper:
    """Calls `sweep` of its members every `PERIOD_S` seconds while it runs."""

    def __init__(self) -> None:
        self.members: set[Swept] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False

    def start(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(until_beat(PERIOD_S), self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop_when_empty(self) -> None:
        """Stop once nothing is left that has a deadline; what runs keeps its own."""
        self._is_ending = True

    def _tick(self) -> None:
        if self._is_ending and not self.members:
            self._timer = None
            return
        self._timer = asyncio.get_running_loop().call_later(until_beat(PERIOD_S), self._tick)
        now = time.monotonic()
        for member in list(self.members):
            member.sweep(now)
