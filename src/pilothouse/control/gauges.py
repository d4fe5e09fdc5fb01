"""
The controller's own metrics, made fresh at each scrape from what was observed.

The workers' metrics are in `control.totals`. Processor time by role keeps what
ended processes used, for a counter must not go backwards.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import get_args

from msgspec import Struct

from pilothouse.control.status import HostFigures, ProcessFigures, Vitals
from pilothouse.domain.status import ReplicaState, SystemStatus
from pilothouse.kit.metrics import Registry


class CpuTotals:
    """Processor seconds by role, of all processes that ever were."""

    def __init__(self) -> None:
        self._live: dict[tuple[str, int, float], float] = {}
        self._ended: dict[str, float] = defaultdict(float)

    def follow(self, processes: Iterable[ProcessFigures]) -> dict[str, float]:
        """Take the newest figures and return the seconds by role."""
        now: dict[tuple[str, int, float], float] = {
            (p.role, p.pid, p.started_at): p.cpu_seconds for p in processes
        }
        for key in self._live.keys() - now.keys():
            self._ended[key[0]] += self._live[key]
        self._live = now
        seconds = defaultdict(float, self._ended)
        for (role, _, _), used in now.items():
            seconds[role] += used
        return dict(seconds)


class ReleaseFigures(Struct, frozen=True, kw_only=True):
    """What is known of rollouts, judges and feedback."""

    weights: Mapping[tuple[str, str], int] = {}
    """Per cent of the requests by endpoint and candidate."""
    scores: Mapping[tuple[str, str, str, str], int] = {}
    """Judged answers by endpoint, deployment, judge and result."""
    feedback: Mapping[tuple[str, str], int] = {}
    """Feedback by name and value."""


def controller_metrics(
    system: SystemStatus, vitals: Vitals, cpu: CpuTotals, releases: ReleaseFigures | None = None
) -> Registry:
    """
    What only the controller knows, ready to be merged with the workers' metrics.

    Args:
        cpu: Lives as long as the controller; it is told of `vitals` here.
    """
    registry = Registry()
    registry.gauge("pilothouse_build_info", "Always 1; the version is the label.", ("version",)).labels(
        vitals.version
    ).set(1)
    registry.gauge("pilothouse_disk_free_bytes", "Free space where the home is.").labels().set(
        vitals.disk_free_bytes
    )
    registry.gauge(
        "pilothouse_journal_lag_records", "Records in the journal that the store does not have yet, about."
    ).labels().set(vitals.journal.lag_records)
    _replicas(registry, system)
    _releases(registry, releases or ReleaseFigures())
    _processes(registry, vitals.processes, cpu)
    _host(registry, vitals.host)
    return registry


def _releases(registry: Registry, releases: ReleaseFigures) -> None:
    weight = registry.gauge(
        "pilothouse_rollout_weight",
        "Per cent of the requests that a rollout's candidate gets.",
        ("endpoint", "deployment"),
    )
    for labels, share in releases.weights.items():
        weight.labels(*labels).set(share)
    judged = registry.counter(
        "pilothouse_judged_answers_total",
        "Answers by what a judge of the endpoint said of them.",
        ("endpoint", "deployment", "judge", "result"),
    )
    for scored, count in releases.scores.items():
        judged.labels(*scored).set(count)
    given = registry.counter(
        "pilothouse_feedback_total",
        "Feedback that was accepted; value is true, false, number or text.",
        ("name", "value"),
    )
    for rated, count in releases.feedback.items():
        given.labels(*rated).set(count)


def _replicas(registry: Registry, system: SystemStatus) -> None:
    family = registry.gauge("pilothouse_replicas", "Replicas by state.", ("deployment", "state"))
    counts = Counter((replica.deployment, replica.state) for replica in system.replicas)
    # Every state of every deployment, so that an alert on 0 ready replicas has a series to look at.
    for deployment in {*system.deployments, *(replica.deployment for replica in system.replicas)}:
        for state in get_args(ReplicaState):
            family.labels(deployment, state).set(counts[deployment, state])


def _processes(registry: Registry, processes: Iterable[ProcessFigures], cpu: CpuTotals) -> None:
    processes = list(processes)
    seconds = registry.counter(
        "pilothouse_process_cpu_seconds_total", "Processor time, ended processes included.", ("role",)
    )
    for role, used in sorted(cpu.follow(processes).items()):
        seconds.labels(role).set(used)
    memory = registry.gauge("pilothouse_process_resident_memory_bytes", "Resident memory.", ("role",))
    replica_cpu = registry.counter(
        "pilothouse_replica_cpu_seconds_total", "Processor time of a replica.", ("deployment", "replica")
    )
    replica_memory = registry.gauge(
        "pilothouse_replica_resident_memory_bytes", "Resident memory of a replica.", ("deployment", "replica")
    )
    gpu_use = registry.gauge(
        "pilothouse_replica_gpu_utilization_ratio",
        "Share of its busiest GPU that a replica used of late, 0..1.",
        ("deployment", "replica"),
    )
    gpu_memory = registry.gauge(
        "pilothouse_replica_gpu_memory_bytes", "GPU memory of a replica.", ("deployment", "replica")
    )
    for process in processes:
        memory.labels(process.role).inc(process.rss_bytes)
        if process.role == "replica":
            replica_cpu.labels(process.deployment, process.name).set(process.cpu_seconds)
            replica_memory.labels(process.deployment, process.name).set(process.rss_bytes)
            if process.gpu_utilization_ratio is not None:
                gpu_use.labels(process.deployment, process.name).set(process.gpu_utilization_ratio)
            if process.gpu_memory_bytes is not None:
                gpu_memory.labels(process.deployment, process.name).set(process.gpu_memory_bytes)


def _host(registry: Registry, host: HostFigures) -> None:
    registry.counter(
        "pilothouse_host_cpu_seconds_total", "Processor time used on this machine, by whomever."
    ).labels().set(host.cpu_seconds)
    for name, text, value in (
        ("pilothouse_host_cpus", "Processors of this machine.", host.cpus),
        ("pilothouse_host_memory_bytes", "Memory of this machine.", host.memory_total_bytes),
        ("pilothouse_host_memory_available_bytes", "Memory to be had.", host.memory_available_bytes),
        ("pilothouse_disk_bytes", "Size of the file system where the home is.", host.disk_total_bytes),
    ):
        registry.gauge(name, text).labels().set(value)
    use = registry.gauge("pilothouse_gpu_utilization_ratio", "How busy a GPU is, 0..1.", ("gpu",))
    used = registry.gauge("pilothouse_gpu_memory_used_bytes", "Memory in use on a GPU.", ("gpu",))
    total = registry.gauge("pilothouse_gpu_memory_bytes", "Memory of a GPU.", ("gpu",))
    for gpu in host.gpus:
        if gpu.utilization_ratio is not None:
            use.labels(str(gpu.index)).set(gpu.utilization_ratio)
        used.labels(str(gpu.index)).set(gpu.memory_used_bytes)
        total.labels(str(gpu.index)).set(gpu.memory_total_bytes)
