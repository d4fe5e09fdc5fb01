"""
Status and metrics of the whole server, put together at each asking.

Workers are asked for fresh figures and not waited for longer than half a
second; of a silent one the last report counts.
"""

from collections.abc import Callable

from pilothouse.control.gauges import CpuTotals, ReleaseFigures, controller_metrics
from pilothouse.control.status import ProcessFigures, StatusReport, status_report
from pilothouse.control.totals import WorkerTotals
from pilothouse.control.vitals import VitalSigns
from pilothouse.domain.status import SystemStatus
from pilothouse.kit.metrics import Registry
from pilothouse.ports.feed import Publisher

COLLECT_S = 0.5


class Overview:
    """
    Args:
        totals: Those that the fleet feeds.
        system: What the control loop last saw.
    """

    def __init__(
        self,
        publisher: Publisher,
        totals: WorkerTotals,
        vitals: VitalSigns,
        *,
        system: Callable[[], SystemStatus],
        releases: Callable[[], ReleaseFigures] = ReleaseFigures,
    ) -> None:
        self._publisher = publisher
        self._totals = totals
        self._vitals = vitals
        self._system = system
        self._releases = releases
        self._cpu = CpuTotals()

    async def metrics(self) -> str:
        """The Prometheus text of workers and controller as one."""
        await self._collect()
        system = self._system()
        vitals = self._vitals.read(system, self._totals.live)
        own = controller_metrics(system, vitals, self._cpu, self._releases())
        return Registry.merged([self._totals.merged().dump(), own.dump()]).render()

    def processes(self) -> tuple[ProcessFigures, ...]:
        """What each process uses now; nobody is asked."""
        return self._vitals.processes(self._system(), self._totals.live)

    async def status(self) -> StatusReport:
        await self._collect()
        system = self._system()
        return status_report(system, self._vitals.read(system, self._totals.live), self._totals.live)

    async def _collect(self) -> None:
        for report in (await self._publisher.collect(timeout_s=COLLECT_S)).values():
            if report.worker in self._totals.live:  # one that left meanwhile is counted already
                self._totals.follow(report)
