"""
What a request of OpenAI's clients may hold, strictly typed, and what becomes of the rest.

Every field is decided about: those of the shapes below are carried; `Fates` say which
are dropped, for they change no answer, and which are refused with 501. Any other name
is refused with 400. So nothing that a caller invents ever reaches an engine.

Source: the OpenAI API reference, chat completions, completions and embeddings.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from pilothouse.wire.openai.fields import NULL, Fates

Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
PositiveInt = Annotated[int, Meta(ge=1)]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
Stop = StopText | Annotated[list[StopText], Meta(max_length=16)] | None
Choices = Annotated[int, Meta(ge=1, le=4)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Subject = Annotated[str, Meta(max_length=512)]
LogitBias = Annotated[
    dict[Annotated[str, Meta(pattern=r"^\d{1,7}$")], Annotated[float, Meta(ge=-100, le=100)]],
    Meta(max_length=1024),
]
"""By the id of a token, as the model counts them."""
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]

CHAT_FATES = Fates(
    harmless=frozenset(
        {"service_tier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
    ),
    not_built=frozenset(
        {
            "functions",
            "function_call",
            "modalities",
            "moderation",
            "audio",
            "prediction",
            "verbosity",
            "web_search_options",
        }
    ),
    instead={
        "functions": "send tools, its newer form",
        "function_call": "send tool_choice, its newer form",
        "moderation": "ask /v1/moderations",
    },
)
"""Of OpenAI's reference. Which engine or tier answers, and what is cached, are the endpoint's settings."""
COMPLETION_FATES = Fates(
    harmless=frozenset(),
    not_built=frozenset({"suffix"}),
    instead={"suffix": "put what stands before and after into the prompt, in the words of your model"},
)
EMBED_FATES = Fates(harmless=frozenset(), not_built=frozenset({"dimensions"}))


class StreamOptions(Struct, gc=False, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class Generate(Struct, gc=False, forbid_unknown_fields=True, kw_only=True):
    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: PositiveInt | None = None
    n: Choices | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    stop: Stop = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    user: Subject | None = None


class Chat(Generate, gc=False, forbid_unknown_fields=True, kw_only=True):
    messages: Raw
    max_completion_tokens: PositiveInt | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: Raw = NULL
    tools: Raw = NULL
    tool_choice: Raw = NULL
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    """Checked, and kept with the body in the record: it changes no answer."""
    safety_identifier: Subject | None = None
    """What OpenAI puts in the place of `user`."""


class Completion(Generate, gc=False, forbid_unknown_fields=True, kw_only=True):
    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    best_of: Choices | None = None


class Embed(Struct, forbid_unknown_fields=True, kw_only=True):
    model: str
    input: str | Annotated[list[str], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    user: Subject | None = None


class Format(Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Raw = NULL
    schema: Raw = NULL
    """Of a `json_object`, where llama.cpp and its like read it."""


decode_chat = msgspec.json.Decoder(Chat).decode
decode_completion = msgspec.json.Decoder(Completion).decode
decode_embed = msgspec.json.Decoder(Embed).decode
decode_format = msgspec.json.Decoder(Format).decode
