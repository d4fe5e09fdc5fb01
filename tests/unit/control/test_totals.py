from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.control.totals import WorkerTotals
from pilothouse.domain.snapshot import WorkerReport
from pilothouse.kit.metrics import Registry


def report(
    worker: str, requests: float, *, pid: int = 1, time: float = 0.0, inflight: float = 0
) -> WorkerReport:
    registry = Registry()
    registry.counter("requests_total", "Requests.", ("code",)).labels("ok").inc(requests)
    registry.histogram("seconds", "Time.", (), (0.1, 1.0)).labels().observe(0.5)
    registry.gauge("inflight", "Now.").labels().set(inflight)
    registry.most("seen", "What each sees for itself.").labels().set(inflight)
    return WorkerReport(worker=worker, pid=pid, time=time, revision=1, metrics=registry.dump())


def value(totals: WorkerTotals, name: str, *labels: str) -> float:
    return totals.merged().families[name].labels(*labels).value


def requests(totals: WorkerTotals) -> float:
    return value(totals, "requests_total", "ok")


def test_live_workers_add_up():
    totals = WorkerTotals()

    totals.follow(report("a", 3, inflight=1))
    totals.follow(report("b", 4, inflight=2))

    assert requests(totals) == 7
    assert value(totals, "inflight") == 3
    assert value(totals, "seen") == 2
    assert "# TYPE seen gauge\nseen 2\n" in totals.merged().render()


def test_a_worker_that_left_keeps_its_counters_and_loses_its_gauges():
    totals = WorkerTotals()
    totals.follow(report("a", 3, inflight=5))

    totals.leave("a")

    assert requests(totals) == 3
    assert totals.merged().families["seconds"].labels().buckets == [0, 1, 0]
    assert not {"inflight", "seen"} & totals.merged().families.keys()


def test_a_worker_that_comes_back_is_not_counted_twice():
    totals = WorkerTotals()
    totals.follow(report("a", 3))
    totals.leave("a")

    totals.follow(report("a", 5, time=1.0))

    assert requests(totals) == 5


def test_a_successor_of_the_same_name_adds_to_what_was():
    totals = WorkerTotals()
    totals.follow(report("a", 3, pid=1))

    totals.follow(report("a", 2, pid=2))

    assert requests(totals) == 5


def test_an_older_report_that_comes_late_takes_nothing_back():
    totals = WorkerTotals()
    totals.follow(report("a", 9, time=2.0))

    totals.follow(report("a", 8, time=1.0))

    assert requests(totals) == 9


def test_a_worker_without_metrics_yet_is_no_error():
    totals = WorkerTotals()

    totals.follow(WorkerReport(worker="a", pid=1, time=0.0, revision=0))
    totals.leave("a")

    assert totals.merged().render().strip() == ""


def test_many_workers_that_left_are_all_counted_in_bounded_memory():
    totals = WorkerTotals()

    for number in range(200):
        totals.follow(report(f"w{number}", 1, pid=number))
        totals.leave(f"w{number}")

    assert requests(totals) == 200
    assert len(totals._left) <= 32


steps = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["report", "leave", "replace"]), st.integers(0, 9)),
    max_size=30,
)


@given(steps)
@settings(deadline=None)
def test_counters_never_go_backwards_and_count_everything_once(life: list[tuple[str, str, int]]):
    totals = WorkerTotals()
    pids, counts, done = dict.fromkeys("abc", 1), dict.fromkeys("abc", 0), 0
    before = 0.0

    for moment, (worker, step, more) in enumerate(life):
        if step == "leave":
            totals.leave(worker)
            continue
        if step == "replace":
            done += counts[worker]
            counts[worker] = 0
            pids[worker] += 1
        counts[worker] += more
        totals.follow(report(worker, counts[worker], pid=pids[worker], time=float(moment)))

        now = requests(totals)
        assert now >= before
        assert now == done + sum(counts.values())
        before = now


def test_counts_outlive_the_controller_and_are_not_doubled_by_workers_that_come_back():
    first, second = WorkerTotals(), WorkerTotals()
    first.follow(report("ended", 10))
    first.leave("ended")
    first.follow(report("stays", 5))

    second.restore(first.dump())
    assert requests(second) == 15
    second.follow(report("stays", 7))

    assert requests(second) == 17
