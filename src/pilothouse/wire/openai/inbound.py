"""
From a client's JSON to a valid request, or to an error that names the field: chats and texts to embed.

What may stand there is in `shapes`; what its types alone cannot say is checked here. Plain prompts
are read in `completions`.
"""

from typing import Final, Literal

import msgspec
from msgspec import Raw

from pilothouse.domain.chat import Ability, EmbedRequest, GenerateRequest, Sampling
from pilothouse.domain.errors import InvalidRequest
from pilothouse.wire.openai import conversation, messages, tools
from pilothouse.wire.openai.fields import NULL, read_object, sub_read
from pilothouse.wire.openai.messages import Message
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

_NO_NEEDS: Final[frozenset[Ability]] = frozenset()
_encode: Final = msgspec.json.Encoder().encode


def read_chat(body: bytes) -> GenerateRequest:
    """
    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For a field of `CHAT_FATES.not_built`.
    """
    try:
        chat = decode_chat(body)
        said = messages.decode(chat.messages)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        chat = read_object(body, decode_chat, Chat, CHAT_FATES)
        chat.messages, said = _read_messages(chat.messages)
    if fault := conversation.problem_of(said):
        raise InvalidRequest(f"messages{fault[0]}: {fault[1]}", param=f"messages{fault[0]}")
    response_format = None if chat.response_format is NULL else _format(chat.response_format)
    max_tokens = chat.max_completion_tokens or chat.max_tokens
    if chat.max_tokens is not None and max_tokens != chat.max_tokens:
        raise InvalidRequest(
            "max_tokens and max_completion_tokens differ; send one of them", param="max_completion_tokens"
        )
    if chat.top_logprobs is not None and not chat.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
    top_logprobs = (chat.top_logprobs or 0) if chat.logprobs else None
    sampling = sampling_of(
        chat, logprobs=chat.logprobs or None, top_logprobs=top_logprobs, response_format=response_format
    )
    ask = request_of(chat, "chat", chat.messages, max_tokens, sampling, said)
    needs = conversation.needs_of(said)
    if ask.needs:
        needs |= ask.needs
    if chat.store is not None or chat.safety_identifier is not None:
        subject = chat.safety_identifier or chat.user
        ask = msgspec.structs.replace(ask, store=chat.store, subject=subject)
    if chat.tools is not NULL or chat.tool_choice is not NULL or needs or chat.reasoning_effort:
        return _richer(ask, chat, needs)
    return ask


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
    asked: Generate,
    kind: Literal["chat", "completion"],
    prompt: Raw,
    max_tokens: int | None,
    sampling: Sampling,
    said: object = None,
) -> GenerateRequest:
    options = asked.stream_options
    if options is not None and not asked.stream:
        raise InvalidRequest("stream_options needs stream to be true", param="stream_options")
    ask = GenerateRequest(
        kind,
        asked.model,
        prompt,
        len(prompt),
        asked.stream is True,
        options is not None and options.include_usage,
        max_tokens,
        asked.n or 1,
        sampling,
        asked.user,
        _NO_NEEDS,
        None,
        False,
        1,
        False,
        said,
    )
    if asked.logit_bias:
        bias = Raw(_encode(asked.logit_bias))
        sampling = msgspec.structs.replace(sampling, logit_bias=bias)
        ask = msgspec.structs.replace(ask, sampling=sampling, needs=frozenset({"logit_bias"}))
    return ask


def sampling_of(
    asked: Generate,
    *,
    logprobs: bool | int | None,
    top_logprobs: int | None = None,
    response_format: Raw | None = None,
) -> Sampling:
    stop = asked.stop
    return Sampling(
        asked.temperature,
        asked.top_p,
        asked.top_k,
        asked.min_p,
        asked.seed,
        [stop] if isinstance(stop, str) else (stop or None),
        asked.frequency_penalty,
        asked.presence_penalty,
        logprobs,
        top_logprobs,
        response_format,
    )


def _richer(ask: GenerateRequest, chat: Chat, needs: frozenset[Ability]) -> GenerateRequest:
    """The same with tools, pictures and thinking: what most requests have none of."""
    offered = None if bytes(chat.tools) == b"null" else chat.tools
    choice = None if bytes(chat.tool_choice) == b"null" else chat.tool_choice
    if offered is not None:
        sub_read(offered, tools.decode, "tools")
        needs |= {"tools"}
    if choice is not None:
        tools.check_choice(sub_read(choice, tools.decode_choice, "tool_choice"), offered)
    return msgspec.structs.replace(
        ask,
        prompt_bytes=ask.prompt_bytes + (len(offered) if offered is not None else 0),
        needs=needs,
        sampling=msgspec.structs.replace(
            ask.sampling,
            tools=offered,
            tool_choice=choice,
            parallel_tool_calls=chat.parallel_tool_calls if offered is not None else None,
            reasoning_effort=chat.reasoning_effort,
        ),
    )
