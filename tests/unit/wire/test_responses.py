"""The Responses codec, judged by the openai package's own types."""

import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseIncludable,
    ResponseInputItemParam,
    ResponseStreamEvent,
    ToolParam,
)
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from pydantic import TypeAdapter

from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import InvalidRequest, NotSupported, RateLimitExceeded
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.openai import messages
from pilothouse.wire.openai.inbound import read_chat
from pilothouse.wire.responses import answers, inbound, items, reference
from pilothouse.wire.responses.answers import EventWriter

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USAGE = Usage(7, 5, 3)
ID = "resp_" + "0" * 32
FUNCTION = {"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": True}

text_steps = st.text(min_size=1, max_size=5).map(Delta)
asides = st.one_of(
    st.builds(Aside, reasoning=st.text(min_size=1, max_size=5)),
    st.builds(Aside, refusal=st.text(min_size=1, max_size=5)),
    st.builds(
        lambda index, arguments: Aside(tools=(ToolCall(index, f"call_{index}", "look_up", arguments),)),
        st.integers(0, 2),
        st.text(max_size=5),
    ),
).map(lambda aside: Delta(aside=aside))
steps = st.lists(text_steps | asides, max_size=12)


def read(**fields: Any) -> GenerateRequest:
    return inbound.read(json.dumps({"model": "m", "input": "hi", **fields}).encode(), [])


def said(ask: GenerateRequest) -> list[Any]:
    return json.loads(bytes(ask.prompt))


def events(deltas: list[Delta], *, finish: str = "stop", usage: Usage = USAGE) -> list[Any]:
    """All events of a stream, parsed strictly by the client's own types."""
    writer = EventWriter(read(), answer_id=ID, created=1)
    written = b"".join([writer.chunk(Chunk((delta,))) for delta in deltas])
    written += writer.chunk(Chunk((Delta(finish_reason=finish),))) + writer.end(usage)
    return parsed(written)


def parsed(written: bytes) -> list[Any]:
    found = []
    for block in written.decode().removesuffix("\n\n").split("\n\n"):
        name, _, data = block.partition("\n")
        event = EVENT.validate_json(data.removeprefix("data: "))
        assert name == f"event: {event.type}"
        found.append(event)
    return found


@settings(deadline=None)
@given(steps)
def test_a_stream_adds_up_to_its_last_response(deltas: list[Delta]):
    """As a client puts it together, from the deltas alone, in the order of their numbers."""
    found = events(deltas)
    grown: dict[str, str] = {}
    for event in found:
        if event.type.endswith(".delta"):
            grown[event.item_id] = grown.get(event.item_id, "") + event.delta
    final = found[-1].response
    whole = {}
    for item in final.output:
        if item.type == "function_call":
            whole[item.id] = item.arguments
        else:
            part = item.content[0]
            whole[item.id] = part.refusal if part.type == "refusal" else part.text

    assert [event.sequence_number for event in found] == list(range(len(found)))
    assert [event.type for event in found[:2]] == ["response.created", "response.in_progress"]
    assert found[-1].type == "response.completed"
    assert {key: text for key, text in whole.items() if text} == grown
    added = [event.item.id for event in found if event.type == "response.output_item.added"]
    done = [event.item.id for event in found if event.type == "response.output_item.done"]
    assert sorted(added) == sorted(done) == sorted(whole)
    assert final.usage.total_tokens == 12


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_a_whole_answer_is_the_clients_response(text: str, reasoning: str, refusal: str):
    call = ToolCall(0, "call_1", "look_up", '{"a":1}')
    delta = Delta(text, aside=Aside(reasoning, refusal, (call,)))
    answer = Response.model_validate_json(answers.write_whole(read(), delta, USAGE, answer_id=ID, created=1))

    found = [item.type for item in answer.output]
    assert answer.output_text == text
    assert found == ["reasoning"] * bool(reasoning) + ["message"] * (bool(text) + bool(refusal)) + [
        "function_call"
    ]
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.input_tokens_details.cached_tokens) == (7, 3)


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_is_incomplete_and_says_why(finish: str, reason: str):
    last = events([Delta("a")], finish=finish)[-1]

    assert last.type == "response.incomplete"
    assert last.response.status == "incomplete"
    assert last.response.incomplete_details.reason == reason
    assert last.response.output[0].status == "incomplete"


