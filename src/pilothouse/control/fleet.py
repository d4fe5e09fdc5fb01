"""The workers as the controller hears of them: who is connected, and the newest report of each."""

from collections import Counter
from collections.abc import Callable, Mapping

from pilothouse.control.totals import WorkerTotals
from pilothouse.domain.snapshot import WorkerReport


class Fleet:
    """
    Args:
        totals: Keeps the counters of all workers; it hears what the fleet hears.
    """

    def __init__(self, totals: WorkerTotals) -> None:
        self._totals = totals
        self._connected: set[str] = set()
        self._arrived: Counter[str] = Counter()
        self.live = 0
        """Requests that arrived and are not of low priority; it only grows, as `cpu_s` does."""
        self.cpu_s = 0.0
        """Processor time that workers have used, all together."""
        self.heard: Callable[[], None] = lambda: None
        """Called after each report that shows requests which wait."""

    @property
    def reports(self) -> Mapping[str, WorkerReport]:
        return self._totals.live

    def inflight_at(self, replica: str) -> int:
        """Requests in flight there, from all workers."""
        return sum(report.replicas.get(replica, 0) for report in self.reports.values())

    def queued_at(self, deployment: str) -> int:
        """Requests that wait there for a place, or for its first replica, in all workers."""
        return sum(report.queues.get(deployment, 0) for report in self.reports.values())

    def arrived_at(self, endpoint: str) -> int:
        """Requests that arrived since this controller heard of its workers; it only grows."""
        return self._arrived[endpoint]

    @property
    def demand(self) -> int:
        """Requests that arrived so far, in all workers that are connected."""
        return sum(sum(report.demand.values()) for report in self.reports.values())

    def enter(self, worker: str) -> None:
        self._connected.add(worker)

    def hear(self, report: WorkerReport) -> None:
        known = self.reports.get(report.worker)
        if known is not None and known.pid == report.pid:
            new = {name: max(0, count - known.demand.get(name, 0)) for name, count in report.demand.items()}
            self._arrived.update(new)
            self.live += max(0, sum(new.values()) - max(0, report.low_priority - known.low_priority))
            self.cpu_s += max(0.0, report.cpu_s - known.cpu_s)
        self._totals.follow(report)
        if report.queues:
            self.heard()

    def leave(self, worker: str) -> None:
        self._connected.discard(worker)
        self._totals.leave(worker)

    def follows(self, revision: int) -> bool:
        """Whether every connected worker said that it serves by that revision or a newer one."""
        reports = self.reports
        return all(name in reports and reports[name].revision >= revision for name in self._connected)
