"""
The kit's HTTP/1.1 server on a loopback port, and clients that send raw bytes.

What comes back is read by a small parser of the test's own, so that a fault of
the one under test is not hidden by itself.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from pilothouse.kit.http1.message import Limits, Request
from pilothouse.kit.http1.responder import Responder
from pilothouse.kit.http1.server import Handler, Server

TEXT = b"content-type: text/plain\r\n"
LINGER_S = 0.15
"""Silence after which a client takes it that nothing more comes."""


@dataclass
class Answer:
    """One answer as it stood on the wire."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_cut: bool = False


@dataclass
class Door:
    """A running server: what reached its handler, and what went wrong in it."""

    server: Server
    port: int
    requests: list[Request] = field(default_factory=list)
    defects: list[BaseException] = field(default_factory=list)

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


async def echo(request: Request, responder: Responder) -> None:
    """Says what arrived: method, path and body."""
    responder.send(200, TEXT, b"%s %s " % (request.method.encode(), request.path.encode()) + request.body)


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=4096)


@asynccontextmanager
async def serving(
    handler: Handler = echo,
    *,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    stream_keepalive_s: float = 0.0,
) -> AsyncIterator[Door]:
    """A server for the block, drained at its end; any defect of a handler fails the test."""

    async def remembered(request: Request, responder: Responder) -> None:
        door.requests.append(request)
        await handler(request, responder)

    defects: list[BaseException] = []
    server = Server(
        remembered,
        limits=limits or Limits(),
        on_defect=defects.append,
        stream_keepalive_s=stream_keepalive_s,
    )
    door_socket = listening()
    door = Door(server, door_socket.getsockname()[1], defects=defects)
    await server.start(door_socket, tls)
    try:
        yield door
    finally:
        await server.drain(0.0)
        await asyncio.sleep(0)
    assert defects == []


class Raw:
    """A client that sends what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_until_silent(self, *, silence_s: float = LINGER_S) -> tuple[bytes, bool]:
        """All that comes until it is quiet or closed, and whether it was closed."""
        got = b""
        while True:
            try:
                data = await asyncio.wait_for(self.reader.read(1 << 20), silence_s)
            except TimeoutError:
                return got, False
            except ConnectionError:
                return got, True
            if not data:
                return got, True
            got += data

    async def read_until_closed(self, *, timeout_s: float = 5.0) -> bytes:
        got, closed = await self.read_until_silent(silence_s=timeout_s)
        assert closed, f"the connection is still open; so far came {got[:200]!r}"
        return got

    async def answer(self, *, timeout_s: float = 5.0) -> Answer:
        """The next whole answer."""
        async with asyncio.timeout(timeout_s):
            head = await self.reader.readuntil(b"\r\n\r\n")
            found = _head(head)
            if "chunked" in found.headers.get("transfer-encoding", ""):
                chunks = []
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    chunks.append((await self.reader.readexactly(size + 2))[:-2])
                await self.reader.readexactly(2)
                found.body = b"".join(chunks)
            else:
                found.body = await self.reader.readexactly(int(found.headers.get("content-length", "0")))
            return found

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


@asynccontextmanager
async def connected(port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    raw = Raw(reader, writer)
    try:
        yield raw
    finally:
        writer.close()
        try:
            await asyncio.wait_for(writer.wait_closed(), 2.0)
        except (TimeoutError, OSError):
            writer.transport.abort()


async def exchange(port: int, data: bytes, *, silence_s: float = LINGER_S) -> tuple[list[Answer], bool]:
    """Send bytes on a connection of their own: the answers, and whether the server closed."""
    async with connected(port) as raw:
        try:
            await raw.send(data)
        except ConnectionError:
            pass
        got, closed = await raw.read_until_silent(silence_s=silence_s)
    return answers(got), closed


def answers(data: bytes, *, to_head: bool = False) -> list[Answer]:
    """Take bytes apart into answers; `to_head`: they answer HEAD, and have no body."""
    found: list[Answer] = []
    while data:
        head, ended, data = data.partition(b"\r\n\r\n")
        answer = _head(head)
        answer.is_cut = not ended
        if answer.status >= 200 and not to_head:
            data = _take_body(answer, data)
        found.append(answer)
    return found


def _head(head: bytes) -> Answer:
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1", f"not the start of an answer: {first!r}"
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name not in headers, f"{name} is there twice"
        headers[name] = value.strip()
    return Answer(int(status), headers, b"")


def _take_body(answer: Answer, data: bytes) -> bytes:
    """Give the answer its body; return what follows it."""
    if "chunked" in answer.headers.get("transfer-encoding", ""):
        while True:
            size, ended, rest = data.partition(b"\r\n")
            if not ended or len(rest) < int(size, 16) + 2:
                answer.is_cut = True
                return b""
            data = rest[int(size, 16) + 2 :]
            if not int(size, 16):
                return data
            answer.body += rest[: int(size, 16)]
    if "content-length" not in answer.headers:
        answer.body = data
        return b""
    length = int(answer.headers["content-length"])
    answer.body, answer.is_cut = data[:length], len(data) < length
    return data[length:]
