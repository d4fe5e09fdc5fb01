"""The same conversation in every protocol that callers may speak, and where its answers have what."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from http1_rig import Answer

SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "Say hello."}


@dataclass(frozen=True)
class Way:
    """One protocol: how the conversation is asked for in it, and where its answers have what."""

    name: str
    path: str
    body: Callable[[bool, bool], dict[str, Any]]
    """By whether it streams and whether it offers a tool."""
    text: Callable[[Any], str]
    """Of a whole answer."""
    piece: Callable[[Any], str]
    """Of one event of a stream."""
    ends_well: bytes
    """Stands at the end of a stream that was not cut."""
    error: Callable[[Any], dict[str, Any]]
    keepalive: bytes
    """What a stream in which nothing happens has in it."""

    def asking(self, *, stream: bool = False, tool: bool = False) -> bytes:
        return json.dumps(self.body(stream, tool), separators=(",", ":")).encode()

    def streamed(self, answer: Answer) -> str:
        lines = [line.removeprefix("data: ") for line in answer.body.decode().splitlines()]
        return "".join(self.piece(json.loads(line)) for line in lines if line.startswith("{"))


def _openai(stream: bool, tool: bool) -> dict[str, Any]:
    asked = {
        "model": "chat",
        "messages": [SYSTEM, USER],
        "temperature": 0,
        "max_tokens": 64,
        "stream": stream,
    }
    return asked | ({"tools": [FUNCTION]} if tool else {})


def _anthropic(stream: bool, tool: bool) -> dict[str, Any]:
    asked = {
        "model": "chat",
        "system": "Be brief.",
        "messages": [USER],
        "temperature": 0,
        "max_tokens": 64,
        "stream": stream,
    }
    return asked | ({"tools": [{"name": "look", "input_schema": SCHEMA}]} if tool else {})


def _ollama(stream: bool, tool: bool) -> dict[str, Any]:
    options = {"temperature": 0, "num_predict": 64}
    asked = {"model": "chat", "messages": [SYSTEM, USER], "options": options, "stream": stream}
    return asked | ({"tools": [FUNCTION]} if tool else {})


def _responses(stream: bool, tool: bool) -> dict[str, Any]:
    asked = {
        "model": "chat",
        "input": [SYSTEM, USER],
        "temperature": 0,
        "max_output_tokens": 64,
        "stream": stream,
    }
    offer = {"type": "function", "name": "look", "parameters": SCHEMA}
    return asked | ({"tools": [offer]} if tool else {})


def _said(answer: Any) -> str:
    parts = [part for item in answer["output"] for part in item.get("content") or ()]
    return "".join(part["text"] for part in parts if part["type"] == "output_text")


WAYS = [
    Way(
        "openai",
        "/v1/chat/completions",
        _openai,
        lambda answer: answer["choices"][0]["message"]["content"],
        lambda event: "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ())),
        b"data: [DONE]\n\n",
        lambda answer: answer["error"],
        b": keep-alive\n\n",
    ),
    Way(
        "anthropic",
        "/v1/messages",
        _anthropic,
        lambda answer: "".join(block.get("text", "") for block in answer["content"]),
        lambda event: event.get("delta", {}).get("text", ""),
        b'data: {"type":"message_stop"}\n\n',
        lambda answer: answer["error"],
        b'event: ping\ndata: {"type":"ping"}\n\n',
    ),
    Way(
        "responses",
        "/v1/responses",
        _responses,
        _said,
        lambda event: event["delta"] if event.get("type") == "response.output_text.delta" else "",
        b'"type":"response.completed"',
        lambda answer: answer["error"],
        b": keep-alive\n\n",
    ),
    Way(
        "ollama",
        "/api/chat",
        _ollama,
        lambda answer: answer["message"]["content"],
        lambda event: event.get("message", {}).get("content", ""),
        b'"done":true',
        lambda answer: answer,
        b"",
    ),
]
