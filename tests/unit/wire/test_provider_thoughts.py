"""Thoughts that Bedrock's and Gemini's models sign come to Anthropic's client and go back unchanged."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthropic_rig import asking, next_turn, streamed, whole
from pilothouse.domain.caching import steps_of
from pilothouse.domain.chat import Remembered
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.gateway.generate import Gathered
from pilothouse.wire.anthropic import outbound as anthropic_outbound
from pilothouse.wire.bedrock import outbound as bedrock_outbound
from pilothouse.wire.bedrock import said as bedrock_said
from pilothouse.wire.bedrock.eventstream import Message
from pilothouse.wire.gemini import outbound as gemini_outbound
from pilothouse.wire.gemini import said as gemini_said
from pilothouse.wire.openai import dialect as openai_dialect

SHOWN = {"thinking": {"type": "adaptive"}}
CALL = {"toolUse": {"toolUseId": "toolu_1", "name": "look", "input": {"at": "sky"}}}
BLOCKS: list[dict[str, Any]] = [
    {"reasoningContent": {"reasoningText": {"text": "The sky,\nI see.", "signature": "EqQBCg=="}}},
    {"reasoningContent": {"redactedContent": base64.b64encode(b"hidden").decode()}},
    {"text": "Let me look."},
    {"reasoningContent": {"reasoningText": {"text": "And now?", "signature": "c2Vjb25k"}}},
    CALL,
]
"""Of one answer of Bedrock's."""


def told(name: str, payload: dict[str, Any]) -> Message:
    return Message({":message-type": "event", ":event-type": name}, json.dumps(payload).encode())


def pieces_of(block: dict[str, Any]) -> list[dict[str, Any]]:
    """A block's deltas, each long text in two."""
    if "toolUse" in block:
        arguments = json.dumps(block["toolUse"]["input"])
        return [{"toolUse": {"input": arguments[:3]}}, {"toolUse": {"input": arguments[3:]}}]
    if "text" in block:
        return [{"text": block["text"]}]
    thought = block["reasoningContent"]
    if "redactedContent" in thought:
        return [{"reasoningContent": thought}]
    text, signature = thought["reasoningText"]["text"], thought["reasoningText"].get("signature")
    found = [{"reasoningContent": {"text": part}} for part in (text[:2], text[2:]) if part]
    return found + ([{"reasoningContent": {"signature": signature}}] if signature else [])


def bedrock_stream(blocks: list[dict[str, Any]]) -> list[Chunk]:
    events = [told("messageStart", {"role": "assistant"})]
    for i, block in enumerate(blocks):
        if "toolUse" in block:
            start = {"toolUse": {name: block["toolUse"][name] for name in ("toolUseId", "name")}}
            events.append(told("contentBlockStart", {"contentBlockIndex": i, "start": start}))
        deltas = pieces_of(block)
        events += [told("contentBlockDelta", {"contentBlockIndex": i, "delta": one}) for one in deltas]
        events.append(told("contentBlockStop", {"contentBlockIndex": i}))
    events += [told("messageStop", {"stopReason": "end_turn"}), told("metadata", {"usage": {}})]
    reader = bedrock_said.StreamReader()
    return [chunk for one in events if (chunk := reader.read(one))]


def bedrock_whole(blocks: list[dict[str, Any]]) -> Chunk:
    message = {"role": "assistant", "content": blocks}
    answer = {"output": {"message": message}, "stopReason": "end_turn", "usage": {}}
    return bedrock_said.read_whole(json.dumps(answer).encode())


def gathered(chunks: list[Chunk]) -> Chunk:
    """A stream as a cache keeps it."""
    kept = Gathered(1)
    for chunk in chunks:
        kept.add(chunk)
    return Chunk(tuple(kept.deltas()))


def seen_in_each_way(chunks: list[Chunk], complete: Chunk) -> list[list[dict[str, Any]]]:
    """The client's blocks of a stream, of a whole answer, and of both when they come from a cache."""
    kept = gathered(chunks)
    return [
        streamed(chunks, **SHOWN),
        whole(complete.deltas[0], **SHOWN),
        whole(kept.deltas[0], **SHOWN),
        streamed([Chunk((step,)) for step in steps_of(kept.deltas)], **SHOWN),
    ]


