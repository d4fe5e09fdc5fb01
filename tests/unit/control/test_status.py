from pilothouse.control.status import JournalFigures, StatusReport, Vitals, status_report
from pilothouse.domain.snapshot import WorkerReport
from pilothouse.domain.status import EndpointStatus, Phase, SystemStatus


def report(*phases: Phase, workers: int = 1, dropped: int = 0, message: str = "") -> StatusReport:
    endpoints = {
        f"e{number}": EndpointStatus(name=f"e{number}", phase=phase, message=message)
        for number, phase in enumerate(phases)
    }
    reports = {
        f"w{number}": WorkerReport(
            worker=f"w{number}", pid=10 + number, time=99.0, revision=7, journal_dropped=dropped
        )
        for number in range(workers)
    }
    vitals = Vitals(
        time=100.0, started_at=40.0, version="1.2", journal=JournalFigures(lag_records=3), disk_free_bytes=5
    )
    return status_report(SystemStatus(revision=4, endpoints=endpoints), vitals, reports)


def test_all_is_well():
    status = report("ready", "ready", workers=2)

    assert (status.phase, status.reasons) == ("ready", ())
    assert (status.uptime_s, status.spec_revision, status.journal.lag_records) == (60.0, 4, 3)
    assert [(w.name, w.pid, w.snapshot_revision, w.reported_s_ago) for w in status.workers] == [
        ("w0", 10, 7, 1.0),
        ("w1", 11, 7, 1.0),
    ]


def test_one_endpoint_that_is_not_ready_degrades_the_whole_and_says_why():
    status = report("ready", "starting", message="loading the model")

    assert status.phase == "degraded"
    assert status.reasons == ("endpoint e1: loading the model",)


def test_with_no_endpoint_that_serves_it_is_not_ready():
    assert report("failed", "pending").phase == "not_ready"


def test_without_a_worker_it_is_not_ready():
    status = report("ready", workers=0)

    assert status.phase == "not_ready"
    assert "no gateway worker" in status.reasons[0]


def test_without_any_endpoint_the_next_step_is_named():
    assert "pilothouse apply" in report().reasons[0]


def test_records_that_were_dropped_are_no_secret():
    status = report("ready", workers=2, dropped=2)

    assert (status.phase, status.journal.dropped) == ("degraded", 4)
    assert "4 requests were served and not recorded" in status.reasons[0]
