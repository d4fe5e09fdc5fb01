"""
What a process does at intervals, done at common moments.

Waking up costs more than most of what is done then: the processor has slept, and
its caches hold other programs. Intervals that end at multiples of themselves end
together where one is a multiple of the other, and the process wakes once for all.
"""

import asyncio
import time

_EARLY_S = 0.005
"""Timers are exact to milliseconds: one that ends before its moment must not begin a second for it."""


def until_beat(period_s: float) -> float:
    """Seconds to the next moment that is a multiple of `period_s` on the monotonic clock; never 0."""
    left_s = period_s - time.monotonic() % period_s
    return left_s if left_s > min(_EARLY_S, period_s / 2) else left_s + period_s


async def beat_or(event: asyncio.Event, period_s: float, *, least_s: float) -> None:
    """
    Wait for the next such moment, or until `event` is set, which is cleared then.

    Args:
        least_s: It takes at least so long, also where the event is set again and again.
    """
    began = time.monotonic()
    try:
        async with asyncio.timeout(max(least_s, until_beat(period_s))):
            await event.wait()
        left_s = began + least_s - time.monotonic()
        if left_s > 0:
            await asyncio.sleep(left_s)
    except TimeoutError:
        pass
    event.clear()
