"""
The way to the controller: a request is handed on as it came, and its answer streamed back.

Nothing is decided here; the controller authenticates for itself. With it gone,
the caller is told so soon, and models go on being served. A controller that is
being replaced is waited for: its successor takes over within that time.
"""

import asyncio
import time

from pilothouse.domain.errors import StoreUnavailable
from pilothouse.http.answering import send_error
from pilothouse.kit.http1.client import Client, Exchange, HttpFailure, request_bytes
from pilothouse.kit.http1.message import Request
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.http1.responder import Responder
from pilothouse.kit.ids import new_id

_HOP_HEADERS = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"content-length",
        b"upgrade",
        b"te",
        b"trailer",
        b"proxy-authorization",
        b"proxy-connection",
        b"expect",
        b"date",
    }
)
_NOT_SENT = _HOP_HEADERS | {b"host", b"x-forwarded-for"}
_TIMEOUTS = Timeouts(connect_s=1.0, first_byte_s=30.0, idle_s=600.0)
_TOTAL_S = 3600.0
_REPEATABLE = frozenset({"GET", "HEAD"})
REPLACEMENT_S = 3.0
"""How long a controller that accepts nothing is waited for; a restart's gap is about one second."""
_RETRY_S = 0.05
_WHOLE_BYTES = 256 * 1024
"""Answers up to this length go out in one piece; longer ones are never gathered here."""


class PassThrough:
    def __init__(self, controller: Client, *, patience_s: float = REPLACEMENT_S) -> None:
        self._controller = controller
        self._patience_s = patience_s

    async def handle(self, request: Request, responder: Responder) -> None:
        data = _written(request)
        took_us = (time.perf_counter_ns() - request.received_ns) // 1000
        try:
            exchange = await self._reach(data, is_repeatable=request.method in _REPEATABLE)
        except HttpFailure:
            send_error(responder, _out_of_reach())
            return
        try:
            await _relay(exchange, responder, took_us)
        except HttpFailure:
            if responder.is_started:
                responder.abort()
            else:
                send_error(responder, _out_of_reach())
        finally:
            exchange.release()

    async def _reach(self, data: bytes, *, is_repeatable: bool) -> Exchange:
        """What surely was not begun, or changes nothing, is sent again as long as there is patience."""
        give_up_at = time.monotonic() + self._patience_s
        while True:
            try:
                # A kept connection may have just died, and what was sent over it is sent again.
                return await self._controller.request(
                    data, _TIMEOUTS, total_s=_TOTAL_S, fresh=not is_repeatable
                )
            except HttpFailure as exc:
                may_repeat = exc.stage == "connect" or (is_repeatable and exc.stage == "head")
                if not may_repeat or exc.timed_out or time.monotonic() + _RETRY_S > give_up_at:
                    raise
            await asyncio.sleep(_RETRY_S)


def _written(request: Request) -> bytes:
    """HEAD becomes GET, for its answer's end cannot be told by its head; the responder drops the body."""
    lines = [b"x-forwarded-for: %s\r\n" % request.peer.encode()]
    for name, value in request.headers.items():
        if name not in _NOT_SENT:
            lines.append(b"%s: %s\r\n" % (name, value))
    method = "GET" if request.method == "HEAD" else request.method
    target = request.path + ("?" + request.query if request.query else "")
    host = request.headers.get(b"host", b"localhost").decode("latin-1")
    return request_bytes(method, target, host, b"".join(lines), request.body)


async def _relay(exchange: Exchange, responder: Responder, took_us: int) -> None:
    lines = [b"%s: %s\r\n" % item for item in exchange.headers.items() if item[0] not in _HOP_HEADERS]
    lines.append(b"x-pilothouse-overhead-us: %d\r\n" % took_us)
    if b"x-request-id" not in exchange.headers:
        lines.append(b"x-request-id: %s\r\n" % new_id("req_").encode())
    headers = b"".join(lines)
    length = exchange.headers.get(b"content-length")
    if exchange.status in (204, 304):
        responder.send_bare(exchange.status, headers)
    elif length is not None and int(length) <= _WHOLE_BYTES:
        responder.send(exchange.status, headers, await exchange.read_all(_WHOLE_BYTES))
    else:
        responder.start(exchange.status, headers)
        while data := await exchange.read():
            responder.write(data)
            await responder.drain()
        responder.end()


def _out_of_reach() -> StoreUnavailable:
    return StoreUnavailable(
        "the controller does not answer; models go on being served; "
        "look before you repeat what was to change something",
        retry_after_s=2.0,
    )
