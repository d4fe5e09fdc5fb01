"""Several servers on one socket: each gets its part, and none keeps another from working."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from http1_rig import echo, listening
from pilothouse.kit.board import Board
from pilothouse.kit.http1.accepting import has_too_many
from pilothouse.kit.http1.message import Limits
from pilothouse.kit.http1.server import Server


class House:
    """Servers with one socket and one board, all in this loop."""

    def __init__(self, tmp_path, count: int) -> None:
        self.socket = listening()
        self.port = self.socket.getsockname()[1]
        self.boards = [Board(tmp_path / "board", places=count, mine=n) for n in range(count)]
        self.servers = [
            Server(echo, limits=Limits(), on_defect=lambda exc: pytest.fail(str(exc))) for _ in range(count)
        ]

    async def __aenter__(self) -> "House":
        for server, board in zip(self.servers, self.boards, strict=True):
            board.write(0)
            await server.start(self.socket.dup(), shares=board)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()
        for server in self.servers:
            await server.drain(0.1)

    async def connect(self, stack: AsyncExitStack) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        stack.callback(writer.close)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_connections_that_come_one_by_one_are_shared(tmp_path):
    async with House(tmp_path, 3) as house, AsyncExitStack() as stack:
        for _ in range(30):
            await house.connect(stack)
        counts = [server.connections - 1 for server in house.servers]

        assert sum(counts) == 30
        assert min(counts) >= 8, counts


async def test_a_burst_is_shared(tmp_path):
    async with House(tmp_path, 2) as house, AsyncExitStack() as stack:
        await asyncio.gather(*(house.connect(stack) for _ in range(100)))
        counts = [server.connections - 1 for server in house.servers]

        assert min(counts) >= 35, counts


async def test_who_has_more_accepts_all_the_same_when_the_other_takes_nothing(tmp_path):
    async with House(tmp_path, 2) as house, AsyncExitStack() as stack:
        assert house.servers[1]._server is not None
        house.servers[1]._server.close()  # it hangs: its number still stands on the board

        for _ in range(10):
            house.boards[1].write(0)
            await asyncio.wait_for(house.connect(stack), 1.0)

        assert house.servers[0].connections - 1 == 10


def test_one_more_is_too_many_among_few_and_a_ninth_more_among_many():
    assert not has_too_many(5, None)
    assert not has_too_many(3, 3)
    assert has_too_many(4, 3)
    assert not has_too_many(89, 80)
    assert has_too_many(91, 80)
