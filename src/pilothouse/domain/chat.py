"""
What is asked of a model and what it answers, free of any protocol.

A request here is valid: the codecs of `wire` checked it, nothing below does so
again. Values are msgspec structs, because they are made once a request or once
a token on the hot path; none can hold itself, so the collector need not know them (`gc=False`).
"""

from typing import Literal

from msgspec import Raw, Struct

from pilothouse.domain.used_tokens import Usage

Ability = Literal["tools", "image", "audio", "file", "logit_bias", "token_ids", "echo", "redacted_thinking"]
"""What a request may need of an engine beyond text in and text out."""
FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Sampling(Struct, frozen=True, gc=False, omit_defaults=True):
    """
    What shapes an answer beside its prompt: the allow-list, and nothing else reaches an engine.

    The names are the OpenAI dialect's, so that encoding one gives an engine's fields.
    `tools`, `tool_choice`, `response_format` and `logit_bias` are valid JSON in that dialect's shape.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    response_format: Raw | None = None
    tools: Raw | None = None
    tool_choice: Raw | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    logit_bias: Raw | None = None


class Thought(Struct, frozen=True, gc=False, omit_defaults=True):
    """
    What a provider's model thought, as that provider takes it back: signed, or `data` that only it can read.
    """

    text: str = ""
    signature: str = ""
    data: str = ""
    block: int = 0
    """Which of its answer's blocks it is, from 0."""


class Remembered(Struct, frozen=True, gc=False):
    """A thought of an earlier answer, and the message that it belongs to."""

    message: int
    thought: Thought


class EmbedRequest(Struct, frozen=True, kw_only=True):
    """A valid request for embeddings of one or more texts."""

    endpoint: str
    inputs: list[str]
    base64: bool = False
    subject: str | None = None


class ToolCall(Struct, frozen=True, gc=False):
    """
    A call of a tool, or the next piece of one.

    Its id and name come once, its arguments as pieces of a JSON text; `index` says
    which of an answer's calls it is.
    """

    index: int = 0
    id: str = ""
    name: str = ""
    arguments: str = ""


class Aside(Struct, frozen=True, gc=False):
    """What a model says beside its text, in pieces as that."""

    reasoning: str = ""
    refusal: str = ""
    tools: tuple[ToolCall, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    """Where a provider signs them: each once more when it is whole, beside the pieces in `reasoning`."""


class Embeddings(Struct, frozen=True):
    """Vectors in the order of the inputs, each of the model's dimension, and the usage."""

    vectors: list[list[float]]
    usage: Usage