def test_a_failure_in_a_stream_is_told_and_ends_it_without_a_good_end():
    writer = EventWriter(read(), answer_id=ID, created=1)
    found = parsed(writer.chunk(Chunk((Delta("half"),))) + writer.fail(RateLimitExceeded("slow down")))

    assert [event.type for event in found[-2:]] == ["error", "response.failed"]
    assert found[-2].message == "slow down"
    assert found[-1].response.error.code == "rate_limit_exceeded"
    assert found[-1].response.output[0].content[0].text == "half"


def test_a_conversation_becomes_the_chats_messages():
    thought = {"type": "reasoning_text", "text": "hm"}
    answered = {"type": "output_text", "text": "Let me see.", "annotations": []}
    picture = {"type": "input_image", "image_url": "data:image/png;base64,AA"}
    ask = read(
        instructions="Be brief.",
        input=[
            {"role": "user", "content": "What is it?"},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [thought]},
            {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": [answered]},
            {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call", "call_id": "c2", "name": "look_up", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "42"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "43"}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "And this?"}, picture]},
        ],
    )

    function = {"name": "look_up", "arguments": "{}"}
    calls = [{"type": "function", "id": name, "function": function} for name in ("c1", "c2")]
    shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    assert said(ask) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls, "reasoning_content": "hm"},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
        {"role": "tool", "content": "43", "tool_call_id": "c2"},
        {"role": "user", "content": [{"type": "text", "text": "And this?"}, shown]},
    ]
    assert ask.needs == {"image"}


def test_what_shapes_the_answer_reaches_the_engine_in_the_chats_words():
    wanted = {"name": "thing", "schema": {"type": "object", "properties": {}}, "strict": True}
    offer = {key: value for key, value in FUNCTION.items() if key != "type"}
    ask = read(
        text={"format": {"type": "json_schema", **wanted}},
        tools=[FUNCTION],
        tool_choice={"type": "function", "name": "look_up"},
        reasoning={"effort": "low"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        max_output_tokens=9,
        temperature=0.5,
        store=False,
        user="u1",
    )
    chat = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "response_format": {"type": "json_schema", "json_schema": wanted},
        "tools": [{"type": "function", "function": offer}],
        "tool_choice": {"type": "function", "function": {"name": "look_up"}},
    }

    same = read_chat(json.dumps(chat).encode()).sampling
    for field in ("response_format", "tools", "tool_choice"):
        assert json.loads(bytes(getattr(ask.sampling, field))) == json.loads(bytes(getattr(same, field)))
    assert (ask.max_tokens, ask.sampling.temperature, ask.sampling.reasoning_effort) == (9, 0.5, "low")
    assert (ask.sampling.logprobs, ask.sampling.top_logprobs) == (True, 2)
    assert (ask.store, ask.subject, ask.needs) == (False, "u1", {"tools"})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "computer_call_output", "call_id": "x"}]}, "input[0].type"),
    ],
)
def test_what_cannot_be_carried_is_refused_by_name(fields: dict[str, Any], param: str):
    with pytest.raises(NotSupported) as refused:
        read(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"inptu": "x"},
        {"input": []},
        {"input": ""},
        {"input": [{"role": "user", "content": []}]},
        {"temperature": 3},
        {"top_logprobs": 2},
        {"tool_choice": "required"},
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "other"}},
        {"input": [{"type": "function_call_output", "call_id": "never", "output": "x"}]},
        {"metadata": {str(n): "x" for n in range(17)}},
        {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
    ],
)
def test_a_mistake_is_told_with_its_field(fields: dict[str, Any]):
    with pytest.raises(InvalidRequest):
        read(**fields)


def test_every_field_of_the_published_request_is_decided_about():
    published = set(ResponseCreateParamsBase.__annotations__) | {"stream"}

    decided = set(inbound.Create.__struct_fields__) | inbound.FATES.harmless | inbound.FATES.not_built
    assert decided == published


def kinds(union: Any) -> set[str]:
    """What `type` may be in the members of a union of the client's."""
    found: set[str] = set()
    for member in get_args(union):
        kind: Any = get_type_hints(member)["type"]
        while get_origin(kind) is not Literal:
            kind = next(part for part in get_args(kind) if part is not type(None))
        found |= set(get_args(kind))
    return found


