"""
An HTTP/1.1 client for one server: pooled connections, streamed answers.

`Client.request` gives an `Exchange` once the head is there; its body comes by
`read()`, as fast as it is taken and no faster. Every wait has a deadline, kept
by the sweeper. Redirects are not followed. Giving an exchange up before its end
closes the connection, which is how the server learns of it.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, cast

import httptools

from pilothouse.kit.cohort import Cohort, Pause
from pilothouse.kit.http1.chunk import ChunkReader, whole_chunk
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.same_head import SameHead
from pilothouse.kit.http1.sweep import Sweeper


class HttpFailure(Exception):
    """
    An exchange that failed. `stage` says how far it came.

    `connect`: nothing was sent. `head`: no byte of the answer came. `body`: the
    answer was cut. `response`: what came is not HTTP, or over a limit.
    """

    def __init__(self, stage: str, text: str, *, timed_out: bool = False) -> None:
        super().__init__(text)
        self.stage = stage
        self.timed_out = timed_out


_now: Final = time.monotonic
_NEVER: Final = float("inf")
_MAX_BUFFERED: Final = 256 * 1024
_MAX_HEAD: Final = 64 * 1024
_FRAMING_S: Final = 1.0
"""How long the end of an answer's framing may come after the last of what it says."""
_OLD_S: Final = 60.0
"""A connection to a name is not kept for longer: the name may mean another machine by now."""


