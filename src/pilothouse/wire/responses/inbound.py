"""
From a Responses request to a valid request, or to an error that names the field.

Three lists decide about every field, as in `wire.openai.inbound`: what the shape
below has is carried, `FATES` says what changes no answer, and what is refused with
501 by name; anything else is a mistake. `reference` prints them.

Source: the OpenAI API reference, responses, create.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from pilothouse.domain.chat import Sampling
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.wire.openai import conversation, messages, tools
from pilothouse.wire.openai.fields import Fates, read_object, sub_read
from pilothouse.wire.openai.messages import Message
from pilothouse.wire.openai.shapes import PositiveInt, Share, Subject, Temperature
from pilothouse.wire.responses import items

FATES = Fates(
    harmless=frozenset(
        {
            "service_tier",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
        }
    ),
    not_built=frozenset(
        {
            "access_programs",
            "background_options",
            "context_management",
            "conversation",
            "image",
            "max_tool_calls",
            "moderation",
            "prompt",
        }
    ),
)
INCLUDES = frozenset({"message.output_text.logprobs", "reasoning.encrypted_content"})
"""Reasoning is given openly here, so there is nothing encrypted to include."""
_NULL = Raw(b"null")
_ENCODE = msgspec.json.Encoder().encode
_METADATA_PAIRS = 16


class _Reasoning(Struct, forbid_unknown_fields=True):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    """Taken, and answered with the reasoning itself: no summary is written."""
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class _Schema(Struct, tag_field="type", tag="json_schema", forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema: dict[str, Any]
    strict: bool | None = None
    description: str | None = None


class _Object(Struct, tag_field="type", tag="json_object", forbid_unknown_fields=True):
    pass


class _Plain(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class _Text(Struct, forbid_unknown_fields=True):
    format: _Schema | _Object | _Plain | None = None
    verbosity: Literal["medium"] | None = None
    """Only the usual one: no engine here has another."""


class Function(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    name: messages.FunctionName
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class _NamedChoice(Struct, tag_field="type", tag="function", forbid_unknown_fields=True):
    name: messages.FunctionName


class _StreamOptions(Struct, forbid_unknown_fields=True):
    include_obfuscation: bool = False


class _Settings(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request but for its input, as far as it is carried."""

    model: str
    background: bool | None = None
    include: list[str] | None = None
    instructions: str | None = None
    max_output_tokens: PositiveInt | None = None
    metadata: dict[str, Annotated[str, Meta(max_length=512)]] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    reasoning: _Reasoning | None = None
    safety_identifier: Subject | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Temperature | None = None
    text: _Text | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedChoice | None = None
    tools: Raw = _NULL
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: Share | None = None
    truncation: Literal["disabled", "auto"] | None = None
    user: Subject | None = None


class Create(_Settings, forbid_unknown_fields=True, kw_only=True):
    input: Raw


class _Texts(_Settings, forbid_unknown_fields=True, kw_only=True):
    """A request whose input is messages of one text each, as most are: decoded at once."""

    input: items.Texts


class _Effort(Struct, frozen=True):
    effort: str | None = None
    summary: None = None


class _Format(Struct, frozen=True):
    format: _Schema | _Object | _Plain


class _Plainly(Struct):
    """What a response repeats as it came."""

    instructions: str | None
    max_output_tokens: int | None
    previous_response_id: str | None
    store: bool | None
    temperature: float | None
    top_p: float | None
    safety_identifier: str | None
    user: str | None


class _Filled(Struct):
    """What a response says whether the request did or not."""

    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = True
    reasoning: _Effort = _Effort()
    text: _Format = _Format(_Plain())
    tool_choice: str | _NamedChoice = "auto"
    tools: Raw = Raw(b"[]")
    top_logprobs: int = 0
    truncation: str = "disabled"


ECHOED = frozenset((*_Plainly.__struct_fields__, *_Filled.__struct_fields__))
"""Fields of a request that its response repeats."""
_USUAL = _ENCODE(_Filled())[1:]
_decode = msgspec.json.Decoder(Create).decode
_decode_texts = msgspec.json.Decoder(_Texts).decode
_decode_tools = msgspec.json.Decoder(Annotated[list[Raw], Meta(max_length=128)]).decode
_decode_function = msgspec.json.Decoder(Function).decode


def previous_of(body: bytes) -> str:
    """The response that this request goes on from; empty where it begins anew, or is no valid request."""
    if b'"previous_response_id"' not in body:
        return ""
    try:
        return _decode(body).previous_response_id or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""  # `read` says what is wrong


def _create(body: bytes) -> Create:
    asked: Create = read_object(body, _decode, Create, FATES)
    _check(asked)
    return asked


