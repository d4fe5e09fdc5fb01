"""
The status of the whole server as one value: what `pilothouse status` prints.

Pure: put together from parts that others observed. Nothing is measured here.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from pilothouse.domain.snapshot import WorkerReport
from pilothouse.domain.status import DeploymentStatus, EndpointStatus, Replica, SystemStatus

ProcessRole = Literal["supervisor", "controller", "worker", "replica"]


class ProcessFigures(Struct, frozen=True, kw_only=True):
    """What one process used: `cpu_seconds` since its start, `rss_bytes` now."""

    role: ProcessRole
    name: str
    pid: int
    started_at: float
    cpu_seconds: float
    rss_bytes: int
    peak_rss_bytes: int = 0
    """Largest since its start; pages of a model's file count, though replicas share them."""
    deployment: str = ""
    """Of a replica."""
    gpu_utilization_ratio: float | None = None
    """0..1 of its busiest GPU; None without one, or where the driver does not tell."""
    gpu_memory_bytes: int | None = None
    """On all GPUs."""


class ErrorSeen(Struct, frozen=True, kw_only=True):
    """An error of the control plane; the message is made for people and holds no secret."""

    time: float
    """Of the last time."""
    event: str
    code: str
    message: str
    count: int = 1
    """How often, in the words of now."""


class JournalFigures(Struct, frozen=True, kw_only=True):
    lag_records: int = 0
    """Records that are durable in the journal and not yet in the store."""
    dropped: int = 0
    """Requests that could not be recorded since the workers started."""


class StoreFigures(Struct, frozen=True, kw_only=True):
    kind: Literal["sqlite", "postgresql"] = "sqlite"
    place: str = ""
    """Its file or address; never a password."""
    problem: str = ""
    """Why it cannot be used now; requests are served on meanwhile."""


class GpuFigures(Struct, frozen=True, kw_only=True):
    index: int
    name: str
    utilization_ratio: float | None
    memory_used_bytes: int
    memory_total_bytes: int


class HostFigures(Struct, frozen=True, kw_only=True):
    """The machine that the controller runs on, with all that runs there."""

    cpus: int = 0
    cpu_seconds: float = 0.0
    """Processor time that was used, of all processors, since the machine started."""
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    disk_total_bytes: int = 0
    """Of the file system that holds the home."""
    gpus: tuple[GpuFigures, ...] = ()


class Vitals(Struct, frozen=True, kw_only=True):
    """What the controller measured of this server, at one moment."""

    time: float
    started_at: float
    version: str
    url: str = ""
    processes: tuple[ProcessFigures, ...] = ()
    journal: JournalFigures = JournalFigures()
    store: StoreFigures = StoreFigures()
    host: HostFigures = HostFigures()
    disk_free_bytes: int = 0
    """Of the file system that holds the home."""
    errors: tuple[ErrorSeen, ...] = ()
    """The newest first."""


class WorkerView(Struct, frozen=True, kw_only=True):
    name: str
    pid: int
    snapshot_revision: int
    inflight: int
    queued: int
    connections: int
    reported_s_ago: float
    is_compiled: bool
    """It runs the request path that `make fast` compiled."""


class StatusReport(Struct, frozen=True, kw_only=True):
    """`phase` is that of the worst endpoint; `reasons` says what is not as it should be."""

    phase: Literal["ready", "degraded", "not_ready"]
    reasons: tuple[str, ...]
    version: str
    url: str
    time: float
    uptime_s: float
    spec_revision: int
    endpoints: tuple[EndpointStatus, ...]
    deployments: tuple[DeploymentStatus, ...]
    replicas: tuple[Replica, ...]
    workers: tuple[WorkerView, ...]
    processes: tuple[ProcessFigures, ...]
    journal: JournalFigures
    store: StoreFigures
    host: HostFigures
    disk_free_bytes: int
    last_errors: tuple[ErrorSeen, ...]


def status_report(system: SystemStatus, vitals: Vitals, reports: Mapping[str, WorkerReport]) -> StatusReport:
    """
    Put the parts together.

    Args:
        reports: The newest report of each connected worker.
    """
    reasons = tuple(_reasons(system, vitals, reports.values()))
    serving = [e for e in system.endpoints.values() if e.phase in ("ready", "degraded")]
    broken = not serving or not reports
    dropped = sum(report.journal_dropped for report in reports.values())
    return StatusReport(
        phase="not_ready" if broken else "degraded" if reasons else "ready",
        reasons=reasons,
        version=vitals.version,
        url=vitals.url,
        time=vitals.time,
        uptime_s=round(vitals.time - vitals.started_at, 1),
        spec_revision=system.revision,
        endpoints=tuple(system.endpoints[name] for name in sorted(system.endpoints)),
        deployments=tuple(system.deployments[name] for name in sorted(system.deployments)),
        replicas=tuple(sorted(system.replicas, key=lambda replica: replica.name)),
        workers=tuple(_worker(report, vitals.time) for _, report in sorted(reports.items())),
        processes=vitals.processes,
        journal=JournalFigures(lag_records=vitals.journal.lag_records, dropped=dropped),
        store=vitals.store,
        host=vitals.host,
        disk_free_bytes=vitals.disk_free_bytes,
        last_errors=vitals.errors,
    )


def _reasons(system: SystemStatus, vitals: Vitals, reports: Iterable[WorkerReport]) -> list[str]:
    reasons = [
        f"endpoint {status.name}: {status.message or status.reason or status.phase}"
        for _, status in sorted(system.endpoints.items())
        if status.phase != "ready"
    ]
    reports = list(reports)
    if vitals.store.problem:
        reasons.append(f"requests are served, but their records only journaled: {vitals.store.problem}")
    if not system.endpoints:
        reasons.append("no endpoint is declared; see: pilothouse apply --help")
    if not reports:
        reasons.append("no gateway worker is connected, so that requests are served by nobody or from memory")
    dropped = sum(report.journal_dropped for report in reports)
    if dropped:
        reasons.append(f"{dropped} requests were served and not recorded; is the disk full?")
    return reasons


def _worker(report: WorkerReport, now: float) -> WorkerView:
    return WorkerView(
        name=report.worker,
        pid=report.pid,
        snapshot_revision=report.revision,
        inflight=report.inflight,
        queued=report.queued,
        connections=report.connections,
        reported_s_ago=round(max(0.0, now - report.time), 1),
        is_compiled=report.is_compiled,
    )
