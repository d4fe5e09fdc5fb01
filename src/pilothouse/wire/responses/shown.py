"""Shapes of a response as clients get it, and of the items in it."""

from typing import Any

from msgspec import Struct

from pilothouse.domain.used_tokens import Usage as Counted


class TextPart(Struct, tag_field="type", tag="output_text"):
    text: str
    logprobs: list[Any]
    annotations: list[Any] = []


class RefusalPart(Struct, tag_field="type", tag="refusal"):
    refusal: str


class ThoughtPart(Struct, tag_field="type", tag="reasoning_text"):
    text: str


Part = TextPart | RefusalPart | ThoughtPart


class Message(Struct, tag_field="type", tag="message"):
    id: str
    status: str
    content: list[Part]
    role: str = "assistant"


class Reasoning(Struct, tag_field="type", tag="reasoning"):
    id: str
    status: str
    content: list[Part]
    summary: list[Any] = []


class Call(Struct, tag_field="type", tag="function_call"):
    id: str
    status: str
    arguments: str
    call_id: str
    name: str


Shown = Message | Reasoning | Call


class InputDetails(Struct, frozen=True):
    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(Struct, frozen=True):
    """What a model spent on thinking is a part of its output, and not counted apart."""

    reasoning_tokens: int = 0


class Usage(Struct):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    total_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()


class Response(Struct):
    id: str
    created_at: int
    status: str
    model: str
    output: list[Shown]
    error: dict[str, Any] | None
    incomplete_details: dict[str, str] | None
    usage: Usage | None
    object: str = "response"
    background: bool = False


def usage_of(usage: Counted) -> Usage:
    return Usage(usage.input, InputDetails(usage.cached), usage.output, usage.input + usage.output)
