"""
Metrics of all workers as one: counters never go backwards when a worker ends.

Each worker reports cumulative numbers, so a lost report loses nothing. When one
leaves, its counters and histograms are kept as they last were; its gauges (what
was in flight there) end with it. All of it outlives the controller (`dump`): a
sum that lost an ended worker would fall, and be taken for a start from zero.
"""

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from pilothouse.domain.snapshot import WorkerReport
from pilothouse.kit.metrics import Registry

_REMEMBERED = 32
"""Workers that left and may come back after a cut connection; older ones are added up for good."""


class _Kept(Struct, frozen=True):
    """What one controller leaves to the next."""

    ended: bytes
    reports: list[WorkerReport]


class WorkerTotals:
    """Give `follow` every report and `leave` every worker that disconnects."""

    def __init__(self) -> None:
        self._live: dict[str, WorkerReport] = {}
        self._left: dict[str, WorkerReport] = {}
        self._ended: bytes = Registry().dump()

    @property
    def live(self) -> Mapping[str, WorkerReport]:
        """The newest report of each connected worker."""
        return self._live

    def follow(self, report: WorkerReport) -> None:
        """A worker of the same name but another pid is its successor."""
        known = self._live.pop(report.worker, None) or self._left.pop(report.worker, None)
        if known is not None and known.pid != report.pid:
            self._end(known)
        elif known is not None and known.time > report.time:
            report = known  # a late, older report must not take the counters back
        self._live[report.worker] = report

    def leave(self, worker: str) -> None:
        report = self._live.pop(worker, None)
        if report is None:
            return
        self._left[worker] = report
        if len(self._left) > _REMEMBERED:
            self._end(self._left.pop(next(iter(self._left))))

    def dump(self) -> bytes:
        """All counts, for the next controller of this server."""
        return msgspec.msgpack.encode(_Kept(self._ended, [*self._left.values(), *self._live.values()]))

    def restore(self, dump: bytes) -> None:
        """
        Go on from what the last controller counted. Its workers come back, or have ended.

        Raises:
            ValueError: It is not such a dump.
        """
        kept = msgspec.msgpack.decode(dump, type=_Kept)
        self._ended = kept.ended
        for report in kept.reports:
            self._live[report.worker] = report
            self.leave(report.worker)

    def merged(self) -> Registry:
        """The sums of all that ever reported."""
        left = [_without_gauges(report.metrics) for report in self._left.values()]
        return Registry.merged(_present([self._ended, *left, *(r.metrics for r in self._live.values())]))

    def _end(self, report: WorkerReport) -> None:
        self._ended = Registry.merged(_present([self._ended, _without_gauges(report.metrics)])).dump()


def _present(dumps: Iterable[bytes]) -> list[bytes]:
    """A worker's first report may come before it has any metrics."""
    return [dump for dump in dumps if dump]


def _without_gauges(dump: bytes) -> bytes:
    registry = Registry.merged(_present([dump]))
    gauges = ("gauge", "most")
    registry.families = {
        name: family for name, family in registry.families.items() if family.kind not in gauges
    }
    return registry.dump()
