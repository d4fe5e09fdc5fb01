"""Signed thoughts of Anthropic's model come to the caller and go back unchanged; its client is the oracle."""

import json
from typing import Any

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from pilothouse.domain.caching import key_of
from pilothouse.domain.chat import Chunk, GenerateRequest, Usage
from pilothouse.domain.errors import InvalidRequest
from pilothouse.gateway.generate import Gathered
from pilothouse.kit.sse import EventParser
from pilothouse.wire.anthropic import outbound, said
from pilothouse.wire.anthropic.dialect import MESSAGES

CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "The sky,\nI see.", "signature": "EqQBCg=="},
    {"type": "redacted_thinking", "data": "EmwKAhgB"},
    {"type": "text", "text": "Let me look."},
    {"type": "thinking", "thinking": "And now?", "signature": "c2Vjb25k"},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sky"}},
]
"""An answer of one turn, with a thought between its text and its call."""
USAGE = {"input_tokens": 3, "output_tokens": 9}
EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
SHOWN = {"thinking": {"type": "adaptive"}}


def asking(**fields: Any) -> GenerateRequest:
    messages = [{"role": "user", "content": "What is at the sky?"}]
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    asked = {"model": "m", "max_tokens": 64, "messages": messages, "tools": tools, **fields}
    return MESSAGES.read(json.dumps(asked).encode())


def pieces_of(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The block as it starts, and its deltas."""
    kind = block["type"]
    if kind == "thinking":
        text = block["thinking"]
        deltas = [{"type": "thinking_delta", "thinking": part} for part in (text[:4], text[4:])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    if kind == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
    if kind == "tool_use":
        arguments = json.dumps(block["input"], separators=(",", ":"))
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": arguments}]
    return block, []


def events() -> list[dict[str, Any]]:
    """The stream of that answer, as Anthropic's reference has it."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    begun = {**message, "stop_reason": None, "stop_sequence": None, "usage": USAGE}
    said: list[dict[str, Any]] = [{"type": "message_start", "message": begun}]
    for i, block in enumerate(CONTENT):
        start, deltas = pieces_of(block)
        said.append({"type": "content_block_start", "index": i, "content_block": start})
        said += [{"type": "content_block_delta", "index": i, "delta": delta} for delta in deltas]
        said.append({"type": "content_block_stop", "index": i})
    end = {"stop_reason": "tool_use", "stop_sequence": None}
    return [*said, {"type": "message_delta", "delta": end, "usage": USAGE}, {"type": "message_stop"}]


def read_stream() -> list[Chunk]:
    reader = said.StreamReader()
    return [chunk for event in events() if (chunk := reader.read(json.dumps(event).encode()))]


def seen_by_the_sdk(stream: bytes) -> list[dict[str, Any]]:
    snapshot: Any = None
    bufs: Any = {}
    for data in EventParser().feed(stream):
        snapshot = accumulate_event(
            event=EVENT.validate_json(data), current_snapshot=snapshot, json_bufs=bufs
        )
    return [block.to_dict() for block in snapshot.content]


def as_it_was(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the fields that the client fills in itself."""
    return [{name: value for name, value in block.items() if value is not None} for block in blocks]


def test_a_stream_of_signed_thoughts_comes_to_the_caller_as_it_was():
    ask = asking(**SHOWN, stream=True)
    writer = MESSAGES.writer(ask, answer_id="msg_1", created=0)
    written = b"".join([writer.chunk(chunk) for chunk in read_stream()]) + writer.end(Usage(3, 9))

    assert as_it_was(seen_by_the_sdk(written)) == CONTENT


def whole_answer() -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": CONTENT}
    return json.dumps({**message, "stop_reason": "tool_use", "stop_sequence": None, "usage": USAGE}).encode()


def test_a_whole_answer_of_signed_thoughts_comes_as_it_was():
    (delta,) = said.read_whole(whole_answer()).deltas
    written = MESSAGES.whole(asking(**SHOWN), [delta], Usage(3, 9), answer_id="msg_1", created=0)

    blocks = [block.to_dict() for block in Message.model_validate_json(written).content]
    assert as_it_was(blocks) == CONTENT


def test_what_a_stream_says_is_gathered_as_a_whole_answer_has_it():
    gathered = Gathered(1)
    for chunk in read_stream():
        gathered.add(chunk)

    (whole,) = said.read_whole(whole_answer()).deltas
    assert gathered.deltas()[0].aside == whole.aside


def test_thoughts_that_are_not_shown_keep_their_signatures():
    (delta,) = said.read_whole(whole_answer()).deltas
    written = json.loads(MESSAGES.whole(asking(), [delta], Usage(3, 9), answer_id="msg_1", created=0))

    assert written["content"][0] == {"type": "thinking", "thinking": "", "signature": "EqQBCg=="}


def turned(content: list[dict[str, Any]]) -> GenerateRequest:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "blue"}
    messages = [
        {"role": "user", "content": "What is at the sky?"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result]},
    ]
    return asking(messages=messages, system="Look well.")


def test_the_next_turn_gives_them_back_unchanged():
    sent = json.loads(outbound.write_request(turned(CONTENT), model="claude", stream=False))

    assert sent["messages"][1] == {"role": "assistant", "content": CONTENT}


def test_no_other_engine_sees_a_signature():
    prompt = bytes(turned(CONTENT).prompt)

    assert b"EqQBCg==" not in prompt
    assert b"EmwKAhgB" not in prompt
    assert b'"reasoning_content":"The sky,\\nI see.And now?"' in prompt


def test_what_only_its_provider_can_read_is_needed_and_what_is_only_signed_is_not():
    readable = [block for block in CONTENT if block["type"] != "redacted_thinking"]

    assert "redacted_thinking" in turned(CONTENT).needs
    assert "redacted_thinking" not in turned(readable).needs


def test_other_thoughts_are_another_question_to_a_cache():
    other = [{**CONTENT[0], "signature": "b3RoZXI="}, *CONTENT[1:]]
    one, two = turned(CONTENT), turned(other)

    assert one.prompt == two.prompt
    assert key_of(b"", one, one.sampling, b"") != key_of(b"", two, two.sampling, b"")


def test_a_redacted_thought_without_its_data_is_refused_by_its_place():
    with pytest.raises(InvalidRequest) as caught:
        turned([{"type": "redacted_thinking", "data": ""}, *CONTENT[2:]])

    assert caught.value.param == "messages[1].content[0].data"
