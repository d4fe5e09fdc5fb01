"""What goes to Anthropic is what its own client sends; what comes back is read as its own client reads it."""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import anthropic
import httpx2
import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import InvalidRequest, NotSupported, Overloaded, PilothouseError, UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.gateway.generate import Gathered
from pilothouse.kit.sse import EventParser
from pilothouse.wire.anthropic import outbound, said
from pilothouse.wire.anthropic.dialect import MESSAGES
from pilothouse.wire.openai.dialect import CHAT

ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [{"type": "text", "text": "Hi."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)


def sent_by_the_sdk(**asked: Any) -> tuple[dict[str, Any], httpx2.Headers]:
    """The body and the headers of one call of the published client."""
    requests: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(200, json=ANSWER)

    with (
        httpx2.Client(transport=httpx2.MockTransport(answer)) as transport,
        anthropic.Anthropic(api_key="k", http_client=transport, max_retries=0) as client,
    ):
        client.messages.create(**asked)
    return json.loads(requests[0].content), requests[0].headers


def sent_by_us(ask: GenerateRequest, *, stream: bool = False) -> Any:
    return json.loads(outbound.write_request(ask, model="claude", stream=stream))


def chat(**fields: Any) -> GenerateRequest:
    messages = [{"role": "user", "content": "hi"}]
    return CHAT.read(json.dumps({"model": "m", "max_tokens": 64, "messages": messages, **fields}).encode())


WORDS = st.text(min_size=1, max_size=12)
TEXT = WORDS.map(lambda text: {"type": "text", "text": text})
PICTURE = st.sampled_from(
    [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
            "title": "a.pdf",
        },
    ]
)
ASKED_FOR = st.fixed_dictionaries({"at": WORDS | st.integers()})
TOOL = {
    "name": "look",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
    "description": "Looks.",
}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """The arguments of a call of the client, in the shortest form for each content."""
    turns: list[dict[str, Any]] = []
    for turn in range(draw(st.integers(0, 3))):
        asks = draw(st.lists(TEXT | PICTURE, min_size=2, max_size=3))
        turns.append({"role": "user", "content": draw(WORDS | st.just(asks))})
        uses = [
            {"type": "tool_use", "id": f"t{turn}_{i}", "name": "look", "input": given}
            for i, given in enumerate(draw(st.lists(ASKED_FOR, max_size=2)))
        ]
        spoken = draw(WORDS)
        content: Any = [{"type": "text", "text": spoken}, *uses] if uses else spoken
        turns.append({"role": "assistant", "content": content})
        if uses:
            results = [
                {"type": "tool_result", "tool_use_id": use["id"], "content": draw(WORDS)} for use in uses
            ]
            turns.append({"role": "user", "content": results})
            turns.append({"role": "assistant", "content": "Well."})
    turns.append({"role": "user", "content": draw(WORDS)})
    call: dict[str, Any] = {"model": "claude", "max_tokens": draw(st.integers(1, 9999)), "messages": turns}
    if draw(st.booleans()):
        call["system"] = draw(WORDS | st.lists(TEXT, min_size=2, max_size=3))
    if draw(st.booleans()):
        call["stop_sequences"] = draw(st.lists(WORDS, min_size=1, max_size=3))
    call["tools"] = [TOOL]
    choice: dict[str, Any] = draw(
        st.sampled_from(
            [{"type": "auto"}, {"type": "any"}, {"type": "none"}, {"type": "tool", "name": "look"}]
        )
    )
    if choice["type"] != "none" and draw(st.booleans()):
        choice = choice | {"disable_parallel_tool_use": True}
    call["tool_choice"] = choice
    output: dict[str, Any] = {}
    if draw(st.booleans()):
        output["effort"] = draw(st.sampled_from(["low", "medium", "high", "xhigh"]))
        call["thinking"] = {"type": "adaptive"}
    if draw(st.booleans()):
        output["format"] = {"type": "json_schema", "schema": {"type": "object"}}
    if output:
        call["output_config"] = output
    return call


@settings(deadline=None, max_examples=60)
@given(call=calls(), stream=st.booleans())
def test_a_call_goes_out_as_its_own_client_would_have_sent_it(call: dict[str, Any], stream: bool) -> None:
    body, headers = sent_by_the_sdk(**call)
    ask = MESSAGES.read(json.dumps(body).encode())

    assert sent_by_us(ask, stream=stream) == body | ({"stream": True} if stream else {})
    assert headers["anthropic-version"] == outbound.version_of(ask)


