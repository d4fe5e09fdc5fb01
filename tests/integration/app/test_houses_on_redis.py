"""Houses that share limits, under all faults, with a real Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from houses_city import City
from pilothouse.adapters.treasuries.redis import RedisTreasury
from pilothouse.kit.resp import RespClient, parse_address
from pilothouse.ports.treasury import Treasury
from redis_server import BINARY, MISSING, RedisServer, redis_server

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
            self.loop.run_until_complete(self.client.call(b"FLUSHALL"))

    run_state_machine_as_test(
        RedisCity, settings=settings(max_examples=30, stateful_step_count=40, deadline=None)
    )
