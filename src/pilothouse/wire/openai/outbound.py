"""
To and from an engine that speaks the OpenAI dialect.

What is sent is built from a valid request, field by field; what comes back is
read by typed decoders (`said`) that know only what is used.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from pilothouse.domain.chat import Aside, Embeddings, EmbedRequest, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.openai.fields import NULL
from pilothouse.wire.openai.said import (
    Choice,
    EngineFault,
    Said,
    Text,
    TokenCounts,
    decode_faulted,
    decode_said,
    decode_vectors,
)
from pilothouse.wire.openai.same_event import SameEvent

_encode: Final = msgspec.json.Encoder().encode
_STREAMED: Final = b',"stream":true,"stream_options":{"include_usage":true}'
_PROGRESS: Final = b',"return_progress":true'
"""llama.cpp sees that its caller is gone when it writes: so let it write while it reads a long prompt."""

# A global of a module that is not compiled is looked up at each use; these are not.
_null: Final = NULL
_decode_said: Final = decode_said
_new_usage: Final = Usage
_values_of: Final = msgspec.structs.astuple
"""Of a struct, in the order of its fields: reading each by its name costs as much as this does."""


class RequestWriter:
    """
    Writes the bodies of requests to one engine.

    Args:
        model: The name it knows its model by.
    """

    __slots__ = ("_chat", "_completion")

    def __init__(self, model: str) -> None:
        self._chat = b'{"model":%s,"messages":' % _encode(model)
        self._completion = b'{"model":%s,"prompt":' % _encode(model)

    def write(
        self,
        request: GenerateRequest,
        *,
        stream: bool,
        slot: int | None = None,
        reuse_prefix: bool | None = None,
    ) -> list[bytes | Raw]:
        """
        The body in parts, for a prompt may be long and is copied once at most.

        Args:
            slot: `id_slot`, where the engine is llama.cpp's server.
            reuse_prefix: `cache_prompt`, likewise; None leaves out what only llama.cpp knows.
        """
        sampling, limit, choices = request.sampling_json, request.max_tokens, request.choices
        rest = b"," + sampling[1:-1] if len(sampling) > 2 else b""
        if limit is not None:
            rest += b',"max_tokens":%d' % limit
        if choices > 1:
            rest += b',"n":%d' % choices
        if stream:
            rest += _STREAMED
            if reuse_prefix is not None:
                rest += _PROGRESS
        if reuse_prefix is not None:
            rest += b',"cache_prompt":%s' % (b"true" if reuse_prefix else b"false")
        if slot is not None:
            rest += b',"id_slot":%d' % slot
        opening = self._chat if request.kind == "chat" else self._completion
        return [opening, request.prompt, rest, b"}"]


def write_embed(request: EmbedRequest, *, model: str) -> bytes:
    return _encode({"model": model, "input": request.inputs, "encoding_format": "float"})


class AnswerReader:
    """
    Reads the events of one streamed answer, in their order.

    Args:
        refused: The error that an event of an error stands for, where the request is what is wrong.
    """

    __slots__ = ("_choices", "_ended", "_refused", "_same", "is_over")

    def __init__(self, choices: int, refused: Callable[[bytes], PilothouseError | None]) -> None:
        self._choices = choices
        self._refused = refused
        self._ended: set[int] = set()
        self._same = SameEvent(read_said)
        self.is_over = False
        """The engine said that no event follows."""

    def read(self, data: bytes) -> Chunk | None:
        """
        None for what says nothing: a bare role, how far the prompt was read, the terminator.

        Raises:
            UpstreamError: It is none of an answer, or it goes on behind the answer's end.
            PilothouseError: What `refused` makes of it.
        """
        if data == b"[DONE]":
            self.is_over = True
            return None
        chunk = self._same.chunk_of(data)
        if chunk is not None and not self._ended:
            return chunk
        if chunk is None:
            chunk = self._decoded(data)
        says_something = chunk.usage is not None
        for delta in chunk.deltas:
            text = delta.text
            if text and self._ended and delta.index in self._ended:
                raise UpstreamError("the engine went on behind the end of its answer")
            if delta.finish_reason:
                says_something = True
                self._ended.add(delta.index)
            elif text or delta.logprobs is not None or delta.aside is not None:
                says_something = True
        return chunk if says_something else None

    def _decoded(self, data: bytes) -> Chunk:
        try:
            chunk = read_said(data)
        except UpstreamError as exc:
            raise self._refused(data) or exc from None
        self._same.remember(data, chunk)
        return chunk

    def end(self) -> None:
        """
        Raises:
            UpstreamError: Not every choice came to its end.
        """
        if len(self._ended) < self._choices:
            raise UpstreamError("the engine ended its stream before the answer was complete")


def read_said(data: bytes) -> Chunk:
    """
    One event of a stream, or a whole answer.

    Raises:
        UpstreamError: It is no such thing, or it is an error.
    """
    try:
        said: Said = _decode_said(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the engine's answer cannot be read") from exc
    choices, usage, error = said.choices, said.usage, said.error
    if error is not _null and bytes(error) != b"null":
        raise UpstreamError("the engine broke off with an error")
    deltas = (_delta(choices[0]),) if len(choices) == 1 else tuple([_delta(choice) for choice in choices])
    return Chunk(deltas, None if usage is None else _usage(usage))


def read_whole(data: bytes) -> Chunk:
    """As `read_said`, for a whole answer, which has at least one choice."""
    chunk = read_said(data)
    if not chunk.deltas:
        raise UpstreamError("the engine's answer holds no choice")
    return chunk


def _delta(choice: Choice) -> Delta:
    index, holder, message, text, finish_reason, logprobs = _values_of(choice)
    aside = None
    if text is None:
        text = ""
        holder = holder or message
        if holder is not None:
            said, refusal, reasoning_content, reasoning, tool_calls = _values_of(holder)
            text = said or ""
            if tool_calls or reasoning_content or reasoning or refusal:
                aside = _aside(holder)
    if logprobs is _null or bytes(logprobs) == b"null":
        return Delta(text, index, finish_reason, None, aside)
    return Delta(text, index, finish_reason, logprobs, aside)


def _aside(said: Text) -> Aside:
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


def _usage(usage: TokenCounts) -> Usage:
    prompt_tokens, completion_tokens, details = _values_of(usage)
    cached = (details.cached_tokens or 0) if details is not None else 0
    return _new_usage(prompt_tokens, completion_tokens, cached)


def read_vectors(data: bytes, *, count: int) -> Embeddings:
    """
    Raises:
        UpstreamError: Not embeddings, or not as many as were asked for.
    """
    try:
        said = decode_vectors(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the engine's embeddings cannot be read") from exc
    vectors = [item.embedding for item in sorted(said.data, key=lambda item: item.index)]
    if len(vectors) != count:
        raise UpstreamError(f"the engine gave {len(vectors)} embeddings for {count} texts")
    return Embeddings(vectors, _usage(said.usage) if said.usage else Usage())


def read_fault(data: bytes) -> EngineFault:
    """What an error answer says, as far as it can be read."""
    try:
        return decode_faulted(data).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return EngineFault()
