"""
From a client's JSON to a valid request, or to an error that names the field: chats and texts to embed.

What may stand there is in `shapes`; what its types alone cannot say is checked here. Plain prompts
are read in `completions`.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from pilothouse.domain.chat import Ability, EmbedRequest, Sampling
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai import conversation, messages, tools
from pilothouse.wire.openai.fields import NULL, read_object, sub_read
from pilothouse.wire.openai.messages import Message
from pilothouse.wire.openai.same_fields import Around, SameFields
from pilothouse.wire.openai.shapes import (
    CHAT_FATES,
    EMBED_FATES,
    Chat,
    Embed,
    Format,
    Generate,
    decode_chat,
    decode_embed,
    decode_format,
)

_encode: Final = msgspec.json.Encoder().encode

# A global of a module that is not compiled is looked up at each use; these are not.
_null: Final = NULL
_decode_chat: Final = decode_chat
_decode_messages: Final = messages.decode
_new_sampling: Final = Sampling

values_of: Final = msgspec.structs.astuple
"""All fields of a shape in their order, at once: that costs as much as a few that are read by name."""
SHARED: Final = len(Generate.__struct_fields__)
"""So many stand first in the shapes of a chat and of a completion alike."""
_MAX_TOKENS: Final = Generate.__struct_fields__.index("max_tokens")


def read_chat(body: bytes) -> GenerateRequest:
    """
    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For a field of `CHAT_FATES.not_built`.
    """
    known = _same.find(body)
    ask = None if known is None else _read_between(known, known.messages_of(body))
    if ask is None:
        ask = _read_chat(body)
        _same.learn(body, ask)
    return ask


def _read_between(known: Around, prompt: bytes) -> GenerateRequest | None:
    """A request of which only the messages are new; None where these are wrong, or not all that is new."""
    try:
        said: list[Message] = _decode_messages(prompt)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if conversation.problem_of(said):
        return None
    return known.asking(prompt, said, conversation.needs_of(said))


def _read_chat(body: bytes) -> GenerateRequest:
    try:
        chat: Chat = _decode_chat(body)
        prompt = chat.messages
        said: list[Message] = _decode_messages(prompt)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        chat = read_object(body, decode_chat, Chat, CHAT_FATES)
        prompt, said = _read_messages(chat.messages)
    if fault := conversation.problem_of(said):
        raise InvalidRequest(f"messages{fault[0]}: {fault[1]}", param=f"messages{fault[0]}")
    values = values_of(chat)
    max_tokens = values[_MAX_TOKENS]
    _, longest, logprobs, top_logprobs, form, offered, choice, _, effort, store, _, subject = values[SHARED:]
    if longest is not None and max_tokens is not None and longest != max_tokens:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens differ; send one of them", param="max_completion_tokens"
        )
    if top_logprobs is not None and not logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    ask = request_of(
        values,
        "chat",
        prompt,
        longest or max_tokens,
        said,
        logprobs=logprobs or None,
        top_logprobs=(top_logprobs or 0) if logprobs else None,
        response_format=None if form is _null else _format(form),
    )
    if store is not None or subject is not None:
        ask.store = store
        ask.subject = subject or ask.subject
    needs = conversation.needs_of(said)
    if offered is not _null or choice is not _null or needs or effort:
        _enrich(ask, chat, needs | ask.needs)
    return ask


_same: Final = SameFields(_read_chat)


def _format(given: Raw) -> Raw | None:
    """The schema of a `json_object` becomes one that every engine is asked for, and answers are held to."""
    if bytes(given) == b"null":
        return None
    form: Format = sub_read(given, decode_format, "response_format")
    for name, schema, kind in (
        ("json_schema", form.json_schema, "json_schema"),
        ("schema", form.schema, "json_object"),
    ):
        if bytes(schema) != b"null" and form.type != kind:
            at = f"response_format.{name}"
            raise InvalidRequest(f"{at} goes with type {kind}, not with {form.type}", param=at)
    if bytes(form.schema) == b"null":
        return given
    return Raw(b'{"type":"json_schema","json_schema":{"name":"answer","schema":%s}}' % bytes(form.schema))


def _read_messages(raw: Raw) -> tuple[Raw, list[Message]]:
    """Messages that do not decode: what answers have and messages do not is dropped where it is empty."""
    bare = messages.without_empty(raw)
    said: list[Message] = sub_read(raw if bare is None else bare, messages.decode, "messages")
    return (raw, said) if bare is None else (Raw(messages.encode(said)), said)


def read_embed(body: bytes) -> EmbedRequest:
    """As `read_chat`, for texts to embed."""
    asked = read_object(body, decode_embed, Embed, EMBED_FATES)
    inputs = [asked.input] if isinstance(asked.input, str) else asked.input
    if not all(inputs):
        raise InvalidRequest("input holds an empty text; leave it out", param="input")
    return EmbedRequest(
        endpoint=asked.model, inputs=inputs, base64=asked.encoding_format == "base64", subject=asked.user
    )


def request_of(
    values: tuple[Any, ...],
    kind: Literal["chat", "completion"],
    prompt: Raw,
    max_tokens: int | None,
    said: Sequence[Struct] | None = None,
    *,
    logprobs: bool | int | None,
    top_logprobs: int | None = None,
    response_format: Raw | None = None,
) -> GenerateRequest:
    """
    Args:
        values: Those of `values_of` its shape; of them those that both shapes have are read.
    """
    (
        model, stream, options, _, choices, temperature, top_p, top_k, min_p, seed, stop,
        frequency_penalty, presence_penalty, bias, user,
    ) = values[:SHARED]  # fmt: skip
    if options is not None and not stream:
        raise InvalidRequest("stream_options needs stream to be true", param="stream_options")
    sampling = _new_sampling(
        temperature,
        top_p,
        top_k,
        min_p,
        seed,
        [stop] if isinstance(stop, str) else (stop or None),
        frequency_penalty,
        presence_penalty,
        logprobs,
        top_logprobs,
        response_format,
    )
    ask = GenerateRequest(kind, model, prompt, len(prompt))
    ask.stream = stream is True
    ask.include_usage = options is not None and options.include_usage
    ask.max_tokens = max_tokens
    ask.choices = choices or 1
    ask.sampling = sampling
    ask.subject = user
    ask.messages = said
    if bias:
        ask.sampling = msgspec.structs.replace(sampling, logit_bias=Raw(_encode(bias)))
        ask.needs = frozenset({"logit_bias"})
    return ask


def _enrich(ask: GenerateRequest, chat: Chat, needs: frozenset[Ability]) -> None:
    """Fill in tools, pictures and thinking: what most requests have none of."""
    offered = None if bytes(chat.tools) == b"null" else chat.tools
    choice = None if bytes(chat.tool_choice) == b"null" else chat.tool_choice
    if offered is not None:
        sub_read(offered, tools.decode, "tools")
        needs |= {"tools"}
        ask.prompt_bytes += len(offered)
    if choice is not None:
        tools.check_choice(sub_read(choice, tools.decode_choice, "tool_choice"), offered)
    ask.needs = needs
    ask.sampling = msgspec.structs.replace(
        ask.sampling,
        tools=offered,
        tool_choice=choice,
        parallel_tool_calls=chat.parallel_tool_calls if offered is not None else None,
        reasoning_effort=chat.reasoning_effort,
    )
