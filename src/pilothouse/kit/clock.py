"""Time as an argument, so that hours pass in a test's millisecond."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Wall time, in Unix seconds: for records, never for durations."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow: for durations and deadlines."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
