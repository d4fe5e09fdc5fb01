import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pilothouse.control.overview import Overview
from pilothouse.control.processes import KnownProcess, ProcessSampler
from pilothouse.control.recent_errors import RecentErrors
from pilothouse.control.totals import WorkerTotals
from pilothouse.control.vitals import VitalSigns
from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.snapshot import Snapshot, WorkerHello, WorkerReport
from pilothouse.domain.status import SystemStatus
from pilothouse.kit.clock import SystemClock
from pilothouse.kit.metrics import Registry


def dump(requests: float) -> bytes:
    registry = Registry()
    registry.counter("pilothouse_requests_total", "Requests.").labels().inc(requests)
    return registry.dump()


def report(worker: str, requests: float, time: float) -> WorkerReport:
    return WorkerReport(worker=worker, pid=os.getpid(), time=time, revision=1, metrics=dump(requests))


class HandPublisher:
    """Its fresh reports are the test's to set."""

    def __init__(self) -> None:
        self.fresh: dict[str, WorkerReport] = {}

    async def serve(
        self,
        *,
        view: Callable[[WorkerHello], Snapshot],
        on_report: Callable[[WorkerReport], None],
        on_leave: Callable[[str], None],
    ) -> None: ...

    def publish(self) -> None: ...

    async def collect(self, *, timeout_s: float) -> Mapping[str, WorkerReport]:
        return self.fresh


def overview_of(publisher: HandPublisher, totals: WorkerTotals, home: Path) -> Overview:
    clock = SystemClock()
    errors = RecentErrors(clock)
    errors.note("pull_failed", OperationFailed("no network"))
    errors.note("oops", KeyError("a secret"))
    vitals = VitalSigns(home, clock, version="1", url="http://x", errors=errors, lag=lambda: 4)
    return Overview(publisher, totals, vitals, system=SystemStatus)


def requests_in(text: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith("pilothouse_requests_total ")]
    return float(line.split()[1])


async def test_metrics_are_fresh_and_never_go_backwards_when_a_worker_dies(tmp_path: Path):
    publisher, totals = HandPublisher(), WorkerTotals()
    overview = overview_of(publisher, totals, tmp_path)
    totals.follow(report("a", 5, 1.0))
    totals.follow(report("b", 3, 1.0))
    publisher.fresh = {"a": report("a", 6, 2.0), "b": report("b", 3, 2.0)}
    before = requests_in(await overview.metrics())

    totals.leave("a")
    publisher.fresh = {"a": report("a", 6, 2.0), "b": report("b", 4, 3.0)}
    after = requests_in(await overview.metrics())

    assert (before, after) == (9, 10)


async def test_status_shows_processes_disk_journal_and_the_last_errors(tmp_path: Path):
    totals = WorkerTotals()
    overview = overview_of(HandPublisher(), totals, tmp_path)
    totals.follow(report("a", 5, 1.0))

    status = await overview.status()

    by_role = {process.role: process for process in status.processes}
    assert by_role["controller"].pid == os.getpid()
    assert by_role["controller"].rss_bytes > 1_000_000
    assert by_role["worker"].name == "a"
    assert status.disk_free_bytes > 0
    assert status.journal.lag_records == 4
    assert [(error.code, error.message) for error in status.last_errors] == [
        ("internal", "KeyError"),
        ("operation_failed", "no network"),
    ]


def test_a_process_that_ended_has_no_figures():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    known = KnownProcess(role="worker", name="child", pid=child.pid)
    sampler = ProcessSampler()

    alive = sampler.sample([known])
    child.communicate(b"\n", timeout=10)

    assert [figures.pid for figures in alive] == [child.pid]
    assert sampler.sample([known]) == ()


def test_a_replica_is_all_of_its_processes():
    computes = "held = bytearray(40_000_000); print(flush=True); input()"
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {computes!r}])"
    argv = [sys.executable, "-c", starts]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()

        (whole, alone) = ProcessSampler().sample(
            KnownProcess(role=role, name=role, pid=parent.pid) for role in ("replica", "worker")
        )
        parent.communicate(b"\n", timeout=10)

    assert whole.rss_bytes - alone.rss_bytes > 40_000_000
    assert whole.cpu_seconds > alone.cpu_seconds


def test_a_replica_that_ended_is_not_counted_to_the_controller_that_waited_for_it():
    burns = "import time\nwhile time.process_time() < 0.2: pass"
    runs = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burns!r}])"
    starts = f"{runs}; print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", starts], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()

        (replica, controller) = ProcessSampler().sample(
            KnownProcess(role=role, name=role, pid=parent.pid) for role in ("replica", "controller")
        )
        parent.communicate(b"\n", timeout=10)

    assert replica.cpu_seconds - controller.cpu_seconds >= 0.19


def test_a_child_that_another_thread_started_is_part_of_its_replica():
    computes = "held = bytearray(40_000_000); print(flush=True); input()"
    runs = f"subprocess.run([sys.executable, '-c', {computes!r}])"
    starts = f"import subprocess, sys, threading; threading.Thread(target=lambda: {runs}).start()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", starts], stdin=pipe, stdout=pipe) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()

        (figures,) = ProcessSampler().sample([KnownProcess(role="replica", name="r", pid=parent.pid)])
        parent.communicate(b"\n", timeout=10)

    assert figures.rss_bytes > 40_000_000


def test_an_error_that_comes_again_counts_up_and_leaves_room_for_the_others():
    errors = RecentErrors(SystemClock(), limit=3)
    errors.note("pull_failed", OperationFailed("no network"))

    for _ in range(5):
        errors.note("action_failed", OperationFailed("vllm is missing"))

    assert [(error.message, error.count) for error in errors.newest_first()] == [
        ("vllm is missing", 5),
        ("no network", 1),
    ]


def test_only_the_newest_errors_are_kept():
    errors = RecentErrors(SystemClock(), limit=3)

    for number in range(5):
        errors.note("x", OperationFailed(f"error {number}" + "y" * 1000))

    assert [error.message[:7] for error in errors.newest_first()] == ["error 4", "error 3", "error 2"]
    assert all(len(error.message) <= 300 for error in errors.newest_first())
