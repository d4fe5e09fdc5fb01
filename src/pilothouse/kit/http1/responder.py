"""
The way back to the client: heads, chunked bodies, and the wait for a slow reader.

What goes where in time (order, limits, hang-ups) is the connection's, in `server.py`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from pilothouse.kit.http1 import message

if TYPE_CHECKING:
    from pilothouse.kit.http1.server import Connection


_CLOSE: Final = b"connection: close\r\n"
_SIZE_LINES: Final = [b"%x\r\n" % size for size in range(1024)]
"""Of chunks up to that many bytes, as events are: writing a number costs more than finding it."""
_STATUS_LINES: Final[dict[int, bytes]] = message.STATUS_LINES
_DATE: Final[message.DateHeader] = message.DATE


def _chunk(head: bytes, data: bytes) -> bytes:
    """`data` as one chunk (RFC 9112, section 7.1) behind `head`."""
    size = len(data)
    line = _SIZE_LINES[size] if size < len(_SIZE_LINES) else b"%x\r\n" % (size,)
    return b"%s%s%s\r\n" % (head, line, data)


class Responder:
    """
    The way back to the client of one request.

    Either one `send`, or `start`, any number of `write` with `await drain()`
    between them, and `end`. Writing to a client that is gone does nothing.
    """

    is_started = False
    is_ended = False
    is_promised = False
    """The handler ends before its answer; somebody else sends it in the same turn of the cohort."""
    is_needed: Callable[[], bool] | None = None
    """Asked when the client hangs up: while it says True the handler goes on, until `abandon`."""
    keepalive: bytes | None = None
    """Bytes to send when a started stream was silent for long; None sends nothing."""
    _was_silent = False
    """Nothing was written since it was looked at last, which was first so at `_silent_at`."""
    _silent_at = 0.0
    _head = b""

    def __init__(self, connection: "Connection", *, keep_alive: bool, chunked: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
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
        connection = self._connection
        line = b""
        if not self.keep_alive or connection.server.is_draining:
            line, self.keep_alive = _CLOSE, False
        connection.write(
            b"%s%s%s%scontent-length: %d\r\n\r\n%s"
            % (_STATUS_LINES[status], _DATE.line, headers, line, len(body), body)
        )
        if self.is_promised:
            connection.answered(self)

    def meanwhile(self, work: Callable[[], None]) -> None:
        """Have it done when what this turn asks of others is on its way. It must not raise."""
        self._connection.server.cohort.at_close(work)

    def promise(self) -> None:
        """Let the handler end: `send` follows before this turn of the cohort closes."""
        self.is_promised = True

    def send_bare(self, status: int, headers: bytes) -> None:
        """Answer with a status that has no body (204, 304), and so no length (RFC 9110, section 8.6)."""
        self.is_started = self.is_ended = True
        self._connection.write(
            b"%s%s%s%s\r\n" % (_STATUS_LINES[status], _DATE.line, headers, self._connection_line())
        )

    def start(self, status: int, headers: bytes) -> None:
        """Begin a stream. The head goes out with the first `write`, in one segment."""
        self.is_started = True
        framing = b"transfer-encoding: chunked\r\n" if self._chunked else b""
        self._head = b"%s%s%s%s%s\r\n" % (
            _STATUS_LINES[status], _DATE.line, headers, self._connection_line(), framing,
        )  # fmt: skip

    def write(self, data: bytes) -> None:
        """Send some of the body. Nothing is nothing: an empty chunk would be its end (RFC 9112, 7.1)."""
        if not data:
            return
        self._was_silent = False
        if self._chunked:
            data = _chunk(self._head, data)
        elif self._head:
            data = self._head + data
        self._head = b""
        self._connection.write(data)

    def end(self, data: bytes = b"") -> None:
        """Finish a stream, `data` being its last bytes, in one segment with the terminator."""
        self.is_ended = True
        if self._chunked:
            if data:
                data = _chunk(b"", data)
            data += b"0\r\n\r\n"
        self._connection.write(self._head + data)
        self._head = b""

    def abort(self) -> None:
        """Cut the connection, so that the client sees that something is missing."""
        self.is_ended = True
        self._connection.abort()

    def abandon(self) -> None:
        """Cancel the handler that went on without its client."""
        task = self._connection.task
        if task is not None and self._connection.is_closed:
            task.cancel()

    async def drain(self) -> None:
        """Wait until the client took enough; returns at once when it did or is gone."""
        waiter = self._connection.drain_waiter
        if waiter is not None:
            await waiter

    def on_drained(self, call: Callable[[], None]) -> None:
        """Have it called once the client took enough, or is gone; at once when that is so."""
        waiter = self._connection.drain_waiter
        if waiter is None:
            call()
        else:
            waiter.add_done_callback(lambda _: call())

    def break_silence(self, now: float, silent_s: float) -> None:
        """Send a sign of life when a stream was silent for longer than `silent_s`; 0 is off."""
        if not silent_s or self.keepalive is None or not self.is_started or self.is_ended or self.is_paused:
            return
        if not self._was_silent:
            self._was_silent, self._silent_at = True, now
        elif now - self._silent_at > silent_s:
            self.write(self.keepalive)

    def _connection_line(self) -> bytes:
        if self.keep_alive and not self._connection.server.is_draining:
            return b""
        self.keep_alive = False
        return _CLOSE


class HeadResponder(Responder):
    """Answers HEAD: what GET would get without its body, which the client would take for the next answer."""

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        length = b"content-length: %d\r\n" % len(body)
        self._chunked = False
        self.start(status, headers + length)
        self.end()

    def write(self, data: bytes) -> None:
        pass

    def end(self, data: bytes = b"") -> None:  # noqa: ARG002 - as its base
        self.is_ended = True
        self._connection.write(self._head)
        self._head = b""
