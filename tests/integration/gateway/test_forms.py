"""A form that nothing can be in is refused before an engine is asked, in each protocol's own words."""

import json
from typing import Any

import pytest

from gateway_rig import house
from watched_engine import WatchedEngine, words

NEVER = {"type": "object", "properties": {"a": {"type": "string", "minLength": 5, "maxLength": 2}}}
USER = [{"role": "user", "content": "x"}]
FORM = {"name": "x", "schema": NEVER}
FUNCTION = {"name": "look", "parameters": NEVER}
ASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (
        "/v1/chat/completions",
        {"messages": USER, "response_format": {"type": "json_schema", "json_schema": FORM}},
    ),
    "a chat, in llama.cpp's own place": (
        "/v1/chat/completions",
        {"messages": USER, "response_format": {"type": "json_object", "schema": NEVER}},
    ),
    "a tool of a chat": (
        "/v1/chat/completions",
        {"messages": USER, "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"},
    ),
    "responses": ("/v1/responses", {"input": "x", "text": {"format": {"type": "json_schema", **FORM}}}),
    "messages": (
        "/v1/messages",
        {
            "max_tokens": 8,
            "messages": USER,
            "output_config": {"format": {"type": "json_schema", "schema": NEVER}},
        },
    ),
    "ollama": ("/api/chat", {"messages": USER, "format": NEVER}),
}


@pytest.mark.parametrize("what", ASKS)
async def test_bounds_that_contradict_each_other_never_reach_an_engine(what: str) -> None:
    path, body = ASKS[what]
    engine = WatchedEngine(words("{}"))

    async with house(engine) as h:
        reply = await h.ask(path, json.dumps({"model": "chat", **body}).encode())

    assert reply.status == 400
    assert "$.properties.a: minLength 5 is above maxLength 2" in reply.body.decode()
    assert not engine.asked


@pytest.mark.parametrize("form", [{"type": "json_schema"}, {"type": "json_schema", "json_schema": "x"}])
async def test_a_form_without_its_schema_is_refused_by_its_name(form: dict[str, Any]) -> None:
    async with house(WatchedEngine(words("{}"))) as h:
        body = {"model": "chat", "messages": USER, "response_format": form}
        reply = await h.ask("/v1/chat/completions", json.dumps(body).encode())

    assert reply.status == 400
    assert json.loads(reply.body)["error"]["param"].startswith("response_format")
