"""
Text from a server that only predicts: one call a piece, each going on where the last one ended.

Belongs here: how an answer is made of calls. Does not: how a call is made
(`_tensorflow_rest`). Where the model's signature has no state to go on from, the
answer is one call and comes as one piece.
"""

import random
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

import msgspec

from pilothouse.adapters.engines._probing import PLAIN_PROBE
from pilothouse.adapters.engines._stops import StopCutter
from pilothouse.domain.chat import Embeddings, EmbedRequest
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    NotSupported,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.status import Health, Load
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.ports.engine import EngineInfo, Placement
from pilothouse.wire.tensorflow.chat import ChatTexts, prompt_of
from pilothouse.wire.tensorflow.signature import (
    Binding,
    Piece,
    Signature,
    bind,
    read_row,
    refuse_unbound,
    row_of,
)

_TOO_LONG = "too_long"
_SEEDS = 2**31


class Opened(Protocol):
    def release(self) -> None: ...


class Server(Protocol):
    """How one call is made."""

    async def signatures(self, *, deadline_s: float) -> Mapping[str, Signature] | None: ...

    async def predict(
        self, binding: Binding, row: Mapping[str, Any], *, deadline_s: float, timeouts: Timeouts | None
    ) -> Mapping[str, Any]:
        """The tensors of the row's answer, by name."""
        ...

    async def aclose(self) -> None: ...


