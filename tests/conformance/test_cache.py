"""The cache's suite on the fake and on each adapter, Redis included where a server is installed."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pilothouse.adapters.caches.memory import MemoryCache
from pilothouse.adapters.caches.redis import RedisCache
from pilothouse.kit.resp import RespClient, parse_address
from pilothouse.ports.cache import Cache
from pilothouse.testing.conformance_cache import CacheConformance
from pilothouse.testing.memory_cache import FakeCache
from redis_server import BINARY, MISSING, RedisServer, redis_server


class TestFake(CacheConformance):
    @pytest.fixture
    def cache(self) -> Cache:
        return FakeCache()


class TestMemory(CacheConformance):
    @pytest.fixture
    def cache(self) -> Cache:
        return MemoryCache(1 << 20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(Path(tmp_path_factory.mktemp("r"))) as running:
        yield running


@pytest.mark.skipif(BINARY is None, reason=MISSING)
class TestRedis(CacheConformance):
    @pytest.fixture
    async def cache(self, server: RedisServer) -> AsyncIterator[Cache]:
        failures: list[str] = []
        client = RespClient(parse_address(server.url), timeout_s=2.0)
        await client.call(b"FLUSHALL")
        made = RedisCache(client, b"secret", on_failure=failures.append)
        yield made
        await made.aclose()
        assert failures == []
