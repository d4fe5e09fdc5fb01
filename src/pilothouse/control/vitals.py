"""
Measures this server: processes, journal, disk, the last errors.

Reads, and decides nothing; `control.status` and `control.gauges` say what it
means.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from pilothouse.control.processes import KnownProcess, ProcessSampler
from pilothouse.control.recent_errors import RecentErrors
from pilothouse.control.status import JournalFigures, StoreFigures, Vitals
from pilothouse.domain.snapshot import WorkerReport
from pilothouse.domain.status import SystemStatus
from pilothouse.kit.clock import Clock


class VitalSigns:
    """
    Args:
        home: Folder whose file system's free space counts.
        url: Where clients reach this server.
        lag: Records that are in the journal and not yet in the store.
    """

    def __init__(
        self,
        home: Path,
        clock: Clock,
        *,
        version: str,
        url: str,
        errors: RecentErrors,
        lag: Callable[[], int],
        store: Callable[[], StoreFigures] = StoreFigures,
    ) -> None:
        self._home = home
        self._clock = clock
        self._version = version
        self._url = url
        self._errors = errors
        self._lag = lag
        self._store = store
        self._sampler = ProcessSampler()
        self._started_at = clock.now()

    def read(self, system: SystemStatus, reports: Mapping[str, WorkerReport]) -> Vitals:
        return Vitals(
            time=self._clock.now(),
            started_at=self._started_at,
            version=self._version,
            url=self._url,
            processes=self._sampler.sample(_family(system, reports)),
            journal=JournalFigures(lag_records=self._lag()),
            store=self._store(),
            disk_free_bytes=shutil.disk_usage(self._home).free,
            errors=self._errors.newest_first(),
        )


def _family(system: SystemStatus, reports: Mapping[str, WorkerReport]) -> list[KnownProcess]:
    """The controller is this process, and the supervisor its parent (1: it is gone)."""
    parents = [os.getppid()] if os.getppid() > 1 else []
    return [
        *(KnownProcess(role="supervisor", name="supervisor", pid=pid) for pid in parents),
        KnownProcess(role="controller", name="controller", pid=os.getpid()),
        *(
            KnownProcess(role="worker", name=report.worker, pid=report.pid)
            for _, report in sorted(reports.items())
        ),
        *(
            KnownProcess(role="replica", name=r.name, pid=r.pid, deployment=r.deployment)
            for r in system.replicas
            if r.pid > 0 and r.state not in ("stopped", "failed")
        ),
    ]
