"""
What clients of the OpenAI dialect get: whole answers, stream events, errors.

Events are put together from bytes that are made once a request and the one
string that is new: this is the inner loop of streaming.
"""

import struct
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from pilothouse.domain.chat import Aside, Embeddings, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import PilothouseError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit import sse

_encode: Final = msgspec.json.Encoder().encode
_STOP: Final = b'"stop"'
_CHOICES: Final = b',"choices":['
_SEAM: Final = b"\0"
"""Between events whose beginning and end are left out: JSON never holds this byte."""
_OPENING: Final = (
    b'%s{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}%s'
)


def usage_json(usage: Usage) -> bytes:
    read, written, cached = usage.input, usage.output, usage.cached
    return (
        b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
        b'"prompt_tokens_details":{"cached_tokens":%d}}' % (read, written, read + written, cached)
    )


class StreamWriter:
    """Writes one answer's events. `created` is in Unix seconds."""

    __slots__ = ("_begins", "_end", "_is_chat", "_prefix", "_suffix", "_with_usage")

    def __init__(self, request: GenerateRequest, *, answer_id: str, created: int) -> None:
        self._is_chat = request.kind == "chat"
        self._with_usage = request.include_usage
        kind = b"chat.completion.chunk" if self._is_chat else b"text_completion"
        self._prefix = b'data: {"id":"%s","object":"%s","created":%d,"model":%s,"choices":[' % (
            answer_id.encode(),
            kind,
            created,
            _encode(request.endpoint),
        )
        self._suffix = b'],"usage":null}\n\n' if self._with_usage else b"]}\n\n"
        self._begins: dict[int, bytes] = {}
        """Of the events of each choice that was begun, to where its text comes."""
        self._end = self._ending(b"null", b"null")

    def chunk(self, chunk: Chunk) -> bytes:
        """The events for a chunk's deltas; its usage waits for `end`."""
        deltas = chunk.deltas
        if len(deltas) == 1:
            return self._event(deltas[0])
        return b"".join([self._event(delta) for delta in deltas])

    def _event(self, delta: Delta) -> bytes:
        text, index, reason, logprobs = delta.text, delta.index, delta.finish_reason, delta.logprobs
        begin, end, aside = self._begins.get(index), self._end, delta.aside
        if reason or logprobs is not None:
            said = b"null" if logprobs is None else bytes(logprobs)
            end = self._ending(said, _encode(reason) if reason else b"null")
        if begin is None:
            name = b'"delta":{' if self._is_chat else b'"text":'
            self._begins[index] = begin = b'%s{"index":%d,%s' % (self._prefix, index, name)
            if self._is_chat:
                opening = _OPENING % (self._prefix, index, self._suffix)
                if not text and not reason and aside is None:
                    return opening
                begin = opening + begin
        if not self._is_chat:
            return b"%s%s%s" % (begin, _encode(text), end)
        if aside is not None:
            return b"%s%s%s" % (begin, _fields_with_aside(text, aside), end)
        return b'%s"content":%s%s' % (begin, _encode(text), end) if text else begin + end

    def _ending(self, logprobs: bytes, finish: bytes) -> bytes:
        """Of an event, from where its text ends."""
        brace = b"}" if self._is_chat else b""
        return b'%s,"logprobs":%s,"finish_reason":%s}%s' % (brace, logprobs, finish, self._suffix)

    def bare(self, deltas: Iterable[Delta]) -> bytes:
        """The events for these deltas, but for what differs by request; `dress` adds that again."""
        whole = b"".join([self._event(delta) for delta in deltas])
        bare = whole.removeprefix(self._prefix).removesuffix(self._suffix)
        return bare.replace(self._suffix + self._prefix, _SEAM)

    def dress(self, bare: bytes) -> bytes:
        """The events of an earlier answer (`bare`) as this one's."""
        return self._prefix + bare.replace(_SEAM, self._suffix + self._prefix) + self._suffix

    def end(self, usage: Usage) -> bytes:
        """The usage event, where it was asked for, and the terminator."""
        if not self._with_usage:
            return sse.DONE
        return b'%s],"usage":%s}\n\n%s' % (self._prefix, usage_json(usage), sse.DONE)

    def fail(self, error: PilothouseError) -> bytes:
        return sse.event(write_error(error))


def write_whole(
    request: GenerateRequest, choices: Sequence[Delta], usage: Usage, *, answer_id: str, created: int
) -> bytes:
    """A whole answer: one delta a choice, each with all of its text."""
    is_chat = request.kind == "chat"
    if is_chat:
        kind = b"chat.completion"
        if choices[0].aside is not None or (len(choices) > 1 and any(choice.aside for choice in choices)):
            return _write_richer(request, choices, usage, answer_id=answer_id, created=created)
    else:
        kind = b"text_completion"
    if len(choices) == 1:
        parts = _whole_choice(choices[0], is_chat=is_chat)
    else:
        parts = b",".join([_whole_choice(choice, is_chat=is_chat) for choice in choices])
    return b'{"id":"%s","object":"%s","created":%d,"model":%s,"choices":[%s],"usage":%s}' % (
        answer_id.encode(), kind, created, _encode(request.endpoint), parts, usage_json(usage),
    )  # fmt: skip


