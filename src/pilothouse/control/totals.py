"""
Metrics of all workers as one: counters never go backwards when a worker ends.

Each worker reports cumulative numbers, so a lost report loses nothing. When one
leaves, its counters and histograms are kept as they last were; its gauges (what
was in flight there) end with it.
"""

from collections.abc import Callable, Iterable, Mapping

from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport
from pilothouse.kit.metrics import Registry
from pilothouse.ports.feed import Publisher

_REMEMBERED = 32
"""Workers that left and may come back after a cut connection; older ones are added up for good."""


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

    def merged(self) -> Registry:
        """The sums of all that ever reported."""
        left = [_without_gauges(report.metrics) for report in self._left.values()]
        return Registry.merged(_present([self._ended, *left, *(r.metrics for r in self._live.values())]))

    def _end(self, report: WorkerReport) -> None:
        self._ended = Registry.merged(_present([self._ended, _without_gauges(report.metrics)])).dump()


class CountingPublisher(Publisher):
    """A publisher whose reports all pass by `totals` first."""

    def __init__(self, inner: Publisher, totals: WorkerTotals) -> None:
        self._inner = inner
        self._totals = totals

    async def serve(
        self,
        *,
        view: Callable[[WorkerHello], Snapshot],
        on_report: Callable[[WorkerReport], None],
        on_leave: Callable[[str], None],
    ) -> None:
        def hear(report: WorkerReport) -> None:
            self._totals.follow(report)
            on_report(report)

        def leave(worker: str) -> None:
            self._totals.leave(worker)
            on_leave(worker)

        await self._inner.serve(view=view, on_report=hear, on_leave=leave)

    def publish(self) -> None:
        self._inner.publish()

    async def collect(self, *, timeout_s: float) -> Mapping[str, WorkerReport]:
        return await self._inner.collect(timeout_s=timeout_s)


def _present(dumps: Iterable[bytes]) -> list[bytes]:
    """A worker's first report may come before it has any metrics."""
    return [dump for dump in dumps if dump]


def _without_gauges(dump: bytes) -> bytes:
    registry = Registry.merged(_present([dump]))
    registry.families = {name: family for name, family in registry.families.items() if family.kind != "gauge"}
    return registry.dump()
