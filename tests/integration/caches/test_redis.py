"""The shared cache on a real server: sealed, bounded in time, and a miss whenever something is wrong."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from pilothouse.adapters.caches.redis import RedisCache
from pilothouse.kit.resp import RespClient, RespError, parse_address
from pilothouse.testing.conformance_cache import KEY, OTHER, answer, found
from redis_server import BINARY, MISSING, RedisServer, redis_server
from upstream_rig import upstream

pytestmark = pytest.mark.skipif(BINARY is None, reason=MISSING)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(Path(tmp_path_factory.mktemp("r"))) as running:
        yield running


class Rig:
    def __init__(self, url: str, *, secret: bytes = b"secret", timeout_s: float = 2.0) -> None:
        self.failures: list[str] = []
        self.client = RespClient(parse_address(url), timeout_s=timeout_s)
        self.cache = RedisCache(self.client, secret, on_failure=self.failures.append)

    async def __aenter__(self) -> "Rig":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cache.aclose()


async def test_nothing_readable_leaves_the_process(server: RedisServer):
    async with Rig(server.url) as rig:
        await rig.client.call(b"FLUSHALL")
        rig.cache.put(KEY, answer("the secret of the house", team="tenant-of-note"))
        assert await found(rig.cache, KEY) is not None
        (name,) = [line for line in (await names(server)) if line]
        stored = await rig.client.call(b"GET", name)
        left_ms = await rig.client.call(b"PTTL", name)

    assert isinstance(stored, bytes)
    for text in (b"secret of the house", b"tenant-of-note", b"chat", KEY.hex().encode(), KEY):
        assert text not in stored + name
    assert isinstance(left_ms, int)
    assert 0 < left_ms <= 60_000


async def names(server: RedisServer) -> list[bytes]:
    reader, writer = await asyncio.open_unix_connection(server.url.removeprefix("unix://"))
    writer.write(b"KEYS *\r\n")
    data = b""
    while data.count(b"\r\n") < 3:
        data += await reader.read(4096)
    writer.close()
    await writer.wait_closed()
    return data.split(b"\r\n")[2:3]


async def test_another_process_with_the_same_keys_reads_it_and_one_with_others_does_not(server: RedisServer):
    async with Rig(server.url) as one, Rig(server.url) as same, Rig(server.url, secret=b"other") as other:
        await one.client.call(b"FLUSHALL")
        one.cache.put(KEY, answer("shared"))
        there = await found(same.cache, KEY)
        stranger = await other.cache.get(KEY)

    assert there is not None
    assert there.deltas[0].text == "shared"
    assert stranger is None


def test_it_works_on_the_loop_of_the_workers(server: RedisServer):
    """uvloop's transports are none of asyncio's, and once that kept every connection from being used."""

    async def run() -> str:
        async with Rig(f"redis://127.0.0.1:{server.port}") as rig:
            rig.cache.put(KEY, answer("on uvloop"))
            there = await found(rig.cache, KEY)
            assert rig.failures == []
            return there.deltas[0].text if there is not None else ""

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(flushed(server))
        assert runner.run(run()) == "on uvloop"


async def flushed(server: RedisServer) -> None:
    client = RespClient(parse_address(server.url), timeout_s=2.0)
    await client.call(b"FLUSHALL")
    await client.aclose()


async def test_an_entry_that_was_moved_or_altered_does_not_open(server: RedisServer):
    async with Rig(server.url) as rig:
        rig.cache.put(KEY, answer("mine"))
        assert await found(rig.cache, KEY) is not None
        stored = await rig.client.call(b"GET", rig.cache._name(KEY))
        assert isinstance(stored, bytes)
        await rig.client.call(b"SET", rig.cache._name(OTHER), stored)
        await rig.client.call(b"SET", rig.cache._name(KEY), stored[:-1] + bytes([stored[-1] ^ 1]))

        assert await rig.cache.get(OTHER) is None
        assert await rig.cache.get(KEY) is None

    assert rig.failures == ["open", "open"]


async def test_many_ask_on_one_connection_and_each_gets_its_own(server: RedisServer):
    async with Rig(server.url) as rig:
        keys = [b"%032d" % i for i in range(200)]
        for i, key in enumerate(keys):
            rig.cache.put(key, answer(f"text {i}"))
        assert await found(rig.cache, keys[-1]) is not None
        there = await asyncio.gather(*[rig.cache.get(key) for key in keys])

    assert [one.deltas[0].text for one in there if one] == [f"text {i}" for i in range(200)]


async def test_a_server_that_is_gone_is_a_miss_at_once_and_one_that_returns_is_used(tmp_path: Path):
    with redis_server(tmp_path) as first:
        rig = Rig(first.url)
        rig.cache.put(KEY, answer("before"))
        assert await found(rig.cache, KEY) is not None
    began = time.monotonic()
    assert [await rig.cache.get(KEY) for _ in range(20)] == [None] * 20
    assert time.monotonic() - began < 1.0
    assert rig.failures == ["get"] * 20
    with redis_server(tmp_path):
        rig.client._failed_at = -100.0  # as if the pause between attempts were over
        rig.cache.put(OTHER, answer("after"))
        assert await found(rig.cache, OTHER) is not None
        await rig.cache.aclose()


@pytest.mark.parametrize(
    "says", [b"", b"garbage\r\n", b"$5\r\nab", b"$99999999999\r\n", b"-ERR no\r\n", b":1\r\n:2\r\n"]
)
async def test_a_server_that_is_silent_or_talks_nonsense_is_a_miss_in_bounded_time(says: bytes):
    async def script(talk, number):
        await talk.reader.read(1000)
        await talk.say(says)
        await talk.hears_a_hang_up()

    async with (
        upstream(script) as listening,
        Rig(f"redis://127.0.0.1:{listening.port}", timeout_s=0.1) as rig,
    ):
        began = time.monotonic()
        assert await rig.cache.get(KEY) is None
        assert time.monotonic() - began < 1.0


async def test_a_late_answer_is_never_taken_for_the_next_one():
    """After a timeout the connection is not used again."""

    async def script(talk, number):
        await talk.reader.read(1000)
        if number == 0:
            await asyncio.sleep(0.15)
        await talk.say(b"$%d\r\n%s\r\n" % (len(b"n%d" % number), b"n%d" % number))
        await talk.hears_a_hang_up()

    async with upstream(script) as listening:
        client = RespClient(parse_address(f"redis://127.0.0.1:{listening.port}"), timeout_s=0.1)
        with pytest.raises(RespError):
            await client.call(b"GET", b"a")
        await asyncio.sleep(0.1)
        assert await client.call(b"GET", b"b") == b"n1"
        await client.aclose()


async def test_a_password_and_a_database_are_used(tmp_path: Path):
    with redis_server(tmp_path, password="open sesame") as running:
        url = f"redis://127.0.0.1:{running.port}/3"
        good = RespClient(parse_address(url), timeout_s=2.0, password="open sesame")
        assert await good.call(b"SET", b"a", b"1") == b"OK"
        bad = RespClient(parse_address(url), timeout_s=2.0, password="guess")
        with pytest.raises(RespError):
            await bad.call(b"GET", b"a")
        await good.aclose()
        await bad.aclose()
