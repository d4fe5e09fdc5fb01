"""
The items of a conversation in the Responses protocol, and the chat's messages they are here.

Items of tools that run at OpenAI, and references to items that lie there, are
refused by name. A call of a function belongs to the assistant's message before it.

Source: the OpenAI API reference, responses, input items.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.wire.openai import messages
from pilothouse.wire.openai.fields import sub_read
from pilothouse.wire.openai.messages import CallId, FunctionName, Message

Status = Literal["in_progress", "completed", "incomplete"] | None


class InputText(Struct, tag_field="type", tag="input_text", forbid_unknown_fields=True):
    text: str


class InputImage(Struct, tag_field="type", tag="input_image", forbid_unknown_fields=True):
    image_url: Annotated[str, Meta(min_length=1)] | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None
    file_id: str | None = None


class InputFile(Struct, tag_field="type", tag="input_file", forbid_unknown_fields=True):
    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


class OutputText(Struct, tag_field="type", tag="output_text", forbid_unknown_fields=True):
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class OutputRefusal(Struct, tag_field="type", tag="refusal", forbid_unknown_fields=True):
    refusal: str


_Part = InputText | InputImage | InputFile | OutputText | OutputRefusal


class _Spoken(Struct, forbid_unknown_fields=True, kw_only=True):
    """A message but for what it says; `type` may be left out."""

    role: Literal["user", "system", "developer", "assistant"]
    type: Literal["message"] | UnsetType = UNSET
    id: str | None = None
    status: Status = None
    phase: Literal["commentary", "final_answer"] | None = None


class _Said(_Spoken, forbid_unknown_fields=True, kw_only=True):
    content: str | list[_Part]


class _Saying(_Spoken, forbid_unknown_fields=True, kw_only=True):
    """One text, as most are."""

    content: Annotated[str, Meta(min_length=1)]


Texts = Annotated[list[_Saying], Meta(min_length=1, max_length=10_000)]
"""An input of such messages alone."""


class _Call(Struct, forbid_unknown_fields=True):
    """What is None here is of tools that run at OpenAI; clients send it back empty."""

    call_id: CallId
    name: FunctionName
    arguments: str
    type: str = "function_call"
    id: str | None = None
    status: Status = None
    caller: None = None
    namespace: None = None
    runs_aside: None = msgspec.field(default=None, name="async")
    async_: None = None
    """As OpenAI's client for Python writes the name."""


class _Output(Struct, forbid_unknown_fields=True):
    call_id: CallId
    output: str | list[InputText]
    type: str = "function_call_output"
    id: str | None = None
    status: Status = None


class _Thought(Struct, forbid_unknown_fields=True):
    text: str
    type: Literal["reasoning_text", "summary_text"]


class _Reasoning(Struct, forbid_unknown_fields=True):
    summary: list[_Thought] = []
    content: list[_Thought] | None = None
    encrypted_content: None = None
    type: str = "reasoning"
    id: str | None = None
    status: Status = None


class _Type(Struct):
    type: str = "message"


_decode_text = msgspec.json.Decoder(str).decode
_decode_type = msgspec.json.Decoder(_Type).decode
_decode_list = msgspec.json.Decoder(Annotated[list[Raw], Meta(min_length=1, max_length=10_000)]).decode
_SHAPES = {
    "message": msgspec.json.Decoder(_Said).decode,
    "function_call": msgspec.json.Decoder(_Call).decode,
    "function_call_output": msgspec.json.Decoder(_Output).decode,
    "reasoning": msgspec.json.Decoder(_Reasoning).decode,
}
_BY_ROLE: dict[str, Callable[[str], Message]] = {
    "user": messages.User,
    "system": messages.System,
    "developer": messages.Developer,
    "assistant": messages.Assistant,
}
ITEMS = frozenset(_SHAPES)
"""Types of items that are carried."""


def type_of(raw: Raw) -> str:
    try:
        return _decode_type(raw).type
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "unknown"


def read_texts(given: Sequence[_Saying]) -> list[Message]:
    return [_BY_ROLE[one.role](one.content) for one in given]


