"""
What Anthropic's clients get: messages, the events of a stream, errors, the list of models.

A stream's blocks come one after the other: what is said beside the text closes the
block of text, and what cannot wait for its block to be open is the engine's fault.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from pilothouse.domain.chat import Aside, Thought, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import BudgetExceeded, Overloaded, PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage

PING = b'event: ping\ndata: {"type":"ping"}\n\n'

_encode = msgspec.json.Encoder().encode
_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
"""All others are `end_turn`: engines do not say which of a caller's sequences stopped them."""
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    501: "invalid_request_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":'
_TEXT = _DELTA + b'"text_delta","text":%s}}\n\n'
_THINKING = _DELTA + b'"thinking_delta","thinking":%s}}\n\n'
_SIGNATURE = _DELTA + b'"signature_delta","signature":%s}}\n\n'
_ARGUMENTS = _DELTA + b'"input_json_delta","partial_json":%s}}\n\n'
_OPEN = b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%s}\n\n'
_CLOSE = b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n'
_START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"%s","type":"message",'
    b'"role":"assistant","model":%s,"content":[],"stop_reason":null,"stop_sequence":null,"usage":%s}}\n\n'
)
_END = (
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"%s","stop_sequence":null},'
    b'"usage":%s}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
)


class EventWriter:
    """Writes one answer's events."""

    __slots__ = (
        "_answer_id",
        "_arguments",
        "_ask",
        "_call",
        "_calls",
        "_index",
        "_is_begun",
        "_open",
        "_places",
        "_reason",
    )

    def __init__(self, ask: GenerateRequest, *, answer_id: str) -> None:
        self._ask = ask
        self._answer_id = answer_id
        self._is_begun = False
        self._open = ""
        """The type of the block that is open."""
        self._index = -1
        self._places = 0
        """Blocks that were begun, but for thoughts that nobody signed: what `Thought.block` counts."""
        self._call = -1
        """Which call of a tool is open."""
        self._calls: set[int] = set()
        self._arguments: list[str] = []
        self._reason = ""

    def chunk(self, chunk: Chunk) -> bytes:
        deltas = chunk.deltas
        if len(deltas) == 1:
            delta = deltas[0]
            if self._open == "text" and delta.aside is None and not delta.finish_reason:  # the inner loop
                return _TEXT % (self._index, _encode(delta.text)) if delta.text else b""
        return self._begin() + b"".join([self._step(delta) for delta in deltas if delta.index == 0])

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        return _START % (self._answer_id.encode(), _encode(self._ask.endpoint), usage_json(Usage()))

    def _step(self, delta: Delta) -> bytes:
        written = []
        aside = delta.aside
        thoughts: list[Thought] = []
        if aside is not None:
            thoughts = list(aside.thoughts)
            if not self._ask.hide_reasoning and (reasoning := _unsigned(aside)):
                written.append(self._thinking(reasoning))
            written.append(self._due(thoughts))
        text = delta.text
        if aside is not None and aside.refusal:
            self._reason = "refusal"
            text += aside.refusal
        if text:
            written.append(self._opened("text", b'{"type":"text","text":""}'))
            written.append(_TEXT % (self._index, _encode(text)))
        if aside is not None:
            written.append(self._due(thoughts))
            for call in aside.tools:
                written.append(self._called(call))
                written.append(self._due(thoughts))
            written.extend([self._thought(one) for one in thoughts])
        if delta.finish_reason:
            self._reason = self._reason or reason_of(delta.finish_reason, has_calls=bool(self._calls))
            written.append(self._closed())
        return b"".join(written)

    def _thinking(self, text: str) -> bytes:
        opening = self._opened("thinking", b'{"type":"thinking","thinking":"","signature":""}')
        return opening + (_THINKING % (self._index, _encode(text)) if text else b"")

    def _due(self, thoughts: list[Thought]) -> bytes:
        """The thoughts whose place has come; they are no longer among these."""
        written = b""
        while thoughts and thoughts[0].block <= self._places:
            written += self._thought(thoughts.pop(0))
        return written

    def _thought(self, thought: Thought) -> bytes:
        """A block of its own, or the signature and the end of the one whose pieces were written already."""
        if thought.data:
            block = _encode({"type": "redacted_thinking", "data": thought.data})
            return self._opened("redacted_thinking", block) + self._closed()
        text = "" if self._open == "thinking" or self._ask.hide_reasoning else thought.text
        self._places += 1
        signature = _encode(thought.signature)
        return self._thinking(text) + _SIGNATURE % (self._index, signature) + self._closed()

    def _called(self, call: ToolCall) -> bytes:
        """
        Raises:
            UpstreamError: Pieces of two calls came mixed, or a call has no name.
        """
        opening = b""
        if call.index != self._call:
            if call.index in self._calls or not call.name:
                raise UpstreamError("the engine's calls of tools came in pieces that cannot be put together")
            block = {
                "type": "tool_use",
                "id": call.id or _made_id(self._answer_id, call.index),
                "name": call.name,
                "input": {},
            }
            opening = self._closed() + self._opened("tool_use", _encode(block))
            self._call = call.index
            self._calls.add(call.index)
        if not call.arguments:
            return opening
        self._arguments.append(call.arguments)
        return opening + _ARGUMENTS % (self._index, _encode(call.arguments))

    def _opened(self, kind: str, block: bytes) -> bytes:
        if self._open == kind:
            return b""
        closing = self._closed()
        self._open = kind
        self._index += 1
        self._places += kind != "thinking"
        return closing + _OPEN % (self._index, block)

    def _closed(self) -> bytes:
        """
        Raises:
            UpstreamError: A call's arguments are no JSON object, though its answer was not cut.
        """
        if not self._open:
            return b""
        if self._open == "tool_use":
            if self._reason != "max_tokens":
                input_of(self._arguments)
            self._arguments = []
            self._call = -1
        self._open = ""
        return _CLOSE % self._index

    def end(self, usage: Usage) -> bytes:
        reason = self._reason or ("tool_use" if self._calls else "end_turn")
        return self._begin() + self._closed() + _END % (reason.encode(), usage_json(usage))

    def fail(self, error: PilothouseError) -> bytes:
        return b"event: error\ndata: %s\n\n" % write_error(error)


