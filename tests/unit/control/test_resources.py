from typing import Any

from pilothouse.control.resources import MinuteResources
from pilothouse.control.status import ProcessFigures


def figures(
    name: str = "w0", *, cpu: float, rss: int = 10, pid: int = 1, started: float = 0.0
) -> ProcessFigures:
    return ProcessFigures(
        role="worker", name=name, pid=pid, started_at=started, cpu_seconds=cpu, rss_bytes=rss
    )


def told(samples: list[Any]) -> list[tuple[str, int, float, int]]:
    return [(sample.name, sample.minute, sample.cpu_seconds, sample.rss_bytes) for sample in samples]


def test_a_minute_holds_the_growth_and_the_largest_memory():
    minutes = MinuteResources()
    for at, cpu, rss in ((600, 100.0, 10), (620, 101.0, 30), (650, 103.0, 20)):
        assert minutes.follow([figures(cpu=cpu, rss=rss)], at) == []

    assert told(minutes.follow([figures(cpu=104.0)], 660)) == [("w0", 600, 3.0, 30)]
    assert told(minutes.flush()) == [("w0", 660, 1.0, 10)]


def test_what_a_process_used_since_its_start_in_this_minute_counts():
    minutes = MinuteResources()

    minutes.follow([figures(cpu=2.0, started=610.0)], 620)

    assert told(minutes.flush()) == [("w0", 600, 2.0, 10)]


def test_what_it_used_before_we_looked_does_not():
    minutes = MinuteResources()

    minutes.follow([figures(cpu=500.0, started=10.0)], 620)

    assert told(minutes.flush()) == [("w0", 600, 0.0, 10)]


def test_a_successor_of_the_same_name_is_another_process():
    minutes = MinuteResources()
    minutes.follow([figures(cpu=50.0)], 600)

    minutes.follow([figures(cpu=1.0, pid=2, started=605.0)], 610)

    assert told(minutes.flush()) == [("w0", 600, 1.0, 10)]
