"""
What Gemini answers: a whole answer, the events of a stream, vectors, an error.

Each event of a stream is an answer of its own, with pieces of text and whole calls;
counts are totals, so the last ones hold.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from pilothouse.domain.chat import Aside, Embeddings, Thought, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import Overloaded, PilothouseError, UpstreamError
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire import marks

_FINISH = {"STOP": "stop", "MAX_TOKENS": "length"}
_REFUSED = frozenset(
    {
        *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"),
        *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
    }
)
_BUSY = frozenset({"RESOURCE_EXHAUSTED", "UNAVAILABLE"})
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""Tokens: bounded, for sums are made of what a provider says."""


class _Call(Struct):
    name: str = ""
    args: dict[str, Any] = {}


class _Part(Struct, rename="camel"):
    text: str = ""
    thought: bool = False
    thought_signature: str = ""
    function_call: _Call | None = None


class _Content(Struct):
    parts: list[_Part] = []


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    index: Annotated[int, Meta(ge=0, le=127)] = 0


class _Usage(Struct, rename="camel"):
    prompt_token_count: _Count = 0
    tool_use_prompt_token_count: _Count = 0
    candidates_token_count: _Count = 0
    thoughts_token_count: _Count = 0
    cached_content_token_count: _Count = 0


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None


class Fault(Struct):
    """What an error says; its text never reaches a caller."""

    code: int = 0
    status: str = ""
    message: str = ""


class _Answer(Struct, rename="camel"):
    candidates: list[_Candidate] = []
    usage_metadata: _Usage | None = None
    prompt_feedback: _Feedback | None = None
    response_id: str = ""
    error: Fault | None = None


class _Vector(Struct):
    values: list[float]


class _Vectors(Struct):
    embeddings: list[_Vector]


class _Statistics(Struct, frozen=True):
    token_count: Annotated[float, Meta(ge=0, le=2**31 - 1)] = 0


class _Predicted(Struct):
    values: list[float]
    statistics: _Statistics = _Statistics()


class _Prediction(Struct):
    embeddings: _Predicted


class _Predictions(Struct):
    predictions: list[_Prediction]


class _Faulted(Struct):
    error: Fault


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_vectors = msgspec.json.Decoder(_Vectors).decode
_decode_predictions = msgspec.json.Decoder(_Predictions).decode
_decode_faulted = msgspec.json.Decoder(_Faulted).decode
_decode_faults = msgspec.json.Decoder(list[_Faulted]).decode
_encode = msgspec.json.Encoder().encode


