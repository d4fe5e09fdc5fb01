"""
A TorchServe that somebody else runs, with a handler of their own: text in, text out.

TorchServe fixes neither what a handler is asked nor what it says, so this is what
text handlers share: the prompt is the body, and the answer is the body that comes
back, in pieces where the handler streams. What such a handler cannot be asked is
refused by name.
"""

import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

import msgspec

from pilothouse.adapters.engines._asking import MAX_ERROR_BYTES, TIMEOUTS, client_of, translated
from pilothouse.adapters.engines._attached import bearer, pinned
from pilothouse.adapters.engines._openai_http import parsed_address
from pilothouse.adapters.engines._probing import PLAIN_PROBE
from pilothouse.adapters.engines._stops import StopCutter
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import NotSupported, PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.kit.cohort import Cohort
from pilothouse.kit.http1.client import Exchange, HttpFailure, request_bytes
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.kit.http1.sweep import Sweeper
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.torchserve import answers


class PlainTorchServeEngine:
    """
    Implements `ports.engine.Engine`.

    Args:
        address: Of its inference API, such as `http://127.0.0.1:8080`.
        model: As it is registered there, with `/<version>` behind it where one is meant.
        token: Its inference key, "" without one.

    Raises:
        OperationFailed: The address is malformed or not allowed.
    """

    def __init__(
        self,
        info: EngineInfo,
        address: str,
        *,
        model: str,
        token: str,
        allow_private: bool,
        cohort: Cohort | None = None,
    ) -> None:
        self.info = info
        _, base, where = parsed_address(address)
        self._target = f"{base}/predictions/{quote(model)}"
        line = f"{bearer(token)}\r\n" if token else ""
        self._headers = f"content-type: text/plain; charset=utf-8\r\n{line}".encode()
        self._sweeper = Sweeper()
        self._client = client_of(
            where,
            self._sweeper,
            pin=pinned(address, allow_private=allow_private),
            cohort=cohort,
        )

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - it has no places that we know of
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        body = prompt_of(request)
        host = self._client.address.host_header
        exchange: Exchange | None = None
        try:
            data = request_bytes("POST", self._target, host, self._headers, body)
            exchange = await self._client.request(data, timeouts or TIMEOUTS, total_s=deadline_s)
            if exchange.status != 200:
                fault = answers.read_fault(await exchange.read_all(MAX_ERROR_BYTES))
                raise answers.strangers_refusal(exchange.status, fault)
            async with aclosing(texts_of(exchange, request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except HttpFailure as exc:
            raise translated(exc, self.info.name) from exc
        finally:
            if exchange is not None:
                exchange.release()

    async def complete(
        self,
        request: GenerateRequest,  # noqa: ARG002 - `info.whole` says no
        placement: Placement,  # noqa: ARG002
        *,
        deadline_s: float,  # noqa: ARG002
        timeouts: Timeouts | None = None,  # noqa: ARG002
    ) -> Chunk:
        raise NotSupported("TorchServe's answers are streamed")

    async def embed(
        self,
        request: EmbedRequest,  # noqa: ARG002 - a handler of text is asked for text
        *,
        deadline_s: float,  # noqa: ARG002
        timeouts: Timeouts | None = None,  # noqa: ARG002
    ) -> Embeddings:
        raise NotSupported("this model does not do that; see the endpoint's tasks")

    async def load(self) -> Load:
        return Load()

    async def health(self, *, deadline_s: float) -> Health:
        """A first piece of text."""
        try:
            async with aclosing(self.stream(PLAIN_PROBE, Placement(), deadline_s=deadline_s)) as chunks:
                async for chunk in chunks:
                    if any(delta.text for delta in chunk.deltas):
                        return Health(ok=True)
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        return Health(ok=False, reason="the engine answered without a text")

    async def aclose(self) -> None:
        self._client.close()
        self._sweeper.stop_when_empty()


def prompt_of(request: GenerateRequest) -> bytes:
    """
    Raises:
        NotSupported: It asks for what a handler of text cannot be told.
    """
    asked = set(msgspec.to_builtins(request.sampling, builtin_types=(msgspec.Raw,))) - {"stop"}
    if request.choices > 1:
        asked.add("n")
    if asked:
        names = ", ".join(sorted(asked))
        raise NotSupported(f"an attached TorchServe is told the prompt alone, not {names}", param=min(asked))
    if request.kind != "completion":
        raise NotSupported("an attached TorchServe has no chats: ask it by /v1/completions", param="messages")
    return msgspec.json.decode(request.prompt, type=str).encode()


async def texts_of(exchange: Exchange, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    """
    What comes, as text, until a stop text or `max_tokens` pieces.

    A piece has a token at least: so nobody gets fewer tokens than were allowed.
    """
    cutter = StopCutter(request.sampling.stop or ())
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces, finish = 0, "stop"
    try:
        while data := await exchange.read():
            if text := cutter.feed(decoder.decode(data)):
                yield Chunk((Delta(text),))
            pieces += 1
            if cutter.has_stopped:
                break
            if pieces == request.max_tokens and not exchange.is_complete:
                finish = "length"
                break
        else:
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        raise UpstreamError("TorchServe's handler said what is no text") from exc
    rest = "" if cutter.has_stopped else cutter.close()
    yield Chunk((Delta(rest, finish_reason=finish),))