def read_input(given: Raw) -> list[Message]:
    """
    Raises:
        InvalidRequest: With the place in `param`.
        NotSupported: An item or a part that cannot be carried.
    """
    if bytes(given).startswith(b'"'):
        text = sub_read(given, _decode_text, "input")
        if not text:
            raise InvalidRequest("input is empty; send at least one character", param="input")
        return [messages.User(content=text)]
    said: list[Message] = []
    thought = ""
    for place, raw in enumerate(sub_read(given, _decode_list, "input")):
        where = f"input[{place}]"
        kind = type_of(raw)
        if kind not in _SHAPES:
            raise NotSupported(f"{where}: {kind[:40]!r} is not a type of item here", param=f"{where}.type")
        item = sub_read(raw, _SHAPES[kind], where)
        if isinstance(item, _Reasoning):
            thought += "".join([part.text for part in item.content or item.summary])
            continue
        said.append(_message(item, place, said, thought))
        if isinstance(said[-1], messages.Assistant):
            thought = ""
    if not said:
        raise InvalidRequest("input has no message; send at least one", param="input")
    return said


def _message(item: _Said | _Call | _Output, place: int, said: list[Message], thought: str) -> Message:
    if isinstance(item, _Said):
        return _said(item, place, thought)
    if isinstance(item, _Output):
        return messages.Tool(content=_joined(item.output), tool_call_id=item.call_id)
    call = messages.Call(item.call_id, messages.Function(item.name, item.arguments))
    before = said[-1] if said else None
    if isinstance(before, messages.Assistant) and not thought:
        said.pop()
        return msgspec.structs.replace(before, tool_calls=[*(before.tool_calls or []), call])
    return messages.Assistant(tool_calls=[call], reasoning_content=thought or None)


def _said(item: _Said, place: int, thought: str) -> Message:
    role, content = item.role, item.content
    if isinstance(content, str) and content:
        if role == "assistant":
            return messages.Assistant(content, reasoning_content=thought or None)
        return _BY_ROLE[role](content)
    where = f"input[{place}]"
    if isinstance(content, str) or not content:
        raise InvalidRequest(f"{where}.content is empty", param=f"{where}.content")
    if role == "assistant":
        return _assistant(content, where, thought)
    if role == "user":
        return messages.User([_user_part(part, where) for part in content])
    if not all(isinstance(part, InputText) for part in content):
        raise InvalidRequest(f"{where}.content: a {role} message is text", param=f"{where}.content")
    text = _joined(content)
    return messages.System(text) if role == "system" else messages.Developer(text)


def _joined(content: Any) -> str:
    """Text, or the texts of parts."""
    return content if isinstance(content, str) else "".join([part.text for part in content])


def _assistant(given: Sequence[_Part], where: str, thought: str) -> Message:
    parts: list[messages.Text | messages.Refusal] = []
    for part in given:
        if isinstance(part, OutputRefusal):
            parts.append(messages.Refusal(part.refusal))
        elif isinstance(part, OutputText | InputText):
            parts.append(messages.Text(part.text))
        else:
            raise InvalidRequest(f"{where}.content: an assistant's is text", param=f"{where}.content")
    texts = [part.text for part in parts if isinstance(part, messages.Text)]
    content: Any = "".join(texts) if len(texts) == len(parts) else parts
    return messages.Assistant(content=content, reasoning_content=thought or None)


def _user_part(part: _Part, where: str) -> messages.Part:
    if isinstance(part, InputText | OutputText):
        return messages.Text(part.text)
    if isinstance(part, InputImage):
        if part.file_id or not part.image_url:
            raise NotSupported(f"{where}: a picture by file_id; send image_url", param=f"{where}.content")
        return messages.Image(messages.ImageUrl(part.image_url, part.detail))
    if isinstance(part, InputFile):
        if part.file_id or part.file_url or not part.file_data:
            raise NotSupported(
                f"{where}: a file that lies elsewhere; send file_data", param=f"{where}.content"
            )
        return messages.File(messages.FileData(part.file_data, part.filename))
    raise InvalidRequest(f"{where}.content: a user does not refuse", param=f"{where}.content")