class AnswerReader:
    """Reads the answers of one request, in their order; a whole one is a stream of one."""

    __slots__ = ("_calls", "_choices", "_ended", "_has_text", "_is_signed", "_signatures", "usage")

    is_over = False
    """Gemini says nothing when all was said: its stream ends."""

    def __init__(self, choices: int) -> None:
        self._choices = choices
        self.usage: Usage | None = None
        """As it was last said: of all of the answer, once it is over."""
        self._calls: dict[int, int] = {}
        self._ended: set[int] = set()
        self._has_text = False
        self._is_signed = False
        self._signatures = 0
        """As `_has_text`, of the first choice: no protocol that carries signatures has another one."""

    def end(self) -> Chunk | None:
        """
        The usage, where it was told.

        Raises:
            UpstreamError: Not every choice has ended.
        """
        if len(self._ended) < self._choices:
            raise UpstreamError("the provider ended its stream before the answer was complete")
        return None if self.usage is None else Chunk((), self.usage)

    def read(self, data: bytes) -> Chunk | None:
        """
        What one answer says; None where it says nothing to a caller.

        Raises:
            UpstreamError: It is no answer, goes on after its end, or is an error.
            Overloaded: The provider broke off, for it has too much to do.
        """
        try:
            answer = _decode_answer(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
            raise UpstreamError("the provider's answer cannot be read") from exc
        if answer.error is not None:
            raise broken_off(answer.error)
        if answer.usage_metadata is not None:
            self.usage = _usage(answer.usage_metadata)
        self._is_signed = b"thoughtSignature" in data
        deltas = [self._delta(one, answer.response_id) for one in answer.candidates]
        if answer.prompt_feedback is not None and answer.prompt_feedback.block_reason and not deltas:
            self._ended.add(0)
            deltas = [Delta("", 0, "content_filter")]
        said = tuple([delta for delta in deltas if delta.text or delta.finish_reason or delta.aside])
        return Chunk(said) if said else None

    def _delta(self, candidate: _Candidate, response_id: str) -> Delta:
        index, finish = candidate.index, candidate.finish_reason
        parts = candidate.content.parts if candidate.content is not None else ()
        if index in self._ended and (parts or finish):
            raise UpstreamError("the provider's answer goes on after its end")
        kept = self._kept(parts) if self._is_signed and index == 0 else ()
        text = thoughts = ""
        calls: tuple[ToolCall, ...] = ()
        for part in parts:
            if part.thought:
                thoughts += part.text
            else:
                text += part.text
            if part.function_call is not None:
                calls += (self._call(part.function_call, index, response_id),)
        if text and index == 0:
            self._has_text = True
        if finish is not None:
            self._ended.add(index)
            finish = finish_of(finish, calls=self._calls.get(index, 0))
        if thoughts or calls or kept:
            return Delta(text, index, finish, None, Aside(thoughts, "", calls, kept))
        return Delta(text, index, finish)

    def _kept(self, parts: Sequence[_Part]) -> tuple[Thought, ...]:
        """
        A thought for each part that is signed: it stands before that part, behind all that was said earlier.

        All text is one here, before the calls: so a signature of later text stands at the end.
        """
        found: list[Thought] = []
        calls = self._calls.get(0, 0)
        has_text = self._has_text
        begins_with_text = has_text or any(part.text and not part.thought for part in parts)
        for part in parts:
            is_call = part.function_call is not None
            is_text = bool(part.text) and not part.thought
            if part.thought_signature:
                is_first = is_text and not has_text and not calls
                place = 0 if is_first else begins_with_text + calls
                mark = marks.GEMINI + part.thought_signature
                found.append(Thought(signature=mark, block=self._signatures + place))
                self._signatures += 1
            has_text = has_text or is_text
            calls += is_call
        return tuple(found)

    def _call(self, call: _Call, choice: int, response_id: str) -> ToolCall:
        """Gemini gives a call whole, and may give it no id."""
        number = self._calls.get(choice, 0)
        self._calls[choice] = number + 1
        call_id = f"call_{response_id[:64]}_{choice}_{number}"
        return ToolCall(number, call_id, call.name, _encode(call.args).decode())


def read_whole(data: bytes, *, choices: int) -> Chunk:
    """
    Raises:
        UpstreamError: It is no answer that has ended.
    """
    reader = AnswerReader(choices)
    chunk = reader.read(data)
    reader.end()
    if chunk is None:
        raise UpstreamError("the provider's answer is empty")
    return Chunk(chunk.deltas, reader.usage)


def read_vectors(data: bytes, *, count: int) -> Embeddings:
    """Gemini says nothing of what vectors cost. UpstreamError: not as many as were asked for."""
    try:
        vectors = [one.values for one in _decode_vectors(data).embeddings]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the provider's embeddings cannot be read") from exc
    if len(vectors) != count:
        raise UpstreamError(f"the provider gave {len(vectors)} embeddings for {count} texts")
    return Embeddings(vectors, Usage())


def read_predictions(data: bytes, *, count: int) -> Embeddings:
    """What Vertex AI says; UpstreamError: not as many as were asked for."""
    try:
        found = [one.embeddings for one in _decode_predictions(data).predictions]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise UpstreamError("the provider's embeddings cannot be read") from exc
    if len(found) != count:
        raise UpstreamError(f"the provider gave {len(found)} embeddings for {count} texts")
    tokens = sum(int(one.statistics.token_count) for one in found)
    return Embeddings([one.values for one in found], Usage(tokens))


def read_fault(data: bytes) -> Fault:
    """What an error answer says, as far as it can be read; a stream's comes in a list."""
    try:
        return _decode_faults(data)[0].error if data.lstrip()[:1] == b"[" else _decode_faulted(data).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, IndexError):
        return Fault()


def finish_of(reason: str, *, calls: int) -> str:
    """
    Raises:
        UpstreamError: The model failed: a call that is none, or no reason that is known.
    """
    if reason in _REFUSED:
        return "content_filter"
    if reason not in _FINISH:
        raise UpstreamError("the provider's model ended without an answer that can be used")
    return "tool_calls" if calls and reason == "STOP" else _FINISH[reason]


def broken_off(fault: Fault) -> PilothouseError:
    """The error that a provider says after a good status."""
    if fault.status in _BUSY or fault.code in (429, 503):
        return Overloaded("the provider broke off: it has too much to do; try again", retry_after_s=1.0)
    return UpstreamError("the provider broke off with an error")


def _usage(usage: _Usage) -> Usage:
    """What was thought is paid for as what was said."""
    return Usage(
        usage.prompt_token_count + usage.tool_use_prompt_token_count,
        usage.candidates_token_count + usage.thoughts_token_count,
        usage.cached_content_token_count,
    )
