"""
What a request leaves behind is freed at once, not when the cycle collector comes.

A worker lets the collector run seldom, for it cost a quarter of the time. So a
cycle in what each connection or request leaves would be memory that grows.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from gateway_rig import House, house, replica_entry, snapshot
from http1_rig import connected, serving
from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.domain.errors import UpstreamError
from pilothouse.kit.http1.client import Exchange
from pilothouse.kit.http1.server import Connection
from pilothouse.ports.engine import EngineInfo
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream
from watched_engine import WatchedEngine, endless, fails, words

STREAM = b',"stream":true'
ROUNDS = 20
OURS = "pilothouse"


@contextmanager
def uncollected() -> Iterator[list[object]]:
    """What of ours only the collector would free, at the end of the block."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found.extend(one for one in gc.garbage if _is_ours(one))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _is_ours(one: object) -> bool:
    code = getattr(one, "cr_code", None) or getattr(one, "ag_code", None) or getattr(one, "f_code", None)
    return type(one).__module__.startswith(OURS) or (code is not None and f"/{OURS}/" in code.co_filename)


async def _once(port: int, data: bytes) -> None:
    async with connected(port) as raw:
        await raw.send(data)
        await raw.answer()


async def test_a_connection_that_closed_is_gone():
    async with serving() as door:
        with uncollected() as left:
            for _ in range(ROUNDS):
                await _once(door.port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                async with connected(door.port) as raw:
                    await raw.send(b"nonsense\r\n\r\n")
                    await raw.read_until_closed()
            await asyncio.sleep(0.05)
            door.requests.clear()

    assert [one for one in left if isinstance(one, Connection)] == []
    assert left == []


async def _whole(h: House) -> None:
    await h.ask()


async def _streamed(h: House) -> None:
    await h.ask(more=STREAM)


async def _several(h: House) -> None:
    await h.ask(more=b',"n":2' + STREAM)


async def _refused(h: House) -> None:
    await h.ask(more=b',"n":9')
    await h.ask(as_key=None)


async def _leaves(h: House) -> None:
    async with h.asking(more=STREAM) as raw:
        await raw.reader.read(10)
        raw.abort()
    await h.until(lambda: h.is_quiet)


@pytest.mark.parametrize(
    ("say", "do"),
    [
        (words("a"), _whole),
        (words("a", "b"), _streamed),
        (words("a", "b"), _several),
        (words("a"), _refused),
        (fails(UpstreamError("x")), _whole),
        (fails(UpstreamError("x"), after=["a"]), _streamed),
        (fails(UpstreamError("x"), after=["a"]), _several),
        (endless(), _leaves),
    ],
    ids=["whole", "streamed", "several", "refused", "failed", "cut", "several cut", "hang-up"],
)
async def test_a_request_that_ended_is_gone(say, do: Callable[[House], Awaitable[None]]):
    engine = WatchedEngine(say, slots=True)

    async with house(engine, snapshot(replica_entry(slots=(0, 1)))) as h:
        await do(h)
        with uncollected() as left:
            for _ in range(ROUNDS):
                await do(h)
            await asyncio.sleep(0.05)

    assert left == []


async def test_an_engines_connection_that_closed_is_gone():
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(CHUNKED_HEAD + chunked(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'))

    async with upstream(script) as server:
        engine = OpenAIEngine(EngineInfo(name="e"), f"http://127.0.0.1:{server.port}/v1", model="m")
        async with house(engine) as h:
            await h.ask(more=STREAM)
            with uncollected() as left:
                for _ in range(ROUNDS):
                    await h.ask(more=STREAM)
                await asyncio.sleep(0.05)

    assert [one for one in left if isinstance(one, Exchange)] == []
    assert left == []
