"""
How an engine is asked over HTTP: for a whole answer, or for one that is said bit by bit.

What goes wrong on the way becomes an error of `domain.errors` here. What is sent and
what an answer means are the engine's, which hands both in. This is the inner loop of
streaming: it is compiled (`app.compiled`), and so no generator.
"""

import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import DeadlineExceeded, EngineUnavailable, PilothouseError, UpstreamError
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Client, Exchange, HttpFailure
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.sse import EventParser, EventTooLarge

MAX_ERROR_BYTES: Final = 64 * 1024
TIMEOUTS: Final = Timeouts(connect_s=5.0, idle_s=60.0)

_T = TypeVar("_T")


def client_of(
    where: Address,
    sweeper: Sweeper,
    *,
    pin: Callable[[], Awaitable[str]] | None = None,
    cohort: Cohort | None = None,
) -> Client:
    """
    Connections to an address, with TLS where it says so.

    Args:
        pin: Resolves and checks its host before each connection.
        cohort: Requests are sent with the others of their stage.
    """
    tls = ssl.create_default_context() if where.tls else None
    return Client(where, sweeper, tls=tls, pin=pin, cohort=cohort)


class AnswerReader(Protocol):
    """Reads the events of one answer, in their order."""

    def read(self, data: bytes) -> Chunk | None:
        """What one event says; None where it says nothing to a caller."""
        ...

    @property
    def is_over(self) -> bool:
        """The engine said that no event follows."""
        ...

    def end(self) -> Chunk | None:
        """
        What is left to say where the stream ended by itself.

        Raises:
            UpstreamError: The answer is not complete.
        """
        ...


Refused = Callable[[int, dict[bytes, bytes], bytes], PilothouseError]
"""The error that an answer other than 200 stands for, by its status, its headers and its body."""


class Asker:
    """
    Args:
        engine: Its name, for messages.
    """

    def __init__(self, client: Client, engine: str, refused: Refused) -> None:
        self._client = client
        self._refused = refused
        self.engine = engine

    def whole(
        self, data: bytes, read: Callable[[bytes], _T], *, deadline_s: float, timeouts: Timeouts | None
    ) -> Coroutine[Any, Any, _T]:
        """As `answered`."""
        return answered(
            self._client,
            data,
            read,
            self.refusal,
            self.engine,
            timeouts=timeouts or TIMEOUTS,
            deadline_s=deadline_s,
        )

    def said(
        self, data: bytes, reader: AnswerReader, *, deadline_s: float, timeouts: Timeouts | None
    ) -> "Said":
        """As `answered`, event by event. It is sent when the first is asked for."""
        return Said(self, data, reader, deadline_s, timeouts or TIMEOUTS)

    async def begin(self, data: bytes, timeouts: Timeouts, deadline_s: float) -> Exchange:
        """Send it; the answer's head is there, and its status is 200."""
        exchange = await self._client.request(data, timeouts, total_s=deadline_s)
        if exchange.status == 200:
            return exchange
        try:
            raise await self.refusal(exchange)
        finally:
            exchange.release()

    async def refusal(self, exchange: Exchange) -> PilothouseError:
        body = await exchange.read_all(MAX_ERROR_BYTES)
        return self._refused(exchange.status, exchange.headers, body)


class Said:
    """The chunks of one answer, an asynchronous iterator. Closing it before its end cancels the answer."""

    def __init__(
        self, asker: Asker, data: bytes, reader: AnswerReader, deadline_s: float, timeouts: Timeouts
    ) -> None:
        self._asker = asker
        self._data = data
        self._reader = reader
        self._read_event = reader.read  # once: each event is read by it
        self._deadline_s = deadline_s
        self._timeouts = timeouts
        self._parser = EventParser()
        self._events: list[bytes] = []
        """Received and not read yet, the next one last."""
        self._exchange: Exchange | None = None
        self._is_over = False

    def __aiter__(self) -> "Said":
        return self

    async def __anext__(self) -> Chunk:
        chunk: Chunk | None = None
        try:
            exchange = self._exchange
            if exchange is None and not self._is_over:
                self._exchange = exchange = await self._asker.begin(
                    self._data, self._timeouts, self._deadline_s
                )
            while chunk is None and not self._is_over:
                if self._events:
                    chunk = self._read(self._events.pop())
                    continue
                data = exchange.take() if exchange is not None else b""
                if data is not None:
                    chunk = self._take(data)
                elif exchange is not None:
                    await exchange.pause
        except HttpFailure as failure:
            raise translated(failure, self._asker.engine) from failure
        except EventTooLarge as exc:
            raise UpstreamError(f"the engine's stream holds an event that is too large: {exc}") from exc
        finally:
            if chunk is None:
                self._let_go()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._let_go()

    def _take(self, data: bytes) -> Chunk | None:
        """What came, or that nothing comes any more."""
        if data:
            events = self._parser.feed(data)
            if len(events) == 1:
                return self._read(events[0])
            events.reverse()
            self._events = events
            return None
        self._is_over = True
        if self._parser.is_mid_event:
            raise UpstreamError("the engine ended its stream before the answer was complete")
        return self._reader.end()

    def _read(self, event: bytes) -> Chunk | None:
        chunk = self._read_event(event)
        if self._reader.is_over:
            self._is_over = True
            if self._exchange is not None:
                self._exchange.finish()
        return chunk

    def _let_go(self) -> None:
        self._is_over = True
        self._events = []
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.release()


async def answered(
    client: Client,
    data: bytes,
    read: Callable[[bytes], _T],
    refusal: Callable[[Exchange], Awaitable[PilothouseError]],
    engine: str,
    *,
    timeouts: Timeouts,
    deadline_s: float,
) -> _T:
    """
    Send a whole request, and say what its 200 answer says.

    Args:
        data: Head and body.
        read: Makes sense of the answer's body.
        refusal: Makes the error of any other answer.
        engine: Its name, for messages.
    """
    exchange: Exchange | None = None
    try:
        exchange = await client.request(data, timeouts, total_s=deadline_s, whole=True)
        if exchange.status != 200:
            raise await refusal(exchange)
        return read(exchange.whole_body())
    except HttpFailure as failure:
        has_begun = exchange is not None and exchange.status == 200
        raise translated(failure, engine, has_begun=has_begun) from failure
    except UpstreamError as exc:
        exc.has_begun = exchange is not None and exchange.status == 200
        raise
    finally:
        if exchange is not None:
            exchange.release()


def translated(failure: HttpFailure, engine: str, *, has_begun: bool = False) -> PilothouseError:
    if failure.stage == "connect":
        return EngineUnavailable(f"the {engine} engine cannot be reached: {failure}", retry_after_s=1.0)
    if failure.timed_out:
        missed = "begin to answer" if failure.stage == "head" else "go on with its answer"
        error: PilothouseError = DeadlineExceeded(f"the {engine} engine did not {missed} in time")
    elif failure.stage == "head":
        return EngineUnavailable(f"the {engine} engine hung up before it answered", retry_after_s=1.0)
    else:
        error = UpstreamError(f"the {engine} engine's answer was cut or malformed")
    error.has_begun = has_begun
    return error
