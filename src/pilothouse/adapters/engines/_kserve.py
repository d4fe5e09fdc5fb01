"""
What the Open Inference Protocol means for text, whichever way it goes over the wire.

Belongs here: the settings of one deployment, and how pieces of text become an answer
that ends. Does not: HTTP (`_kserve_http`) and gRPC (`_kserve_grpc`).
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from msgspec import Raw, Struct

from pilothouse.adapters.engines._stops import StopCutter
from pilothouse.domain.chat import Chunk, Delta, EmbedRequest, GenerateRequest, Usage
from pilothouse.domain.errors import InvalidRequest, NotSupported, UpstreamError
from pilothouse.domain.tensors import TensorFault
from pilothouse.wire.kserve_v2.text import Convention, ended

Task = Literal["text", "embedding"]
PROBE = GenerateRequest(kind="completion", endpoint="", prompt=Raw(b'"Hello"'), prompt_bytes=7, max_tokens=1)
PROBE_TEXT = EmbedRequest(endpoint="", inputs=["Hello"])


class Settings(Struct, frozen=True, kw_only=True):
    """How one deployment's model is asked."""

    model: str
    version: str = ""
    task: Task = "text"
    convention: Convention = Convention()
    streams: bool = True
    """The server says an answer in pieces."""


async def told(said: AsyncGenerator[Chunk, None], request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    """
    The pieces as an answer: cut before a stop text, ended with a reason, with the usage last.

    A server that does not count leaves the usage to `gateway.generate`.
    """
    cutter = StopCutter(request.sampling.stop or ())
    usage: Usage | None = None
    reason: str | None = None
    is_told = False
    async with aclosing(said):
        async for chunk in said:
            is_told = True
            usage = chunk.usage or usage
            for delta in chunk.deltas:
                reason = delta.finish_reason or reason
                if text := cutter.feed(delta.text):
                    yield Chunk((Delta(text),))
            if cutter.has_stopped:
                break
    if not is_told:
        raise UpstreamError("the engine ended its stream before it said anything")
    last = Chunk((), usage)
    if cutter.has_stopped:
        reason = "stop"
    reason = reason or ended(last, made=usage.output if usage else 0, limit=request.max_tokens)
    yield Chunk((Delta(cutter.close(), 0, reason),), usage)


async def whole(said: AsyncGenerator[Chunk, None]) -> Chunk:
    """What `told` says, at once. Where nobody counted, each character counts: no token is shorter."""
    texts: list[str] = []
    reason, usage = "stop", None
    async with aclosing(said):
        async for chunk in said:
            usage = chunk.usage or usage
            for delta in chunk.deltas:
                texts.append(delta.text)
                reason = delta.finish_reason or reason
    text = "".join(texts)
    return Chunk((Delta(text, 0, reason),), usage or Usage(0, len(text)))


def check_task(settings: Settings, task: Task) -> None:
    """
    Raises:
        NotSupported: The deployment is for something else.
    """
    if settings.task != task:
        what = {"text": "text and no vectors", "embedding": "vectors and no text"}[settings.task]
        raise NotSupported(f"this deployment's model gives {what} (engine_options.task)")


def refused(fault: TensorFault) -> InvalidRequest:
    """What a request holds that cannot be sent."""
    return InvalidRequest(f"the request cannot be sent to this engine: {fault}")
