"""
What Responses clients get: a response, or the events that build one.

Items come in the order in which they begin: reasoning, text or a refusal, calls
of functions. Each is opened, grows, and is closed before the response ends;
calls may grow side by side, everything else one after the other.

Source: the OpenAI API reference, responses, streaming events.
"""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.responses.shown import (
    Call,
    Message,
    Part,
    Reasoning,
    RefusalPart,
    Response,
    Shown,
    TextPart,
    ThoughtPart,
    usage_of,
)

_encode = msgspec.json.Encoder().encode
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_NOTHING = Aside()
_CODES = {"rate_limit_exceeded": "rate_limit_exceeded"}
"""Codes of errors that a response knows; all others are `server_error`."""
SENT = frozenset(
    {
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.output_item.done",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.done",
        "response.refusal.delta",
        "response.refusal.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
        "response.incomplete",
        "response.failed",
        "error",
    }
)
"""Events of the published list that are sent."""
_HOSTED = "of a tool that runs at OpenAI, and such tools are refused"
NEVER_SENT = {
    "response.audio.": "answers are text",
    "response.code_interpreter_call": _HOSTED,
    "response.compaction.": "context_management is refused",
    "response.custom_tool_call": "tools are functions",
    "response.file_search_call.": _HOSTED,
    "response.image_generation_call.": _HOSTED,
    "response.mcp_call": _HOSTED,
    "response.mcp_list_tools.": _HOSTED,
    "response.output_text.annotation.added": _HOSTED,
    "response.queued": "background responses are refused",
    "response.reasoning_summary": "reasoning is given itself, never summarised",
    "response.shell_call": _HOSTED,
    "response.web_search_call.": _HOSTED,
}
"""Beginnings of the names of all others, and why not."""


class _Item(Struct):
    """An item that grows."""

    kind: str
    """`text` and `refusal` are messages, `reasoning`, `call`."""
    place: int
    id: str
    pieces: list[str] = []
    logprobs: list[Any] = []
    call_id: str = ""
    name: str = ""

    @property
    def text(self) -> str:
        """All of it so far; a call's are its arguments."""
        return "".join(self.pieces)

    def part(self) -> Part:
        if self.kind == "text":
            return TextPart(self.text, self.logprobs)
        return RefusalPart(self.text) if self.kind == "refusal" else ThoughtPart(self.text)

    def shown(self, status: str) -> Shown:
        if self.kind == "call":
            return Call(self.id, status, self.text, self.call_id, self.name)
        content = [] if status == "in_progress" else [self.part()]
        shape = Reasoning if self.kind == "reasoning" else Message
        return shape(self.id, status, content)


_PREFIXES = {"text": "msg", "refusal": "msg", "reasoning": "rs", "call": "fc"}


def _item(kind: str, place: int, key: str) -> _Item:
    return _Item(kind, place, f"{_PREFIXES[kind]}_{key}_{place}")