def sent_to_bedrock(ask: GenerateRequest) -> Any:
    return json.loads(bedrock_outbound.write_request(ask))["messages"][1]["content"]


def test_what_bedrocks_model_thought_comes_back_to_it_unchanged() -> None:
    for blocks in seen_in_each_way(bedrock_stream(BLOCKS), bedrock_whole(BLOCKS)):
        kinds = [block["type"] for block in blocks]
        assert kinds == ["thinking", "redacted_thinking", "text", "thinking", "tool_use"]
        assert sent_to_bedrock(next_turn(blocks)) == BLOCKS


THOUGHT = st.builds(
    lambda text, signature: {"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}},
    st.text(min_size=1, max_size=9),
    st.from_regex(r"[A-Za-z0-9+/]{4,12}==", fullmatch=True),
)
REDACTED = st.binary(min_size=1, max_size=9).map(
    lambda data: {"reasoningContent": {"redactedContent": base64.b64encode(data).decode()}}
)


@given(
    st.lists(st.one_of(THOUGHT, REDACTED), max_size=3),
    st.lists(st.just({"text": "Ahoy"}), max_size=1),
    st.lists(st.one_of(THOUGHT, REDACTED), max_size=2),
)
def test_whatever_it_thinks_and_wherever_it_does(
    first: list[dict[str, Any]], text: list[dict[str, Any]], then: list[dict[str, Any]]
) -> None:
    blocks = [*first, *text, *then, CALL]

    for seen in seen_in_each_way(bedrock_stream(blocks), bedrock_whole(blocks)):
        assert sent_to_bedrock(next_turn(seen)) == blocks


def test_thoughts_without_a_signature_are_shown_and_not_given_back() -> None:
    blocks = [{"reasoningContent": {"reasoningText": {"text": "Hm."}}}, *BLOCKS[2:3], CALL]

    for seen in seen_in_each_way(bedrock_stream(blocks), bedrock_whole(blocks)):
        assert seen[0] == {"type": "thinking", "thinking": "Hm.", "signature": ""}
        assert sent_to_bedrock(next_turn(seen)) == blocks[1:]


def test_bedrock_is_given_no_thought_of_geminis_and_nothing_that_anthropic_alone_can_read() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
    foreign = {"type": "thinking", "thinking": "Hm.", "signature": "gemini:QQ=="}

    assert [*sent_to_bedrock(next_turn([foreign, call]))[0]] == ["toolUse"]
    with pytest.raises(InvalidRequest, match="another provider gave this redacted_thinking"):
        sent_to_bedrock(next_turn([{"type": "redacted_thinking", "data": "EmwK"}, call]))


def called(signature: str = "", at: str = "sky") -> dict[str, Any]:
    part: dict[str, Any] = {"functionCall": {"name": "look", "args": {"at": at}}}
    return part | ({"thoughtSignature": signature} if signature else {})


def gemini_answer(parts: list[dict[str, Any]], finish: str | None = None) -> bytes:
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0}
    answer = {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "responseId": "r1"}
    return json.dumps(answer).encode()


def gemini_stream(parts: list[dict[str, Any]]) -> list[Chunk]:
    """Each part in an event of its own."""
    reader = gemini_said.AnswerReader(1)
    events = [*([part] for part in parts), []]
    answers = [gemini_answer(one, None if one else "STOP") for one in events]
    return [chunk for one in answers if (chunk := reader.read(one))]


def sent_to_gemini(ask: GenerateRequest, **how: bool) -> list[dict[str, Any]]:
    contents = json.loads(gemini_outbound.write_request(ask, **how))["contents"]
    return [part for one in contents if one["role"] == "model" for part in one["parts"]]


GEMINI_ANSWERS: dict[str, list[dict[str, Any]]] = {
    "a call": [called("QQ==")],
    "a text and a call": [{"text": "Let me look."}, called("QQ==")],
    "calls at once": [called("QQ=="), called(at="sea")],
    "calls that are signed each": [called("QQ=="), called("Qg==", at="sea")],
    "a text alone": [{"text": "Blue.", "thoughtSignature": "QQ=="}],
    "a text whose end is signed": [{"text": "Blue."}, {"text": "", "thoughtSignature": "QQ=="}],
    "text, call, and both signed": [{"text": "Look.", "thoughtSignature": "Qw=="}, called("QQ==")],
    "thoughts that are shown": [{"text": "Hm.", "thought": True}, called("QQ==")],
}


