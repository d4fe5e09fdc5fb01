"""Houses that share limits, under all faults, with a real Redis."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from houses_city import City
from pilothouse.adapters.treasuries.redis import RedisTreasury
from pilothouse.domain.allotment import Holding, Statement
from pilothouse.kit.resp import RespClient, parse_address
from pilothouse.ports.treasury import Treasury
from redis_server import BINARY, MISSING, RedisServer, redis_server

COPY = b"""
for _, key in ipairs(redis.call('KEYS', ARGV[2] .. '*')) do redis.call('DEL', key) end
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local name = ARGV[2] .. string.sub(key, #ARGV[1] + 1)
  redis.call('RESTORE', name, 0, redis.call('DUMP', key))
end
"""

pytestmark = pytest.mark.skipif(BINARY is None, reason=MISSING)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


def test_no_order_of_events_overspends(server: RedisServer) -> None:
    class RedisCity(City):
        def open_treasury(self) -> Treasury:
            self.client = RespClient(parse_address(server.url), timeout_s=10.0)
            self.empty_treasury()
            return RedisTreasury(self.client, now=self.time.now)

        def empty_treasury(self) -> None:
            self.ask(b"FLUSHALL")

        def save_treasury(self) -> None:
            self.ask(b"EVAL", COPY, b"0", b"pilothouse:", b"saved:")

        def restart_treasury(self) -> None:
            self.ask(b"EVAL", COPY, b"0", b"saved:", b"pilothouse:")
            self.ask(b"HSET", b"pilothouse:ledger:houses", b"run", b"another's")

        def ask(self, *words: bytes) -> None:
            self.loop.run_until_complete(self.client.call(*words))

    run_state_machine_as_test(
        RedisCity, settings=settings(max_examples=30, stateful_step_count=40, deadline=None)
    )


class Teller:
    """A house by its name, which says what it holds of one budget."""

    def __init__(self, name: str, url: str, *, grace_s: float) -> None:
        self.name, self.number, self.epoch = name, 0, ""
        self.client = RespClient(parse_address(url), timeout_s=2.0)
        self.treasury = RedisTreasury(self.client, grace_s=grace_s)

    async def hold(self, held: int, need: int = 0) -> int:
        self.number += 1
        holding = Holding("key:k|budget|month|0", "budget", 100, held, 0, need)
        answer = await self.treasury.exchange(
            Statement(house=self.name, life="one", number=self.number, epoch=self.epoch, holdings=(holding,))
        )
        assert answer is not None
        self.epoch = answer.epoch
        return answer.allotments[0].held


async def test_a_server_that_comes_back_without_its_last_second_grants_when_it_has_heard_all(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as first:
        a, b = (Teller(name, first.url, grace_s=0.0) for name in "ab")
        for house in (a, b, a, b):
            await house.hold(0)
        assert await a.hold(0, 50) == 50
        await a.client.call(b"SAVE")
        assert await a.hold(50, 40) == 90  # this it forgets
        for house in (a, b):
            await house.treasury.aclose()

    with redis_server(tmp_path) as second:
        c, d = Teller("a", second.url, grace_s=0.5), Teller("b", second.url, grace_s=0.5)
        c.number = a.number
        assert await d.hold(0) == 0
        assert await d.hold(0, 50) == 0
        for _ in range(2):
            assert await c.hold(90) == 90
        await asyncio.sleep(0.6)

        assert await d.hold(0, 11) == 0
        assert await d.hold(0, 10) == 10
        for house in (c, d):
            await house.treasury.aclose()
