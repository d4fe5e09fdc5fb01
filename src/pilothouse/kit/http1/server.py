"""
An HTTP/1.1 server for handlers that stream.

A handler gets a whole request and a `Responder`; it runs as one `CohortTask`, which is
cancelled when the client hangs up. Requests on a connection are answered in
their order. Every size and every wait is bounded by `Limits`.
"""

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, cast

import httptools

from pilothouse.kit.cohort import Cohort, CohortTask
from pilothouse.kit.http1.accepting import FairAccept, Shares
from pilothouse.kit.http1.message import DATE, Limits, Request, plain_response
from pilothouse.kit.http1.reading import Arriving, Refused, RequestReader
from pilothouse.kit.http1.responder import HeadResponder, Responder
from pilothouse.kit.http1.sweep import Sweeper

LINGER_S = 2.0
"""How long a refused client may go on sending: with unread bytes, closing resets, and he never reads why."""
CANCEL_S = 1.0
"""How long handlers that were cut may take to end."""
_now: Final = time.monotonic
_now_ns: Final = time.perf_counter_ns

Handler = Callable[[Request, Responder], Coroutine[Any, Any, None]]


class Connection(RequestReader, asyncio.Protocol):
    """One client connection: order, deadlines, write backpressure."""

    def __init__(self, server: "Server") -> None:
        super().__init__(server.limits, server.arriving)
        self.server = server
        self.is_closed = False
        self.drain_waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._send: Callable[[bytes], None] = cast(Callable[[bytes], None], None)
        self._pending: deque[Request] = deque()
        self.task: CohortTask | None = None
        self._responder: Responder | None = None
        self._write_by: float | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send = self._transport.write  # once: each event is written by it
        server = self.server
        is_late = server.is_draining and not server.lingers
        if len(server.sweeper.members) >= self._limits.max_connections or is_late:
            self.abort()
            return
        server.sweeper.members.add(self)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else "unix"
        self._transport.set_write_buffer_limits(high=self._limits.write_buffer_bytes)
        self._read_by = _now() + self._limits.header_timeout_s

    def data_received(self, data: bytes) -> None:
        if self._is_done:
            return
        try:
            if self._proxy is not None:
                data = self.take_proxy_header(data)
                if not data:
                    return
            if self.take_again(data):
                self.on_message_complete()
                return
            begins = self.is_between
            self._head_bytes += len(data)
            self._is_behind_another = self._is_behind_another and self._in_head
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                self.read_as_plain(data[exc.args[0] :])
            if self._request is not None:
                self.count_body()
            elif begins and self._came is not None:
                self.learn_head(self._came, data)
            if self._head_bytes > self._limits.max_head_bytes:
                self._refuse(431, "request header fields too large")
        except Refused as exc:
            self._refuse(exc.status, exc.text)
        except httptools.HttpParserError:
            self._refuse(*(self._refusal or (400, "malformed HTTP request")))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.is_closed = True
        self.server.sweeper.members.discard(self)
        self._release_writer()
        self._pending.clear()
        self.read_no_more()
        self.forget_parser()
        is_needed = self._responder.is_needed if self._responder is not None else None
        if self.task is not None and not (is_needed is not None and is_needed()):
            self.task.cancel()
        self.server.connection_gone()

    def pause_writing(self) -> None:
        if self.drain_waiter is None:
            self.drain_waiter = self.server.loop.create_future()
            self._write_by = _now() + self._limits.write_timeout_s

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._write_by = None
        self._release_writer()
        if self.task is None and self._pending:
            self._next()

    # requests, one after the other

    def invite_body(self) -> None:
        if self.task is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_message_complete(self) -> None:
        request = self._request
        if request is None:
            return
        self._request = None
        self._head_bytes = 0
        self._is_behind_another = True
        self._read_by = None
        if self._counted:
            self.uncount_body()
        body = self._body
        request.body = body[0] if len(body) == 1 else b"".join(body)
        self._body = []
        self._last = not request.keep_alive
        self._came = request
        if self.task is None and self.drain_waiter is None:
            self._begin(request)
            return
        self._pending.append(request)
        limits = self._limits
        if len(self._pending) >= limits.max_pipelined or len(request.body) > limits.write_buffer_bytes:
            self._transport.pause_reading()
        if len(self._pending) > 4 * limits.max_pipelined:
            raise self._refused(400, "too many pipelined requests")

    def _begin(self, request: Request) -> None:
        request.received_ns = _now_ns()
        if request.method == "HEAD":
            responder: Responder = HeadResponder(
                self, keep_alive=request.keep_alive, chunked=request.is_http11
            )
        else:
            responder = Responder(self, keep_alive=request.keep_alive, chunked=request.is_http11)
        self._responder = responder
        server = self.server
        self.task = server.cohort.start(server.handler(request, responder), self._ended)

    def _ended(self, defect: Exception | None) -> None:
        """The handler is done; its defect ends its connection, not the server."""
        self.task = None
        responder = self._responder
        if defect is not None:
            self._responder = None
            self.server.on_defect(defect)
            if not self.is_closed:
                self.abort()
        elif responder is not None and responder.is_ended:
            self.answered(responder)
        elif responder is None or not responder.is_promised:
            self._responder = None
            if not self.is_closed:
                self.abort()

    def answered(self, responder: Responder) -> None:
        """The answer is sent; go on."""
        self._responder = None
        if self.is_closed:
            return
        if not responder.keep_alive or (self.server.is_draining and not self.server.lingers):
            self.close()  # a client that was not told so may be asking again already
        elif self._pending:
            self._next()
        elif self._request is not None or self._in_head:
            self._read_by = _now() + self._limits.body_timeout_s
        else:
            self._read_by = _now() + self.server.idle_s

    def _next(self) -> None:
        """Go on with the request that waits, once the client took the last answer."""
        if self.drain_waiter is not None:
            return
        request = self._pending.popleft()
        if len(self._pending) < self._limits.max_pipelined:
            self._transport.resume_reading()
        self._begin(request)

    # the rest

    @property
    def is_idle(self) -> bool:
        """Nothing was asked, not even in part."""
        return self.task is None and not self._pending and self._request is None and not self._in_head

    def write(self, data: bytes) -> None:
        """Send `data` with what others send in this turn."""
        if not self.is_closed:
            self.server.cohort.send(self._send, data)

    def abort(self) -> None:
        self._transport.abort()

    def close(self) -> None:
        """Close once what was written is out, for which the client has the time of a write."""
        self._read_by = None
        self._write_by = _now() + self._limits.write_timeout_s
        self.server.cohort.send(self._finish, b"")

    def _finish(self, _: bytes) -> None:
        self._transport.close()

    def sweep(self, now: float) -> None:
        if self._write_by is not None and now > self._write_by:
            self.abort()
        elif self.task is None and self._read_by is not None and now > self._read_by:
            if self._in_head or self._request is not None:
                self._refuse(408, "the request took too long to arrive")
            else:
                self.close()
        elif (responder := self._responder) is not None:
            responder.break_silence(now, self.server.stream_keepalive_s)

    def _refuse(self, status: int, text: str) -> None:
        """Answer for the server itself and close; an answer under way is cut instead."""
        if self.task is not None:
            self.abort()
            return
        if self._transport.is_closing():
            return
        self.read_no_more()
        path = self._url.partition(b"?")[0].decode("latin-1")
        self._transport.write(self.server.refusal(status, text, path))
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._read_by = _now() + LINGER_S
        else:
            self.close()

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
        refusal: Callable[[int, str, str], bytes] = plain_response,
        cohort: Cohort | None = None,
    ) -> None:
        self.handler = handler
        self.refusal = refusal
        """Makes the whole answer for a request that never reaches a handler."""
        self.limits = limits
        self.on_defect = on_defect
        self.stream_keepalive_s = stream_keepalive_s
        self.cohort = cohort or Cohort()
        self.sweeper = Sweeper()
        self.arriving = Arriving()
        self.is_draining = False
        self._is_hurried = False
        self.lingers = False
        """While draining: others accept for us, so clients are told to leave and never thrown out."""
        self.idle_s = limits.keepalive_timeout_s
        self.loop = cast(asyncio.AbstractEventLoop, None)
        self._server: asyncio.Server | FairAccept | None = None
        self._gone = asyncio.Event()

    @property
    def connections(self) -> int:
        return len(self.sweeper.members)

    async def start(
        self, listening: socket.socket, tls: ssl.SSLContext | None = None, *, shares: Shares | None = None
    ) -> None:
        """`shares`: other processes accept on the same socket, and each shall get its part."""
        self.loop = loop = asyncio.get_running_loop()
        self.sweeper.start()
        self.sweeper.members.add(_DateClock())
        handshake_s = self.limits.header_timeout_s if tls else None
        if shares is None:
            self._server = await loop.create_server(
                lambda: Connection(self),
                sock=listening,
                ssl=tls,
                backlog=4096,
                ssl_handshake_timeout=handshake_s,
            )
            return

        def connect(accepted: socket.socket) -> Awaitable[object]:
            return loop.connect_accepted_socket(
                lambda: Connection(self), accepted, ssl=tls, ssl_handshake_timeout=handshake_s
            )

        self._server = FairAccept(listening, shares, count=lambda: self.connections, connect=connect)

    async def drain(self, timeout_s: float, *, linger_s: float = 0.0) -> None:
        """
        Accept no more, let what runs end for at most `timeout_s`, then cut the rest.

        Args:
            linger_s: How long an idle connection stays, and is told to close with its next answer.
                Closing it at once races with a request on its way. 0 where nobody else accepts.
        """
        self.is_draining = True
        self.lingers, self.idle_s = linger_s > 0, linger_s
        if self._server is not None:
            self._server.close()
        now = _now()
        for member in list(self.sweeper.members):
            if isinstance(member, Connection) and member.is_idle:
                if self.lingers:
                    member._read_by = now + linger_s  # noqa: SLF001 - of this module
                else:
                    member.close()
        deadline = now + timeout_s
        while self._busy() and not self._is_hurried and (left_s := deadline - _now()) > 0:
            self._gone.clear()
            await _bounded(self._gone.wait(), left_s)
        cut = self._busy()
        for member in cut:
            member.abort()
        # Their records are to be kept while there is a journal to keep them in.
        deadline = _now() + CANCEL_S
        while any(member.task for member in cut) and _now() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.005)
        self.sweeper.stop()

    def hurry(self) -> None:
        """Wait for nobody: a drain, under way or to come, cuts what runs."""
        self._is_hurried = True
        self._gone.set()

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