class Host(Protocol):
    """What our own host adds: it knows which answers are open, also between their pieces."""

    async def open(self, *, deadline_s: float) -> Opened: ...

    async def load(self) -> Load: ...


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the deployment says of the model: see `TensorFlowOptions`."""

    signature: str = ""
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    chat: ChatTexts | None = None
    piece_tokens: int


class TensorFlowEngine:
    """
    Implements `ports.engine.Engine`.

    Args:
        host: Where the server is ours.
    """

    def __init__(
        self, info: EngineInfo, server: Server, reading: Reading, *, host: Host | None = None
    ) -> None:
        self.info = info
        self._server = server
        self._reading = reading
        self._host = host
        self._binding: Binding | None = None
        self._random = random.Random()  # noqa: S311 - seeds of samples, no secrets

    async def stream(
        self,
        request: GenerateRequest,
        placement: Placement,  # noqa: ARG002 - it has no slots
        *,
        deadline_s: float,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Chunk, None]:
        until = time.monotonic() + deadline_s
        prompt = prompt_of(request, self._reading.chat)
        opened = await self._host.open(deadline_s=deadline_s) if self._host else None
        try:
            binding = await self._bound(_left(until))
            refuse_unbound(binding, request)
            pieces = self._pieces(binding, request, prompt, until=until, timeouts=timeouts)
            async with aclosing(pieces):
                async for chunk in _said(pieces, binding, request):
                    yield chunk
        except InvalidRequest:
            self._binding = None  # another version of the model may want other tensors
            raise
        finally:
            if opened is not None:
                opened.release()

    async def complete(
        self,
        request: GenerateRequest,  # noqa: ARG002 - the port's shape
        placement: Placement,  # noqa: ARG002 - the port's shape
        *,
        deadline_s: float,  # noqa: ARG002 - the port's shape
        timeouts: Timeouts | None = None,  # noqa: ARG002 - the port's shape
    ) -> Chunk:
        raise NotSupported("this engine is asked piece by piece")

    async def embed(
        self,
        request: EmbedRequest,  # noqa: ARG002 - the port's shape
        *,
        deadline_s: float,  # noqa: ARG002 - the port's shape
        timeouts: Timeouts | None = None,  # noqa: ARG002 - the port's shape
    ) -> Embeddings:
        raise NotSupported("this engine gives no embeddings; see the endpoint's tasks")

    async def load(self) -> Load:
        return await self._host.load() if self._host else Load()

    async def health(self, *, deadline_s: float) -> Health:
        try:
            async with aclosing(self.stream(PLAIN_PROBE, Placement(), deadline_s=deadline_s)) as chunks:
                text = "".join([delta.text async for chunk in chunks for delta in chunk.deltas])
        except PilothouseError as exc:
            return Health(ok=False, reason=exc.message)
        return Health(ok=bool(text), reason="" if text else "the engine answered without a token")

    async def aclose(self) -> None:
        await self._server.aclose()

    async def _bound(self, deadline_s: float) -> Binding:
        if self._binding is None:
            told = await self._server.signatures(deadline_s=deadline_s)
            self._binding = bind(
                told,
                signature=self._reading.signature,
                inputs=self._reading.inputs,
                outputs=self._reading.outputs,
            )
        return self._binding

    async def _pieces(
        self,
        binding: Binding,
        request: GenerateRequest,
        prompt: str,
        *,
        until: float,
        timeouts: Timeouts | None,
    ) -> AsyncGenerator[tuple[Piece, bool], None]:
        """Each with whether it is the last."""
        left = request.max_tokens or self.info.context_tokens
        if not left:
            raise InvalidRequest(
                "max_tokens: say how long the answer may be, for neither the request nor the deployment's "
                "engine_options.context_tokens does",
                param="max_tokens",
            )
        values = self._values(request, prompt)
        size = 1 if binding.goes_on else left
        while True:
            values["max_tokens"] = min(size, left)
            said = await self._server.predict(
                binding, row_of(binding, values), deadline_s=_left(until), timeouts=timeouts
            )
            piece = read_row(binding, said)
            if piece.finish_reason == _TOO_LONG:
                raise self._too_long(piece, request)
            left -= values["max_tokens"]
            ends = piece.finish_reason == "stop" or left <= 0 or piece.state is None
            yield piece, ends
            if ends:
                return
            values |= {"prompt": "", "state": piece.state}
            size = min(2 * size, self._reading.piece_tokens)

    def _values(self, request: GenerateRequest, prompt: str) -> dict[str, Any]:
        asked = request.sampling
        given = {name: getattr(asked, name) for name in ("temperature", "top_p", "top_k", "min_p")}
        given |= {name: getattr(asked, name) for name in ("frequency_penalty", "presence_penalty")}
        seed = self._random.randrange(_SEEDS) if asked.seed is None else asked.seed % _SEEDS
        return {
            "prompt": prompt,
            "state": "",
            "context_tokens": self.info.context_tokens or _SEEDS - 1,
            "seed": seed,
        } | {name: value for name, value in given.items() if value is not None}

    def _too_long(self, piece: Piece, request: GenerateRequest) -> ContextLengthExceeded:
        param = "messages" if request.kind == "chat" else "prompt"
        return ContextLengthExceeded.counted(piece.prompt_tokens, self.info.context_tokens, param=param)


async def _said(
    pieces: AsyncGenerator[tuple[Piece, bool], None], binding: Binding, request: GenerateRequest
) -> AsyncGenerator[Chunk, None]:
    """Pieces as chunks, with stop texts cut, and the usage at the end where the model counts."""
    cutter = StopCutter(request.sampling.stop or ())
    heard = said = 0
    async for piece, is_last in pieces:
        heard += piece.prompt_tokens
        said += piece.completion_tokens
        text = cutter.feed(piece.text)
        if is_last and not cutter.has_stopped:
            text += cutter.close()
        if is_last or cutter.has_stopped:
            reason = "stop" if cutter.has_stopped else _reason(piece)
            yield Chunk((Delta(text, finish_reason=reason),), Usage(heard, said) if binding.counts else None)
            return
        if text:
            yield Chunk((Delta(text),))


def _reason(piece: Piece) -> str:
    """A signature that does not say why it ended is taken to have ended by itself."""
    if piece.finish_reason not in ("", "stop", "length"):
        raise UpstreamError("the model ended for a reason that nobody knows")
    return piece.finish_reason or "stop"


def _left(until: float) -> float:
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceeded("the tensorflow engine did not answer in time")
    return left_s