@pytest.mark.parametrize("parts", GEMINI_ANSWERS.values(), ids=GEMINI_ANSWERS)
def test_what_gemini_signed_comes_back_to_it_at_the_part_that_it_came_with(
    parts: list[dict[str, Any]],
) -> None:
    complete = gemini_said.read_whole(gemini_answer(parts, "STOP"), choices=1)

    for blocks in seen_in_each_way(gemini_stream(parts), complete):
        calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": call, "content": "blue"} for call in calls]
        messages = [
            {"role": "user", "content": "What is at the sky?"},
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": [*results, {"type": "text", "text": "And now?"}]},
        ]
        assert sent_to_gemini(asking(messages=messages)) == parts


def test_a_call_that_lost_its_signature_is_marked_as_such_for_models_that_ask() -> None:
    def call(name: str) -> dict[str, Any]:
        return {"id": name, "type": "function", "function": {"name": "look", "arguments": "{}"}}

    said = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "tool_calls": [call("c1")]},
        {"role": "tool", "tool_call_id": "c1", "content": "blue"},
        {"role": "user", "content": "Again."},
        {"role": "assistant", "tool_calls": [call("c2"), call("c3")]},
        {"role": "tool", "tool_call_id": "c2", "content": "blue"},
        {"role": "tool", "tool_call_id": "c3", "content": "blue"},
    ]
    ask = openai_dialect.CHAT.read(json.dumps({"model": "m", "messages": said}).encode())

    marked = [part.get("thoughtSignature") for part in sent_to_gemini(ask, signed=True)]
    assert marked == [None, "skip_thought_signature_validator", None]
    assert not any("thoughtSignature" in part for part in sent_to_gemini(ask))
    own = next_turn([{"type": "thinking", "thinking": "", "signature": "gemini:QQ=="}, *_used()])
    assert [part["thoughtSignature"] for part in sent_to_gemini(own, signed=True)] == ["QQ=="]


def _used() -> list[dict[str, Any]]:
    return [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]


@pytest.mark.parametrize("signature", ["EqQBCg==", "bedrock:QQ=="])
def test_gemini_is_given_no_signature_of_others(signature: str) -> None:
    foreign = {"type": "thinking", "thinking": "Hm.", "signature": signature}

    assert sent_to_gemini(next_turn([foreign, *_used()])) == [{"functionCall": {"name": "look", "args": {}}}]


@pytest.mark.parametrize("write", [bedrock_outbound.write_request, gemini_outbound.write_request])
def test_what_gemini_sent_with_its_text_hides_nothing_from_others(
    write: Callable[[GenerateRequest], bytes],
) -> None:
    """A history of several providers is one that each of them takes."""
    mixed = [
        {"type": "thinking", "thinking": "Hm.", "signature": "gemini:QQ=="},
        {"type": "thinking", "thinking": "So.", "signature": "EqQBCg=="},
        {"type": "text", "text": "Look."},
        *_used(),
    ]

    sent = write(next_turn(mixed)).decode()

    assert ("gemini:" in sent, "Look." in sent) == (False, True)
    assert ('"QQ=="' in sent) != ("EqQBCg==" in sent)


class Walked(tuple[Remembered, ...]):
    times = 0

    def __iter__(self) -> Iterator[Remembered]:
        self.times += 1
        return super().__iter__()


def to_anthropic(ask: GenerateRequest) -> bytes:
    return anthropic_outbound.write_request(ask, model="m", stream=False)


@pytest.mark.parametrize(
    "write", [to_anthropic, bedrock_outbound.write_request, gemini_outbound.write_request]
)
def test_a_long_talk_is_not_gone_through_again_for_each_of_its_thoughts(
    write: Callable[[GenerateRequest], bytes],
) -> None:
    """Else a body that is full of them would hold up all requests of the worker that writes it."""
    turn = [
        {"role": "user", "content": "Well?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": "QQ=="}]},
    ]
    ask = asking(messages=[*turn * 20, turn[0]])
    thoughts = Walked(ask.thoughts)

    write(ask.changed(thoughts=thoughts))

    assert len(thoughts) == 20
    assert thoughts.times == 1
