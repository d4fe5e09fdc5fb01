"""What a codec hands on of a conversation, taken apart and written: both are the same."""

import json
from typing import Any

import pytest

from pilothouse.wire.anthropic.dialect import MESSAGES
from pilothouse.wire.dialect import GenerateDialect
from pilothouse.wire.ollama import dialect as ollama
from pilothouse.wire.openai import messages
from pilothouse.wire.openai.dialect import CHAT
from pilothouse.wire.responses.dialect import RESPONSES

SAID = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "Go"},
]
PNG = "iVBORw0KGgo="
FUNCTION = {"name": "look", "arguments": {"at": "sky"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
USE = {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "sky"}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "blue"}
THOUGHT = {"type": "thinking", "thinking": "Where?", "signature": "s"}
ITEM = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        (CHAT, {"messages": SAID}),
        (CHAT, {"messages": [*SAID, {"role": "assistant", "tool_calls": [CALL]}]}),
        (MESSAGES, {"system": "Be brief.", "messages": SAID, "max_tokens": 9}),
        (
            MESSAGES,
            {
                "messages": [
                    SAID[0],
                    {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "I look"}, USE]},
                    {"role": "user", "content": [RESULT, {"type": "text", "text": "And?"}]},
                ],
                "max_tokens": 9,
            },
        ),
        (RESPONSES, {"input": "hi"}),
        (RESPONSES, {"instructions": "Be brief.", "input": SAID}),
        (
            RESPONSES,
            {"input": [*SAID, ITEM, {"type": "function_call_output", "call_id": "c1", "output": "x"}]},
        ),
        (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]}),
        (ollama.CHAT, {"messages": SAID}),
        (
            ollama.CHAT,
            {
                "messages": [
                    SAID[0] | {"images": [PNG]},
                    {"role": "assistant", "thinking": "", "tool_calls": [{"function": FUNCTION}]},
                    {"role": "tool", "content": "blue", "tool_name": "look"},
                ]
            },
        ),
        (ollama.GENERATE, {"prompt": "hi", "system": "Be brief."}),
    ],
)
def test_what_is_kept_of_a_conversation_is_what_stands_in_its_prompt(
    dialect: GenerateDialect, fields: dict[str, Any]
) -> None:
    ask = dialect.read(json.dumps({"model": "m", **fields}).encode())

    assert ask.messages is not None
    assert ask.messages == messages.decode(ask.prompt)
    assert ask.prompt_bytes >= len(ask.prompt)
