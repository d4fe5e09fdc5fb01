from msgspec.structs import replace

from pilothouse.control.gauges import CpuTotals, controller_metrics
from pilothouse.control.status import JournalFigures, ProcessFigures, ProcessRole, Vitals
from pilothouse.domain.status import DeploymentStatus, Replica, ReplicaState, SystemStatus
from pilothouse.kit.metrics import Registry


def process(role: ProcessRole, pid: int, cpu_seconds: float, *, started_at: float = 1.0) -> ProcessFigures:
    return ProcessFigures(
        role=role,
        name=f"{role}-{pid}",
        pid=pid,
        started_at=started_at,
        cpu_seconds=cpu_seconds,
        rss_bytes=100,
        deployment="d" if role == "replica" else "",
    )


def replica(name: str, state: ReplicaState) -> Replica:
    return Replica(name=name, deployment="d", model_digest="", state=state, engine="e", address="")


def metrics(system: SystemStatus, *processes: ProcessFigures, cpu: CpuTotals | None = None) -> Registry:
    vitals = Vitals(
        time=2.0,
        started_at=1.0,
        version="1.2",
        processes=processes,
        journal=JournalFigures(lag_records=7),
        disk_free_bytes=123,
    )
    return controller_metrics(system, vitals, cpu or CpuTotals())


def test_every_state_of_every_deployment_has_a_series():
    system = SystemStatus(
        deployments={"idle": DeploymentStatus(name="idle", phase="pending")},
        replicas=(replica("a", "ready"), replica("b", "ready"), replica("c", "failed")),
    )

    family = metrics(system).families["pilothouse_replicas"]

    assert family.labels("d", "ready").value == 2
    assert family.labels("d", "failed").value == 1
    assert ("idle", "ready") in family.series
    assert len(family.series) == 10


def test_what_the_contract_names_is_there():
    text = metrics(
        SystemStatus(), process("worker", 1, 1.5), process("worker", 2, 2.0), process("replica", 3, 9)
    ).render()

    for line in (
        'pilothouse_build_info{version="1.2"} 1',
        "pilothouse_disk_free_bytes 123",
        "pilothouse_journal_lag_records 7",
        'pilothouse_process_cpu_seconds_total{role="worker"} 3.5',
        'pilothouse_process_resident_memory_bytes{role="worker"} 200',
        'pilothouse_replica_cpu_seconds_total{deployment="d",replica="replica-3"} 9',
        'pilothouse_replica_resident_memory_bytes{deployment="d",replica="replica-3"} 100',
    ):
        assert line in text.splitlines()


def test_a_replicas_gpu_has_a_series_where_the_driver_tells_it():
    told = replace(process("replica", 1, 1.0), gpu_utilization_ratio=0.5, gpu_memory_bytes=7)
    untold = process("replica", 2, 1.0)

    lines = metrics(SystemStatus(), told, untold).render().splitlines()

    values = {line.split("{")[0]: line.split()[-1] for line in lines if "_gpu_" in line and line[0] != "#"}
    assert float(values["pilothouse_replica_gpu_utilization_ratio"]) == 0.5
    assert float(values["pilothouse_replica_gpu_memory_bytes"]) == 7


def test_processor_time_goes_on_when_a_process_is_replaced():
    cpu = CpuTotals()

    cpu.follow([process("worker", 1, 5.0), process("controller", 9, 1.0)])
    after = cpu.follow([process("worker", 2, 0.5), process("controller", 9, 1.5)])

    assert after == {"worker": 5.5, "controller": 1.5}


def test_a_pid_that_was_given_again_is_another_process():
    cpu = CpuTotals()

    cpu.follow([process("worker", 1, 5.0, started_at=1.0)])

    assert cpu.follow([process("worker", 1, 0.5, started_at=2.0)]) == {"worker": 5.5}
