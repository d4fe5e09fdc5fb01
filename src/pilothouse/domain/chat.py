"""
What is asked of a model and what it answers, free of any protocol.

A request here is valid: the codecs of `wire` checked it, nothing below does so
again. Values are msgspec structs, because they are made once a request or once
a token on the hot path.
"""

from typing import Literal

from msgspec import Raw, Struct

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class Sampling(Struct, frozen=True, omit_defaults=True):
    """
    Sampling settings that reach an engine: the allow-list, and nothing else.

    The names are the OpenAI dialect's, so that encoding one gives an engine's fields.
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


class GenerateRequest(Struct, frozen=True):
    """
    A valid request for generated text.

    `prompt` is the JSON of the messages (chat) or the JSON string of the prompt
    (completion): bytes that are carried, not taken apart. `prompt_bytes` bounds
    the prompt's tokens from above, for no token is shorter than a byte.
    """

    kind: Literal["chat", "completion"]
    endpoint: str
    prompt: Raw
    prompt_bytes: int
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    choices: int = 1
    sampling: Sampling = Sampling()
    subject: str | None = None


class EmbedRequest(Struct, frozen=True, kw_only=True):
    """A valid request for embeddings of one or more texts."""

    endpoint: str
    inputs: list[str]
    base64: bool = False
    subject: str | None = None


class Usage(Struct, frozen=True):
    """Tokens as the engine counted them. `cached` is the part of `input` it did not compute again."""

    input: int = 0
    output: int = 0
    cached: int = 0


class Delta(Struct, frozen=True):
    """One step of one choice: text, its end, or both."""

    text: str = ""
    index: int = 0
    finish_reason: str | None = None
    logprobs: Raw | None = None


class Chunk(Struct, frozen=True):
    """What an engine says at once: steps of choices, and at the end the usage."""

    deltas: tuple[Delta, ...] = ()
    usage: Usage | None = None


class Embeddings(Struct, frozen=True):
    """Vectors in the order of the inputs, each of the model's dimension, and the usage."""

    vectors: list[list[float]]
    usage: Usage
