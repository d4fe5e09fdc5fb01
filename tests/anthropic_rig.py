"""What Anthropic's client makes of what it is answered, and the next turn that it asks for with it."""

import json
from collections.abc import Iterable
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.sse import EventParser
from pilothouse.wire.anthropic.dialect import MESSAGES

EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
Blocks = list[dict[str, Any]]


def asking(**fields: Any) -> GenerateRequest:
    """With one tool, `look`."""
    messages = [{"role": "user", "content": "What is at the sky?"}]
    tools = [{"name": "look", "input_schema": {"type": "object"}}]
    asked = {"model": "m", "max_tokens": 64, "messages": messages, "tools": tools, **fields}
    return MESSAGES.read(json.dumps(asked).encode())


def streamed(chunks: Iterable[Chunk], **fields: Any) -> Blocks:
    """The blocks that the client has at the end of a stream of these."""
    writer = MESSAGES.writer(asking(stream=True, **fields), answer_id="msg_1", created=0)
    written = b"".join([writer.chunk(chunk) for chunk in chunks]) + writer.end(Usage(3, 9))
    snapshot: Any = None
    bufs: Any = {}
    for data in EventParser().feed(written):
        snapshot = accumulate_event(
            event=EVENT.validate_json(data), current_snapshot=snapshot, json_bufs=bufs
        )
    return _as_it_was([block.to_dict() for block in snapshot.content])


def whole(delta: Delta, **fields: Any) -> Blocks:
    """The blocks of an answer in one piece."""
    written = MESSAGES.whole(asking(**fields), [delta], Usage(3, 9), answer_id="msg_1", created=0)
    return _as_it_was([block.to_dict() for block in Message.model_validate_json(written).content])


def _as_it_was(blocks: Blocks) -> Blocks:
    """Without the fields that the client fills in itself."""
    return [{name: value for name, value in block.items() if value is not None} for block in blocks]


def next_turn(content: Blocks, *, call: str = "toolu_1", **fields: Any) -> GenerateRequest:
    """What the client asks with that answer in its history, and with what the tool gave."""
    result = {"type": "tool_result", "tool_use_id": call, "content": "blue"}
    messages = [
        {"role": "user", "content": "What is at the sky?"},
        {"role": "assistant", "content": content},
        {"role": "user", "content": [result]},
    ]
    return asking(messages=messages, **fields)
