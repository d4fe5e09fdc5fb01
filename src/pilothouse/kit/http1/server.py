"""
An HTTP/1.1 server for handlers that stream.

A handler gets a whole request and a `Responder`; it runs as one task, which is
cancelled when the client hangs up. Requests on a connection are answered in
their order. Every size and every wait is bounded by `Limits`.
"""

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, cast

import httptools

from pilothouse.kit.http1.message import DATE, STATUS_LINES, Limits, Request, plain_response
from pilothouse.kit.http1.proxy import ProxyHeader, client_address
from pilothouse.kit.http1.sweep import Sweeper

Handler = Callable[[Request, "Responder"], Coroutine[Any, Any, None]]


class Refused(Exception):
    """A request that the server answers itself, before any handler."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Responder:
    """
    The way back to the client of one request.

    Either one `send`, or `start`, any number of `write` with `await drain()`
    between them, and `end`. Writing to a client that is gone does nothing.
    """

    is_started = False
    is_ended = False
    keepalive: bytes | None = None
    """Bytes to send when a started stream was silent for long; None sends nothing."""
    written_at = 0.0
    _head = b""

    def __init__(self, connection: "Connection", *, keep_alive: bool, chunked: bool) -> None:
        self._connection = connection
        self._keep_alive = keep_alive
        self._chunked = chunked

    @property
    def is_gone(self) -> bool:
        """The client can receive nothing any more."""
        return self._connection.is_closed

    @property
    def is_paused(self) -> bool:
        """The client is slow: `drain` before the next `write`."""
        return self._connection.drain_waiter is not None

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        """Answer whole. `headers` are complete lines, each with its CRLF."""
        self.is_started = self.is_ended = True
        self._connection.write(
            b"%s%s%s%scontent-length: %d\r\n\r\n%s"
            % (STATUS_LINES[status], DATE.line, headers, self._connection_line(), len(body), body)
        )

    def start(self, status: int, headers: bytes) -> None:
        """Begin a stream. The head goes out with the first `write`, in one segment."""
        self.is_started = True
        self.written_at = time.monotonic()
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        self._head = b"%s%s%s%s%s\r\n" % (
            STATUS_LINES[status], DATE.line, headers, self._connection_line(), framing,
        )  # fmt: skip

    def write(self, data: bytes) -> None:
        self.written_at = time.monotonic()
        if self._chunked:
            data = b"%s%x\r\n%s\r\n" % (self._head, len(data), data)
        elif self._head:
            data = self._head + data
        self._head = b""
        self._connection.write(data)

    def end(self, data: bytes = b"") -> None:
        """Finish a stream, `data` being its last bytes, in one segment with the terminator."""
        self.is_ended = True
        if self._chunked:
            if data:
                data = b"%x\r\n%s\r\n" % (len(data), data)
            data += b"0\r\n\r\n"
        self._connection.write(self._head + data)
        self._head = b""

    def abort(self) -> None:
        """Cut the connection, so that the client sees that something is missing."""
        self.is_ended = True
        self._connection.abort()

    async def drain(self) -> None:
        """Wait until the client took enough; returns at once when it did or is gone."""
        waiter = self._connection.drain_waiter
        if waiter is not None:
            await waiter

    def _connection_line(self) -> bytes:
        return (
            b"" if self._keep_alive and not self._connection.server.is_draining else b"connection: close\r\n"
        )

    @property
    def closes(self) -> bool:
        return not self._keep_alive or self._connection.server.is_draining


class Connection(asyncio.Protocol):
    """One client connection: parser callbacks, order, deadlines, write backpressure."""

    def __init__(self, server: "Server") -> None:
        self.server = server
        self.is_closed = False
        self.drain_waiter: asyncio.Future[None] | None = None
        self._limits = server.limits
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._responder: Responder | None = None
        self._peer = ""
        self._proxy = ProxyHeader() if server.limits.proxy_protocol else None
        self._in_head = False
        self._head_bytes = 0
        self._read_by: float | None = None
        self._write_by: float | None = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._request: Request | None = None
        self._last = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        server = self.server
        if len(server.sweeper.members) >= self._limits.max_connections or server.is_draining:
            self.abort()
            return
        server.sweeper.members.add(self)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "unix"
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        self._read_by = time.monotonic() + self._limits.header_timeout_s

    def data_received(self, data: bytes) -> None:
        try:
            if self._proxy is not None:
                data = self._take_proxy_header(data)
                if not data:
                    return
            self._head_bytes += len(data)
            self._parser.feed_data(data)
            if self._in_head and self._head_bytes > self._limits.max_head_bytes:
                self._refuse(431, "request header fields too large")
        except Refused as exc:
            self._refuse(exc.status, exc.text)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "protocol upgrades are not supported")
        except httptools.HttpParserError as exc:
            context = exc.__context__
            if isinstance(context, Refused):
                self._refuse(context.status, context.text)
            else:
                self._refuse(400, "malformed HTTP request")

    def eof_received(self) -> bool | None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.is_closed = True
        self.server.sweeper.members.discard(self)
        self._release_writer()
        self._pending.clear()
        if self._task is not None:
            self._task.cancel()
        self.server.connection_gone()

    def pause_writing(self) -> None:
        if self.drain_waiter is None:
            self.drain_waiter = self.server.loop.create_future()
            self._write_by = time.monotonic() + self._limits.write_timeout_s

    def resume_writing(self) -> None:
        self._write_by = None
        self._release_writer()

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._headers = {}
        self._body = []
        self._body_bytes = 0
        if self._task is None:
            self._read_by = time.monotonic() + self._limits.header_timeout_s

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        headers = self._headers
        name = name.lower()
        if name in headers:
            value = headers[name] + b", " + value
        headers[name] = value
        if len(headers) > self._limits.max_headers:
            raise Refused(431, "too many request header fields")

    def on_headers_complete(self) -> None:
        self._in_head = False
        parser, headers = self._parser, self._headers
        keep_alive = parser.should_keep_alive()
        # Asking for the version costs; without a connection header only 1.1 keeps alive.
        is_http11 = (keep_alive and b"connection" not in headers) or parser.get_http_version() == "1.1"
        if self._url[:1] != b"/":
            raise Refused(400, "the request target must be a path")
        if is_http11 and b"host" not in headers:
            raise Refused(400, "the host header is missing")
        if self._last:
            raise Refused(400, "a request came after connection: close")
        path, _, query = self._url.decode("latin-1").partition("?")
        peer = self._peer
        if self._limits.trusted_proxies:
            peer = client_address(peer, headers.get(b"x-forwarded-for"), self._limits.trusted_proxies)
        self._request = Request(
            parser.get_method().decode(),
            path,
            query,
            headers,
            peer,
            keep_alive=keep_alive and is_http11,
            is_http11=is_http11,
        )
        self._check_body(headers)

    def _check_body(self, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limits.max_body_bytes:
            raise Refused(413, f"the request body is over {self._limits.max_body_bytes} bytes")
        if self._task is None:
            if b"expect" in headers and headers[b"expect"].lower() == b"100-continue" and not self._pending:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._read_by = time.monotonic() + self._limits.body_timeout_s

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.max_body_bytes:
            raise Refused(413, f"the request body is over {self._limits.max_body_bytes} bytes")
        self._body.append(data)

    def on_message_complete(self) -> None:
        request = self._request
        if request is None:
            return
        self._request = None
        self._head_bytes = 0
        self._read_by = None
        body = self._body
        request.body = body[0] if len(body) == 1 else b"".join(body)
        self._body = []
        self._last = not request.keep_alive
        if self._task is None:
            self._begin(request)
            return
        self._pending.append(request)
        if len(self._pending) >= self._limits.max_pipelined:
            self._transport.pause_reading()
        if len(self._pending) > 4 * self._limits.max_pipelined:
            raise Refused(400, "too many pipelined requests")

    # one request after the other

    def _begin(self, request: Request) -> None:
        request.received_ns = time.perf_counter_ns()
        self._responder = responder = Responder(
            self, keep_alive=request.keep_alive, chunked=request.is_http11
        )
        self._task = self.server.loop.create_task(self._serve(request, responder))

    async def _serve(self, request: Request, responder: Responder) -> None:
        try:
            await self.server.handler(request, responder)
        except Exception as exc:  # noqa: BLE001 - a handler's defect ends its connection, not the server
            responder.is_ended = False
            self.server.on_defect(exc)
        finally:
            self._finished(responder)

    def _finished(self, responder: Responder) -> None:
        self._task = None
        self._responder = None
        if self.is_closed:
            return
        if not responder.is_ended:
            self.abort()
        elif responder.closes:
            self._transport.close()
        elif self._pending:
            request = self._pending.popleft()
            if len(self._pending) < self._limits.max_pipelined:
                self._transport.resume_reading()
            self._begin(request)
        elif self._request is not None or self._in_head:
            self._read_by = time.monotonic() + self._limits.body_timeout_s
        else:
            self._read_by = time.monotonic() + self._limits.keepalive_timeout_s

    # the rest

    @property
    def is_idle(self) -> bool:
        return self._task is None and not self._pending

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self._transport.write(data)

    def abort(self) -> None:
        self._transport.abort()

    def close(self) -> None:
        """Close once what was written is out."""
        self._transport.close()

    def sweep(self, now: float) -> None:
        if self._write_by is not None and now > self._write_by:
            self.abort()
        elif self._read_by is not None and now > self._read_by:
            if self._in_head or self._request is not None:
                self._refuse(408, "the request took too long to arrive")
            else:
                self._transport.close()
        elif (responder := self._responder) is not None:
            self._keep_stream_alive(responder, now)

    def _keep_stream_alive(self, responder: Responder, now: float) -> None:
        silent_s = self.server.stream_keepalive_s
        if (
            silent_s
            and responder.keepalive is not None
            and responder.is_started
            and not responder.is_ended
            and self.drain_waiter is None
            and now - responder.written_at > silent_s
        ):
            responder.write(responder.keepalive)

    def _refuse(self, status: int, text: str) -> None:
        """Answer for the server itself and close; an answer under way is cut instead."""
        self._read_by = None
        if self._task is not None:
            self.abort()
            return
        if not self._transport.is_closing():
            self._transport.write(self.server.refusal(status, text))
            self._transport.close()

    def _take_proxy_header(self, data: bytes) -> bytes:
        header = cast(ProxyHeader, self._proxy)
        rest = header.feed(data)
        if rest is None:
            return b""
        if header.is_bad:
            raise Refused(400, "malformed PROXY protocol header")
        self._peer = header.address or self._peer
        self._proxy = None
        return rest

    def _release_writer(self) -> None:
        waiter, self.drain_waiter = self.drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Server:
    """Accepts on a listening socket that somebody else made, until drained."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: Limits,
        on_defect: Callable[[BaseException], None],
        stream_keepalive_s: float = 0.0,
        refusal: Callable[[int, str], bytes] = plain_response,
    ) -> None:
        self.handler = handler
        self.refusal = refusal
        """Makes the whole answer for a request that never reaches a handler."""
        self.limits = limits
        self.on_defect = on_defect
        self.stream_keepalive_s = stream_keepalive_s
        self.sweeper = Sweeper()
        self.is_draining = False
        self.loop = cast(asyncio.AbstractEventLoop, None)
        self._server: asyncio.Server | None = None
        self._gone = asyncio.Event()

    @property
    def connections(self) -> int:
        return len(self.sweeper.members)

    async def start(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.sweeper.start()
        self.sweeper.members.add(_DateClock())
        self._server = await self.loop.create_server(
            lambda: Connection(self), sock=listening, ssl=tls, backlog=4096
        )

    async def drain(self, timeout_s: float) -> None:
        """Accept no more, let what runs end for at most `timeout_s`, then cut the rest."""
        self.is_draining = True
        if self._server is not None:
            self._server.close()
        for member in list(self.sweeper.members):
            if isinstance(member, Connection) and member.is_idle:
                member.close()
        deadline = time.monotonic() + timeout_s
        while self._busy() and (left_s := deadline - time.monotonic()) > 0:
            self._gone.clear()
            await _bounded(self._gone.wait(), left_s)
        for member in self._busy():
            member.abort()
        self.sweeper.stop()

    def connection_gone(self) -> None:
        self._gone.set()

    def _busy(self) -> list[Connection]:
        return [m for m in self.sweeper.members if isinstance(m, Connection)]


class _DateClock:
    def sweep(self, now: float) -> None:
        DATE.refresh(now)


async def _bounded(wait: Awaitable[Any], timeout_s: float) -> None:
    try:
        await asyncio.wait_for(wait, timeout_s)
    except TimeoutError:
        pass


def server_tls(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.3 only, HTTP/1.1 only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
    return context
