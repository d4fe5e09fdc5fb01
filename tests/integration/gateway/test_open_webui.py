"""
What Open WebUI's backend asks of a provider, repeated call by call, with its headers and its fields.

It weighs too much to be run by a test; docs/howto/migrate.md has a run. The calls are those of its
routers `openai.py` and `ollama.py`: the check of a connection, the lists that fill its menus, a chat as
its page sends it, the tasks in the background (a title, tags, a search query), and vectors for documents.
"""

import json
from typing import Any

import pytest

from gateway_rig import House, endpoint_entry, house, replica_entry, snapshot
from pilothouse.domain.used_tokens import Usage
from watched_engine import WatchedEngine, words

PERSON = b"".join(
    [
        b"x-openwebui-user-name: Ann%20B\r\n",
        b"x-openwebui-user-id: 7f0c\r\n",
        b"x-openwebui-user-email: ann@example.org\r\n",
        b"x-openwebui-user-role: user\r\n",
        b"x-openwebui-chat-id: c-1\r\n",
        b"content-type: application/json\r\n",
    ]
)
SERVED = snapshot(
    replica_entry(context_tokens=4096),
    replica_entry("vectors-0", "vectors"),
    endpoints=(endpoint_entry("chat"), endpoint_entry("vectors", tasks=("embedding",))),
)
SAID: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
]
CHATS = {
    "page": {"stream": True, "model": "chat", "messages": SAID, "stream_options": {"include_usage": True}},
    "with all settings": {
        "stream": True,
        "model": "chat",
        "messages": SAID,
        "stream_options": {"include_usage": True},
        "temperature": 0.8,
        "top_p": 0.9,
        "max_tokens": 128,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "seed": 0,
        "stop": ["###"],
        "reasoning_effort": "medium",
    },
    "title": {"model": "chat", "messages": SAID[1:], "stream": False, "max_completion_tokens": 1000},
    "format": {
        "model": "chat",
        "messages": SAID,
        "stream": False,
        "response_format": {"type": "json_object"},
    },
}


async def asked(h: House, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    data = b"" if body is None else json.dumps(body).encode()
    reply = await h.ask(path, data, headers=PERSON, method=method)
    return reply.status, reply.body


async def test_a_connection_is_checked_and_the_menus_are_filled() -> None:
    async with house(WatchedEngine(), SERVED) as h:
        status, body = await asked(h, "GET", "/v1/models")
        tags = await asked(h, "GET", "/api/tags")
        version = await asked(h, "GET", "/api/version")
        loaded = await asked(h, "GET", "/api/ps")

    assert status == 200
    assert {one["id"] for one in json.loads(body)["data"]} == {"chat", "vectors"}
    for found in (tags, loaded):
        assert {one["model"] for one in json.loads(found[1])["models"]} == {"chat", "vectors"}
    assert json.loads(version[1])["version"]


@pytest.mark.parametrize("kind", CHATS)
async def test_a_chat_of_its_page_and_its_tasks_are_answered(kind: str) -> None:
    async with house(WatchedEngine(words('{"a"', ": 1}", usage=Usage(5, 2))), SERVED) as h:
        status, body = await asked(h, "POST", "/v1/chat/completions", CHATS[kind])

    assert status == 200
    if not CHATS[kind]["stream"]:
        assert json.loads(body)["choices"][0]["message"]["content"] == '{"a": 1}'
        return
    *events, done, _ = body.split(b"\n\n")
    assert done == b"data: [DONE]"
    assert json.loads(events[-1].removeprefix(b"data: "))["usage"]["completion_tokens"] == 2


async def test_its_ollama_connection_chats_and_shows() -> None:
    chat = {
        "model": "chat:latest",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "options": {"temperature": 0.8, "num_ctx": 4096, "num_predict": 128, "stop": ["###"]},
        "keep_alive": "5m",
    }
    async with house(WatchedEngine(words("Hi", usage=Usage(5, 1))), SERVED) as h:
        status, body = await asked(h, "POST", "/api/chat", chat)
        shown = await asked(h, "POST", "/api/show", {"model": "chat:latest", "name": "chat:latest"})

    assert status == 200
    lines = [json.loads(line) for line in body.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "Hi"
    assert lines[-1]["done"] is True
    assert "completion" in json.loads(shown[1])["capabilities"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["one", "two"], "model": "vectors"}),
        ("/api/embed", {"input": ["one", "two"], "model": "vectors"}),
    ],
)
async def test_its_documents_become_vectors(path: str, body: Any) -> None:
    async with house(WatchedEngine(), SERVED) as h:
        status, said = await asked(h, "POST", path, body)

    assert status == 200
    found = json.loads(said)
    assert len(found.get("data") or found["embeddings"]) == 2
