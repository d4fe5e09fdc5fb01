"""
What providers have in common that are asked over HTTP, each in a protocol of its own.

Failures become errors of `domain.errors` once, here; no text of a provider's
reaches a caller. Servers of the OpenAI dialect are `_openai_http`: they are the
hot path, and may have slots.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Generic, Protocol, TypeVar

from msgspec import Raw

from pilothouse.adapters.engines._asking import MAX_ERROR_BYTES, TIMEOUTS, answered, client_of, translated
from pilothouse.adapters.engines._attached import retry_after_s
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    RequestTooLarge,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Exchange, HttpFailure
from pilothouse.kit.http1.peer import Address, Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.sse import EventTooLarge
from pilothouse.ports.engine import EngineInfo, Placement

PROBE = GenerateRequest("chat", "", Raw(b'[{"role":"user","content":"Hello"}]'), 35).changed(max_tokens=1)

_T = TypeVar("_T")
_Event = TypeVar("_Event")
_Event_co = TypeVar("_Event_co", covariant=True)
_Event_contra = TypeVar("_Event_contra", contravariant=True)


class Framing(Protocol[_Event_co]):
    """Finds the events in the bytes of one answer, however those are cut."""

    def feed(self, data: bytes) -> Sequence[_Event_co]: ...

    @property
    def is_mid_event(self) -> bool: ...


class AnswerReader(Protocol[_Event_contra]):
    """Reads the events of one answer, in their order."""

    def read(self, event: _Event_contra, /) -> Chunk | None:
        """What one event says; None where it says nothing to a caller."""
        ...

    @property
    def is_over(self) -> bool:
        """The provider said that no event follows."""
        ...

    def end(self) -> Chunk | None:
        """
        What is left to say where the stream ended by itself.

        Raises:
            UpstreamError: The answer is not complete.
        """
        ...


class ProviderEngine(ABC, Generic[_Event]):
    """
    Implements `ports.engine.Engine`: a provider without embeddings, unless its own class has them.

    Args:
        where: Of the provider.
        framing: Of its streams.
        pin: Resolves and checks its host before each connection.
        cohort: Requests are sent with the others of their stage.
    """

    def __init__(
        self,
        info: EngineInfo,
        where: Address,
        framing: Callable[[], Framing[_Event]],
        *,
        pin: Callable[[], Awaitable[str]] | None,
        cohort: Cohort | None,
    ) -> None:
        self.info = info
        self._framing = framing
        self._sweeper = Sweeper()
        self._client = client_of(where, self._sweeper, pin=pin, cohort=cohort)

    async def ready(self, deadline_s: float) -> float:
        """Wait for what it takes to ask, such as a token; the seconds that are left then."""
        return deadline_s

    @abstractmethod
    def asked(self, request: GenerateRequest, *, stream: bool) -> bytes:
        """The whole HTTP request for it."""

    @abstractmethod
    def reader(self, request: GenerateRequest) -> AnswerReader[_Event]: ...

    @abstractmethod
    def read_whole(self, request: GenerateRequest, body: bytes) -> Chunk: ...

    @abstractmethod
    def refused(self, status: int, body: bytes) -> PilothouseError | None:
        """What the provider says of an answer other than 200; None is what its status says everywhere."""

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - a provider has no slots
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        deadline_s = await self.ready(deadline_s)
        data = self.asked(request, stream=True)
        exchange: Exchange | None = None
        try:
            exchange = await self._client.request(data, timeouts or TIMEOUTS, total_s=deadline_s)
            if exchange.status != 200:
                raise await self._refusal(exchange)
            parser, reader = self._framing(), self.reader(request)
            while data := await exchange.read():
                for event in parser.feed(data):
                    chunk = reader.read(event)
                    if chunk is not None:
                        yield chunk
                    if reader.is_over:
                        exchange.finish()
                        return
            if parser.is_mid_event:
                raise UpstreamError("the provider ended its stream before the answer was complete")
            if (rest := reader.end()) is not None:
                yield rest
        except HttpFailure as exc:
            raise translated(exc, self.info.name) from exc
        except EventTooLarge as exc:
            raise UpstreamError(f"the provider's stream holds an event that is too large: {exc}") from exc
        finally:
            if exchange is not None:
                exchange.release()

    async def complete(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - a provider has no slots
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> Chunk:
        deadline_s = await self.ready(deadline_s)
        return await self.whole(
            self.asked(request, stream=False),
            lambda body: self.read_whole(request, body),
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    async def embed(
        self,
        request: EmbedRequest,  # noqa: ARG002 - the port's shape
        *,
        deadline_s: float,  # noqa: ARG002 - the port's shape
        timeouts: Timeouts | None = None,  # noqa: ARG002 - the port's shape
    ) -> Embeddings:
        raise NotSupported("this provider has no embeddings; see the endpoint's tasks")

    async def health(self, *, deadline_s: float) -> Health:
        """One token, as of every engine."""
        try:
            answer = await self.complete(PROBE, Placement(), deadline_s=deadline_s)
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        is_ok = answer.usage is not None and answer.usage.output > 0
        return Health(ok=is_ok, reason="" if is_ok else "the provider answered without a token")

    async def load(self) -> Load:
        return Load()

    async def aclose(self) -> None:
        self._client.close()
        self._sweeper.stop_when_empty()

    def whole(
        self, data: bytes, read: Callable[[bytes], _T], *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Coroutine[None, None, _T]:
        """What a 200 answer says."""
        wait = timeouts or TIMEOUTS
        return answered(
            self._client, data, read, self._refusal, self.info.name, timeouts=wait, deadline_s=deadline_s
        )

    async def _refusal(self, exchange: Exchange) -> PilothouseError:
        body = await exchange.read_all(MAX_ERROR_BYTES)
        own = self.refused(exchange.status, body)
        return own or refusal_of(exchange.status, exchange.headers.get(b"retry-after", b""))


def refusal_of(status: int, retry_after: bytes) -> PilothouseError:
    """The error that a status other than 200 stands for, whoever the provider is."""
    if status in (401, 403):
        return UpstreamError(f"the provider refused the key of this deployment ({status})")
    if status == 404:
        return UpstreamError("the provider knows no such model, or this deployment's key may not use it")
    if status == 413:
        return RequestTooLarge("the provider takes no request of this size; shorten it")
    if status in (400, 422):
        return InvalidRequest("the provider refused the request as invalid; check its fields")
    if status in (429, 503, 529):
        wait_s = retry_after_s(retry_after)
        return Overloaded("the provider takes no more requests now; try again", retry_after_s=wait_s)
    if status in (408, 504):
        return DeadlineExceeded("the provider did not answer in its own time")
    return UpstreamError(f"the provider answered {status}")