class Exchange(ChunkReader, asyncio.Protocol):
    """One connection, and on it one request at a time. Made by `Client`."""

    def __init__(self, client: "Client") -> None:
        super().__init__()
        self._client = client
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._send: Callable[[bytes], None] = cast(Callable[[bytes], None], None)
        self.is_closed = False
        self._parser: Any = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.is_complete = False
        self._keeps_alive = False
        self._got_bytes = False
        self.has_head = False
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._head_bytes = 0
        """Bytes since the last of a body: of heads, chunk lines and trailers."""
        self._is_paused = False
        self._is_heard = False
        """Something came since the last sweep, which puts off the end of the wait then."""
        self.pause = Pause()
        """Waits for the answer's head, and then for more of it."""
        self._wants_all = False
        self._failure: HttpFailure | None = None
        self._wait_by = _NEVER
        self._total_by = 0.0
        self._idle_s = 0.0
        self.in_use = False
        self._is_left = False
        """Nobody reads on; it goes back once it is complete."""
        self.idle_since = 0.0
        self.is_old = False
        """It is not kept any more."""
        self._old_at = _now() + client.max_age_s
        self._same = SameHead()
        """Of the last answer that came whole, in one piece, and well."""
        self._known: dict[bytes, bytes] | None = None
        self._is_between_chunks = False

    # the consumer's side

    def send(self, data: bytes, timeouts: Timeouts, *, total_s: float, whole: bool) -> Pause:
        """
        Send a request. Wait for what is returned, then look at `has_head`.

        With it the answer's head is there, or all of it when `whole`; without it there is `failure`.
        """
        now = _now()
        self.in_use = True
        self._got_bytes = self._is_heard = self._is_between_chunks = False
        self.has_head = self.is_complete = False
        self.status = 0
        self.headers = {}
        self._wants_all = whole
        self._idle_s = timeouts.idle_s
        self._total_by = now + total_s
        self._wait_by = now + (total_s if total_s < timeouts.first_byte_s else timeouts.first_byte_s)
        pause = self.pause
        pause.begin()
        self._send(data)
        return pause

    @property
    def failure(self) -> HttpFailure:
        """Why there is no head."""
        return self._failure or HttpFailure("head", "no answer came")

    def whole_body(self) -> bytes:
        """
        The body of an answer that was asked for whole.

        Raises:
            HttpFailure: It was cut, stalled, or is not HTTP.
        """
        if not self.is_complete:
            raise self._failure or HttpFailure("body", "the answer was not asked for whole")
        chunks = self._chunks
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def read(self) -> bytes:
        """
        Return what came of the body since the last call; b"" at its end.

        Raises:
            HttpFailure: The answer was cut, stalled, or is not HTTP.
        """
        data = self.take()
        while data is None:
            await self.pause
            data = self.take()
        return data

    def take(self) -> bytes | None:
        """As `read`; None where nothing came yet, and `pause` is to be waited for."""
        chunks = self._chunks
        if not chunks:
            if self.is_complete:
                return b""
            if self._failure is not None:
                raise self._failure
            self.pause.begin()
            return None
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        if self._is_paused:
            self._is_paused = False
            self._wait_by = min(_now() + self._idle_s, self._total_by)
            self._transport.resume_reading()
        return data

    async def read_all(self, max_bytes: int) -> bytes:
        """The rest of the body; over `max_bytes` it fails at stage `response`."""
        parts: list[bytes] = []
        size = 0
        while data := await self.read():
            size += len(data)
            if size > max_bytes:
                self.release()
                raise HttpFailure("response", f"the answer is over {max_bytes} bytes")
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        self._transport.close()

    def release(self) -> None:
        """Give the connection back; one whose answer is not complete is closed. Idempotent."""
        if not self.in_use or (self._is_left and not self.is_complete):
            return
        self.in_use = self._is_left = self._is_heard = False
        self._wait_by = _NEVER
        reusable = self.is_complete and not self.is_closed and self._failure is None and self._keeps_alive
        if reusable and not self._is_paused:
            self._chunks = []
            self._buffered = 0
            self._client.put_back(self)
        else:
            self._transport.abort()

    def finish(self) -> None:
        """Let go of an answer that says no more: its framing's end is waited for here, by nobody."""
        if self.is_complete:
            self.release()
        elif self.in_use:
            self._is_left, self._is_heard = True, False
            self._client.left.add(self)
            self._wait_by = min(_now() + _FRAMING_S, self._total_by)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        write, cohort = self._transport.write, self._client.cohort
        self._send = write if cohort is None else partial(cohort.send, write)
        self._client.sweeper.members.add(self)
        if self._client.greeting:
            write(self._client.greeting)

    def data_received(self, data: bytes) -> None:
        if not self.in_use:
            self._transport.abort()
            return
        begins = not self._got_bytes and self._wants_all
        self._got_bytes = True
        if begins and self._known is not None and self._take_again(data, self._known):
            return
        self._is_heard = True
        chunk = whole_chunk(data) if self._is_between_chunks else None
        if chunk is not None:
            # The parser stands between two chunks, and still does: it need not see this one.
            self.on_body(chunk)
        else:
            self._head_bytes += len(data)
            self._ended_chunk = False
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._fail(HttpFailure("response", "the server's answer is not HTTP/1.1"))
                return
            is_streamed = not (self._wants_all or self.is_complete)
            self._is_between_chunks = is_streamed and self._ended_chunk and data.endswith(b"\r\n")
        if self._head_bytes > _MAX_HEAD:
            self._fail(HttpFailure("response", "the head of the server's answer is too large"))
        elif begins and self.is_complete and self.status == 200 and self._keeps_alive:
            learnt = self._same.learn(data, self._buffered)
            self._known = self.headers if learnt else None
        elif self._buffered > _MAX_BUFFERED and not (self._is_paused or self._wants_all or self.is_complete):
            self._is_paused, self._is_heard = True, False
            self._wait_by = self._total_by
            self._transport.pause_reading()

    def _take_again(self, data: bytes, headers: dict[bytes, bytes]) -> bool:
        """Take a whole answer with the head of an earlier one, whose `headers` those were."""
        body = self._same.body_of(data)
        if body is None or len(body) > self._client.max_whole_bytes:
            return False
        length = self._same.length
        if headers[b"content-length"] != length:
            headers = {**headers, b"content-length": length}
        self.headers, self.status = headers, 200
        self.has_head = self.is_complete = True
        self._chunks.append(body)
        self._wait_by = _NEVER
        self.pause.end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._client.sweeper.members.discard(self)
        self._client.forget(self)
        if self.in_use and not self.is_complete:
            ended = exc is None and self._failure is None  # a reset is no end
            if ended and self.has_head and _ends_with_connection(self.headers):
                self.on_message_complete()
            else:
                stage = "body" if self._got_bytes else "head"
                self._fail(
                    HttpFailure(stage, "the server closed the connection before the answer was complete")
                )
        # It holds this exchange's methods: a cycle, which would lie there until the collector comes.
        self._parser = None

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.has_head:
            return  # a trailer, or the head of an answer that nobody asked for
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self.is_complete:
            raise ValueError("more than one answer came")
        status = self._parser.get_status_code()
        if status < 200:
            self.headers = {}
            return
        self.status = status
        self.has_head = True
        if not self._wants_all:
            self.pause.end()

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)
        self._head_bytes = 0
        if not self._wants_all:
            self.pause.end()
        elif self._buffered > self._client.max_whole_bytes:
            raise ValueError("the answer is too large")

    def on_message_complete(self) -> None:
        if not self.has_head:
            return
        self.is_complete = True
        self._is_heard = False
        self._head_bytes = 0
        self._wait_by = _NEVER
        self._keeps_alive = self._parser.should_keep_alive()
        if self._is_left:
            self.release()
        self.pause.end()

    def sweep(self, now: float) -> None:
        self.is_old = now > self._old_at
        if self._is_heard:
            self._is_heard = False
            self._wait_by = min(now + self._idle_s, self._total_by)
        if now > self._wait_by:
            stage = "body" if self._got_bytes else "head"
            waited = "the answer stalled" if self._got_bytes else "no answer came"
            self._fail(HttpFailure(stage, f"{waited} in time", timed_out=True))

    def _fail(self, failure: HttpFailure) -> None:
        if self._failure is None:
            self._failure = failure
        self._transport.abort()
        self.pause.end()


