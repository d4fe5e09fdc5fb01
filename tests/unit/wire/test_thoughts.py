"""Signed thoughts of Anthropic's model come to the caller and go back unchanged; its client is the oracle."""

import json
from typing import Any

import pytest

from anthropic_rig import next_turn, streamed, whole
from pilothouse.domain.caching import head_of, steps_of
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.gateway.generate import Gathered
from pilothouse.wire.anthropic import outbound, said

CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "The sky,\nI see.", "signature": "EqQBCg=="},
    {"type": "redacted_thinking", "data": "EmwKAhgB"},
    {"type": "text", "text": "Let me look."},
    {"type": "thinking", "thinking": "And now?", "signature": "c2Vjb25k"},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sky"}},
]
"""An answer of one turn, with a thought between its text and its call."""
USAGE = {"input_tokens": 3, "output_tokens": 9}
SHOWN = {"thinking": {"type": "adaptive"}}


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


def test_a_stream_of_signed_thoughts_comes_to_the_caller_as_it_was():
    assert streamed(read_stream(), **SHOWN) == CONTENT


def whole_answer() -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": CONTENT}
    return json.dumps({**message, "stop_reason": "tool_use", "stop_sequence": None, "usage": USAGE}).encode()


def test_a_whole_answer_of_signed_thoughts_comes_as_it_was():
    (delta,) = said.read_whole(whole_answer()).deltas

    assert whole(delta, **SHOWN) == CONTENT


def test_an_answer_that_is_streamed_again_has_its_thoughts_in_their_places():
    (delta,) = said.read_whole(whole_answer()).deltas

    assert streamed([Chunk((step,)) for step in steps_of([delta])], **SHOWN) == CONTENT


def test_what_a_stream_says_is_gathered_as_a_whole_answer_has_it():
    gathered = Gathered(1)
    for chunk in read_stream():
        gathered.add(chunk)

    (whole,) = said.read_whole(whole_answer()).deltas
    assert gathered.deltas()[0].aside == whole.aside


def test_thoughts_that_are_not_shown_keep_their_signatures():
    (delta,) = said.read_whole(whole_answer()).deltas

    assert whole(delta)[0] == {"type": "thinking", "thinking": "", "signature": "EqQBCg=="}


def turned(content: list[dict[str, Any]]) -> GenerateRequest:
    return next_turn(content, system="Look well.")


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
    assert head_of(b"", one, one.sampling_json) != head_of(b"", two, two.sampling_json)


def test_what_is_reserved_for_a_request_holds_its_signatures_and_what_is_redacted():
    ask = turned(CONTENT)

    hidden = sum(len(block.get("signature", "") + block.get("data", "")) for block in CONTENT)
    assert ask.prompt_bytes >= len(ask.prompt) + hidden


def test_what_another_provider_signed_is_left_out_and_what_only_it_can_read_is_refused():
    foreign = {"type": "thinking", "thinking": "Hm.", "signature": "gemini:QQ=="}
    sent = json.loads(outbound.write_request(turned([foreign, *CONTENT[2:]]), model="claude", stream=False))

    assert sent["messages"][1] == {"role": "assistant", "content": CONTENT[2:]}
    redacted = {"type": "redacted_thinking", "data": "bedrock:QQ=="}
    with pytest.raises(InvalidRequest) as caught:
        outbound.write_request(turned([redacted, *CONTENT[2:]]), model="claude", stream=False)
    assert caught.value.param == "messages[2]"


def test_a_redacted_thought_without_its_data_is_refused_by_its_place():
    with pytest.raises(InvalidRequest) as caught:
        turned([{"type": "redacted_thinking", "data": ""}, *CONTENT[2:]])

    assert caught.value.param == "messages[1].content[0].data"
