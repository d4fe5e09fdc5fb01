"""
Measures this server: processes, journal, disk, the last errors.

Reads, and decides nothing; `control.status` and `control.gauges` say what it
means.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from pilothouse.control.gpus import GpuReadings
from pilothouse.control.processes import KnownProcess, ProcessSampler
from pilothouse.control.recent_errors import RecentErrors
from pilothouse.control.status import (
    GpuFigures,
    HostFigures,
    JournalFigures,
    ProcessFigures,
    StoreFigures,
    Vitals,
)
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
        self.gpus = GpuReadings(clock)
        self._started_at = clock.now()

    def processes(
        self, system: SystemStatus, reports: Mapping[str, WorkerReport]
    ) -> tuple[ProcessFigures, ...]:
        return self._sampler.sample(_family(system, reports), self.gpus.last)

    def read(self, system: SystemStatus, reports: Mapping[str, WorkerReport]) -> Vitals:
        disk = shutil.disk_usage(self._home)
        return Vitals(
            time=self._clock.now(),
            started_at=self._started_at,
            version=self._version,
            url=self._url,
            processes=self.processes(system, reports),
            journal=JournalFigures(lag_records=self._lag()),
            store=self._store(),
            host=self._host(disk.total),
            disk_free_bytes=disk.free,
            errors=self._errors.newest_first(),
        )

    def _host(self, disk_total_bytes: int) -> HostFigures:
        memory, times = psutil.virtual_memory(), psutil.cpu_times()
        waits = times.idle + getattr(times, "iowait", 0.0)
        # Guests' time is in the user's already, and stolen time was never ours.
        counted = (name for name in ("guest", "guest_nice", "steal") if hasattr(times, name))
        return HostFigures(
            cpus=psutil.cpu_count() or 1,
            cpu_seconds=round(sum(times) - waits - sum(getattr(times, name) for name in counted), 2),
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            disk_total_bytes=disk_total_bytes,
            gpus=tuple(
                GpuFigures(
                    index=gpu.index,
                    name=gpu.name,
                    utilization_ratio=gpu.utilization_ratio,
                    memory_used_bytes=gpu.memory_used_bytes,
                    memory_total_bytes=gpu.memory_total_bytes,
                )
                for gpu in self.gpus.last
            ),
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
