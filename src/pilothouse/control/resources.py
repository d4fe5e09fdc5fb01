"""
Resource figures by the minute: what each process used, for the store.

Arithmetic on readings that others took. Processor time is a counter of each
process, so a minute's share is the growth within it; a process seen for the
first time counts from its start when that lies in the same minute.
"""

from collections.abc import Iterable
from typing import TypeVar

from pilothouse.control.status import ProcessFigures
from pilothouse.domain.usage import minute_of
from pilothouse.ports.store import ResourceSample

N = TypeVar("N", int, float)


class MinuteResources:
    """Give `follow` each reading; it returns the samples of a minute once that is over."""

    def __init__(self) -> None:
        self._minute = 0
        self._samples: dict[tuple[str, str], ResourceSample] = {}
        self._last: dict[tuple[str, int, float], float] = {}

    def follow(self, figures: Iterable[ProcessFigures], now: float) -> list[ResourceSample]:
        minute = minute_of(now)
        ended = self.flush() if minute != self._minute else []
        self._minute = minute
        last: dict[tuple[str, int, float], float] = {}
        for one in figures:
            key = (one.name, one.pid, one.started_at)
            first = 0.0 if one.started_at >= minute else one.cpu_seconds
            used = max(0.0, one.cpu_seconds - self._last.get(key, first))
            last[key] = one.cpu_seconds
            self._add(one, used)
        self._last = last
        return ended

    def flush(self) -> list[ResourceSample]:
        """The samples of the minute so far; a later flush of the same minute would replace them."""
        samples, self._samples = list(self._samples.values()), {}
        return samples

    def _add(self, one: ProcessFigures, used: float) -> None:
        known = self._samples.get((one.role, one.name))
        self._samples[one.role, one.name] = ResourceSample(
            minute=self._minute,
            role=one.role,
            name=one.name,
            deployment=one.deployment,
            cpu_seconds=used + (known.cpu_seconds if known else 0.0),
            rss_bytes=max(one.rss_bytes, known.rss_bytes if known else 0),
            gpu_utilization_ratio=_larger(
                one.gpu_utilization_ratio, known.gpu_utilization_ratio if known else None
            ),
            gpu_memory_bytes=_larger(one.gpu_memory_bytes, known.gpu_memory_bytes if known else None),
        )


def _larger(one: N | None, other: N | None) -> N | None:
    return max((x for x in (one, other) if x is not None), default=None)
