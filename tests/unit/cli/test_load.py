"""The arithmetic of the load test, in virtual time."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.cli.load import (
    OK,
    Answer,
    Load,
    Plan,
    Sample,
    closed_loop,
    constant_rate,
    percentile,
    report,
    spread,
)
from unit.cli.virtual_time import run_virtual

DURATIONS = st.lists(st.floats(0.0, 1000.0), min_size=1, max_size=300)


class StallingServer:
    """Answers after `service_s`, but stands still from `stall_at` on for `stall_s`."""

    def __init__(self, *, service_s: float, stall_at: float = 0.0, stall_s: float = 0.0) -> None:
        self.service_s, self.stall_at, self.stall_s = service_s, stall_at, stall_s
        self.most_at_once = 0
        self._now = 0

    async def ask(self, number: int) -> Answer:
        loop = asyncio.get_running_loop()
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        if self.stall_at <= loop.time() < self.stall_at + self.stall_s:
            await asyncio.sleep(self.stall_at + self.stall_s - loop.time())
        await asyncio.sleep(self.service_s)
        self._now -= 1
        return Answer(code=OK, ended_s=loop.time(), first_s=loop.time(), tokens=1)


class FailingServer:
    async def ask(self, number: int) -> Answer:
        await asyncio.sleep(0.01)
        code = OK if number % 2 else "overloaded"
        return Answer(code=code, ended_s=asyncio.get_running_loop().time(), tokens=3)


def at_rate(
    server: StallingServer | FailingServer,
    *,
    rate: float = 10.0,
    duration_s: float = 60.0,
    max_inflight: int = 1000,
) -> Load:
    async def run() -> Load:
        return await constant_rate(server, plan(duration_s), rate=rate, max_inflight=max_inflight)

    return run_virtual(run())


def in_a_loop(server: StallingServer | FailingServer, *, concurrency: int, duration_s: float) -> Load:
    async def run() -> Load:
        return await closed_loop(server, plan(duration_s), concurrency=concurrency)

    return run_virtual(run())


def plan(duration_s: float) -> Plan:
    """By the virtual clock of the running loop."""
    return Plan(duration_s=duration_s, stop=asyncio.Event(), now=asyncio.get_running_loop().time)


@settings(deadline=None, max_examples=10)
@given(stall_s=st.floats(1.0, 9.0), rate=st.floats(5.0, 20.0))
def test_a_stall_delays_every_request_that_was_due_in_it(stall_s: float, rate: float) -> None:
    server = StallingServer(service_s=0.01, stall_at=3.0, stall_s=stall_s)

    load = at_rate(server, rate=rate, duration_s=15.0, max_inflight=100_000)

    slow = sum(sample.latency_s > 0.02 for sample in load.samples)
    assert slow == pytest.approx(rate * (stall_s - 0.01), abs=2)
    assert max(sample.latency_s for sample in load.samples) == pytest.approx(stall_s, abs=1 / rate + 0.02)


def test_a_closed_loop_sees_the_same_stall_once_only() -> None:
    server = StallingServer(service_s=0.01, stall_at=10.0, stall_s=5.0)

    load = in_a_loop(server, concurrency=1, duration_s=40.0)

    assert sum(sample.latency_s > 0.02 for sample in load.samples) == 1


def test_the_rate_is_kept_while_answers_take_longer_than_the_interval() -> None:
    load = at_rate(StallingServer(service_s=3.0), rate=20.0, duration_s=10.0)

    assert len(load.samples) == 200
    assert [round(sample.due_s * 20) for sample in load.samples] == list(range(200))
    assert load.worst_late_s < 1e-6


def test_what_cannot_be_sent_is_counted_as_missed_and_lowers_the_goodput() -> None:
    server = StallingServer(service_s=1.0)

    load = at_rate(server, rate=10.0, duration_s=10.0, max_inflight=5)
    result = report(load, slo_ttft_s=None)

    assert server.most_at_once == 5
    assert result.missed > 0
    assert result.ok + result.missed == result.requests == 100
    assert result.goodput_ratio == pytest.approx(result.ok / 100)


def test_goodput_counts_only_answers_whose_first_token_came_within_the_objective() -> None:
    server = StallingServer(service_s=0.1, stall_at=0.0, stall_s=5.0)

    result = report(at_rate(server, rate=10.0, duration_s=10.0), slo_ttft_s=0.5)

    assert result.ok == 100
    assert result.goodput_ratio == pytest.approx(0.54, abs=0.02)


def test_failures_stand_beside_the_latencies_and_not_in_them() -> None:
    result = report(in_a_loop(FailingServer(), concurrency=2, duration_s=1.0), slo_ttft_s=None)

    assert result.latency is not None
    assert result.latency.count == result.ok
    assert result.errors == {"overloaded": result.failed}
    assert result.ok + result.failed == result.requests
    assert result.output_tokens == 3 * result.ok


def test_a_stopped_run_keeps_what_it_has() -> None:
    async def run() -> Load:
        chosen = plan(60.0)
        asyncio.get_running_loop().call_later(2.05, chosen.stop.set)
        return await constant_rate(StallingServer(service_s=0.01), chosen, rate=10.0, max_inflight=10)

    load = run_virtual(run())

    assert len(load.samples) == 21
    assert load.wall_s == pytest.approx(2.05, abs=0.02)


def test_nothing_sent_gives_no_spread_and_no_division_by_zero() -> None:
    result = report(Load(), slo_ttft_s=1.0)

    assert result.latency is None
    assert result.goodput_ratio == 0.0


@settings(deadline=None)
@given(values=DURATIONS, percent=st.floats(0.0, 100.0))
def test_at_least_that_share_lies_at_or_below_a_percentile_and_less_below_it(
    values: list[float], percent: float
) -> None:
    found = percentile(sorted(values), percent)

    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-6
    assert sum(value < found for value in values) <= len(values) * percent / 100 + 1e-6


def test_the_percentiles_of_a_thousand_are_the_ranks_of_the_definition() -> None:
    values = spread([number / 1000 for number in range(1, 1001)])

    assert values is not None
    assert (values.p50_ms, values.p90_ms, values.p95_ms, values.p99_ms, values.p99_9_ms, values.max_ms) == (
        500,
        900,
        950,
        990,
        999,
        1000,
    )


def test_latency_and_first_token_count_from_the_due_time() -> None:
    answer = Answer(code=OK, ended_s=9.0, first_s=7.0, tokens=2, gaps_s=(2.0,))
    sample = Sample(due_s=1.0, sent_s=5.0, answer=answer)

    assert (sample.latency_s, sample.ttft_s) == (8.0, 6.0)
