"""
To and from an engine that speaks the OpenAI dialect.

What is sent is built from a valid request, field by field; what comes back is
read by typed decoders that know only what is used.
"""

import msgspec
from msgspec import Raw, Struct, field

from pilothouse.domain.chat import Chunk, Delta, Embeddings, EmbedRequest, GenerateRequest, Usage
from pilothouse.domain.errors import UpstreamError


class _Ask(Struct, omit_defaults=True, kw_only=True):
    model: str = field(default="")
    messages: Raw | None = None
    prompt: Raw | None = None
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    max_tokens: int | None = None
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    response_format: Raw | None = None
    id_slot: int | None = None
    cache_prompt: bool | None = None


_USAGE = {"include_usage": True}
_encode = msgspec.json.Encoder().encode


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
        reuse_prefix: `cache_prompt`, likewise; None leaves both out.
    """
    sampling = request.sampling
    is_chat = request.kind == "chat"
    return _encode(
        _Ask(
            model=model,
            messages=request.prompt if is_chat else None,
            prompt=None if is_chat else request.prompt,
            stream=stream,
            stream_options=_USAGE if stream else None,
            max_tokens=request.max_tokens,
            n=request.choices,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=sampling.seed,
            stop=sampling.stop,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            logprobs=sampling.logprobs,
            top_logprobs=sampling.top_logprobs,
            response_format=sampling.response_format,
            id_slot=slot,
            cache_prompt=reuse_prefix,
        )
    )


def write_embed(request: EmbedRequest, *, model: str) -> bytes:
    return _encode({"model": model, "input": request.inputs, "encoding_format": "float"})


class _PromptDetails(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Text(Struct):
    content: str | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Text | None = None
    message: _Text | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Raw | None = None


class _Said(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Raw | None = None


class _Vector(Struct):
    embedding: list[float]
    index: int = 0


class _Vectors(Struct):
    data: list[_Vector]
    usage: _Usage | None = None


class EngineFault(Struct):
    """What an engine says of an error; its text never reaches a caller."""

    type: str | None = None
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
    if said.error is not None:
        raise UpstreamError("the engine broke off with an error")
    return Chunk(
        tuple([_delta(choice) for choice in said.choices]),
        None if said.usage is None else _usage(said.usage),
    )


def _delta(choice: _Choice) -> Delta:
    text = choice.text
    if text is None:
        holder = choice.delta or choice.message
        text = (holder.content if holder is not None else None) or ""
    logprobs = choice.logprobs
    if logprobs is not None and bytes(logprobs) == b"null":
        logprobs = None
    return Delta(text, choice.index, choice.finish_reason, logprobs)


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
