"""Anthropic's requests are read strictly, and its answers are what was said, in its events' order."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pilothouse.domain import errors
from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import InvalidRequest, NotSupported, PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.anthropic import answers, inbound
from pilothouse.wire.anthropic.dialect import MESSAGES
from pilothouse.wire.openai.dialect import CHAT

USER = {"role": "user", "content": "hi"}
LOOK = {"name": "look", "input_schema": {"type": "object"}}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}]}
CLEAR = {"type": "clear_thinking_20251015"}
PLAIN = {"type": "text", "text": "x"}
FOUND = {"type": "tool_result", "tool_use_id": "t1", "content": "blue"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 64, "messages": [USER], **fields}).encode()


def said(*blocks: Any, role: str = "user") -> list[Any]:
    return [{"role": role, "content": list(blocks)}]


def block(kind: str, **fields: Any) -> list[Any]:
    return said({"type": kind, **fields})


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"messages": []}, InvalidRequest, "messages"),
        ({"max_tokens": 0}, InvalidRequest, "max_tokens"),
        ({"max_tokens": None}, InvalidRequest, "max_tokens"),
        ({"messages": [{"role": "king", "content": "x"}]}, InvalidRequest, "messages[0].role"),
        ({"messages": said(FOUND)}, InvalidRequest, "messages"),
        ({"messages": [USER, CALLED, *said(PLAIN, FOUND)]}, InvalidRequest, "messages[2]"),
        ({"messages": block("search_result")}, NotSupported, "messages[0].content[0].type"),
        ({"messages": block("redacted_thinking", data="")}, NotSupported, "messages[0].content[0].type"),
        ({"messages": block("image", source={"type": "file", "file_id": "f"})}, NotSupported, "messages[0]"),
        ({"messages": block("text", text="x", citations=[{}])}, InvalidRequest, "messages[0].content[0]"),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, NotSupported, "tools[0].type"),
        ({"tools": [LOOK | {"defer_loading": True}]}, InvalidRequest, "tools[0].defer_loading"),
        ({"tool_choice": {"type": "any"}}, InvalidRequest, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "tool", "name": "b"}}, InvalidRequest, "tool_choice"),
        ({"temperature": 1.5}, InvalidRequest, "temperature"),
        ({"temprature": 1}, InvalidRequest, "temprature"),
        ({"container": "c"}, NotSupported, "container"),
        ({"inference_geo": "eu"}, NotSupported, "inference_geo"),
        ({"context_management": {"edits": [{"type": "clear_x"}]}}, NotSupported, "context_management"),
        ({"context_management": {"edits": [CLEAR | {"keep": {}}]}}, InvalidRequest, "context_management"),
        ({"speed": "fast"}, InvalidRequest, "speed"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, InvalidRequest, "thinking.budget_tokens"),
        ({"thinking": {"type": "between_tools"}}, NotSupported, "thinking.type"),
        ({"cache_control": {"type": "lasting"}}, NotSupported, "cache_control.type"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_is_refused_with_its_name(
    fields: dict[str, Any], error: type[PilothouseError], param: str
) -> None:
    with pytest.raises(error) as caught:
        MESSAGES.read(body(**fields))

    assert type(caught.value) is error
    assert (caught.value.param or "").startswith(param)


def test_a_request_is_the_one_that_the_openai_dialect_makes_of_the_same_wishes() -> None:
    parameters = {"type": "object", "properties": {"at": {"type": "string"}}}
    one = MESSAGES.read(
        body(
            system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            messages=[
                USER,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hmm.", "signature": "s"},
                        {"type": "text", "text": "Let me look."},
                        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "sky"}},
                    ],
                },
                *said(FOUND, {"type": "text", "text": "And now?"}),
            ],
            tools=[{"name": "look", "description": "Looks.", "input_schema": parameters}],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
            stop_sequences=["END"],
            temperature=0.5,
            top_k=40,
            metadata={"user_id": "u1"},
            thinking={"type": "disabled"},
            stream=True,
        )
    )
    call = {"type": "function", "id": "t1", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
    offer = {"name": "look", "description": "Looks.", "parameters": parameters}
    asked = {
        "model": "m",
        "max_tokens": 64,
        "messages": [
            {"role": "system", "content": "Be brief."},
            USER,
            {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [call],
                "reasoning_content": "Hmm.",
            },
            {"role": "tool", "content": "blue", "tool_call_id": "t1"},
            {"role": "user", "content": "And now?"},
        ],
        "tools": [{"type": "function", "function": offer}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
        "temperature": 0.5,
        "top_k": 40,
        "user": "u1",
        "reasoning_effort": "none",
        "stream": True,
    }
    other = CHAT.read(json.dumps(asked).encode())

    assert msgspec.json.decode(one.prompt) == msgspec.json.decode(other.prompt)
    assert (one.subject, one.needs, one.max_tokens, one.stream) == ("u1", {"tools"}, 64, True)
    assert msgspec.json.decode(one.sampling.tools or b"") == msgspec.json.decode(other.sampling.tools or b"")
    for name in ("temperature", "top_k", "stop", "parallel_tool_calls", "reasoning_effort"):
        assert getattr(one.sampling, name) == getattr(other.sampling, name)
    assert bytes(one.sampling.tool_choice or b"") == b'"required"'


def test_who_wants_all_thinking_kept_gets_what_is_done_anyway() -> None:
    kept = MESSAGES.read(body(context_management={"edits": [CLEAR | {"keep": "all"}]}))

    assert kept == MESSAGES.read(body())


def test_pictures_and_documents_are_needed_and_keep_what_is_said_of_them() -> None:
    png = {"type": "base64", "media_type": "image/png", "data": "aa=="}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "bb=="}
    ask = MESSAGES.read(
        body(
            messages=said(
                {"type": "image", "source": png},
                {"type": "document", "source": pdf, "title": "a.pdf", "context": "Mine."},
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                    "title": "T",
                },
            )
        )
    )

    assert ask.needs == {"image", "file"}
    assert msgspec.json.decode(ask.prompt)[0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aa=="}},
        {"type": "text", "text": "Mine."},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,bb==", "filename": "a.pdf"}},
        {"type": "text", "text": "T"},
        {"type": "text", "text": "x"},
    ]


def test_a_tools_failure_is_said_to_the_model() -> None:
    ask = MESSAGES.read(body(messages=[USER, CALLED, *said(FOUND | {"is_error": True})]))

    assert msgspec.json.decode(ask.prompt)[2] == {
        "role": "tool",
        "content": "Error: blue",
        "tool_call_id": "t1",
    }


@pytest.mark.parametrize(
    ("fields", "effort", "is_hidden"),
    [
        ({}, None, True),
        ({"thinking": {"type": "adaptive"}}, None, False),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, None, True),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "high"}}, "none", True),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "low", False),
        ({"thinking": {"type": "enabled", "budget_tokens": 20000}}, "high", False),
        ({"output_config": {"effort": "max"}}, "xhigh", True),
    ],
)
def test_thinking_is_asked_for_by_effort_and_shown_where_it_is_wanted(
    fields: dict[str, Any], effort: str | None, is_hidden: bool
) -> None:
    ask = MESSAGES.read(body(**{"max_tokens": 32000, **fields}))

    assert (ask.sampling.reasoning_effort, ask.hide_reasoning) == (effort, is_hidden)


@settings(deadline=None, max_examples=300)
@given(raw=st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_typed_error(raw: bytes) -> None:
    for read in (inbound.read_ask, inbound.read_prompt):
        with suppress(InvalidRequest, NotSupported):
            read(raw)


ASK = MESSAGES.read(body(thinking={"type": "adaptive"}))
TEXTS = st.lists(st.text(min_size=1, max_size=10), max_size=5)
ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8), max_size=3)
EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def written(ask: GenerateRequest, steps: list[Delta], usage: Usage) -> bytes:
    writer = MESSAGES.writer(ask, answer_id="msg_1", created=7)
    return b"".join(writer.chunk(Chunk((step,))) for step in steps) + writer.end(usage)


def events(stream: bytes) -> list[Any]:
    """Events of a stream, each with the name that it carries twice."""
    found = []
    for one in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, data = one.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def assembled(stream: bytes) -> Message:
    """The message that the published client makes of a stream."""
    message = None
    buffers: dict[int, bytes] = {}
    for event in events(stream):
        message = accumulate_event(
            event=EVENT.validate_python(event), current_snapshot=message, json_bufs=buffers
        )
    assert message is not None
    return message


@settings(deadline=None)
@given(
    texts=TEXTS,
    thoughts=TEXTS,
    calls=st.lists(ARGUMENTS, max_size=3),
    cut=st.integers(0, 12),
    finish=st.sampled_from(["stop", "length", "content_filter", "tool_calls"]),
)
def test_a_stream_says_what_the_whole_answer_says(
    texts: list[str], thoughts: list[str], calls: list[dict[str, Any]], cut: int, finish: str
) -> None:
    steps = [Delta("", 0, None, None, Aside(reasoning=thought)) for thought in thoughts]
    steps += [Delta(text) for text in texts]
    whole_calls = []
    for index, arguments in enumerate(calls):
        text = json.dumps(arguments)
        pieces = (ToolCall(index, f"c{index}", "look", text[:cut]), ToolCall(index, "", "", text[cut:]))
        steps += [Delta("", 0, None, None, Aside(tools=(piece,))) for piece in pieces]
        whole_calls.append(ToolCall(index, f"c{index}", "look", text))
    aside = Aside("".join(thoughts), "", tuple(whole_calls)) if thoughts or calls else None
    delta = Delta("".join(texts), 0, finish, None, aside)

    stream = written(ASK, [*steps, Delta("", 0, finish)], Usage(9, 2, 4))
    whole = Message.model_validate_json(
        MESSAGES.whole(ASK, [delta], Usage(9, 2, 4), answer_id="msg_1", created=7)
    )
    message = assembled(stream)

    assert message.to_dict(exclude_none=True) == whole.to_dict(exclude_none=True)
    assert (whole.usage.input_tokens, whole.usage.cache_read_input_tokens) == (5, 4)
    assert [one.type for one in whole.content if one.type == "tool_use"] == ["tool_use"] * len(calls)


@settings(deadline=None)
@given(texts=TEXTS, thoughts=TEXTS, calls=st.lists(ARGUMENTS, max_size=2))
def test_blocks_are_opened_and_closed_one_after_the_other(
    texts: list[str], thoughts: list[str], calls: list[dict[str, Any]]
) -> None:
    steps = [Delta(text, 0, None, None, Aside(reasoning=text)) for text in thoughts]
    steps += [
        Delta("", 0, None, None, Aside(tools=(ToolCall(i, "", "look", json.dumps(call)),)))
        for i, call in enumerate(calls)
    ]
    steps += [Delta(text) for text in texts]

    order = events(written(ASK, steps, Usage()))

    open_block, following = None, 0
    for event in order[1:-2]:
        if event["type"] == "content_block_start":
            assert open_block is None
            assert event["index"] == following
            open_block, following = following, following + 1
        else:
            assert event["index"] == open_block
            open_block = None if event["type"] == "content_block_stop" else open_block
    assert open_block is None
    assert [order[0]["type"], order[-2]["type"], order[-1]["type"]] == [
        "message_start", "message_delta", "message_stop",
    ]  # fmt: skip


def test_what_a_model_thinks_is_shown_to_who_asks_for_it_only() -> None:
    quiet = MESSAGES.read(body())
    steps = [Delta("", 0, None, None, Aside(reasoning="Hmm.")), Delta("Yes."), Delta("", 0, "stop")]
    delta = Delta("Yes.", 0, "stop", None, Aside(reasoning="Hmm."))

    whole = json.loads(MESSAGES.whole(quiet, [delta], Usage(), answer_id="msg_1", created=7))

    assert [one.type for one in assembled(written(quiet, steps, Usage())).content] == ["text"]
    assert [one["type"] for one in whole["content"]] == ["text"]


def test_a_refusal_is_text_and_the_reason_of_the_end() -> None:
    steps = [Delta("", 0, None, None, Aside(refusal="No.")), Delta("", 0, "stop")]
    delta = Delta("", 0, "stop", None, Aside(refusal="No."))

    whole = Message.model_validate_json(MESSAGES.whole(ASK, [delta], Usage(), answer_id="msg_1", created=7))

    assert whole.stop_reason == "refusal"
    assert assembled(written(ASK, steps, Usage())).to_dict(exclude_none=True) == whole.to_dict(
        exclude_none=True
    )


@pytest.mark.parametrize("arguments", ["[1", "[]", '"x"'])
def test_a_model_that_calls_with_nonsense_is_an_error_and_not_an_empty_call(arguments: str) -> None:
    call = ToolCall(0, "c", "look", arguments)
    delta = Delta("", 0, "tool_calls", None, Aside(tools=(call,)))

    with pytest.raises(UpstreamError, match="no JSON object"):
        MESSAGES.whole(ASK, [delta], Usage(), answer_id="msg_1", created=7)
    with pytest.raises(UpstreamError, match="no JSON object"):
        written(ASK, [delta], Usage())


def test_a_call_that_was_cut_ends_at_max_tokens() -> None:
    calls = (ToolCall(0, "a", "look", "{}"), ToolCall(1, "b", "look", '{"at":"s'))
    delta = Delta("", 0, "length", None, Aside(tools=calls))

    whole = json.loads(MESSAGES.whole(ASK, [delta], Usage(), answer_id="msg_1", created=7))

    assert whole["stop_reason"] == "max_tokens"
    assert [one["id"] for one in whole["content"]] == ["a"]
    assert events(written(ASK, [delta], Usage()))[-2]["delta"]["stop_reason"] == "max_tokens"


def test_pieces_of_calls_that_come_mixed_are_the_engines_fault() -> None:
    first, second = ToolCall(0, "a", "look", "{}"), ToolCall(1, "b", "look", "{}")
    mixed = Delta("", 0, None, None, Aside(tools=(first, second, ToolCall(0, "", "", "x"))))

    with pytest.raises(UpstreamError, match="pieces"):
        written(ASK, [mixed], Usage())


def test_every_error_has_a_type_of_theirs_and_our_code() -> None:
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PilothouseError)
    }
    for kind in kinds:
        error = kind("it is so", param="messages")
        shown = json.loads(answers.write_error(error))

        assert shown["type"] == "error"
        assert shown["error"]["message"] == "it is so"
        assert shown["error"]["code"] == shown["error"]["details"]["error_code"] == kind.code
        assert shown["error"]["type"].endswith("_error") or kind.status == 413
    assert MESSAGES.status(errors.Overloaded("busy")) == 529
    assert MESSAGES.status(errors.RateLimitExceeded("slow")) == 429
