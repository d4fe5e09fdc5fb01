"""
The messages of a chat, as the OpenAI dialect has them and every request carries them.

Strict: what is not named here is refused. Other protocols write their messages in
this shape when they come in, and read it when they go out.

Source: the OpenAI API reference, chat completions, `messages`.
"""

from typing import Annotated, Literal, cast, final

import msgspec
from msgspec import Meta, Raw, Struct

from pilothouse.domain.generate_request import GenerateRequest

Name = Annotated[str, Meta(max_length=256)]
FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
CallId = Annotated[str, Meta(min_length=1, max_length=512)]


@final
class Text(Struct, gc=False, tag_field="type", tag="text", forbid_unknown_fields=True, omit_defaults=True):
    text: str


@final
class Refusal(
    Struct, gc=False, tag_field="type", tag="refusal", forbid_unknown_fields=True, omit_defaults=True
):
    refusal: str


class ImageUrl(Struct, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    url: Annotated[str, Meta(min_length=1)]
    """`https:` or `data:image/...;base64,...`"""
    detail: Literal["auto", "low", "high", "original"] | None = None


class Image(
    Struct, gc=False, tag_field="type", tag="image_url", forbid_unknown_fields=True, omit_defaults=True
):
    image_url: ImageUrl


class Sound(Struct, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    data: str
    format: Literal["wav", "mp3"]


class Audio(
    Struct, gc=False, tag_field="type", tag="input_audio", forbid_unknown_fields=True, omit_defaults=True
):
    input_audio: Sound


class FileData(Struct, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    file_data: str | None = None
    """Base64, as a `data:` address."""
    filename: str | None = None
    file_id: str | None = None


class File(Struct, gc=False, tag_field="type", tag="file", forbid_unknown_fields=True, omit_defaults=True):
    file: FileData


class Function(Struct, gc=False, forbid_unknown_fields=True):
    name: FunctionName
    arguments: str
    """JSON text as the model wrote it, valid or not."""


class Call(Struct, gc=False, tag_field="type", tag="function", forbid_unknown_fields=True):
    id: CallId
    function: Function


Part = Text | Image | Audio | File
_TextParts = Annotated[list[Text], Meta(min_length=1)]


@final
class System(
    Struct, gc=False, tag_field="role", tag="system", forbid_unknown_fields=True, omit_defaults=True
):
    content: str | _TextParts
    name: Name | None = None


@final
class Developer(
    Struct, gc=False, tag_field="role", tag="developer", forbid_unknown_fields=True, omit_defaults=True
):
    content: str | _TextParts
    name: Name | None = None


@final
class User(Struct, gc=False, tag_field="role", tag="user", forbid_unknown_fields=True, omit_defaults=True):
    content: str | Annotated[list[Part], Meta(min_length=1)]
    name: Name | None = None


@final
class Assistant(
    Struct, gc=False, tag_field="role", tag="assistant", forbid_unknown_fields=True, omit_defaults=True
):
    """Says something, calls tools, or both."""

    content: str | Annotated[list[Text | Refusal], Meta(min_length=1)] | None = None
    name: Name | None = None
    refusal: str | None = None
    tool_calls: Annotated[list[Call], Meta(min_length=1, max_length=128)] | None = None
    reasoning_content: str | None = None
    """What it thought before; engines that think take it back."""


@final
class Tool(Struct, gc=False, tag_field="role", tag="tool", forbid_unknown_fields=True, omit_defaults=True):
    """What a tool gave for one call."""

    content: str | _TextParts
    tool_call_id: CallId


Message = System | Developer | User | Assistant | Tool
ANSWERED = frozenset({"annotations", "audio", "function_call"})
"""Fields of an answer that no message has; clients send them back as they got them, which is empty."""
_EMPTY = frozenset({b"null", b"[]"})

decode = msgspec.json.Decoder(Annotated[list[Message], Meta(min_length=1)]).decode
"""Messages from JSON; raises what msgspec raises."""


def of(request: GenerateRequest) -> list[Message]:
    """What a request for a chat holds, decoded at most once: nobody may change it."""
    return cast("list[Message]", decode(request.prompt) if request.messages is None else request.messages)


_decode_fields = msgspec.json.Decoder(list[dict[str, Raw]]).decode
encode = msgspec.json.Encoder().encode
"""Canonical JSON of messages: no whitespace, one order of fields."""


def without_empty(raw: Raw) -> Raw | None:
    """The messages without what is empty of `ANSWERED`; None where there is nothing of it, or no messages."""
    try:
        said = _decode_fields(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    empty = [(one, name) for one in said for name in ANSWERED & one.keys() if bytes(one[name]) in _EMPTY]
    for one, name in empty:
        del one[name]
    return Raw(encode(said)) if empty else None
