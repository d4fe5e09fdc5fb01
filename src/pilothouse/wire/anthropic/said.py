"""
What Anthropic answers: a whole message, the events of a stream, an error.

A stream is read strictly: an event that cannot stand where it does is the provider's
fault, and so is a stream that ends before it says so.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from pilothouse.domain.chat import Aside, Thought, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import Overloaded, PilothouseError, UpstreamError
from pilothouse.domain.used_tokens import Usage

_FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""All others end an answer as it should: `stop`."""
_BUSY = frozenset({"overloaded_error", "rate_limit_error"})
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""Tokens: bounded, for sums are made of what a provider says."""


class _Usage(Struct):
    input_tokens: _Count | None = None
    output_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None


class _Block(Struct):
    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, Any] | None = None


class _Message(Struct):
    content: list[_Block] = []
    stop_reason: str | None = None
    usage: _Usage | None = None


class _Piece(Struct):
    type: str | None = None
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None


class Fault(Struct):
    """What an error says; its text never reaches a caller."""

    type: str = ""
    message: str = ""


class _Event(Struct):
    type: str
    message: _Message | None = None
    index: int = -1
    content_block: _Block | None = None
    delta: _Piece | None = None
    usage: _Usage | None = None
    error: Fault | None = None


class _Whole(_Message):
    type: str = ""
    error: Fault | None = None


class _Faulted(Struct):
    error: Fault


class _Counted(Struct):
    input_tokens: _Count


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_faulted = msgspec.json.Decoder(_Faulted).decode
_decode_counted = msgspec.json.Decoder(_Counted).decode
_encode = msgspec.json.Encoder().encode


class StreamReader:
    """Reads one answer's events, in their order."""

    __slots__ = (
        "_block",
        "_calls",
        "_has_arguments",
        "_index",
        "_is_begun",
        "_signature",
        "_thought",
        "_usage",
        "finish",
        "is_over",
    )

    def __init__(self) -> None:
        self.is_over = False
        """The provider said that all of it was said."""
        self.finish: str | None = None
        self._is_begun = False
        self._usage = Usage()
        self._block = ""
        """Type of the block that is open."""
        self._index = -1
        self._calls = -1
        self._has_arguments = False
        self._thought: list[str] = []
        self._signature = ""

    def end(self) -> None:
        """
        Raises:
            UpstreamError: Always: the last event of an answer says that it is over.
        """
        raise UpstreamError("the provider ended its stream before the answer was complete")

    def read(self, data: bytes) -> Chunk | None:
        """
        What one event says; None where it says nothing to a caller.

        Raises:
            UpstreamError: It is no event, stands in the wrong place, or is an error.
            Overloaded: The provider broke off, for it has too much to do.
        """
        try:
            event = _decode_event(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
            raise UpstreamError("the provider's stream holds an event that cannot be read") from exc
        kind = event.type
        if kind == "content_block_delta" and event.delta is not None:  # the inner loop
            return self._delta(event.index, event.delta)
        if kind == "error":
            raise broken_off(event.error)
        if kind == "message_start" and event.message is not None and not self._is_begun:
            self._is_begun = True
            self._count(event.message.usage)
            return None
        if kind == "content_block_start" and event.content_block is not None:
            return self._start(event.index, event.content_block)
        if kind == "content_block_stop":
            return self._stop(event.index)
        if kind == "message_delta" and event.delta is not None:
            return self._end(event.delta, event.usage)
        if kind == "message_stop":
            if self.finish is None or self._block:
                raise _misplaced(kind)
            self.is_over = True
            return None
        if kind in _KNOWN:
            raise _misplaced(kind)
        return None  # a ping, or what a newer release has

    def _start(self, index: int, block: _Block) -> Chunk | None:
        if not self._is_begun or self._block or index != self._index + 1 or self.finish is not None:
            raise _misplaced("content_block_start")
        self._block, self._index = block.type, index
        if block.type == "tool_use":
            self._calls += 1
            self._has_arguments = False
            return _call(ToolCall(self._calls, block.id, block.name))
        if block.text:
            return Chunk((Delta(block.text),))
        if block.type == "redacted_thinking":
            return _beside(Aside(thoughts=(Thought(data=block.data, block=index),)))
        self._thought, self._signature = [], block.signature
        return self._think(block.thinking) if block.thinking else None

    def _think(self, text: str) -> Chunk:
        self._thought.append(text)
        return _beside(Aside(text))

    def _delta(self, index: int, piece: _Piece) -> Chunk | None:
        if not self._block or index != self._index:
            raise _misplaced("content_block_delta")
        if piece.text:
            return Chunk((Delta(piece.text),))
        if piece.partial_json:
            if self._block != "tool_use":
                return None  # of a tool that the provider runs itself
            self._has_arguments = True
            return _call(ToolCall(self._calls, "", "", piece.partial_json))
        if piece.thinking:
            return self._think(piece.thinking)
        self._signature += piece.signature
        return None

    def _stop(self, index: int) -> Chunk | None:
        if not self._block or index != self._index:
            raise _misplaced("content_block_stop")
        is_empty = self._block == "tool_use" and not self._has_arguments
        is_signed = self._block == "thinking" and self._signature
        self._block = ""
        if is_signed:
            return _beside(Aside(thoughts=(Thought("".join(self._thought), self._signature, "", index),)))
        return _call(ToolCall(self._calls, "", "", "{}")) if is_empty else None

    def _end(self, piece: _Piece, usage: _Usage | None) -> Chunk | None:
        if not self._is_begun or self._block:
            raise _misplaced("message_delta")
        self._count(usage)
        if piece.stop_reason is None:
            return None
        self.finish = finish_of(piece.stop_reason)
        return Chunk((Delta("", 0, self.finish),), self._usage)

    def _count(self, usage: _Usage | None) -> None:
        """Counts are totals: what is said later stands for what was said before."""
        if usage is not None:
            known = self._usage
            heard = _usage(usage)
            self._usage = Usage(heard.input or known.input, heard.output, heard.cached or known.cached)


_KNOWN = frozenset({"message_start", "content_block_start", "content_block_delta", "message_delta"})


def read_whole(data: bytes) -> Chunk:
    """
    Raises:
        UpstreamError: It is no message, or an error that came with a good status.
    """
    try:
        message = _decode_whole(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the provider's answer cannot be read") from exc
    if message.error is not None:
        raise broken_off(message.error)
    if message.type != "message" or message.stop_reason is None:
        raise UpstreamError("the provider's answer is no message that has ended")
    calls = [block for block in message.content if block.type == "tool_use"]
    tools = tuple(
        ToolCall(i, call.id, call.name, _encode(call.input or {}).decode()) for i, call in enumerate(calls)
    )
    thoughts = "".join([block.thinking for block in message.content])
    text = "".join([block.text for block in message.content if block.type == "text"])
    kept = tuple(
        Thought(block.thinking, block.signature, block.data, i)
        for i, block in enumerate(message.content)
        if block.signature or block.type == "redacted_thinking"
    )
    aside = Aside(thoughts, "", tools, kept) if thoughts or tools or kept else None
    usage = _usage(message.usage) if message.usage is not None else None
    return Chunk((Delta(text, 0, finish_of(message.stop_reason), None, aside),), usage)


def read_count(data: bytes) -> int:
    try:
        return _decode_counted(data).input_tokens
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the provider's count of tokens cannot be read") from exc


def read_fault(data: bytes) -> Fault:
    """What an error answer says, as far as it can be read."""
    try:
        return _decode_faulted(data).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Fault()


def finish_of(stop_reason: str) -> str:
    return _FINISH.get(stop_reason, "stop")


def broken_off(fault: Fault | None) -> PilothouseError:
    """The error that a provider says after a good status."""
    if fault is not None and fault.type in _BUSY:
        return Overloaded("the provider broke off: it has too much to do; try again", retry_after_s=1.0)
    return UpstreamError("the provider broke off with an error")


def _usage(usage: _Usage) -> Usage:
    cached = usage.cache_read_input_tokens or 0
    written = usage.cache_creation_input_tokens or 0
    return Usage((usage.input_tokens or 0) + cached + written, usage.output_tokens or 0, cached)


def _call(call: ToolCall) -> Chunk:
    return _beside(Aside("", "", (call,)))


def _beside(aside: Aside) -> Chunk:
    return Chunk((Delta("", 0, None, None, aside),))


def _misplaced(kind: str) -> UpstreamError:
    return UpstreamError(f"the provider's stream holds {kind} where it cannot stand")