def test_a_request_of_the_openai_dialect_is_the_same_call() -> None:
    parameters = {"type": "object", "properties": {"at": {"type": "string"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
    ask = chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "Hmm."},
            {"role": "tool", "content": "blue", "tool_call_id": "c1"},
            {"role": "user", "content": "And?"},
        ],
        tools=[{"type": "function", "function": {"name": "look", "parameters": parameters, "strict": True}}],
        tool_choice="required",
        parallel_tool_calls=False,
        stop="END",
        n=1,
        presence_penalty=0,
        seed=None,
    )
    body, _ = sent_by_the_sdk(
        model="claude",
        max_tokens=64,
        system="Be brief.",
        messages=[
            {"role": "user", "content": "Look."},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "sky"}}],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "blue"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
        tools=[{"name": "look", "input_schema": parameters, "strict": True}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
    )

    assert sent_by_us(ask) == body


def test_a_prompt_is_kept_there_as_long_as_the_deployment_says() -> None:
    body, _ = sent_by_the_sdk(
        model="claude",
        max_tokens=64,
        messages=[{"role": "user", "content": "hi"}],
        cache_control={"type": "ephemeral", "ttl": "1h"},
    )

    assert json.loads(outbound.write_request(chat(), model="claude", stream=False, prompt_cache="1h")) == body


def test_what_only_the_older_version_knows_is_asked_in_it() -> None:
    assert outbound.version_of(chat(temperature=0.5)) == "2023-06-01"
    assert outbound.version_of(chat()) == "2026-10-21"
    assert sent_by_us(chat(temperature=0.5, top_p=0.9, top_k=7))["top_k"] == 7


@pytest.mark.parametrize(
    ("fields", "error", "param"),
    [
        ({"n": 2}, NotSupported, "n"),
        ({"seed": 7}, NotSupported, "seed"),
        ({"min_p": 0.1}, NotSupported, "min_p"),
        ({"frequency_penalty": 1}, NotSupported, "frequency_penalty"),
        ({"logprobs": True}, NotSupported, "logprobs"),
        ({"temperature": 1.5}, InvalidRequest, "temperature"),
        ({"response_format": {"type": "json_object"}}, NotSupported, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, InvalidRequest, "response_format"),
    ],
)
def test_what_anthropic_has_no_word_for_is_refused_with_its_name(
    fields: dict[str, Any], error: type[PilothouseError], param: str
) -> None:
    with pytest.raises(error) as caught:
        outbound.write_request(chat(**fields), model="claude", stream=False)

    assert (type(caught.value), caught.value.param) == (error, param)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
        {"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/csv;base64,aGk="}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,hi"}}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "a", "arguments": "[1"}}],
        },
    ],
)
def test_what_cannot_be_read_there_is_refused_with_its_place(message: dict[str, Any]) -> None:
    with pytest.raises((NotSupported, InvalidRequest)) as caught:
        outbound.write_request(chat(messages=[message]), model="claude", stream=False)

    assert (caught.value.param or "").startswith("messages[0].")


def event(kind: str, **said_of_it: Any) -> dict[str, Any]:
    return {"type": kind, **said_of_it}


COUNTS = {
    "input_tokens": 5,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 2,
    "output_tokens": 1,
}
THOUGHTS = {"type": "thinking", "thinking": "", "signature": ""}
LOOK_CALL = {"type": "tool_use", "id": "a", "name": "look", "input": {}}
NOW_CALL = {"type": "tool_use", "id": "b", "name": "now", "input": {}}


def piece(index: int, kind: str, **said_of_it: Any) -> dict[str, Any]:
    return event("content_block_delta", index=index, delta={"type": kind, **said_of_it})


RECORDED = [
    event("message_start", message=ANSWER | {"content": [], "stop_reason": None, "usage": COUNTS}),
    event("content_block_start", index=0, content_block=THOUGHTS),
    event("ping"),
    piece(0, "thinking_delta", thinking="Hm"),
    piece(0, "thinking_delta", thinking="m."),
    piece(0, "signature_delta", signature="c2ln"),
    event("content_block_stop", index=0),
    event("content_block_start", index=1, content_block={"type": "redacted_thinking", "data": "eA=="}),
    event("content_block_stop", index=1),
    event("content_block_start", index=2, content_block={"type": "text", "text": ""}),
    piece(2, "text_delta", text="Grüß "),
    piece(2, "text_delta", text="Gott 🌤"),
    event("content_block_stop", index=2),
    event("content_block_start", index=3, content_block=LOOK_CALL),
    piece(3, "input_json_delta", partial_json=""),
    piece(3, "input_json_delta", partial_json='{"at": "s'),
    piece(3, "input_json_delta", partial_json='ky"}'),
    event("content_block_stop", index=3),
    event("content_block_start", index=4, content_block=NOW_CALL),
    event("content_block_stop", index=4),
    event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 40}),
    event("message_stop"),
]
"""A stream in the form of the published description, with all that may stand in one."""


def on_the_wire(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in events
    )


def pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def read(pieces: Sequence[bytes]) -> Chunk:
    """All that a stream says, as one whole answer."""
    parser, reader, gathered = EventParser(), said.StreamReader(), Gathered(1)
    for piece in pieces:
        for data in parser.feed(piece):
            chunk = reader.read(data)
            if chunk is not None:
                gathered.add(chunk)
    assert reader.is_over
    return Chunk(tuple(gathered.deltas(unnamed=None)), gathered.usage)


