"""
A server that answers by script, byte for byte, and faults included.

What real servers do rarely (stall, cut, lie, reset) happens here on demand.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Script = Callable[["Upstream", int], Awaitable[None]]
"""Gets the talk with one client, and the number of the connection, from 0."""


class Upstream:
    """One connection, on the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def request(self) -> bytes:
        """The next whole request; IncompleteReadError when there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return head + await self.reader.readexactly(int(line[15:]))
        return head

    async def say(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        """Send pieces, each in a segment of its own where there is a pause."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if pause_s:
                await asyncio.sleep(pause_s)

    async def hears_a_hang_up(self) -> None:
        """Wait until the client is gone."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Close with a RST, as a killed process with unread bytes does."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    def close(self) -> None:
        self.writer.close()


class Listening:
    """A scripted server that runs: where, and how many connected."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self.open: set[Upstream] = set()


@asynccontextmanager
async def upstream(script: Script, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Listening]:
    """A scripted server on a loopback port, for the block."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, listening.connections = listening.connections, listening.connections + 1
        talk = Upstream(reader, writer)
        listening.open.add(talk)
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
        try:
            await script(talk, number)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            listening.open.discard(talk)
            writer.close()

    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(serve, host, port)
    listening = Listening(server.sockets[0].getsockname()[1])
    try:
        yield listening
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def whole(body: bytes, *, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, headers, len(body), body)


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """A chunked body: one chunk a piece."""
    parts = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return parts + (b"0\r\n\r\n" if end else b"")


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
