"""
A flood of one team, and the first token of another that has one client.

Its fair share is the first token it gets while the other team keeps every place
busy and has nobody waiting. Both are measured in turns in one run, so that a
machine that slows down makes both slower.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from statistics import median

import pytest

from gateway_rig import DEVELOPER, OTHER_TEAM, House, endpoint_entry, house, replica_entry, snapshot
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.generate_request import GenerateRequest
from watched_engine import WatchedEngine

FLOOD = 100
ROUNDS, ASKED = 3, 8
FIRST_S, MOST_S = 0.02, 0.06
"""What the engine takes to its first word, and from there to its last at most: answers differ in length."""
STREAM = b',"stream":true'


def _engine() -> WatchedEngine:
    random = Random(5)

    async def say(request: GenerateRequest) -> AsyncIterator[Chunk]:
        await asyncio.sleep(FIRST_S)
        yield Chunk((Delta("first"),))
        await asyncio.sleep(random.random() * MOST_S)
        yield Chunk((Delta(" last", 0, "stop"),))

    return WatchedEngine(say)


@pytest.mark.parametrize("places", [1, 4])
async def test_a_flood_of_one_team_at_most_doubles_the_first_token_of_another(places: int) -> None:
    served = snapshot(replica_entry(max_inflight=places), endpoints=(endpoint_entry(queue_size=200),))
    fair_s: list[float] = []
    flooded_s: list[float] = []

    async with house(_engine(), served) as running:
        for _ in range(ROUNDS):
            async with _clients(running, places):
                fair_s += [await _first_token_s(running) for _ in range(ASKED)]
            async with _clients(running, FLOOD):
                flooded_s += [await _first_token_s(running) for _ in range(ASKED)]

    ratio = median(flooded_s) / median(fair_s)
    assert ratio <= 2.0, f"{median(fair_s):.3f} s are its fair share, and it waited {median(flooded_s):.3f} s"


@asynccontextmanager
async def _clients(running: House, count: int) -> AsyncIterator[None]:
    """So many clients of the other team that ask again and again; at the end they hang up."""

    async def asks() -> None:
        while not is_over.is_set():
            assert (await running.ask(more=STREAM, as_key=OTHER_TEAM)).status == 200

    is_over = asyncio.Event()
    clients = [asyncio.create_task(asks()) for _ in range(count)]
    try:
        await running.until(lambda: running.state.inflight + running.state.queued >= count, timeout_s=20.0)
        yield
    finally:
        is_over.set()  # a cancellation may be lost where a connection closes just then
        for client in clients:
            client.cancel()
        ended = await asyncio.gather(*clients, return_exceptions=True)
        await running.until(lambda: running.is_quiet, timeout_s=20.0)
    assert {type(one) for one in ended} <= {asyncio.CancelledError, type(None)}


async def _first_token_s(running: House) -> float:
    async with running.asking(more=STREAM, as_key=DEVELOPER) as raw:
        began = time.monotonic()
        await raw.reader.readuntil(b"first")
        took_s = time.monotonic() - began
        await raw.reader.readuntil(b"[DONE]")
        return took_s
