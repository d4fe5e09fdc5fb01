"""The workers as the controller hears of them: who is connected, and the newest report of each."""

from collections.abc import Mapping

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

    @property
    def reports(self) -> Mapping[str, WorkerReport]:
        return self._totals.live

    def inflight_at(self, replica: str) -> int:
        """Requests in flight there, from all workers."""
        return sum(report.replicas.get(replica, 0) for report in self.reports.values())

    @property
    def demand(self) -> int:
        """Requests that arrived so far, in all workers that are connected."""
        return sum(sum(report.demand.values()) for report in self.reports.values())

    def enter(self, worker: str) -> None:
        self._connected.add(worker)

    def hear(self, report: WorkerReport) -> None:
        self._totals.follow(report)

    def leave(self, worker: str) -> None:
        self._connected.discard(worker)
        self._totals.leave(worker)

    def follows(self, revision: int) -> bool:
        """Whether every connected worker said that it serves by that revision or a newer one."""
        reports = self.reports
        return all(name in reports and reports[name].revision >= revision for name in self._connected)
