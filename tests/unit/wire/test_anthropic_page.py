"""The page of Anthropic's protocol has a true word on every field of its client's types."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from anthropic import types
from anthropic.types.shared.error_type import ErrorType
from pydantic import BaseModel

from pilothouse.domain.chat import Sampling
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.wire.anthropic import inbound

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "anthropic.md").read_text()
MARKS = {"yes", "mapped", "dropped", "refused", "not given"}
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]*?) \|", re.MULTILINE)
STRUCTS = [
    "MessageCountTokensParams",
    "TextBlockParam",
    "ImageBlockParam",
    "DocumentBlockParam",
    "ThinkingBlockParam",
    "ToolUseBlockParam",
    "ToolResultBlockParam",
    "CacheControlEphemeralParam",
    "ToolParam",
    "OutputConfigParam",
    "MetadataParam",
    "Message",
    "Usage",
    "ModelInfo",
    "ModelListParams",
]
UNIONS = [
    "ContentBlockParam",
    "ToolUnionParam",
    "RawMessageStreamEvent",
    "RawContentBlockDelta",
    "ContentBlock",
]
CHOICES = ["ToolChoiceParam", "ThinkingConfigParam"]
"""Unions of small types, whose fields stand beside their names."""


def marks(name: str) -> dict[str, str]:
    """Of each row below the heading of a type."""
    (section,) = [
        part
        for part in re.split(r"^#+ ", PAGE, flags=re.MULTILINE)[1:]
        if f"`{name}`" in part.splitlines()[0]
    ]
    return dict(ROW.findall(section))


def fields(shape: Any) -> set[str]:
    return set(shape.model_fields if issubclass(shape, BaseModel) else shape.__annotations__)


def members(union: Any) -> Iterator[Any]:
    """The types of a union, however it is wrapped."""
    if isinstance(union, type):
        yield union
        return
    for part in get_args(union):
        if isinstance(part, type) or get_origin(part) is not None:
            yield from members(part)


def names(shape: Any) -> tuple[str, ...]:
    """What its `type` may be."""
    if issubclass(shape, BaseModel):
        kind: Any = shape.model_fields["type"].annotation
    else:
        kind = get_type_hints(shape)["type"]
    while get_origin(kind) is not Literal:
        kind = next(part for part in get_args(kind) if part is not type(None))
    found: tuple[str, ...] = get_args(kind)
    return found


def test_every_field_of_a_request_has_its_mark() -> None:
    shape = types.message_create_params
    asked = fields(shape.MessageCreateParamsBase) | fields(shape.MessageCreateParamsStreaming)

    assert set(marks("MessageCreateParams")) == asked


@pytest.mark.parametrize("name", STRUCTS)
def test_every_field_of_a_type_has_its_mark(name: str) -> None:
    assert set(marks(name)) == fields(getattr(types, name))


@pytest.mark.parametrize("name", UNIONS)
def test_every_member_of_a_union_has_its_mark(name: str) -> None:
    known = {kind for shape in members(getattr(types, name)) for kind in names(shape)}

    assert set(marks(name)) == known


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_and_its_fields_have_their_marks(name: str) -> None:
    shapes = list(members(getattr(types, name)))
    kinds = {kind for shape in shapes for kind in names(shape)}

    assert set(marks(name)) == kinds | {field for shape in shapes for field in fields(shape)} - {"type"}


def test_every_reason_has_its_mark_and_no_mark_is_another_word() -> None:
    assert set(marks("StopReason")) == set(get_args(types.StopReason))
    tables = PAGE.partition("## What is carried")[2]
    assert {mark for _, mark in ROW.findall(tables)} <= MARKS


def test_every_wish_has_its_mark_for_the_way_out() -> None:
    assert set(marks("Sampling")) == set(Sampling.__struct_fields__)


def test_errors_have_types_of_theirs() -> None:
    section = PAGE.partition("## Errors")[2].partition("## What is carried")[0]
    shown = set(re.findall(r"`(\w+_error)`", section)) - {"upstream_error"}

    assert shown <= set(get_args(ErrorType))


USER = {"role": "user", "content": "hi"}
CACHED = {"type": "ephemeral"}
SAMPLES: dict[str, Any] = {
    "stream": True,
    "system": "Be brief.",
    "stop_sequences": ["END"],
    "tools": [{"name": "look", "input_schema": {}}],
    "tool_choice": {"type": "none"},
    "thinking": {"type": "adaptive"},
    "output_config": {"effort": "low"},
    "metadata": {"user_id": "u"},
    "cache_control": CACHED,
    "service_tier": "auto",
    "speed": "standard",
    "container": "c",
    "diagnostics": {"previous_message_id": "m"},
    "inference_geo": "eu",
    "user_profile_id": "p",
    "workspace_id": "w",
}
BLOCKS: dict[str, dict[str, Any]] = {
    "TextBlockParam": {"type": "text", "text": "x", "cache_control": CACHED, "citations": [{}]},
    "ImageBlockParam": {
        "type": "image",
        "source": {"type": "url", "url": "https://a.example"},
        "cache_control": CACHED,
        "transformations": {},
    },
    "DocumentBlockParam": {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "x"},
        "title": "t",
        "context": "c",
        "cache_control": CACHED,
        "citations": {"enabled": True},
    },
    "ThinkingBlockParam": {"type": "thinking", "thinking": "x", "signature": "s"},
    "ToolUseBlockParam": {
        "type": "tool_use",
        "id": "t1",
        "name": "look",
        "input": {},
        "cache_control": CACHED,
        "caller": {"type": "direct"},
        "toolset_name": "s",
    },
    "ToolResultBlockParam": {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": "x",
        "is_error": True,
        "cache_control": CACHED,
        "toolset_name": "s",
    },
}
TOOL: dict[str, Any] = {
    "name": "look",
    "input_schema": {},
    "description": "d",
    "strict": True,
    "type": "custom",
    "cache_control": CACHED,
    "eager_input_streaming": True,
    "allowed_callers": ["direct"],
    "defer_loading": True,
    "input_examples": [{}],
}


def is_read(**more: Any) -> bool:
    asked = {"model": "m", "max_tokens": 64, "messages": [USER], **more}
    try:
        inbound.read_ask(json.dumps(asked).encode())
    except (NotSupported, InvalidRequest):
        return False
    return True


def refused(table: str) -> set[str]:
    return {name for name, mark in marks(table).items() if mark == "refused"}


def test_what_the_page_calls_refused_is_refused_and_all_else_is_read() -> None:
    found = {
        name for name, value in SAMPLES.items() if not is_read(**{"tools": SAMPLES["tools"], name: value})
    }

    assert found == refused("MessageCreateParams")


@pytest.mark.parametrize("table", BLOCKS)
def test_so_it_is_for_the_fields_of_blocks(table: str) -> None:
    whole = BLOCKS[table]
    needed = {name: value for name, value in whole.items() if name not in refused(table)}
    role = "assistant" if table in ("ThinkingBlockParam", "ToolUseBlockParam") else "user"
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    before = [USER, {"role": "assistant", "content": [use]}] if table == "ToolResultBlockParam" else []

    def reads(block: dict[str, Any]) -> bool:
        return is_read(messages=[*before, {"role": role, "content": [block]}])

    assert set(whole) == set(marks(table))
    assert reads(needed)
    assert {
        name for name in whole.keys() - needed.keys() if not reads(needed | {name: whole[name]})
    } == refused(table)


def test_so_it_is_for_the_fields_and_the_kinds_of_tools() -> None:
    needed = {name: value for name, value in TOOL.items() if name not in refused("ToolParam")}

    assert set(TOOL) == set(marks("ToolParam"))
    assert is_read(tools=[needed])
    for name in refused("ToolParam"):
        assert not is_read(tools=[needed | {name: TOOL[name]}])
    for kind in refused("ToolUnionParam"):
        assert not is_read(tools=[{"type": kind, "name": "look"}])
    for kind in refused("ContentBlockParam"):
        assert not is_read(messages=[{"role": "user", "content": [{"type": kind}]}])
