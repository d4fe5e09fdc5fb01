"""
A client for servers that speak RESP, the protocol of Redis and Valkey: as much as a cache needs.

Commands are written as they come and answered in their order (pipelining), so
one connection serves a whole worker. Every wait is bounded, what waits is too,
and after a fault the connection is made anew, at most once in a while.

Source: the Redis serialization protocol specification, RESP2.
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import unquote, urlsplit

from msgspec import Struct

MAX_WAITING = 10_000
"""Commands that may be under way."""
MAX_REPLY_BYTES = 64 * 1024 * 1024
RETRY_S = 1.0
"""Between two attempts to connect; what is asked meanwhile fails at once."""


class RespError(Exception):
    """The server cannot be reached, did not answer in time, or refused."""


class RespAddress(Struct, frozen=True, kw_only=True):
    """`redis://[user@]host[:port][/database]`, `rediss://` with TLS, or `unix:///path`."""

    host: str = ""
    port: int = 6379
    path: str = ""
    user: str = ""
    database: int = 0
    tls: bool = False


def parse_address(url: str) -> RespAddress:
    """
    Raises:
        ValueError: It is no such address, or holds a password, which has no place in one: it is not shown.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or 6379
        database = int(parts.path.strip("/") or 0) if parts.scheme != "unix" else 0
    except ValueError:
        raise ValueError("the port and the database of a Redis address are numbers") from None
    if parts.password is not None:
        raise ValueError("the address of a Redis server must not hold its password")
    known = (parts.scheme in ("redis", "rediss") and parts.hostname) or (
        parts.scheme == "unix" and parts.path
    )
    if not known:
        raise ValueError("a Redis address is redis://host:port/database, rediss://... or unix:///path")
    return RespAddress(
        host=parts.hostname or "",
        port=port,
        path=parts.path if parts.scheme == "unix" else "",
        user=unquote(parts.username or ""),
        database=database,
        tls=parts.scheme == "rediss",
    )


Reply = bytes | int | None


class RespClient:
    """
    Args:
        timeout_s: For each command, connecting included.
        now: Monotonic seconds.
    """

    def __init__(
        self,
        address: RespAddress,
        *,
        timeout_s: float,
        password: str = "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._password = password
        self._address = address
        self._timeout_s = timeout_s
        self._now = now
        self._talk: _Talk | None = None
        self._connecting: asyncio.Task[_Talk] | None = None
        self._failed_at = -RETRY_S
        self._is_closed = False

    async def call(self, *parts: bytes) -> Reply:
        """
        One command and its answer.

        Raises:
            RespError: It could not be done; whether the server did it is not known.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                talk = self._talk
                if talk is None or talk.is_closed:
                    talk = await self._connect()
                return await talk.ask(parts)
        except TimeoutError as exc:
            # Late answers would be taken for those of later commands, were the connection kept.
            if self._talk is not None:
                self._talk.close()
            raise RespError(f"no answer within {self._timeout_s} s") from exc

    async def aclose(self) -> None:
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._talk is not None:
            self._talk.close()
            await asyncio.sleep(0)

    async def _connect(self) -> "_Talk":
        """All who ask at once wait for one attempt."""
        if self._connecting is None:
            if self._is_closed or self._now() - self._failed_at < RETRY_S:
                raise RespError("the server is out of reach")
            self._connecting = asyncio.ensure_future(self._open())
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    def _connected(self, task: "asyncio.Task[_Talk]") -> None:
        self._connecting = None
        if task.cancelled() or task.exception() is not None:
            self._failed_at = self._now()
        else:
            self._talk = task.result()

    async def _open(self) -> "_Talk":
        address, loop = self._address, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                if address.path:
                    _, talk = await loop.create_unix_connection(_Talk, address.path)
                else:
                    context = ssl.create_default_context() if address.tls else None
                    _, talk = await loop.create_connection(_Talk, address.host, address.port, ssl=context)
                try:
                    await self._greet(talk)
                except BaseException:
                    talk.close()
                    raise
                return talk
        except (OSError, TimeoutError) as exc:
            raise RespError("the server is out of reach") from exc

    async def _greet(self, talk: "_Talk") -> None:
        address = self._address
        if self._password:
            user = (address.user.encode(),) if address.user else ()
            await talk.ask((b"AUTH", *user, self._password.encode()))
        if address.database:
            await talk.ask((b"SELECT", b"%d" % address.database))


class _Talk(asyncio.Protocol):
    """One connection: commands out, answers in, in the same order."""

    def __init__(self) -> None:
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._end(RespError("the server closed the connection"))

    async def ask(self, parts: tuple[bytes, ...]) -> Reply:
        if self.is_closed or self._transport is None:
            raise RespError("the connection is closed")
        if len(self._waiting) >= MAX_WAITING:
            raise RespError("too many commands are under way")
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(answered)
        self._transport.write(
            b"".join((b"*%d\r\n" % len(parts), *[b"$%d\r\n%s\r\n" % (len(part), part) for part in parts]))
        )
        return await answered

    def close(self) -> None:
        self._end(RespError("the connection was given up"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while (found := read_reply(self._buffer)) is not None:
                reply, size = found
                del self._buffer[:size]
                self._answer(reply)
        except RespError as exc:
            self._end(exc)

    def _answer(self, reply: "Reply | RespError") -> None:
        if not self._waiting:
            raise RespError("the server said what nobody asked for")
        waiting = self._waiting.popleft()
        if waiting.done():  # who asked is gone
            return
        if isinstance(reply, RespError):
            waiting.set_exception(reply)
        else:
            waiting.set_result(reply)

    def _end(self, error: RespError) -> None:
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.done():
                one.set_exception(RespError(str(error)))


def read_reply(buffer: bytes | bytearray) -> "tuple[Reply | RespError, int] | None":
    """
    The first reply in the buffer and its size; None while it is not whole.

    Raises:
        RespError: These bytes are no reply that a cache gets.
    """
    end = buffer.find(b"\r\n")
    if end < 0:
        if len(buffer) > 64 * 1024:
            raise RespError("the server's answer cannot be read")
        return None
    kind, line = buffer[:1], bytes(buffer[1:end])
    if kind == b"+":
        return line, end + 2
    if kind == b"-":
        return RespError(line[:100].decode("utf-8", "replace")), end + 2
    if kind not in (b":", b"$") or not line.lstrip(b"-").isdigit() or len(line) > 20:
        raise RespError("the server's answer cannot be read")
    number = int(line)
    if kind == b":":
        return number, end + 2
    if number < 0:
        return None, end + 2
    if number > MAX_REPLY_BYTES:
        raise RespError("the server's answer is too large")
    if len(buffer) < end + 2 + number + 2:
        return None
    return bytes(buffer[end + 2 : end + 2 + number]), end + 2 + number + 2
