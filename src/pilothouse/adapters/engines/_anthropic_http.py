"""
A provider behind Anthropic's HTTP API.

Failures become errors of `domain.errors` once, here; no text of the provider's
reaches a caller.
"""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from msgspec import Raw

from pilothouse.adapters.engines._attached import retry_after_s
from pilothouse.adapters.engines._openai_http import MAX_ERROR_BYTES, parsed_address, translated
from pilothouse.domain.chat import Chunk, Embeddings, EmbedRequest, GenerateRequest
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    RequestTooLarge,
    UpstreamError,
)
from pilothouse.domain.status import Health, Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Client, Exchange, HttpFailure
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.kit.sse import EventParser, EventTooLarge
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.anthropic import outbound, said

_TIMEOUTS = Timeouts(connect_s=5.0, idle_s=60.0)
_TOO_LONG = "prompt is too long"
"""Anthropic's words for a prompt that does not fit the model."""
_PROBE = GenerateRequest(
    kind="chat",
    endpoint="",
    prompt=Raw(b'[{"role":"user","content":"Hello"}]'),
    prompt_bytes=35,
    max_tokens=1,
)

_T = TypeVar("_T")


class AnthropicEngine:
    """
    Implements `ports.engine.Engine`, and `TokenCounter`.

    Args:
        address: `http(s)://host[:port]/base`, ending in `/v1` or before it.
        pin: Resolves and checks the host of `address` before each connection.
        cohort: Requests are sent with the others of their stage.
        prompt_cache: How long the provider keeps prompts.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        token: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
        prompt_cache: outbound.PromptCache = "off",
    ) -> None:
        self.info = info
        self._prompt_cache = prompt_cache
        self._model = model
        self._sweeper = Sweeper()
        root, _, where = parsed_address(address)
        tls = ssl.create_default_context() if where.tls else None
        self._client = Client(where, self._sweeper, tls=tls, pin=pin, cohort=cohort)
        key = f"authorization: Bearer {token}\r\n" if token else ""
        host = f"host: {where.host_header}\r\ncontent-type: application/json\r\n{key}"
        self._messages = f"POST {root}/v1/messages HTTP/1.1\r\n{host}".encode()
        self._counting = f"POST {root}/v1/messages/count_tokens HTTP/1.1\r\n{host}".encode()

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - a provider has no slots
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        data = self._asked(request, stream=True)
        exchange: Exchange | None = None
        try:
            exchange = await self._client.request(data, timeouts or _TIMEOUTS, total_s=deadline_s)
            if exchange.status != 200:
                raise await self._refusal(exchange)
            parser, reader = EventParser(), said.StreamReader()
            while data := await exchange.read():
                for event in parser.feed(data):
                    chunk = reader.read(event)
                    if chunk is not None:
                        yield chunk
                    if reader.is_over:
                        exchange.finish()
                        return
            raise UpstreamError("the provider ended its stream before the answer was complete")
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
        data = self._asked(request, stream=False)
        return await self._whole(data, said.read_whole, deadline_s=deadline_s, timeouts=timeouts)

    async def count(self, request: GenerateRequest, *, deadline_s: float) -> int:
        """Implements `ports.engine.TokenCounter`: the provider counts."""
        data = _posted(self._counting, request, outbound.write_count(request, model=self._model))
        return await self._whole(data, said.read_count, deadline_s=deadline_s, timeouts=None)

    async def embed(
        self,
        request: EmbedRequest,  # noqa: ARG002 - the port's shape
        *,
        deadline_s: float,  # noqa: ARG002 - the port's shape
        timeouts: Timeouts | None = None,  # noqa: ARG002 - the port's shape
    ) -> Embeddings:
        raise NotSupported("this provider has no embeddings; see the endpoint's tasks")

    async def load(self) -> Load:
        return Load()

    async def health(self, *, deadline_s: float) -> Health:
        """One token, as of every engine."""
        try:
            answer = await self.complete(_PROBE, Placement(), deadline_s=deadline_s)
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        is_ok = answer.usage is not None and answer.usage.output > 0
        return Health(ok=is_ok, reason="" if is_ok else "the provider answered without a token")

    async def aclose(self) -> None:
        self._client.close()
        self._sweeper.stop_when_empty()

    def _asked(self, request: GenerateRequest, *, stream: bool) -> bytes:
        body = outbound.write_request(
            request, model=self._model, stream=stream, prompt_cache=self._prompt_cache
        )
        return _posted(self._messages, request, body)

    async def _whole(
        self, data: bytes, read: Callable[[bytes], _T], *, deadline_s: float, timeouts: Timeouts | None
    ) -> _T:
        exchange: Exchange | None = None
        try:
            exchange = await self._client.request(data, timeouts or _TIMEOUTS, total_s=deadline_s, whole=True)
            if exchange.status != 200:
                raise await self._refusal(exchange)
            return read(exchange.whole_body())
        except HttpFailure as exc:
            has_begun = exchange is not None and exchange.status == 200
            raise translated(exc, self.info.name, has_begun=has_begun) from exc
        except UpstreamError as exc:
            exc.has_begun = exchange is not None and exchange.status == 200
            raise
        finally:
            if exchange is not None:
                exchange.release()

    async def _refusal(self, exchange: Exchange) -> PilothouseError:
        """The error that an answer other than 200 stands for."""
        fault = said.read_fault(await exchange.read_all(MAX_ERROR_BYTES))
        status = exchange.status
        if status == 400 and fault.message.startswith(_TOO_LONG):
            return ContextLengthExceeded("the prompt is too long for the provider's model", param="messages")
        if status in (401, 403):
            return UpstreamError(f"the provider refused the key of this deployment ({status})")
        if status == 404:
            return UpstreamError("the provider knows no such model, or this deployment's key may not use it")
        if status == 413:
            return RequestTooLarge("the provider takes no request of this size; shorten it")
        if status in (400, 422):
            return InvalidRequest("the provider refused the request as invalid; check its fields")
        if status in (429, 503, 529):
            return Overloaded(
                "the provider takes no more requests now; try again",
                retry_after_s=retry_after_s(exchange.headers.get(b"retry-after", b"")),
            )
        if status == 504:
            return DeadlineExceeded("the provider did not answer in its own time")
        return UpstreamError(f"the provider answered {status}")


def _posted(head: bytes, request: GenerateRequest, body: bytes) -> bytes:
    version = outbound.version_of(request).encode()
    return b"%santhropic-version: %s\r\ncontent-length: %d\r\n\r\n%s" % (head, version, len(body), body)
