"""
What Bedrock answers: a whole answer, the messages of a stream, an error.

A stream is read strictly: a message that cannot stand where it does is the provider's
fault, and so is a stream that ends before its metadata, which come last.
"""

from base64 import b64encode
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from pilothouse.domain.chat import Aside, Thought, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire import marks
from pilothouse.wire.bedrock.eventstream import Message

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_TOO_LONG = (
    "Input is too long",
    "prompt is too long",
    "exceed context limit",
    "maximum context length",
    "Too many input tokens",
)
"""Words of several vendors' models, all with status 400."""
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""Tokens: bounded, for sums are made of what a provider says."""


class _Usage(Struct, rename="camel"):
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    cache_read_input_tokens: _Count = 0
    cache_write_input_tokens: _Count = 0


class _ToolUse(Struct, rename="camel"):
    tool_use_id: str = ""
    name: str = ""
    input: dict[str, Any] = {}
    type: str = ""
    """Of calls that Bedrock answers itself."""


class _ToolPiece(Struct):
    input: str = ""


class _ReasoningText(Struct):
    text: str = ""
    signature: str = ""


class _Reasoning(Struct, rename="camel"):
    """Of a whole answer, or a piece of one: there, text and signature stand in it themselves."""

    text: str = ""
    signature: str = ""
    redacted_content: bytes = b""
    reasoning_text: _ReasoningText | None = None


class _Block(Struct, rename="camel"):
    text: str = ""
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None


class _Start(Struct, rename="camel"):
    tool_use: _ToolUse | None = None


class _Delta(Struct, rename="camel"):
    text: str = ""
    tool_use: _ToolPiece | None = None
    reasoning_content: _Reasoning | None = None


class _Event(Struct, rename="camel"):
    """The payload of any event: which one it is, its header says."""

    content_block_index: int = -1
    start: _Start | None = None
    delta: _Delta | None = None
    stop_reason: str = ""
    usage: _Usage | None = None


class _Message(Struct):
    content: list[_Block] = []


class _Output(Struct):
    message: _Message | None = None


class _Whole(Struct, rename="camel"):
    output: _Output
    stop_reason: str
    usage: _Usage


class _Fault(Struct):
    message: str = ""


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_fault = msgspec.json.Decoder(_Fault).decode
_encode = msgspec.json.Encoder().encode


class StreamReader:
    """Reads one answer's messages, in their order."""

    __slots__ = (
        "_block",
        "_calls",
        "_finish",
        "_has_arguments",
        "_is_begun",
        "_redacted",
        "_signature",
        "_thought",
        "is_over",
    )

    def __init__(self) -> None:
        self.is_over = False
        self._is_begun = False
        self._finish = ""
        self._block = -1
        """The block that calls a tool of the caller's, while it is open."""
        self._calls = -1
        self._has_arguments = False
        self._thought: list[str] = []
        self._signature = ""
        self._redacted = b""

    def end(self) -> None:
        """
        Raises:
            UpstreamError: Always: the last message of an answer is its metadata.
        """
        raise UpstreamError("the provider ended its stream before the answer was complete")

    def read(self, message: Message) -> Chunk | None:
        """
        What one message says; None where it says nothing to a caller.

        Raises:
            UpstreamError: It cannot be read, stands in the wrong place, or is an error.
            InvalidRequest: The provider refused the request within its stream.
            Overloaded: The provider broke off, for it has too much to do.
        """
        kind = message.headers.get(":message-type")
        if kind == "exception":
            raise broken_off(message.headers.get(":exception-type", ""), read_fault(message.payload))
        if kind != "event":
            raise UpstreamError("the provider broke off with an error")
        name = message.headers.get(":event-type", "")
        if name not in _READ:
            return None  # what a newer release has
        try:
            event = _decode_event(message.payload)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
            raise UpstreamError("the provider's stream holds an event that cannot be read") from exc
        if name == "messageStart":
            if self._is_begun:
                raise _misplaced(name)
            self._is_begun = True
            return None
        if not self._is_begun:
            raise _misplaced(name)
        if name == "metadata":
            return self._end(event.usage)
        if self._finish:
            raise _misplaced(name)
        if name == "contentBlockDelta":
            return self._delta(event)
        if name == "contentBlockStart":
            return self._start(event)
        if name == "contentBlockStop":
            return self._stop(event)
        self._finish = finish_of(event.stop_reason)
        return None

    def _start(self, event: _Event) -> Chunk | None:
        call = event.start.tool_use if event.start is not None else None
        if call is None or call.type:
            return None
        if self._block >= 0:
            raise _misplaced("contentBlockStart")
        self._block = event.content_block_index
        self._calls += 1
        self._has_arguments = False
        return _call(ToolCall(self._calls, call.tool_use_id, call.name))

    def _delta(self, event: _Event) -> Chunk | None:
        piece = event.delta
        if piece is None:
            raise _misplaced("contentBlockDelta")
        if piece.text:
            return Chunk((Delta(piece.text),))
        if piece.tool_use is not None and piece.tool_use.input:
            if event.content_block_index != self._block:
                return None  # of a tool that the provider runs itself
            self._has_arguments = True
            return _call(ToolCall(self._calls, "", "", piece.tool_use.input))
        if piece.reasoning_content is not None:
            return self._think(piece.reasoning_content)
        return None

    def _think(self, piece: _Reasoning) -> Chunk | None:
        self._signature += piece.signature
        self._redacted += piece.redacted_content
        if not piece.text:
            return None
        self._thought.append(piece.text)
        return _beside(Aside(piece.text))

    def _stop(self, event: _Event) -> Chunk | None:
        if event.content_block_index != self._block:
            return self._thought_of(event.content_block_index)
        self._block = -1
        return None if self._has_arguments else _call(ToolCall(self._calls, "", "", "{}"))

    def _thought_of(self, block: int) -> Chunk | None:
        """The thought that this block was, where it is one that is to be given back."""
        kept = _kept("".join(self._thought), self._signature, self._redacted, block)
        self._thought, self._signature, self._redacted = [], "", b""
        return None if kept is None else _beside(Aside(thoughts=(kept,)))

    def _end(self, usage: _Usage | None) -> Chunk:
        if not self._finish or self._block >= 0:
            raise _misplaced("metadata")
        self.is_over = True
        return Chunk((Delta("", 0, self._finish),), None if usage is None else _usage(usage))


