"""
What an engine of the OpenAI dialect answers, as far as it is used: answers, events, vectors, errors.

`outbound` makes our own values of it. They hold no circles, so the collector need not know them.
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from pilothouse.wire.openai.fields import NULL

_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""Tokens: bounded, for sums are made of what an engine says."""


class PromptDetails(Struct, gc=False):
    cached_tokens: _Count | None = None


class TokenCounts(Struct, gc=False):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: PromptDetails | None = None


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class Call(Struct, gc=False):
    index: Annotated[int, Meta(ge=0, le=1000)] | None = None
    id: str | None = None
    function: Function | None = None


class Text(Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """As newer vLLM names it."""
    tool_calls: list[Call] | None = None


class Choice(Struct, gc=False):
    index: int = 0
    delta: Text | None = None
    message: Text | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Raw = NULL


class Said(Struct, gc=False):
    choices: list[Choice] = []
    usage: TokenCounts | None = None
    error: Raw = NULL


class Vector(Struct, gc=False):
    embedding: list[float]
    index: int = 0


class Vectors(Struct, gc=False):
    data: list[Vector]
    usage: TokenCounts | None = None


class EngineFault(Struct, gc=False):
    """What an engine says of an error; its text never reaches a caller."""

    type: str | None = None
    code: str | int | None = None
    message: str | None = None
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class Faulted(Struct, gc=False):
    error: EngineFault


decode_said = msgspec.json.Decoder(Said).decode
decode_vectors = msgspec.json.Decoder(Vectors).decode
decode_faulted = msgspec.json.Decoder(Faulted).decode