def _asked(body: bytes) -> tuple[_Settings, list[Message]]:
    try:
        texts = _decode_texts(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        asked = _create(body)  # not texts alone, or a mistake
        return asked, items.read_input(asked.input)
    _check(texts)
    return texts, items.read_texts(texts.input)


def _check(asked: _Settings) -> None:
    if asked.background:
        raise NotSupported("background responses are not supported; leave it out", param="background")
    if asked.truncation == "auto":
        raise NotSupported("a conversation is never cut here; leave truncation out", param="truncation")
    if asked.metadata and len(asked.metadata) > _METADATA_PAIRS:
        raise InvalidRequest(f"metadata: at most {_METADATA_PAIRS} pairs", param="metadata")


def shown(body: bytes) -> tuple[GenerateRequest, list[Message]]:
    """
    A request that was answered before: what its response repeats of it, and what was said in it.

    Instructions hold for one response alone, and are not among what was said.
    """
    asked = _create(body)
    repeated = GenerateRequest("chat", asked.model, Raw(b"[]"), 0).changed(repeated=_echo(asked))
    return repeated, items.read_input(asked.input)


def input_of(body: bytes) -> list[dict[str, Any]]:
    """The items of a request that was answered before, as they came; a text is a message of its user."""
    given = msgspec.json.decode(_create(body).input)
    if isinstance(given, str):
        given = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return list(given)


def read(body: bytes, before: list[Message]) -> GenerateRequest:
    """
    Args:
        before: What was said before, where the request goes on from an earlier response.

    Raises:
        InvalidRequest: With the field in `param`.
        NotSupported: For a field, a tool or an item that is known and cannot be carried.
    """
    asked, said = _asked(body)
    if asked.instructions or before:
        system = [messages.System(asked.instructions)] if asked.instructions else []
        said = [*system, *before, *said]
    if fault := conversation.problem_of(said):
        raise InvalidRequest(f"input{fault[0]}: {fault[1]}", param="input")
    offered = None if asked.tools is _NULL else _tools(asked.tools)
    prompt = Raw(messages.encode(said))
    needs = conversation.needs_of(said)
    if offered is not None:
        needs |= {"tools"}
    ask = GenerateRequest(
        "chat", asked.model, prompt, len(prompt) + (len(offered) if offered is not None else 0)
    )
    ask.stream = asked.stream is True
    ask.include_usage = True
    ask.max_tokens = asked.max_output_tokens
    ask.sampling = _sampling(asked, offered)
    ask.subject = asked.safety_identifier or asked.user
    ask.needs = needs
    ask.store = asked.store
    ask.messages = said
    ask.repeated = _echo(asked)
    return ask


def _sampling(asked: _Settings, offered: Raw | None) -> Sampling:
    logprobs = asked.include is not None and _asks_for_logprobs(asked.include)
    if asked.top_logprobs and not logprobs:
        raise InvalidRequest(
            'top_logprobs needs include to have "message.output_text.logprobs"', param="top_logprobs"
        )
    return Sampling(
        asked.temperature,
        asked.top_p,
        logprobs=logprobs or None,
        top_logprobs=(asked.top_logprobs or 0) if logprobs else None,
        response_format=None if asked.text is None else _format(asked.text),
        tools=offered,
        tool_choice=None if asked.tool_choice is None else _choice(asked.tool_choice, offered),
        parallel_tool_calls=asked.parallel_tool_calls if offered is not None else None,
        reasoning_effort=asked.reasoning.effort if asked.reasoning is not None else None,
    )


def _asks_for_logprobs(includes: Sequence[str]) -> bool:
    for name in includes:
        if name not in INCLUDES:
            raise NotSupported(f"include: {name[:64]!r} is not supported; leave it out", param="include")
    return "message.output_text.logprobs" in includes


def _format(text: _Text) -> Raw | None:
    wanted = text.format
    if wanted is None or isinstance(wanted, _Plain):
        return None
    if isinstance(wanted, _Object):
        return Raw(b'{"type":"json_object"}')
    schema = {name: value for name, value in msgspec.to_builtins(wanted).items() if value is not None}
    schema.pop("type")
    return Raw(_ENCODE({"type": "json_schema", "json_schema": schema}))


def _tools(given: Raw) -> Raw | None:
    """The offered functions in the chat dialect's shape."""
    if bytes(given) == b"null":
        return None
    found = []
    for place, raw in enumerate(sub_read(given, _decode_tools, "tools")):
        kind = items.type_of(raw)
        if kind != "function":
            raise NotSupported(
                f"tools[{place}]: a tool of type {kind[:40]!r} runs at OpenAI; offer functions",
                param=f"tools[{place}].type",
            )
        function = sub_read(raw, _decode_function, f"tools[{place}]")
        offer = tools.Offer(function.name, function.description, function.parameters, function.strict)
        found.append(tools.FunctionTool(offer))
    return Raw(_ENCODE(found)) if found else None


def _choice(wanted: Literal["none", "auto", "required"] | _NamedChoice, offered: Raw | None) -> Raw | None:
    if offered is None and wanted in ("auto", "none"):
        return None
    choice: tools.Choice = (
        tools.NamedChoice(tools.Named(wanted.name)) if isinstance(wanted, _NamedChoice) else wanted
    )
    tools.check_choice(choice, offered)
    return Raw(_ENCODE(choice))


def _echo(asked: _Settings) -> bytes:
    plainly = _ENCODE(
        _Plainly(
            asked.instructions,
            asked.max_output_tokens,
            asked.previous_response_id,
            asked.store,
            asked.temperature,
            asked.top_p,
            asked.safety_identifier,
            asked.user,
        )
    )
    return b",%s,%s" % (plainly[1:-1], _filled(asked))


def _filled(asked: _Settings) -> bytes:
    if (
        (asked.metadata is None and asked.parallel_tool_calls is None and asked.reasoning is None)
        and (asked.text is None and asked.tool_choice is None and asked.tools is _NULL)
        and asked.top_logprobs is None
    ):
        return _USUAL
    filled = _Filled(asked.metadata or {}, asked.parallel_tool_calls is not False)
    if asked.reasoning is not None:
        filled.reasoning = _Effort(asked.reasoning.effort)
    if asked.text is not None and asked.text.format is not None:
        filled.text = _Format(asked.text.format)
    if asked.tool_choice is not None:
        filled.tool_choice = asked.tool_choice
    if bytes(asked.tools) != b"null":
        filled.tools = asked.tools
    filled.top_logprobs = asked.top_logprobs or 0
    return _ENCODE(filled)[1:]
