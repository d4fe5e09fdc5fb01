"""
A provider behind Gemini's HTTP API.

Failures become errors of `domain.errors` once, here; no text of the provider's
reaches a caller.
"""

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar
from urllib.parse import quote

from msgspec import Raw

from pilothouse.adapters.engines._attached import retry_after_s
from pilothouse.adapters.engines._openai_http import MAX_ERROR_BYTES, parsed_address, translated
from pilothouse.domain.chat import Chunk, Embeddings, EmbedRequest, GenerateRequest
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
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
from pilothouse.wire.gemini import outbound, said

_TIMEOUTS = Timeouts(connect_s=5.0, idle_s=60.0)
_TOO_LONG = "exceeds the maximum number of tokens"
_BAD_KEY = "API key not valid"
"""Google's words, both with status 400."""
_PROBE = GenerateRequest(
    kind="chat",
    endpoint="",
    prompt=Raw(b'[{"role":"user","content":"Hello"}]'),
    prompt_bytes=35,
    max_tokens=1,
)

_T = TypeVar("_T")


class GeminiEngine:
    """
    Implements `ports.engine.Engine`.

    Args:
        address: `http(s)://host[:port]`, before `/v1`.
        credential: A header line that proves who asks, "" without one.
        pin: Resolves and checks the host of `address` before each connection.
        cohort: Requests are sent with the others of their stage.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        credential: str = "",
        pin: Callable[[], Awaitable[str]] | None = None,
        cohort: Cohort | None = None,
    ) -> None:
        self.info = info
        self._model = model
        self._sweeper = Sweeper()
        _, base, where = parsed_address(address)
        tls = ssl.create_default_context() if where.tls else None
        self._client = Client(where, self._sweeper, tls=tls, pin=pin, cohort=cohort)
        line = f"{credential}\r\n" if credential else ""
        head = f"host: {where.host_header}\r\ncontent-type: application/json\r\n{line}"
        path = f"POST {base}/v1/models/{quote(model, safe='')}"
        self._generate = f"{path}:generateContent HTTP/1.1\r\n{head}".encode()
        self._stream = f"{path}:streamGenerateContent?alt=sse HTTP/1.1\r\n{head}".encode()
        self._embed = f"{path}:batchEmbedContents HTTP/1.1\r\n{head}".encode()

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - a provider has no slots
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        data = _posted(self._stream, outbound.write_request(request))
        exchange: Exchange | None = None
        try:
            exchange = await self._client.request(data, timeouts or _TIMEOUTS, total_s=deadline_s)
            if exchange.status != 200:
                raise await self._refusal(exchange)
            parser, reader = EventParser(), said.AnswerReader()
            while data := await exchange.read():
                for event in parser.feed(data):
                    chunk = reader.read(event)
                    if chunk is not None:
                        yield chunk
            if parser.is_mid_event or not reader.has_ended(request.choices):
                raise UpstreamError("the provider ended its stream before the answer was complete")
            if reader.usage is not None:
                yield Chunk((), reader.usage)
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
        data = _posted(self._generate, outbound.write_request(request))
        return await self._whole(
            data,
            lambda body: said.read_whole(body, choices=request.choices),
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    async def embed(
        self, request: EmbedRequest, *, deadline_s: float, timeouts: Timeouts | None = None
    ) -> Embeddings:
        data = _posted(self._embed, outbound.write_embed(request, model=self._model))
        return await self._whole(
            data,
            lambda body: said.read_vectors(body, count=len(request.inputs)),
            deadline_s=deadline_s,
            timeouts=timeouts,
        )

    async def load(self) -> Load:
        return Load()

    async def health(self, *, deadline_s: float) -> Health:
        """One token, as of every engine; a model that gives vectors answers nothing else."""
        try:
            answer = await self.complete(_PROBE, Placement(), deadline_s=deadline_s)
        except PilothouseError as exc:
            reason = exc.message
        else:
            is_ok = answer.usage is not None and answer.usage.input > 0
            return Health(ok=is_ok, reason="" if is_ok else "the provider answered without a token")
        try:
            await self.embed(EmbedRequest(endpoint="", inputs=["Hello"]), deadline_s=deadline_s)
        except PilothouseError:
            return Health(ok=False, reason=reason)
        return Health(ok=True)

    async def aclose(self) -> None:
        self._client.close()
        self._sweeper.stop_when_empty()

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
        if status == 400 and _TOO_LONG in fault.message:
            return ContextLengthExceeded("the prompt is too long for the provider's model", param="messages")
        if status in (401, 403) or (status == 400 and _BAD_KEY in fault.message):
            return UpstreamError(f"the provider refused the secret of this deployment ({status})")
        if status == 404:
            return UpstreamError("the provider knows no such model, or this secret may not use it")
        if status == 413:
            return RequestTooLarge("the provider takes no request of this size; shorten it")
        if status in (400, 422):
            return InvalidRequest("the provider refused the request as invalid; check its fields")
        if status in (429, 503):
            wait_s = retry_after_s(exchange.headers.get(b"retry-after", b""))
            return Overloaded("the provider takes no more requests now; try again", retry_after_s=wait_s)
        if status in (408, 504):
            return DeadlineExceeded("the provider did not answer in its own time")
        return UpstreamError(f"the provider answered {status}")


def _posted(head: bytes, body: bytes) -> bytes:
    return b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body)
