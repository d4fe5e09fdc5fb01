"""
What Ollama's clients get: objects, one a line where they stream.

Its times (`total_duration`, `eval_duration` ...) are left out: a client sees them
in `x-pilothouse-overhead-us` and the metrics, and a codec has no clock.
"""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

import msgspec

from pilothouse.domain.chat import Embeddings, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage

_encode = msgspec.json.Encoder().encode


class LineWriter:
    """Writes one answer's lines. Calls of tools are said at once, when they are whole."""

    def __init__(self, ask: GenerateRequest, *, is_chat: bool, created: int) -> None:
        self._head = b'{"model":%s,"created_at":"%s"' % (_encode(ask.endpoint), _time(created))
        self._is_chat = is_chat
        self._calls: dict[int, list[ToolCall]] = {}
        self._reason = b"stop"

    def chunk(self, chunk: Chunk) -> bytes:
        return b"".join([self._step(delta) for delta in chunk.deltas])

    def _step(self, delta: Delta) -> bytes:
        if delta.finish_reason:
            self._reason = _reason(delta)
        thinking, text = "", delta.text
        if delta.aside is not None:
            thinking = delta.aside.reasoning
            text += delta.aside.refusal
            for call in delta.aside.tools:
                self._calls.setdefault(call.index, []).append(call)
        calls: list[dict[str, Any]] = []
        if delta.finish_reason and self._calls:
            calls = _calls(_joined(pieces) for pieces in self._calls.values())
            self._calls = {}
        if not (text or thinking or calls):
            return b""
        if text and not thinking and not calls:  # the inner loop
            if self._is_chat:
                return b'%s,"message":{"role":"assistant","content":%s},"done":false}\n' % (
                    self._head, _encode(text),
                )  # fmt: skip
            return b'%s,"response":%s,"done":false}\n' % (self._head, _encode(text))
        return b'%s,%s,"done":false}\n' % (self._head, _said(text, thinking, calls, is_chat=self._is_chat))

    def end(self, usage: Usage) -> bytes:
        said = _said("", "", [], is_chat=self._is_chat)
        return b"%s,%s,%s}\n" % (self._head, said, _ending(self._reason, usage))

    def fail(self, error: PilothouseError) -> bytes:
        return write_error(error) + b"\n"


def write_whole(
    ask: GenerateRequest, deltas: Sequence[Delta], usage: Usage, *, is_chat: bool, created: int
) -> bytes:
    """A whole answer; Ollama knows one choice."""
    delta = deltas[0]
    if (aside := delta.aside) is None:
        said = _said(delta.text, "", [], is_chat=is_chat)
    else:
        said = _said(delta.text + aside.refusal, aside.reasoning, _calls(aside.tools), is_chat=is_chat)
    return b'{"model":%s,"created_at":"%s",%s,%s}' % (
        _encode(ask.endpoint), _time(created), said, _ending(_reason(delta), usage),
    )  # fmt: skip


def write_embeddings(embeddings: Embeddings, *, endpoint: str) -> bytes:
    return _encode(
        {
            "model": endpoint,
            "embeddings": embeddings.vectors,
            "prompt_eval_count": embeddings.usage.input,
        }
    )


def write_error(error: PilothouseError) -> bytes:
    """Ollama's error has a message alone; the code stands beside it, as everywhere here."""
    return _encode({"error": error.message, "code": error.code})


def _said(text: str, thinking: str, calls: list[dict[str, Any]], *, is_chat: bool) -> bytes:
    if is_chat and not thinking and not calls:
        return b'"message":{"role":"assistant","content":%s}' % _encode(text)
    beside: dict[str, Any] = {"thinking": thinking} if thinking else {}
    if calls:
        beside["tool_calls"] = calls
    if is_chat:
        return b'"message":' + _encode({"role": "assistant", "content": text} | beside)
    return _encode({"response": text} | beside)[1:-1]


def _reason(delta: Delta) -> bytes:
    """Ollama says `stop` for all other ends, calls of tools among them."""
    return b"length" if delta.finish_reason == "length" else b"stop"


def _ending(reason: bytes, usage: Usage) -> bytes:
    return b'"done":true,"done_reason":"%s","prompt_eval_count":%d,"eval_count":%d' % (
        reason, usage.input, usage.output,
    )  # fmt: skip


def _joined(pieces: Sequence[ToolCall]) -> ToolCall:
    return ToolCall(
        pieces[0].index,
        "".join(piece.id for piece in pieces),
        "".join(piece.name for piece in pieces),
        "".join(piece.arguments for piece in pieces),
    )


def _calls(calls: Iterable[ToolCall]) -> list[dict[str, Any]]:
    """
    Raises:
        UpstreamError: The model's arguments are no JSON object, which Ollama's shape has no place for.
    """
    written = []
    for call in calls:
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as exc:
            raise UpstreamError(
                f"the model called {call.name[:100]!r} with arguments that are no JSON object; ask again"
            ) from exc
        function = {"index": call.index, "name": call.name, "arguments": arguments}
        written.append({"id": call.id, "function": function})
    return written


def _time(created: int) -> bytes:
    days, seconds = divmod(created, 86_400)
    minutes, seconds = divmod(seconds, 60)
    return b"%sT%02d:%02d:%02dZ" % (_date(days), minutes // 60, minutes % 60, seconds)


@lru_cache(maxsize=2)
def _date(days: int) -> bytes:
    """Of so many days after the first of 1970: the same for a whole day."""
    return (date(1970, 1, 1) + timedelta(days)).isoformat().encode()
