"""
What the Open Inference Protocol means for text, whichever way it goes over the wire.

Belongs here: the settings of one deployment, and how pieces of text become an answer
that ends. Does not: HTTP (`_kserve_http`) and gRPC (`_kserve_grpc`).
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from msgspec import Struct

from pilothouse.adapters.engines._stops import StopCutter
from pilothouse.domain.chat import EmbedRequest
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import InvalidRequest, NotSupported, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.tensors import InferRequest, Tensor, TensorFault, count_of, data_type
from pilothouse.domain.used_tokens import Usage
from pilothouse.ports.engine import Chunks
from pilothouse.wire.kserve_v2.about import ModelMetadata, TensorSpec
from pilothouse.wire.kserve_v2.text import Convention, ended

Task = Literal["text", "embedding", "tensors"]
PROBE_TEXT = EmbedRequest(endpoint="", inputs=["Hello"])


class Settings(Struct, frozen=True, kw_only=True):
    """How one deployment's model is asked."""

    model: str
    version: str = ""
    task: Task = "text"
    convention: Convention = Convention()
    streams: bool = True
    """The server says an answer in pieces."""


async def told(said: Chunks, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
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
        what = {"text": "text and no vectors", "embedding": "vectors and no text", "tensors": "tensors alone"}
        raise NotSupported(f"this deployment's model gives {what[settings.task]} (engine_options.task)")


def refused(fault: TensorFault) -> InvalidRequest:
    """What a request holds that cannot be sent."""
    return InvalidRequest(f"the request cannot be sent to this engine: {fault}")


def probe_of(known: ModelMetadata) -> InferRequest:
    """
    The smallest request that a model takes by what it says of itself: zeros, and empty texts.

    Raises:
        UpstreamError: It says nothing of its inputs, so nothing can be asked.
    """
    if not known.inputs:
        raise UpstreamError(
            "the server does not say which tensors the model takes, so whether it works cannot be tried; "
            "give the model its inputs in the server's own configuration"
        )
    try:
        tensors = [_zeros(one) for one in known.inputs]
    except TensorFault as exc:
        raise UpstreamError(f"what the server says of its model cannot be read: {exc}") from exc
    return InferRequest(endpoint="", inputs=tuple(tensors))


def _zeros(known: TensorSpec) -> Tensor:
    kind = data_type(known.datatype, known.name)
    shape = tuple(max(size, 1) for size in known.shape)
    zero: Any = b"" if kind == "BYTES" else False if kind == "BOOL" else 0.0 if kind.startswith("FP") else 0
    return Tensor(known.name, kind, shape, [zero] * count_of(shape, known.name))
