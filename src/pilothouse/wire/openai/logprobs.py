"""
Log probabilities of the OpenAI dialect, which has two forms of them.

Chats have a list of steps; completions have four lists side by side. llama.cpp's
server gives the chats' form for both.

Source: the OpenAI API reference, `logprobs` of chat completions and of completions.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from pilothouse.domain.errors import UpstreamError

_encode = msgspec.json.Encoder().encode


class Token(Struct):
    token: str
    logprob: float
    top_logprobs: list["Token"] = []


class Steps(Struct):
    """The chats' form."""

    content: list[Token] | None = None


class Lists(Struct):
    """The completions' form. The first token of a prompt has no probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]
    """In characters, from where the answer begins."""


class _RawSteps(Struct):
    content: list[Raw] | None = None


_decode_steps = msgspec.json.Decoder(Steps).decode
_decode_lists = msgspec.json.Decoder(Lists).decode


def read_steps(raw: Raw) -> list[Token]:
    """
    Raises:
        UpstreamError: These are no steps.
    """
    try:
        return _decode_steps(raw).content or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UpstreamError("the engine's log probabilities cannot be read") from exc


def lists_of(steps: Sequence[Token], *, top: int, offset: int) -> tuple[Raw, int]:
    """
    Steps in the completions' form, and where the text goes on.

    Args:
        top: How many of the likeliest tokens of each step; the one that was taken is always among them.
        offset: Characters of the answer before these.
    """
    offsets = []
    for step in steps:
        offsets.append(offset)
        offset += len(step.token)
    tops = [
        {step.token: step.logprob, **{one.token: one.logprob for one in step.top_logprobs[:top]}}
        for step in steps
    ]
    lists = Lists(
        [step.token for step in steps],
        [step.logprob for step in steps],
        list(tops) if top else None,
        offsets,
    )
    return Raw(_encode(lists)), offset


def joined(parts: Sequence[Raw]) -> Raw | None:
    """
    What came in pieces, as one; of objects in a form that is neither, the last.

    Raises:
        UpstreamError: These are no objects, or their steps are none.
    """
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    try:
        found = [msgspec.json.decode(part, type=_RawSteps).content for part in parts]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise UpstreamError("the engine's log probabilities cannot be read") from exc
    if any(steps is not None for steps in found):
        return Raw(_encode({"content": [step for steps in found for step in steps or ()]}))
    try:
        return Raw(_encode(_joined_lists([_decode_lists(part) for part in parts])))
    except msgspec.ValidationError:
        return parts[-1]


def _joined_lists(parts: Sequence[Lists]) -> Lists:
    has_tops = any(part.top_logprobs is not None for part in parts)
    return Lists(
        [token for part in parts for token in part.tokens],
        [logprob for part in parts for logprob in part.token_logprobs],
        [top for part in parts for top in part.top_logprobs or ()] if has_tops else None,
        [offset for part in parts for offset in part.text_offset],
    )
