"""Ollama's published client finds its server: chat, generate, embed, tools, and what it asks about models."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

import ollama
import pytest

from gateway_rig import (
    ADMIN,
    DEVELOPER,
    SCOPED,
    endpoint_entry,
    house_in_thread,
    key,
    replica_entry,
    snapshot,
)
from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from watched_engine import WatchedEngine, fails, words

HELLO = [{"role": "user", "content": "Say hello."}]
VECTORS = endpoint_entry("vectors", tasks=("embedding",))
SERVED = snapshot(
    replica_entry(context_tokens=2048, model_digest="sha256:ab"),
    replica_entry("vectors-0", "vectors"),
    endpoints=(endpoint_entry("chat"), VECTORS),
)


@contextmanager
def client_of(engine: WatchedEngine, as_key: str = DEVELOPER) -> Iterator[ollama.Client]:
    with house_in_thread(engine, SERVED) as house:
        headers = {"authorization": f"Bearer {key(as_key)}"}
        with ollama.Client(host=house.url.removesuffix("/v1"), headers=headers) as client:
            yield client


def test_a_chat_is_answered_whole_and_streamed():
    engine = WatchedEngine(words("One ", "two.", usage=Usage(7, 2)))
    with client_of(engine) as client:
        whole = client.chat(
            "chat:latest", HELLO, options={"temperature": 0, "num_predict": 9, "num_ctx": 4096}
        )
        steps = list(client.chat("chat", HELLO, stream=True))

    assert whole.message.content == "One two."
    assert (whole.done, whole.done_reason, whole.prompt_eval_count, whole.eval_count) == (True, "stop", 7, 2)
    assert [step.message.content for step in steps] == ["One ", "two.", ""]
    assert [step.done for step in steps] == [False, False, True]
    assert steps[-1].eval_count == 2
    asked, _ = engine.asked[0]
    assert (asked.sampling.temperature, asked.max_tokens, asked.endpoint) == (0, 9, "chat")


def test_a_prompt_is_generated_from_with_its_system_and_its_format():
    engine = WatchedEngine(words("{}", usage=Usage(3, 1)))
    schema = {"type": "object"}
    with client_of(engine) as client:
        answer = client.generate("chat", "Say hello.", system="Be short.", format=schema)
        lines = list(client.generate("chat", "Say hello.", raw=True, stream=True))

    (first, _), (second, _) = engine.asked
    assert bytes(first.prompt) == (
        b'[{"role":"system","content":"Be short."},{"role":"user","content":"Say hello."}]'
    )
    assert bytes(first.sampling.response_format or b"") == (
        b'{"type":"json_schema","json_schema":{"name":"answer","schema":{"type":"object"}}}'
    )
    assert answer.response == "{}"
    assert (second.kind, bytes(second.prompt)) == ("completion", b'"Say hello."')
    assert "".join(line.response for line in lines) == "{}"


async def _calls(ask: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    pieces = (ToolCall(0, "c1", "look"), ToolCall(0, "", "", '{"at":'), ToolCall(0, "", "", ' "sky"}'))
    yield Chunk((Delta("", 0, None, None, Aside(reasoning="Hmm.")),))
    for piece in pieces:
        yield Chunk((Delta("", 0, None, None, Aside(tools=(piece,))),))
    yield Chunk((Delta("", 0, "tool_calls"),), Usage(5, 3))


def test_tools_are_called_and_their_answers_come_back():
    tool = {
        "type": "function",
        "function": {
            "name": "look",
            "description": "Looks somewhere.",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
        },
    }
    engine = WatchedEngine(_calls, can=frozenset({"tools"}))
    with client_of(engine) as client:
        whole = client.chat("chat", HELLO, tools=[tool], think=True)
        steps = list(client.chat("chat", HELLO, tools=[tool], stream=True))
        back = [*HELLO, whole.message, {"role": "tool", "tool_name": "look", "content": "blue"}]
        client.chat("chat", back, tools=[tool])

    call = (whole.message.tool_calls or [])[0]
    assert (call.function.name, call.function.arguments) == ("look", {"at": "sky"})
    assert whole.message.thinking == "Hmm."
    assert [bool(step.message.tool_calls) for step in steps] == [False, True, False]
    asked = bytes(engine.asked[2][0].prompt)
    assert b'"tool_calls":[{"type":"function","id":"call_1_0"' in asked
    assert b'{"role":"tool","content":"blue","tool_call_id":"call_1_0"}' in asked


def test_texts_are_embedded():
    with client_of(WatchedEngine(words(""))) as client:
        found = client.embed("vectors", ["one", "two"])

    assert len(found.embeddings) == 2


def test_models_are_listed_shown_and_seen_loaded():
    with client_of(WatchedEngine(words(""))) as client:
        names = [model.model for model in client.list().models]
        loaded = [model.model for model in client.ps().models]
        shown = client.show("chat:latest")
        vectors = client.show("vectors")

    assert names == loaded == ["chat", "vectors"]
    assert shown.capabilities == ["completion"]
    assert (shown.modelinfo or {})["pilothouse.context_length"] == 2048
    assert vectors.capabilities == ["embedding"]


def test_a_key_sees_its_own_models_only():
    with client_of(WatchedEngine(words("")), SCOPED) as client:
        names = [model.model for model in client.list().models]
        with pytest.raises(ollama.ResponseError, match="not here"):
            client.show("chat")

    assert "chat" not in names


def test_errors_come_in_the_clients_own_shape():
    broken = WatchedEngine(fails(UpstreamError("it broke"), after=("One ",)))
    with client_of(broken) as client:
        with pytest.raises(ollama.ResponseError, match="does not exist") as missing:
            client.chat("nobody", HELLO)
        with pytest.raises(ollama.ResponseError, match="repeat_penalty"):
            client.chat("chat", HELLO, options={"repeat_penalty": 1.3})
        with pytest.raises(ollama.ResponseError, match="it broke"):
            list(client.chat("chat", HELLO, stream=True))
    assert missing.value.status_code == 404


def test_models_are_changed_by_nobody_and_an_admin_is_told_how():
    with (
        client_of(WatchedEngine(words(""))) as client,
        pytest.raises(ollama.ResponseError, match="admin key"),
    ):
        client.pull("llama3")
    with (
        client_of(WatchedEngine(words("")), ADMIN) as client,
        pytest.raises(ollama.ResponseError, match="pilothouse model pull"),
    ):
        client.pull("llama3")


def test_arguments_that_are_no_object_are_an_error_of_the_engine():
    async def nonsense(ask: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        yield Chunk((Delta("", 0, "tool_calls", None, Aside(tools=(ToolCall(0, "c", "look", "[1"),))),))

    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    engine = WatchedEngine(nonsense, can=frozenset({"tools"}))
    with client_of(engine) as client, pytest.raises(ollama.ResponseError, match="no JSON object") as caught:
        client.chat("chat", HELLO, tools=[tool])
    assert caught.value.status_code == 502
