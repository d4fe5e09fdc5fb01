"""
To and from an engine that speaks the OpenAI dialect.

What is sent is built from a valid request, field by field; what comes back is
read by typed decoders that know only what is used.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from pilothouse.domain.chat import (
    Aside,
    Chunk,
    Delta,
    Embeddings,
    EmbedRequest,
    GenerateRequest,
    ToolCall,
    Usage,
)
from pilothouse.domain.errors import UpstreamError

_encode = msgspec.json.Encoder().encode
_STREAMED = b',"stream":true,"stream_options":{"include_usage":true}'
_PROGRESS = b',"return_progress":true'
"""llama.cpp sees that its caller is gone when it writes: so let it write while it reads a long prompt."""


def write_request(
    request: GenerateRequest,
    *,
    model: str,
    stream: bool,
    slot: int | None = None,
    reuse_prefix: bool | None = None,
) -> bytes:
    """
    The body of a request to an engine.

    Args:
        slot: `id_slot`, where the engine is llama.cpp's server.
        reuse_prefix: `cache_prompt`, likewise; None leaves out what only llama.cpp knows.
    """
    sampling = _encode(request.sampling)
    rest = b"," + sampling[1:-1] if len(sampling) > 2 else b""
    if request.max_tokens is not None:
        rest += b',"max_tokens":%d' % request.max_tokens
    if request.choices > 1:
        rest += b',"n":%d' % request.choices
    if stream:
        rest += _STREAMED
        if reuse_prefix is not None:
            rest += _PROGRESS
    if reuse_prefix is not None:
        rest += b',"cache_prompt":%s' % (b"true" if reuse_prefix else b"false")
    if slot is not None:
        rest += b',"id_slot":%d' % slot
    name = b"messages" if request.kind == "chat" else b"prompt"
    return b'{"model":%s,"%s":%s%s}' % (_encode(model), name, request.prompt, rest)


def write_embed(request: EmbedRequest, *, model: str) -> bytes:
    return _encode({"model": model, "input": request.inputs, "encoding_format": "float"})


_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""Tokens: bounded, for sums are made of what an engine says."""


_NULL = Raw(b"null")
"""For fields that are carried as they are: msgspec takes Raw alone, not in a union with None."""


class _PromptDetails(Struct):
    cached_tokens: _Count | None = None


class _Usage(Struct):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: Annotated[int, Meta(ge=0, le=1000)] | None = None
    id: str | None = None
    function: _Function | None = None


class _Text(Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """As newer vLLM names it."""
    tool_calls: list[_Call] | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Text | None = None
    message: _Text | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Raw = _NULL


class _Said(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Raw = _NULL


class _Vector(Struct):
    embedding: list[float]
    index: int = 0


class _Vectors(Struct):
    data: list[_Vector]
    usage: _Usage | None = None


class EngineFault(Struct):
    """What an engine says of an error; its text never reaches a caller."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _Faulted(Struct):
    error: EngineFault


_decode_said = msgspec.json.Decoder(_Said).decode
_decode_vectors = msgspec.json.Decoder(_Vectors).decode
_decode_faulted = msgspec.json.Decoder(_Faulted).decode


def read_said(data: bytes) -> Chunk:
    """
    One event of a stream, or a whole answer.

    Raises:
        UpstreamError: It is no such thing, or it is an error.
    """
    try:
        said = _decode_said(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the engine's answer cannot be read") from exc
    if said.error is not _NULL and bytes(said.error) != b"null":
        raise UpstreamError("the engine broke off with an error")
    choices = said.choices
    deltas = (_delta(choices[0]),) if len(choices) == 1 else tuple([_delta(choice) for choice in choices])
    return Chunk(deltas, None if said.usage is None else _usage(said.usage))


def read_whole(data: bytes) -> Chunk:
    """As `read_said`, for a whole answer, which has at least one choice."""
    chunk = read_said(data)
    if not chunk.deltas:
        raise UpstreamError("the engine's answer holds no choice")
    return chunk


def _delta(choice: _Choice) -> Delta:
    text = choice.text
    aside = None
    if text is None:
        holder = choice.delta or choice.message
        text = ""
        if holder is not None:
            text = holder.content or ""
            if holder.tool_calls or holder.reasoning_content or holder.reasoning or holder.refusal:
                aside = _aside(holder)
    logprobs = choice.logprobs
    if logprobs is _NULL or bytes(logprobs) == b"null":
        if aside is None:
            return Delta(text, choice.index, choice.finish_reason)
        return Delta(text, choice.index, choice.finish_reason, None, aside)
    return Delta(text, choice.index, choice.finish_reason, logprobs, aside)


def _aside(said: _Text) -> Aside:
    """Calls in a whole answer have no index: their order is theirs."""
    calls = [
        ToolCall(
            i if call.index is None else call.index,
            call.id or "",
            (call.function.name if call.function else None) or "",
            (call.function.arguments if call.function else None) or "",
        )
        for i, call in enumerate(said.tool_calls or ())
    ]
    return Aside(said.reasoning_content or said.reasoning or "", said.refusal or "", tuple(calls))


def _usage(usage: _Usage) -> Usage:
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached)


def read_vectors(data: bytes, *, count: int) -> Embeddings:
    """
    Raises:
        UpstreamError: Not embeddings, or not as many as were asked for.
    """
    try:
        said = _decode_vectors(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the engine's embeddings cannot be read") from exc
    vectors = [item.embedding for item in sorted(said.data, key=lambda item: item.index)]
    if len(vectors) != count:
        raise UpstreamError(f"the engine gave {len(vectors)} embeddings for {count} texts")
    return Embeddings(vectors, _usage(said.usage) if said.usage else Usage())


def read_fault(data: bytes) -> EngineFault:
    """What an error answer says, as far as it can be read."""
    try:
        return _decode_faulted(data).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return EngineFault()
