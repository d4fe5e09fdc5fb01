"""
What a generating model on Triton answers: the pieces of a stream, a refusal, its load.

The one idea: `text_output` is all that every repository says; ends and counts are
there where the repository has outputs for them, and are not made up where it has not.
"""

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.used_tokens import Usage

_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_T = TypeVar("_T")
_FINISH = {"stop": "stop", "length": "length"}
_DEAD = "is not healthy"
"""Triton's words for: the process of this model has ended. It says so until the model is loaded anew."""
_LOADING = "has no available versions"
"""And for: this model is being loaded, or could not be."""
_UNKNOWN = "unknown model"
_RESTRICTED = "protocol is restricted"
_FULL = ("maximum queue size", "Server is not ready")
_LONG = ("longer than the maximum model length", "exceeds max_input_len", "Prompt length")
"""vLLM's and TensorRT-LLM's words."""


class Event(Struct):
    """One piece of an answer."""

    text_output: str | list[str] = ""
    finish_reason: str | list[str] = ""
    num_input_tokens: _Count | list[_Count] = 0
    num_output_tokens: _Count | list[_Count] = 0
    error: str = ""

    @property
    def is_last(self) -> bool:
        return _first(self.finish_reason, "") in _FINISH


class _Refusal(Struct):
    """As our own model says it."""

    error: str
    prompt_tokens: _Count = 0
    limit: _Count = 0


class LoadSaid(Struct):
    """How much is going on in our own model, and in whose process."""

    running: _Count
    waiting: _Count
    process: int


_read_event = msgspec.json.Decoder(Event).decode
_read_refusal = msgspec.json.Decoder(_Refusal).decode
_read_load = msgspec.json.Decoder(LoadSaid).decode


class Reader:
    """
    Of one answer.

    Args:
        max_tokens: That were asked for, None without a limit.
    """

    def __init__(self, max_tokens: int | None) -> None:
        self._max_tokens = max_tokens
        self._input = self._output = self._pieces = 0
        self.has_ended = False
        """Nothing more will be said."""

    def read(self, said: Event) -> Chunk | None:
        """
        What one event says; None where that is nothing.

        Raises:
            PilothouseError: It is an error.
        """
        if said.error:
            raise refused(said.error)
        self._input += _first(said.num_input_tokens, 0)
        self._output += _first(said.num_output_tokens, 0)
        text, reason = _first(said.text_output, ""), _first(said.finish_reason, "")
        self._pieces += bool(text)
        finish = _FINISH.get(reason)
        self.has_ended = finish is not None
        if not text and finish is None:
            return None
        return Chunk(
            deltas=(Delta(text=text, finish_reason=finish),), usage=self._usage() if finish else None
        )

    def end(self) -> Chunk | None:
        """What is left to say where the stream ended by itself: an end without a reason is one."""
        if self.has_ended:
            return None
        is_full = self._max_tokens is not None and self._pieces >= self._max_tokens
        end = Delta(finish_reason="length" if is_full else "stop")
        return Chunk(deltas=(end,), usage=self._usage())

    def _usage(self) -> Usage | None:
        return Usage(input=self._input, output=self._output) if self._input or self._output else None


def decoded(event: bytes) -> Event:
    """
    Of the generate extension.

    Raises:
        UpstreamError: It is none.
    """
    try:
        return _read_event(event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UpstreamError("Triton's answer cannot be read") from exc


def read_load(said: Event) -> LoadSaid | None:
    """
    None where the model's process has ended.

    Raises:
        PilothouseError: The answer is another error, or no load.
    """
    if _DEAD in said.error or _LOADING in said.error:
        return None
    if said.error:
        raise refused(said.error)
    try:
        return _read_load(_first(said.text_output, ""))
    except msgspec.DecodeError as exc:
        raise UpstreamError("the load of Triton's model cannot be read") from exc


def refused(why: str) -> PilothouseError:
    """The error that Triton's words stand for. They themselves reach nobody: they may hold a prompt."""
    return known(why) or UpstreamError("Triton refused the request, or failed at it; its log says why")


def known(why: str) -> PilothouseError | None:
    """As `refused`; None where the words say nothing."""
    try:
        return _own(_read_refusal(why))
    except msgspec.DecodeError:
        pass
    if _DEAD in why:
        return EngineUnavailable("the process of this model on Triton has ended", retry_after_s=1.0)
    if _LOADING in why:
        return EngineUnavailable("Triton is loading this model", retry_after_s=1.0)
    if any(words in why for words in _LONG):
        return ContextLengthExceeded("the prompt is too long for the model", param="messages")
    if any(words in why for words in _FULL):
        return Overloaded("Triton takes no more requests now; try again", retry_after_s=1.0)
    if _UNKNOWN in why:
        return UpstreamError("Triton knows no such model; load it there, or change `model` of the deployment")
    if _RESTRICTED in why:
        return UpstreamError("Triton refused the secret of this deployment")
    return None


class Counts(Struct):
    """Of one version of a model since its server started."""

    success: int = 0
    fail: int = 0


def read_counts(body: bytes) -> Counts:
    """
    Of all versions together.

    Raises:
        UpstreamError: These are no statistics of Triton's.
    """
    try:
        stats = msgspec.json.decode(body, type=_Stats).model_stats
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UpstreamError("Triton's statistics cannot be read") from exc
    return Counts(
        success=sum(one.inference_stats.success.count for one in stats),
        fail=sum(one.inference_stats.fail.count for one in stats),
    )


class _Times(Struct):
    count: int = 0


class _Inferences(Struct):
    success: _Times = msgspec.field(default_factory=_Times)
    fail: _Times = msgspec.field(default_factory=_Times)


class _Version(Struct):
    inference_stats: _Inferences = msgspec.field(default_factory=_Inferences)


class _Stats(Struct):
    model_stats: list[_Version]


def _own(refusal: _Refusal) -> PilothouseError:
    if refusal.error == "too_long":
        return ContextLengthExceeded.counted(refusal.prompt_tokens, refusal.limit)
    if refusal.error == "full":
        return Overloaded("every place of the model is taken; try again", retry_after_s=1.0)
    if refusal.error == "no_chat_template":
        return NotSupported("this model has no chat template; use /v1/completions", param="messages")
    return InvalidRequest("the model refused the request as invalid; check its fields")


def _first(value: _T | list[_T], default: _T) -> _T:
    """Triton writes a tensor of one element as that element."""
    if isinstance(value, list):
        return value[0] if value else default
    return value