def _whole_choice(choice: Delta, *, is_chat: bool) -> bytes:
    said, index, reason, steps = choice.text, choice.index, choice.finish_reason, choice.logprobs
    text, finish = _encode(said), _encode(reason) if reason and reason != "stop" else _STOP
    logprobs = b"null" if steps is None else bytes(steps)
    if is_chat:
        return (
            b'{"index":%d,"message":{"content":%s,"role":"assistant","refusal":null},'
            b'"logprobs":%s,"finish_reason":%s}' % (index, text, logprobs, finish)
        )
    return b'{"index":%d,"text":%s,"logprobs":%s,"finish_reason":%s}' % (index, text, logprobs, finish)


def _fields_with_aside(text: str, aside: Aside) -> bytes:
    said: dict[str, Any] = {"content": text} if text else {}
    if aside.reasoning:
        said["reasoning_content"] = aside.reasoning
    if aside.refusal:
        said["refusal"] = aside.refusal
    if aside.tools:
        said["tool_calls"] = [_call_step(call) for call in aside.tools]
    return _encode(said)[1:-1]


def _call_step(call: ToolCall) -> dict[str, Any]:
    """The first piece of a call has its id and its name."""
    if not call.id and not call.name:
        return {"index": call.index, "function": {"arguments": call.arguments}}
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": call.index, "id": call.id, "type": "function", "function": function}


def _write_richer(
    request: GenerateRequest, choices: Sequence[Delta], usage: Usage, *, answer_id: str, created: int
) -> bytes:
    return b'{"id":"%s","object":"chat.completion","created":%d,"model":%s,"choices":%s,"usage":%s}' % (
        answer_id.encode(),
        created,
        _encode(request.endpoint),
        _encode([_rich_choice(choice) for choice in choices]),
        usage_json(usage),
    )


def _rich_choice(choice: Delta) -> dict[str, Any]:
    aside = choice.aside or Aside()
    message: dict[str, Any] = {
        "content": choice.text if choice.text or not (aside.tools or aside.refusal) else None,
        "role": "assistant",
        "refusal": aside.refusal or None,
    }
    if aside.reasoning:
        message["reasoning_content"] = aside.reasoning
    if aside.tools:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in aside.tools
        ]
    return {
        "index": choice.index,
        "message": message,
        "logprobs": choice.logprobs,
        "finish_reason": choice.finish_reason or ("tool_calls" if aside.tools else "stop"),
    }


def rest_of_whole(body: bytes) -> bytes:
    """All of a written whole answer that belongs to no request: its choices and its usage."""
    return body[body.index(_CHOICES) :]  # a quote inside of a string is escaped, so the first is the field


def write_whole_again(request: GenerateRequest, rest: bytes, *, answer_id: str, created: int) -> bytes:
    """A whole answer with the choices and the usage of an earlier one."""
    kind = b"chat.completion" if request.kind == "chat" else b"text_completion"
    return b'{"id":"%s","object":"%s","created":%d,"model":%s%s' % (
        answer_id.encode(), kind, created, _encode(request.endpoint), rest,
    )  # fmt: skip


def write_embeddings(embeddings: Embeddings, *, endpoint: str, base64: bool) -> bytes:
    """Vectors as lists, or as little-endian float32 in base64, as the Python SDK asks for."""
    items = [
        {"object": "embedding", "index": i, "embedding": _base64(vector) if base64 else vector}
        for i, vector in enumerate(embeddings.vectors)
    ]
    tokens = embeddings.usage.input
    return _encode(
        {
            "object": "list",
            "data": items,
            "model": endpoint,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _base64(vector: list[float]) -> str:
    return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def write_models(names: list[tuple[str, int]]) -> bytes:
    """The list of models: (endpoint, created in Unix seconds)."""
    return _encode({"object": "list", "data": [_model(name, created) for name, created in names]})


def write_model(name: str, created: int) -> bytes:
    return _encode(_model(name, created))


def _model(name: str, created: int) -> dict[str, str | int]:
    return {"id": name, "object": "model", "created": created, "owned_by": "pilothouse"}


def write_error(error: PilothouseError, *, prompt: str = "") -> bytes:
    """
    The OpenAI error object.

    Args:
        prompt: The field that has the prompt, where that is none of messages.
    """
    param = prompt if prompt and (error.param or "").startswith("messages") else error.param
    return _encode(
        {
            "error": {
                "message": error.message,
                "type": error.kind,
                "param": param,
                "code": error.code,
            }
        }
    )


def error_headers(error: PilothouseError) -> bytes:
    """The lines that an error's answer has besides those of every answer."""
    if error.retry_after_s is None:
        return b"www-authenticate: Bearer\r\n" if error.status == 401 else b""
    return b"retry-after: %d\r\n" % max(1, round(error.retry_after_s))
