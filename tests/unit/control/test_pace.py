"""Batches pace themselves beside live traffic, by what the processes use, and by nothing else."""

import asyncio

import pytest

from control_fakes import TickingClock
from pilothouse.control.fleet import Fleet
from pilothouse.control.pace import BUSY, FIRST_PER_S, LEAST_PER_S, LIVE_S, MOST_PER_S, Pace
from pilothouse.control.totals import WorkerTotals
from pilothouse.domain.snapshot import WorkerReport


class Server:
    """Two workers and the controller, second by second."""

    def __init__(self) -> None:
        self.clock = TickingClock()
        self.fleet = Fleet(WorkerTotals())
        self.own_s = 0.0
        self._arrived, self._low, self._cpu_s = 0, 0, 0.0
        self._report()
        self.pace = Pace(self.fleet, self.clock, lambda: self.own_s)

    def second(self, *, live: int = 0, low: int = 0, own: float = 0.0, worker: float = 0.0) -> None:
        """A second passes: requests of each worker, and the parts of a core that were used."""
        self.clock.time += 1.0
        self._arrived += live + low
        self._low += low
        self._cpu_s += worker
        self.own_s += own
        self._report()
        asyncio.run(self.pace.turn())

    def _report(self) -> None:
        for name in ("a", "b"):
            self.fleet.hear(
                WorkerReport(
                    worker=name,
                    pid=1,
                    time=self.clock.now(),
                    revision=1,
                    demand={"m": self._arrived},
                    low_priority=self._low,
                    cpu_s=self._cpu_s,
                )
            )


async def begun_at_once(pace: Pace, count: int) -> bool:
    """Whether so many requests begin without any wait."""
    for _ in range(count):
        turn = pace.turn()
        try:
            turn.send(None)
        except StopIteration:
            continue
        turn.close()
        return False
    return True


def test_a_batch_alone_waits_for_no_turn():
    server = Server()
    for _ in range(3):
        server.second(low=500, own=1.0, worker=1.0)

    assert asyncio.run(begun_at_once(server.pace, 1000))


def test_beside_live_traffic_requests_begin_one_by_one():
    server = Server()
    server.second(live=1, low=500, own=1.0)

    assert not asyncio.run(begun_at_once(server.pace, 50))


@pytest.mark.parametrize("used", [{"own": 0.8}, {"worker": 0.8}])
def test_a_busy_process_slows_batches_down_and_an_idle_one_lets_them_be(used: dict[str, float]):
    server = Server()
    for _ in range(10):
        server.second(live=20, **used)
    slow = server.pace.per_s
    for _ in range(40):
        server.second(live=20, own=0.1, worker=0.1)

    assert slow == LEAST_PER_S
    assert server.pace.per_s == MOST_PER_S


def test_the_rate_settles_where_the_busiest_process_is_as_busy_as_it_may_be():
    server = Server()
    idle, cost = 0.1, 0.0005
    for _ in range(60):
        server.second(live=20, own=idle + server.pace.per_s * cost)

    assert server.pace.per_s == pytest.approx((BUSY - idle) / cost, rel=0.05)


def test_when_live_traffic_is_gone_batches_go_at_full_speed_again():
    server = Server()
    server.second(live=20, own=0.9)
    for _ in range(int(LIVE_S)):
        server.second(low=20, own=0.9)

    assert asyncio.run(begun_at_once(server.pace, 1000))
    assert server.pace.per_s == FIRST_PER_S