_READ = frozenset(
    {
        *("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop"),
        *("messageStop", "metadata"),
    }
)


def read_whole(data: bytes) -> Chunk:
    """
    Raises:
        UpstreamError: It is no answer that has ended.
    """
    try:
        answer = _decode_whole(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the provider's answer cannot be read") from exc
    blocks = answer.output.message.content if answer.output.message is not None else []
    text = "".join([block.text for block in blocks])
    thoughts = "".join([_thought(block.reasoning_content).text for block in blocks])
    calls = [block.tool_use for block in blocks if block.tool_use is not None and not block.tool_use.type]
    tools = tuple(
        ToolCall(i, call.tool_use_id, call.name, _encode(call.input).decode()) for i, call in enumerate(calls)
    )
    kept = tuple([one for i, block in enumerate(blocks) if (one := _kept_of(block, i)) is not None])
    aside = Aside(thoughts, "", tools, kept) if thoughts or tools or kept else None
    return Chunk((Delta(text, 0, finish_of(answer.stop_reason), None, aside),), _usage(answer.usage))


_NO_THOUGHT = _ReasoningText()


def _thought(reasoning: _Reasoning | None) -> _ReasoningText:
    return (reasoning and reasoning.reasoning_text) or _NO_THOUGHT


def _kept_of(block: _Block, number: int) -> Thought | None:
    reasoning = block.reasoning_content
    if reasoning is None:
        return None
    said = _thought(reasoning)
    return _kept(said.text, said.signature, reasoning.redacted_content, number)


def _kept(text: str, signature: str, redacted: bytes, block: int) -> Thought | None:
    """A thought that is to be given back; one without a signature is only read."""
    if redacted:
        return Thought(data=marks.BEDROCK + b64encode(redacted).decode(), block=block)
    return Thought(text, signature, "", block) if signature else None


def read_fault(data: bytes) -> str:
    """What an error says, as far as it can be read; it never reaches a caller."""
    try:
        return _decode_fault(data).message
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""


def is_too_long(fault: str) -> bool:
    return any(words in fault for words in _TOO_LONG)


def finish_of(stop_reason: str) -> str:
    """
    Raises:
        UpstreamError: The model failed: what it said is malformed, or no reason that is known.
    """
    if stop_reason not in _FINISH:
        raise UpstreamError("the provider's model ended without an answer that can be used")
    return _FINISH[stop_reason]


def broken_off(kind: str, fault: str) -> PilothouseError:
    """The error that a provider says after a good status."""
    if kind in ("throttlingException", "serviceUnavailableException"):
        return Overloaded("the provider broke off: it has too much to do; try again", retry_after_s=1.0)
    if kind == "validationException":
        if is_too_long(fault):
            return ContextLengthExceeded("the prompt is too long for the provider's model", param="messages")
        return InvalidRequest("the provider refused the request as invalid; check its fields")
    if kind == "modelTimeoutException":
        return DeadlineExceeded("the provider did not answer in its own time")
    return UpstreamError("the provider broke off with an error")


def _usage(usage: _Usage) -> Usage:
    cached, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    return Usage(usage.input_tokens + cached + written, usage.output_tokens, cached)


def _call(call: ToolCall) -> Chunk:
    return _beside(Aside("", "", (call,)))


def _beside(aside: Aside) -> Chunk:
    return Chunk((Delta("", 0, None, None, aside),))


def _misplaced(kind: str) -> UpstreamError:
    return UpstreamError(f"the provider's stream holds {kind} where it cannot stand")
