"""
How fast batches begin their requests.

Places in an engine are not all that requests share: those of batches also use
the processors that the live ones wait for, in the workers and in this process.
So while there is live traffic they begin one by one, at even intervals, and as
often as leaves each of these processes idle for most of the time. With no live
traffic they begin at once.
"""

import asyncio
import time
from collections.abc import Callable

from pilothouse.control.fleet import Fleet
from pilothouse.kit.clock import Clock

BUSY = 0.3
"""The part of a core that a process may use, live requests included; below it there are more of batches."""
LIVE_S = 3.0
"""Live traffic is there for so long after its last request."""
LOOK_S = 1.0
LEAST_PER_S, FIRST_PER_S, MOST_PER_S = 20.0, 100.0, 5000.0
"""However busy live traffic keeps a server, its batches do not stand still."""
STEPS = (0.5, 1.25)
"""What a second changes at most: down fast, up slowly."""
SLACK_S = 0.02
"""Of turns that were late, what may be caught up with."""


class Pace:
    """
    Args:
        cpu_s: Processor time that this process has used.
    """

    def __init__(self, fleet: Fleet, clock: Clock, cpu_s: Callable[[], float] = time.process_time) -> None:
        self._fleet = fleet
        self._clock = clock
        self._cpu_s = cpu_s
        self._next_at = self._looked_at = clock.monotonic()
        self._live_until = 0.0
        self._own_s, self._workers_s, self._live = cpu_s(), fleet.cpu_s, fleet.live
        self.per_s = FIRST_PER_S

    async def turn(self) -> None:
        """Until the next request may begin."""
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._look(now)
        if now >= self._live_until:
            return
        begins = max(self._next_at, now - SLACK_S)
        self._next_at = begins + 1 / self.per_s
        if begins > now:
            await asyncio.sleep(begins - now)

    def _look(self, now: float) -> None:
        """Whether there is live traffic, and how busy it and batches keep us."""
        passed_s = now - self._looked_at
        fleet, own_s = self._fleet, self._cpu_s()
        workers_s, live = fleet.cpu_s, fleet.live
        of_worker = (workers_s - self._workers_s) / max(1, len(fleet.reports))
        busy = max(0.001, own_s - self._own_s, of_worker) / passed_s
        if live > self._live:
            self._live_until = now + LIVE_S
        if now < self._live_until:
            self.per_s *= min(STEPS[1], max(STEPS[0], BUSY / busy))
            self.per_s = min(MOST_PER_S, max(LEAST_PER_S, self.per_s))
        else:
            self.per_s = FIRST_PER_S
        self._looked_at, self._live = now, live
        self._own_s, self._workers_s = own_s, workers_s
