"""Ollama's requests are read strictly, its answers are what was said, and its page names every field."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ollama
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import InvalidRequest, NotSupported, PilothouseError
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.ollama import answers, inbound
from pilothouse.wire.ollama.dialect import CHAT, EMBED, GENERATE

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "ollama.md"
USER = {"role": "user", "content": "hi"}
CALLED = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {"at": "sky"}}}]}
PNG = "iVBORw0KGgo="


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [USER], **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"messages": []}, InvalidRequest, "messages"),
        ({"messages": [{"role": "king"}]}, InvalidRequest, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, InvalidRequest, "messages[0]"),
        ({"messages": [USER, CALLED, {"role": "tool", "tool_name": "b"}]}, InvalidRequest, "messages[2]"),
        ({"messages": [USER | {"tool_calls": []}]}, InvalidRequest, "messages[0].tool_calls"),
        ({"messages": [USER | {"images": ["AAAA"]}]}, InvalidRequest, "messages[0].images"),
        ({"options": {"temperature": 9}}, InvalidRequest, "options.temperature"),
        ({"options": {"repeat_penalty": 1.1}}, NotSupported, "options.repeat_penalty"),
        ({"options": {"temprature": 1}}, NotSupported, "options.temprature"),
        ({"format": "xml"}, InvalidRequest, "format"),
        ({"think": "much"}, InvalidRequest, "think"),
        ({"tools": [{"type": "browser"}]}, InvalidRequest, "tools[0]"),
        ({"template": "{{ .Prompt }}"}, NotSupported, "template"),
        ({"model": 3}, InvalidRequest, "model"),
    ],
)
def test_what_cannot_be_carried_is_refused_with_its_name(
    fields: dict[str, Any], error: type[PilothouseError], param: str
) -> None:
    with pytest.raises(error) as caught:
        CHAT.read(chat(**fields))

    assert (caught.value.param or "").startswith(param)


def test_how_an_engine_runs_is_not_a_callers_choice() -> None:
    options = dict.fromkeys(inbound.ENGINE_OPTIONS, 1)

    assert CHAT.read(chat(options=options, keep_alive="5m")) == CHAT.read(chat())


def test_pictures_become_data_addresses_and_are_needed() -> None:
    ask = CHAT.read(chat(messages=[USER | {"images": [PNG]}]))

    assert ask.needs == {"image"}
    assert f"data:image/png;base64,{PNG}" in bytes(ask.prompt).decode()


def test_answers_of_tools_belong_to_calls_by_name_and_then_by_order() -> None:
    calls = [{"function": {"name": name}} for name in ("a", "b", "a")]
    back = [{"role": "tool", "tool_name": name, "content": name} for name in ("b", "a", "a")]

    said = json.loads(bytes(CHAT.read(chat(messages=[USER, CALLED | {"tool_calls": calls}, *back])).prompt))

    assert [message["tool_call_id"] for message in said[2:]] == ["call_1_1", "call_1_0", "call_1_2"]


@settings(deadline=None, max_examples=300)
@given(raw=st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_typed_error(raw: bytes) -> None:
    for dialect in (CHAT, GENERATE, EMBED):
        with suppress(InvalidRequest, NotSupported):
            dialect.read(raw)


TEXTS = st.lists(st.text(min_size=1, max_size=10), max_size=6)


@settings(deadline=None)
@given(texts=TEXTS, thoughts=TEXTS, cut=st.integers(0, 8))
def test_a_stream_says_what_the_whole_answer_says(texts: list[str], thoughts: list[str], cut: int) -> None:
    ask = CHAT.read(chat())
    arguments = '{"at":"sky"}'
    steps = [Delta("", 0, None, None, Aside(reasoning=thought)) for thought in thoughts]
    steps += [Delta(text) for text in texts]
    pieces = (ToolCall(0, "c", "look", arguments[:cut]), ToolCall(0, "", "", arguments[cut:]))
    steps += [Delta("", 0, None, None, Aside(tools=(piece,))) for piece in pieces]
    steps.append(Delta("", 0, "tool_calls"))
    writer = CHAT.writer(ask, answer_id="", created=7)

    stream = b"".join(writer.chunk(Chunk((step,))) for step in steps) + writer.end(Usage(3, 2))
    lines = [json.loads(line) for line in stream.splitlines()]
    aside = Aside("".join(thoughts), "", (ToolCall(0, "c", "look", arguments),))
    delta = Delta("".join(texts), 0, "tool_calls", None, aside)
    whole = json.loads(CHAT.whole(ask, [delta], Usage(3, 2), answer_id="", created=7))

    assert "".join(line["message"]["content"] for line in lines) == whole["message"]["content"]
    assert "".join(line["message"].get("thinking", "") for line in lines) == "".join(thoughts)
    assert [line["message"]["tool_calls"] for line in lines if "tool_calls" in line["message"]] == [
        whole["message"]["tool_calls"]
    ]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1]["eval_count"] == whole["eval_count"] == 2


def test_a_model_that_calls_with_nonsense_is_an_error_and_not_an_empty_call() -> None:
    delta = Delta("", 0, "tool_calls", None, Aside(tools=(ToolCall(0, "c", "look", "[1"),)))

    with pytest.raises(PilothouseError, match="no JSON object"):
        answers.write_whole(CHAT.read(chat()), [delta], Usage(), is_chat=True, created=7)


def test_the_page_has_a_word_on_every_field_of_the_client() -> None:
    page = PAGE.read_text()
    named: set[str] = set()
    for shape in (
        ollama._types.ChatRequest,
        ollama._types.GenerateRequest,
        ollama._types.EmbedRequest,
        ollama.Options,
        ollama.Message,
        ollama.ChatResponse,
        ollama.GenerateResponse,
        ollama.EmbedResponse,
    ):
        named |= set(shape.model_fields)

    assert {name for name in named if f"| `{name}` |" not in page} == set()


@given(st.integers(min_value=0, max_value=2**33))
def test_the_time_of_an_answer_is_that_of_its_second_in_utc(created: int) -> None:
    whole = CHAT.whole(CHAT.read(chat()), [Delta("x", 0, "stop")], Usage(), answer_id="", created=created)

    assert json.loads(whole)["created_at"] == f"{datetime.fromtimestamp(created, UTC):%Y-%m-%dT%H:%M:%SZ}"