def test_every_item_tool_and_inclusion_of_the_published_lists_has_its_mark():
    assert set(reference.kinds_of_items()) == kinds(ResponseInputItemParam)
    assert set(reference.kinds_of_tools()) == kinds(ToolParam)
    assert set(reference.fields_of_a_function()) == set(FunctionToolParam.__annotations__)
    assert set(reference.includes()) == set(get_args(ResponseIncludable))


def test_every_field_of_the_published_response_is_given_or_said_not_to_be():
    table = reference.fields_of_an_answer()
    written = json.loads(answers.write_whole(read(), Delta("a"), USAGE, answer_id=ID, created=1))

    assert set(table) - {"store"} == {field.alias or name for name, field in Response.model_fields.items()}
    assert {name for name, fate in table.items() if fate.startswith("given")} == set(written)


@pytest.mark.parametrize("kind", sorted(set(reference.kinds_of_items()) - items.ITEMS))
def test_what_the_page_refuses_among_items_is_refused_by_its_place(kind: str):
    with pytest.raises(NotSupported) as caught:
        read(input=[{"type": "message", "role": "user", "content": "x"}, {"type": kind}])

    assert caught.value.param == "input[1].type"


@pytest.mark.parametrize("kind", sorted(set(reference.kinds_of_tools()) - {"function"}))
def test_what_the_page_refuses_among_tools_is_refused_by_its_place(kind: str):
    with pytest.raises(NotSupported) as caught:
        read(tools=[{"type": kind}])

    assert caught.value.param == "tools[0].type"


def test_a_response_that_a_client_sends_back_with_all_of_its_fields_is_taken():
    """As `model_dump()` of OpenAI's client writes its items, with the names of Python or of the protocol."""
    delta = Delta("Ahoy", aside=Aside("hm", "", (ToolCall(0, "call_1", "look_up", "{}"),)))
    answer = Response.model_validate_json(answers.write_whole(read(), delta, USAGE, answer_id=ID, created=1))
    result = {"type": "function_call_output", "call_id": "call_1", "output": "blue"}

    for by_alias in (False, True):
        output = [item.model_dump(by_alias=by_alias) for item in answer.output]
        ask = read(input=[{"role": "user", "content": "hi"}, *output, result])

        assert [one["role"] for one in said(ask)] == ["user", "assistant", "tool"]


def test_every_published_event_is_sent_or_said_not_to_be():
    events_of_theirs = get_args(get_args(ResponseStreamEvent)[0])
    published = {get_args(kind.model_fields["type"].annotation)[0] for kind in events_of_theirs}
    never = {event for event in published if event.startswith(tuple(answers.NEVER_SENT))}

    assert published - never == answers.SENT
    everything = Aside("r", "no", (ToolCall(0, "c", "f", "{}"),))
    sent = {event.type for event in events([Delta("a"), Delta(aside=everything)])}
    sent |= {event.type for event in events([Delta("a")], finish="length")}
    writer = EventWriter(read(), answer_id=ID, created=1)
    sent |= {event.type for event in parsed(writer.fail(RateLimitExceeded("x")))}
    assert sent == answers.SENT


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_no_body_whatever_is_more_than_a_refusal(body: bytes):
    try:
        inbound.read(body, [])
    except (InvalidRequest, NotSupported):
        pass
    assert inbound.previous_of(body) == ""


def test_who_is_spoken_of_is_known_by_either_name():
    assert read(user="u1").subject == "u1"
    assert read(user="u1", safety_identifier="s1").subject == "s1"
    assert read(conversation=None, prompt=None).subject is None


def test_an_earlier_conversation_comes_first_and_instructions_are_this_ones():
    before = [messages.User(content="one"), messages.Assistant(content="two")]
    body = {"model": "m", "input": "three", "instructions": "Now.", "previous_response_id": ID}
    ask = inbound.read(msgspec.json.encode(body), before)

    assert [message["content"] for message in said(ask)] == ["Now.", "one", "two", "three"]
    assert inbound.previous_of(msgspec.json.encode(body)) == ID