def write_whole(ask: GenerateRequest, delta: Delta, usage: Usage, *, answer_id: str) -> bytes:
    aside = delta.aside or Aside()
    reason = "refusal" if aside.refusal else reason_of(delta.finish_reason or "", has_calls=bool(aside.tools))
    content: list[dict[str, Any]] = []
    if delta.text or aside.refusal:
        content.append({"type": "text", "text": delta.text + aside.refusal})
    for i, call in enumerate(aside.tools):
        is_cut = reason == "max_tokens" and i == len(aside.tools) - 1
        given = _input_if_whole(call) if is_cut else input_of([call.arguments])
        if given is not None:
            made_id = call.id or _made_id(answer_id, call.index)
            content.append({"type": "tool_use", "id": made_id, "name": call.name, "input": given})
    for thought in aside.thoughts:
        content.insert(thought.block, _thought_block(thought, is_hidden=ask.hide_reasoning))
    if not ask.hide_reasoning and (reasoning := _unsigned(aside)):
        if aside.thoughts and not aside.thoughts[0].block and not aside.thoughts[0].data:
            content[0]["thinking"] = reasoning  # as a stream has it, where the signature ends its block
        else:
            content.insert(0, {"type": "thinking", "thinking": reasoning, "signature": ""})
    return (
        b'{"id":"%s","type":"message","role":"assistant","model":%s,"content":%s,"stop_reason":"%s",'
        b'"stop_sequence":null,"usage":%s}'
        % (
            answer_id.encode(),
            _encode(ask.endpoint),
            _encode(content),
            reason.encode(),
            usage_json(usage),
        )
    )


def _unsigned(aside: Aside) -> str:
    """What was thought and stands in no thought that was signed."""
    return "" if any(thought.text for thought in aside.thoughts) else aside.reasoning


def _thought_block(thought: Thought, *, is_hidden: bool) -> dict[str, str]:
    """One that is hidden keeps its signature, by which its provider knows it again."""
    if thought.data:
        return {"type": "redacted_thinking", "data": thought.data}
    text = "" if is_hidden else thought.text
    return {"type": "thinking", "thinking": text, "signature": thought.signature}


def reason_of(finish: str, *, has_calls: bool) -> str:
    """An engine that was made to call a tool may say `stop` all the same."""
    return _REASONS.get(finish) or ("tool_use" if has_calls else "end_turn")


def input_of(arguments: Sequence[str]) -> dict[str, Any]:
    """
    Raises:
        UpstreamError: The model's arguments are no JSON object, which this shape has no place for.
    """
    try:
        given: dict[str, Any] = msgspec.json.decode("".join(arguments) or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as exc:
        raise UpstreamError(
            "the model called a tool with arguments that are no JSON object; ask again"
        ) from exc
    return given


def _input_if_whole(call: ToolCall) -> dict[str, Any] | None:
    """None for a call that `max_tokens` cut off: a whole answer has no place for a part of one."""
    try:
        return input_of([call.arguments])
    except UpstreamError:
        return None


def _made_id(answer_id: str, index: int) -> str:
    return f"toolu_{answer_id.partition('_')[2]}_{index}"


def usage_json(usage: Usage) -> bytes:
    """Tokens that were read from a cache are not among `input_tokens` there."""
    return (
        b'{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":%d,"output_tokens":%d}'
        % (max(0, usage.input - usage.cached), usage.cached, usage.output)
    )


def write_count(tokens: int) -> bytes:
    return b'{"input_tokens":%d}' % tokens


def write_error(error: PilothouseError) -> bytes:
    """The code stands where clients look for it (`details.error_code`), and as everywhere here."""
    details = {"error_code": error.code}
    if error.param is not None:
        details["param"] = error.param
    kind = "billing_error" if isinstance(error, BudgetExceeded) else _KINDS.get(status_of(error), "api_error")
    body = {"type": kind, "message": error.message, "code": error.code, "details": details}
    return _encode({"type": "error", "error": body})


def status_of(error: PilothouseError) -> int:
    """Anthropic has a status of its own for a service that has too much to do."""
    return 529 if isinstance(error, Overloaded) else error.status


def write_models(models: Sequence[dict[str, Any]], *, has_more: bool) -> bytes:
    return _encode(
        {
            "data": models,
            "has_more": has_more,
            "first_id": models[0]["id"] if models else None,
            "last_id": models[-1]["id"] if models else None,
        }
    )


def write_model(model: dict[str, Any]) -> bytes:
    return _encode(model)


def model_of(name: str, created: int) -> dict[str, Any]:
    """`created` in Unix seconds."""
    at = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": at, "lifecycle": "active"}