def _ends_with_connection(headers: dict[bytes, bytes]) -> bool:
    return b"content-length" not in headers and b"transfer-encoding" not in headers


class Client:
    """Connections to one server, kept for reuse, newest first."""

    def __init__(
        self,
        address: Address,
        sweeper: Sweeper,
        *,
        tls: ssl.SSLContext | None = None,
        max_idle: int = 64,
        max_idle_s: float = 4.0,
        max_whole_bytes: int = 64 * 1024 * 1024,
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        self.greeting = b""
        """What each connection begins with, such as a PROXY header."""
        self.address = address
        self.sweeper = sweeper
        self.max_whole_bytes = max_whole_bytes
        self._tls = tls
        self._max_idle = max_idle
        self._max_idle_s = max_idle_s
        self.cohort = cohort
        """Requests go out with the others of their stage; None: at once."""
        self._pin = pin
        """Resolves and checks the host (`kit.egress`); None: `address.host` is an IP already."""
        self.max_age_s = _OLD_S if pin is not None else _NEVER
        self._idle: list[Exchange] = []
        self.left: set[Exchange] = set()
        """Those that wait only for the end of their framing."""
        self._is_closed = False

    async def request(
        self, data: bytes, timeouts: Timeouts, *, total_s: float, whole: bool = False, fresh: bool = False
    ) -> Exchange:
        """
        Send the bytes of a complete request; return with the answer's head (or all of it).

        A kept connection that the server closed just then, before any byte of an
        answer, is replaced once by a new one. The caller must `release` the exchange.

        Args:
            fresh: Use a new connection, so that nothing is ever sent twice.

        Raises:
            HttpFailure: See there.
        """
        while self._idle and not fresh:
            exchange = self._idle.pop()
            if exchange.is_closed or _now() - exchange.idle_since > self._max_idle_s:
                exchange.release()
                exchange.close()
                continue
            try:
                await exchange.send(data, timeouts, total_s=total_s, whole=whole)
            except BaseException:
                exchange.release()
                raise
            if exchange.has_head:
                return exchange
            failure = exchange.failure
            exchange.release()
            if failure.stage == "head" and not failure.timed_out:
                break
            raise failure
        exchange = await self._connect(min(timeouts.connect_s, total_s))
        try:
            await exchange.send(data, timeouts, total_s=total_s, whole=whole)
        except BaseException:
            exchange.release()
            raise
        if exchange.has_head:
            return exchange
        exchange.release()
        raise exchange.failure

    async def _connect(self, timeout_s: float) -> Exchange:
        address = self.address
        loop = asyncio.get_running_loop()
        self.sweeper.start()
        try:
            async with asyncio.timeout(timeout_s):
                if address.path:
                    _, made = await loop.create_unix_connection(lambda: Exchange(self), address.path)
                else:
                    host = await self._pin() if self._pin else address.host
                    name = (address.server_name or address.host) if self._tls else None
                    _, made = await loop.create_connection(
                        lambda: Exchange(self), host, address.port, ssl=self._tls, server_hostname=name
                    )
        except TimeoutError as exc:
            raise HttpFailure("connect", "the server did not accept in time", timed_out=True) from exc
        except FileNotFoundError as exc:
            raise HttpFailure("connect", "its socket is not there: it is starting, or has ended") from exc
        except (OSError, ValueError) as exc:  # ValueError: the address may not be connected to (`pin`)
            reason = getattr(exc, "strerror", None) or str(exc)
            raise HttpFailure("connect", f"cannot connect: {reason}") from exc
        return made

    def put_back(self, exchange: Exchange) -> None:
        self.left.discard(exchange)
        if self._is_closed or exchange.is_old or len(self._idle) >= self._max_idle:
            exchange.close()
            return
        exchange.idle_since = _now()
        self._idle.append(exchange)

    def forget(self, exchange: Exchange) -> None:
        self.left.discard(exchange)
        if exchange in self._idle:
            self._idle.remove(exchange)

    def close(self) -> None:
        """Close connections that nobody uses; the others close when they are released."""
        self._is_closed = True
        for exchange in self._idle:
            exchange.close()
        self._idle.clear()
        for exchange in self.left:
            exchange.close()
        self.left.clear()


def request_bytes(method: str, target: str, host: str, headers: bytes, body: bytes = b"") -> bytes:
    """A complete request. `headers` are lines, each with its CRLF."""
    return b"%s %s HTTP/1.1\r\nhost: %s\r\n%scontent-length: %d\r\n\r\n%s" % (
        method.encode(),
        target.encode(),
        host.encode(),
        headers,
        len(body),
        body,
    )