@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_a_recorded_stream_is_read_as_its_own_client_reads_it_however_it_is_cut(cuts: list[int]) -> None:
    message: Any = None
    buffers: dict[int, bytes] = {}
    for one in RECORDED:
        if one["type"] != "ping":
            message = accumulate_event(
                event=EVENT.validate_python(one), current_snapshot=message, json_bufs=buffers
            )
    theirs: Message = message

    ours = read(pieces_of(on_the_wire(RECORDED), cuts))

    delta = ours.deltas[0]
    aside = delta.aside or Aside()
    assert delta.text == "".join(block.text for block in theirs.content if block.type == "text")
    assert aside.reasoning == "".join(block.thinking for block in theirs.content if block.type == "thinking")
    assert [(call.id, call.name, json.loads(call.arguments)) for call in aside.tools] == [
        (block.id, block.name, block.input) for block in theirs.content if block.type == "tool_use"
    ]
    usage = theirs.usage
    assert ours.usage == Usage(5 + 4 + 2, usage.output_tokens, usage.cache_read_input_tokens or 0)
    assert delta.finish_reason == "tool_calls"
    assert said.read_whole(theirs.to_json().encode()).deltas[0].text == delta.text


TEXTS = st.lists(st.text(min_size=1, max_size=8), max_size=4)


@settings(deadline=None, max_examples=60)
@given(
    texts=TEXTS,
    thoughts=TEXTS,
    given_=st.lists(ASKED_FOR, max_size=2),
    finish=st.sampled_from(["stop", "length", "content_filter"]),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_what_we_write_as_their_stream_we_read_as_what_was_said(
    texts: list[str], thoughts: list[str], given_: list[dict[str, Any]], finish: str, cuts: list[int]
) -> None:
    body = json.dumps(
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}],
         "thinking": {"type": "adaptive"}}
    ).encode()  # fmt: skip
    ask = MESSAGES.read(body)
    calls = tuple(ToolCall(i, f"c{i}", "look", json.dumps(one)) for i, one in enumerate(given_))
    steps = [Delta("", 0, None, None, Aside(thought)) for thought in thoughts]
    steps += [Delta(text) for text in texts]
    steps += [Delta("", 0, None, None, Aside("", "", (call,))) for call in calls]
    end = "tool_calls" if calls else finish
    steps.append(Delta("", 0, end))
    aside = Aside("".join(thoughts), "", calls) if thoughts or calls else None
    usage = Usage(9, 4, 2)
    writer = MESSAGES.writer(ask, answer_id="msg_1", created=7)

    stream = b"".join(writer.chunk(Chunk((step,))) for step in steps) + writer.end(usage)
    delta = Delta("".join(texts), 0, end, None, aside)

    assert read(pieces_of(stream, cuts)) == Chunk((delta,), usage)
    whole = said.read_whole(MESSAGES.whole(ask, [delta], usage, answer_id="msg_1", created=7))
    assert (whole.deltas[0].text, whole.usage) == (delta.text, usage)


@settings(deadline=None, max_examples=200)
@given(order=st.lists(st.integers(0, len(RECORDED) - 1), max_size=12))
def test_events_in_any_order_are_read_or_are_the_providers_fault(order: list[int]) -> None:
    reader = said.StreamReader()
    with suppress(UpstreamError):
        for place in order:
            reader.read(json.dumps(RECORDED[place]).encode())
    if reader.is_over:
        assert order[0] == 0 or RECORDED[order[0]]["type"] == "ping"


@pytest.mark.parametrize("missing", [0, 1, 6, 20])
def test_a_stream_that_lacks_what_holds_it_together_is_not_taken(missing: int) -> None:
    events = RECORDED[:missing] + RECORDED[missing + 1 :]

    with pytest.raises(UpstreamError, match="cannot stand"):
        read([on_the_wire(events)])


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=120))
def test_any_bytes_are_read_or_are_the_providers_fault(data: bytes) -> None:
    with suppress(UpstreamError, Overloaded):
        said.StreamReader().read(data)
    with suppress(UpstreamError, Overloaded):
        said.read_whole(data)
    assert isinstance(said.read_fault(data), said.Fault)


def test_an_error_inside_of_a_good_answer_is_an_error() -> None:
    busy = json.dumps(event("error", error={"type": "overloaded_error", "message": "secret"})).encode()
    broken = json.dumps(event("error", error={"type": "api_error", "message": "secret"})).encode()

    for read_it in (said.StreamReader().read, said.read_whole):
        with pytest.raises(Overloaded) as caught:
            read_it(busy)
        assert "secret" not in caught.value.message
        with pytest.raises(UpstreamError):
            read_it(broken)
    with pytest.raises(UpstreamError):
        said.read_whole(msgspec.json.encode(ANSWER | {"stop_reason": None}))
