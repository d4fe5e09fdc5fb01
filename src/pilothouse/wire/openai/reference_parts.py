"""
What becomes of every field within a chat: its messages, their parts, tools.

As `reference`, and printed with it: read off the shapes that decide about them; of what
these do not have, the reason stands here.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from pilothouse.wire.openai import messages, shapes, tools

Mark = Literal["yes", "mapped", "dropped", "refused", "not given"]
Table = Mapping[str, tuple[Mark, str]]
"""By field: its mark, and what there is to say."""

_BREAKPOINT = {"prompt_cache_breakpoint": "engines keep the longest prefix that they know, asked or not"}
_NOTES = {
    "reasoning_content": "beyond OpenAI's own: what the model thought, for engines that take it back",
    "file_id": "read by the provider whose it is; refused by engines that read no file of another's",
    "image_url": "refused where the engine's model reads none; so are the other parts that are no text",
}


def _of(shape: type[Struct], refused: Mapping[str, str] | None = None) -> Table:
    tag = shape.__struct_config__.tag_field
    names = [*([tag] if tag else []), *shape.__struct_fields__]
    rows: dict[str, tuple[Mark, str]] = {name: ("yes", _NOTES.get(name, "")) for name in names}
    return rows | {name: ("refused", why) for name, why in (refused or {}).items()}


def _none(*names: str, why: str) -> Table:
    return dict.fromkeys(names, ("refused", why))


PARTS: dict[str, Table] = {
    "messages: developer (`ChatCompletionDeveloperMessageParam`)": _of(messages.Developer),
    "messages: system (`ChatCompletionSystemMessageParam`)": _of(messages.System),
    "messages: user (`ChatCompletionUserMessageParam`)": _of(messages.User),
    "messages: assistant (`ChatCompletionAssistantMessageParam`)": _of(
        messages.Assistant,
        {
            "audio": "answers are text; `null`, as clients send an answer back, is dropped",
            "function_call": "older form of tools; `null` is dropped",
        },
    ),
    "messages: tool (`ChatCompletionToolMessageParam`)": _of(messages.Tool),
    "messages: function (`ChatCompletionFunctionMessageParam`)": _none(
        "content", "name", "role", why="older form of `tool`"
    ),
    "parts: text (`ChatCompletionContentPartTextParam`)": _of(messages.Text, _BREAKPOINT),
    "parts: refusal (`ChatCompletionContentPartRefusalParam`)": _of(messages.Refusal),
    "parts: picture (`ChatCompletionContentPartImageParam`)": _of(messages.Image, _BREAKPOINT),
    "its address (`ImageURL`)": _of(messages.ImageUrl),
    "parts: sound (`ChatCompletionContentPartInputAudioParam`)": _of(messages.Audio, _BREAKPOINT),
    "its data (`InputAudio`)": _of(messages.Sound),
    "parts: file (`File`)": _of(messages.File, _BREAKPOINT),
    "its data (`FileFile`)": _of(messages.FileData),
    "calls of an assistant: function (`ChatCompletionMessageFunctionToolCallParam`)": _of(messages.Call),
    "its function (`Function`)": _of(messages.Function),
    "calls of an assistant: custom (`ChatCompletionMessageCustomToolCallParam`)": _none(
        "id", "custom", "type", why="no engine here has tools without a schema"
    ),
    "tools: function (`ChatCompletionFunctionToolParam`)": _of(tools.FunctionTool),
    "its function (`FunctionDefinition`)": _of(tools.Offer),
    "tools: custom (`ChatCompletionCustomToolParam`)": _none(
        "custom", "type", why="no engine here has tools without a schema"
    ),
    "choice: a tool (`ChatCompletionNamedToolChoiceParam`)": _of(tools.NamedChoice),
    "choice: a custom tool (`ChatCompletionNamedToolChoiceCustomParam`)": _none(
        "custom", "type", why="no engine here has tools without a schema"
    ),
    "choice: some of the tools (`ChatCompletionAllowedToolChoiceParam`)": _none(
        "allowed_tools", "type", why="offer these alone in `tools`"
    ),
    "streams (`ChatCompletionStreamOptionsParam`)": _of(shapes.StreamOptions),
}
"""Fields of each type of OpenAI's client that stands within a chat, but for those of `response_format`."""
