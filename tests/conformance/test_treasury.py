"""The treasury's suite on the fake and on a real Redis, where a server is installed."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pilothouse.adapters.treasuries.redis import RedisTreasury
from pilothouse.kit.resp import RespClient, parse_address
from pilothouse.testing.conformance_treasury import GRACE_S, SILENT_S, TreasuryConformance, Vault
from pilothouse.testing.memory_treasury import MemoryTreasury
from redis_server import BINARY, MISSING, RedisServer, redis_server


class _Fake:
    def __init__(self) -> None:
        self.time = 1000.0
        self.treasury = MemoryTreasury(lambda: self.time, grace_s=GRACE_S, silent_s=SILENT_S)

    async def empty(self) -> None:
        self.treasury.empty()

    async def restart(self) -> None:
        self.treasury.save()
        self.treasury.restart()


class _Redis:
    def __init__(self, url: str) -> None:
        self.time = 1000.0
        self.client = RespClient(parse_address(url), timeout_s=2.0)
        self.treasury = RedisTreasury(self.client, grace_s=GRACE_S, silent_s=SILENT_S, now=lambda: self.time)

    async def empty(self) -> None:
        await self.client.call(b"FLUSHALL")

    async def restart(self) -> None:  # as another process finds what this one left
        await self.client.call(b"HSET", b"pilothouse:ledger:houses", b"run", b"another's")


class TestFake(TreasuryConformance):
    @pytest.fixture
    def vault(self) -> Vault:
        return _Fake()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(Path(tmp_path_factory.mktemp("r"))) as running:
        yield running


@pytest.mark.skipif(BINARY is None, reason=MISSING)
class TestRedis(TreasuryConformance):
    @pytest.fixture
    async def vault(self, server: RedisServer) -> AsyncIterator[Vault]:
        made = _Redis(server.url)
        await made.empty()
        yield made
        await made.treasury.aclose()