class EventWriter:
    """Writes one answer's events. `created` is in Unix seconds."""

    def __init__(self, ask: GenerateRequest, *, answer_id: str, created: int) -> None:
        self._ask = ask
        self._id = answer_id
        self._key = answer_id.removeprefix("resp_")
        self._created = created
        self._count = 0
        self._items: list[_Item] = []
        self._open: _Item | None = None
        """The one that is neither closed nor a call."""
        self._calls: dict[int, _Item] = {}
        self._finish = "stop"
        self._head = b""
        """The beginning of a text's next event: all but its number and what is new."""

    def chunk(self, chunk: Chunk) -> bytes:
        deltas = chunk.deltas
        if self._count and len(deltas) == 1:
            return self._step(deltas[0])
        opening = b"" if self._count else self._begin()
        return opening + b"".join([self._step(delta) for delta in deltas])

    def _begin(self) -> bytes:
        begun = self._response("in_progress", [])
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def _step(self, delta: Delta) -> bytes:
        if delta.finish_reason:
            self._finish = delta.finish_reason
        said = b""
        if delta.aside is not None:
            said = self._beside(delta.aside)
        if not delta.text:
            return said
        logprobs = [] if delta.logprobs is None else _logprobs(delta)
        item = self._open
        if item is None or item.kind != "text":
            said += self._close_open()
            item, opening = self._begin_item("text")
            said += opening
        item.pieces.append(delta.text)
        if logprobs:
            item.logprobs += logprobs
        self._count += 1
        return b'%s%s%d,"delta":%s,"logprobs":%s}\n\n' % (
            said, self._head, self._count - 1, _encode(delta.text), _encode(logprobs) if logprobs else b"[]",
        )  # fmt: skip

    def _beside(self, aside: Aside) -> bytes:
        said = b""
        for kind, text in (("reasoning", aside.reasoning), ("refusal", aside.refusal)):
            if not text:
                continue
            item = self._open
            if item is None or item.kind != kind:
                said += self._close_open()
                item, opening = self._begin_item(kind)
                said += opening
            item.pieces.append(text)
            name = "response.refusal.delta" if kind == "refusal" else "response.reasoning_text.delta"
            said += self._event(name, **self._where(item), delta=text)
        for call in aside.tools:
            said += self._grow_call(call)
        return said

    def _grow_call(self, piece: ToolCall) -> bytes:
        said = b""
        item = self._calls.get(piece.index)
        if item is None:
            said = self._close_open()
            item = self._calls[piece.index] = _item("call", len(self._items), self._key)
            self._items.append(item)
            item.call_id, item.name = piece.id, piece.name
            said += self._event(
                "response.output_item.added", output_index=item.place, item=item.shown("in_progress")
            )
        if piece.arguments:
            item.pieces.append(piece.arguments)
            said += self._event(
                "response.function_call_arguments.delta",
                item_id=item.id, output_index=item.place, delta=piece.arguments,
            )  # fmt: skip
        return said

    def _begin_item(self, kind: str) -> tuple[_Item, bytes]:
        self._open = item = _item(kind, len(self._items), self._key)
        self._items.append(item)
        said = self._event(
            "response.output_item.added", output_index=item.place, item=item.shown("in_progress")
        )
        said += self._event("response.content_part.added", **self._where(item), part=item.part())
        self._head = (
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","item_id":"%s",'
            b'"output_index":%d,"content_index":0,"sequence_number":' % (item.id.encode(), item.place)
        )
        return item, said

    def _close_open(self, status: str = "completed") -> bytes:
        item, self._open = self._open, None
        if item is None:
            return b""
        if item.kind == "refusal":
            said = self._event("response.refusal.done", **self._where(item), refusal=item.text)
        elif item.kind == "reasoning":
            said = self._event("response.reasoning_text.done", **self._where(item), text=item.text)
        else:
            said = self._event(
                "response.output_text.done", **self._where(item), text=item.text, logprobs=item.logprobs
            )
        said += self._event("response.content_part.done", **self._where(item), part=item.part())
        return said + self._event(
            "response.output_item.done", output_index=item.place, item=item.shown(status)
        )

    def end(self, usage: Usage) -> bytes:
        status = "incomplete" if self._finish in _INCOMPLETE else "completed"
        said = (b"" if self._count else self._begin()) + self._close_open(status)
        for item in self._calls.values():
            said += self._event(
                "response.function_call_arguments.done",
                item_id=item.id, output_index=item.place, name=item.name, arguments=item.text,
            )  # fmt: skip
            said += self._event("response.output_item.done", output_index=item.place, item=item.shown(status))
        shown = [item.shown(status) for item in self._items]
        reason = _INCOMPLETE.get(self._finish, "")
        return said + self._event(
            f"response.{status}", response=self._response(status, shown, usage=usage, reason=reason)
        )

    def fail(self, error: PilothouseError) -> bytes:
        """What began stays as it is; the response fails."""
        said = b"" if self._count else self._begin()
        said += self._event("error", code=error.code, message=error.message, param=error.param)
        shown = [item.shown("incomplete") for item in self._items]
        told = {"code": _CODES.get(error.code, "server_error"), "message": error.message}
        return said + self._event("response.failed", response=self._response("failed", shown, error=told))

    def _response(self, status: str, output: list[Shown], **more: Any) -> Raw:
        return _response(self._ask, output, answer_id=self._id, created=self._created, status=status, **more)

    def _where(self, item: _Item) -> dict[str, Any]:
        return {"item_id": item.id, "output_index": item.place, "content_index": 0}

    def _event(self, event: str, **fields: Any) -> bytes:
        number, self._count = self._count, self._count + 1
        return b"event: %s\ndata: %s\n\n" % (
            event.encode(), _encode({"type": event, **fields, "sequence_number": number}),
        )  # fmt: skip


def write_whole(ask: GenerateRequest, delta: Delta, usage: Usage, *, answer_id: str, created: int) -> bytes:
    aside = delta.aside or _NOTHING
    key = answer_id.removeprefix("resp_")
    finish = delta.finish_reason
    reason = _INCOMPLETE.get(finish, "") if finish is not None else ""
    status = "incomplete" if reason else "completed"
    shown: list[Shown] = []
    if aside.reasoning:
        shown.append(Reasoning(f"rs_{key}_0", status, [ThoughtPart(aside.reasoning)]))
    if delta.text:
        shown.append(Message(f"msg_{key}_{len(shown)}", status, [TextPart(delta.text, _logprobs(delta))]))
    if aside.refusal:
        shown.append(Message(f"msg_{key}_{len(shown)}", status, [RefusalPart(aside.refusal)]))
    for call in aside.tools:
        shown.append(Call(f"fc_{key}_{len(shown)}", status, call.arguments, call.id, call.name))
    return bytes(
        _response(ask, shown, answer_id=answer_id, created=created, status=status, usage=usage, reason=reason)
    )


def _response(
    ask: GenerateRequest,
    output: list[Shown],
    *,
    answer_id: str,
    created: int,
    status: str,
    usage: Usage | None = None,
    reason: str = "",
    error: dict[str, Any] | None = None,
) -> Raw:
    """Its JSON. What it repeats of the request was written when that was read."""
    own = _encode(
        Response(
            answer_id,
            created,
            status,
            ask.endpoint,
            output,
            error,
            {"reason": reason} if reason else None,
            None if usage is None else usage_of(usage),
        )
    )
    return Raw(own[:-1] + ask.repeated) if ask.repeated else Raw(own)


class _Logprobs(msgspec.Struct):
    content: list[dict[str, Any]] | None = None


_decode_logprobs = msgspec.json.Decoder(_Logprobs | None).decode


def _logprobs(delta: Delta) -> list[dict[str, Any]]:
    if delta.logprobs is None:
        return []
    found = _decode_logprobs(delta.logprobs)
    return (found.content or []) if found else []
