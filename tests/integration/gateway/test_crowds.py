"""Crowds and clocks: what many connections, slow readers and a wall clock that jumps may not do."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import psutil

from gateway_rig import DEVELOPER, KEYS, house, key_entry, replica_entry, snapshot
from http1_rig import connected
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.gateway import call
from pilothouse.kit.http1.message import Limits
from watched_engine import WatchedEngine

MB = 1_000_000
CROWD = 1000


class Held:
    """An engine that says one word, and the rest when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def say(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        yield Chunk((Delta("one"),))
        if request.max_tokens != 1:
            await self.may_end.wait()
        yield Chunk((Delta(" two", 0, "stop"),))


async def test_a_thousand_idle_streams_cost_little_and_keep_nobody_waiting() -> None:
    held = Held()
    served = snapshot(replica_entry(max_inflight=CROWD + 10))
    async with house(WatchedEngine(held.say), served) as running, AsyncExitStack() as stack:
        before = psutil.Process().memory_info().rss
        crowd = []
        for _ in range(CROWD):
            raw = await stack.enter_async_context(running.asking(more=b',"stream":true'))
            crowd.append(raw)
        await running.until(lambda: running.state.inflight == CROWD, timeout_s=20.0)
        grown = psutil.Process().memory_info().rss - before

        began = time.monotonic()
        answer = await running.ask(more=b',"max_tokens":1')
        took_s = time.monotonic() - began

        assert answer.status == 200
        assert took_s < 1.0
        assert grown < 100 * MB, "clients of this test included"
        held.may_end.set()
        await running.until(lambda: running.is_quiet, timeout_s=20.0)
        await running.until(lambda: len(running.records) == CROWD + 1, timeout_s=20.0)
        assert set(running.codes) == {"ok"}


async def test_slow_readers_fill_no_memory_and_keep_nobody_waiting() -> None:
    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        for _ in range(1 if request.max_tokens == 1 else 2000):
            yield Chunk((Delta("x" * 10_000),))
            await asyncio.sleep(0)
        yield Chunk((Delta("", 0, "stop"),))

    served = snapshot(replica_entry(max_inflight=100))
    async with house(WatchedEngine(say), served) as running, AsyncExitStack() as stack:
        before = psutil.Process().memory_info().rss
        for _ in range(20):  # 20 MB each, of which nobody reads anything
            raw = await stack.enter_async_context(connected(running.port))
            raw.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await raw.send(running.request(more=b',"stream":true'))
        await asyncio.sleep(0.5)

        answer = await running.ask(more=b',"max_tokens":1')
        grown = psutil.Process().memory_info().rss - before

        assert answer.status == 200
        # What the kernel's buffers took of each is kept for its record too: 4 MB here, of 20.
        assert grown < 150 * MB


async def test_a_flood_of_connections_is_closed_beyond_the_bound_and_those_within_are_served() -> None:
    async with house(limits=Limits(max_connections=50)) as running, AsyncExitStack() as stack:
        kept = await stack.enter_async_context(connected(running.port))
        await kept.send(running.request())
        assert (await kept.answer()).status == 200
        for _ in range(300):
            await stack.enter_async_context(connected(running.port))
        await running.until(lambda: running.server.connections <= 51)

        await kept.send(running.request())

        assert (await kept.answer()).status == 200


async def test_a_wall_clock_that_jumps_ahead_expires_keys_and_cuts_no_request(monkeypatch) -> None:
    """Deadlines go by the monotonic clock; only what people gave a date goes by the wall clock."""
    held, now = Held(), time.time()
    keys = {**KEYS, DEVELOPER: key_entry(DEVELOPER, expires_at=now + 3600)}
    async with (
        house(WatchedEngine(held.say), snapshot(replica_entry(), keys=keys)) as running,
        running.asking(more=b',"stream":true') as raw,
    ):
        await running.until(lambda: running.state.inflight == 1)
        monkeypatch.setattr(time, "time", lambda: now + 7200)

        refused = await running.ask()
        held.may_end.set()
        answer = await raw.answer(timeout_s=5.0)

        assert refused.status == 401
        assert b"[DONE]" in answer.body
        await running.until(lambda: "ok" in running.codes)
        kept = next(record for record in running.records if record.code == "ok")
        assert 0 <= kept.duration_ms < 10_000, "a duration is no difference of wall clocks"


async def test_a_wall_clock_that_jumps_back_breaks_nothing(monkeypatch) -> None:
    async with house() as running:
        now = time.time()
        assert (await running.ask()).status == 200
        monkeypatch.setattr(time, "time", lambda: now - 86_400)
        monkeypatch.setattr(call, "_time", time.time)

        assert (await running.ask()).status == 200

        first, second = running.records
        assert first.id != second.id
        assert second.time < first.time
        assert second.duration_ms >= 0
