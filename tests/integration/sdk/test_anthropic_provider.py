"""A deployment at Anthropic's protocol, declared in a spec: the real program, asked by both clients."""

import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anthropic
import openai
import pytest

from gateway_rig import DEVELOPER, House, house_in_thread, key, replica_entry, snapshot
from pilothouse.domain.chat import Aside, Thought, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import RateLimitExceeded
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from program_rig import Program, program
from watched_engine import WatchedEngine, fails, words

SPEC = """
version: 1
deployments:
  claude:
    engine: anthropic
    provider_model: chat
    engine_options:
      {{base_url: "{url}", secret: claude, allow_private_network: true, prompt_cache: 5m}}
endpoints:
  assistant: {{routes: [{{deployment: claude}}]}}
"""


@pytest.fixture(scope="module")
def engine() -> WatchedEngine:
    return WatchedEngine(
        words("One ", "two.", usage=Usage(7, 2)), can=frozenset({"tools", "redacted_thinking"})
    )


@pytest.fixture(scope="module")
def provider(engine: WatchedEngine) -> Iterator[House]:
    """Anthropic itself cannot be had here: another Pilothouse speaks its protocol."""
    with house_in_thread(engine, snapshot(replica_entry())) as house:
        yield house


@pytest.fixture(scope="module")
def served(provider: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder: Path = tmp_path_factory.mktemp("provider")
    url = provider.url.removesuffix("/v1")
    secrets = {"claude": (urlsplit(url).netloc, key(DEVELOPER))}
    with program(folder / "home", SPEC.format(url=url), secrets=secrets) as running:
        yield running


HELLO: Any = [{"role": "user", "content": "Say hello."}]


def test_openais_client_is_answered_by_the_provider(served: Program, engine: WatchedEngine) -> None:
    with openai.OpenAI(base_url=served.url + "/v1", api_key=served.admin_key) as client:
        whole = client.chat.completions.create(model="assistant", messages=HELLO, temperature=0.5)
        stream = client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
        pieces = [piece.choices[0].delta.content or "" for piece in stream if piece.choices]
        with pytest.raises(openai.APIStatusError, match="seed") as caught:
            client.chat.completions.create(model="assistant", messages=HELLO, seed=7)

    assert whole.choices[0].message.content == "".join(pieces) == "One two."
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (7, 2)
    assert json.loads(caught.value.response.content)["error"]["code"] == "not_supported"
    asked = [ask for ask, _ in engine.asked if b"Say hello." in bytes(ask.prompt)]
    assert [ask.sampling.temperature for ask in asked] == [0.5, None]


def test_anthropics_client_is_answered_by_the_provider(served: Program) -> None:
    with anthropic.Anthropic(base_url=served.url, api_key=served.admin_key) as client:
        whole = client.messages.create(model="assistant", max_tokens=9, messages=HELLO)
        with client.messages.stream(model="assistant", max_tokens=9, messages=HELLO) as stream:
            message = stream.get_final_message()

    assert whole.to_dict()["content"] == [{"type": "text", "text": "One two."}]
    assert message.content[0].text == "One two."  # type: ignore[union-attr]
    assert whole.usage.output_tokens == message.usage.output_tokens == 2


async def _thinks(ask: GenerateRequest) -> AsyncGenerator[Chunk]:
    yield Chunk((Delta("", 0, None, None, Aside("I must look.")),))
    yield Chunk((Delta("", 0, None, None, Aside(thoughts=(Thought("I must look.", "c2ln", "", 0),))),))
    yield Chunk((Delta("", 0, None, None, Aside(thoughts=(Thought(data="c2VjcmV0", block=1),))),))
    yield Chunk((Delta("", 0, None, None, Aside(tools=(ToolCall(0, "c1", "look", '{"at":"sky"}'),))),))
    yield Chunk((Delta("", 0, "tool_calls"),), Usage(5, 3))


def test_signed_thoughts_come_through_and_go_back_with_the_result_of_a_tool(
    served: Program, engine: WatchedEngine
) -> None:
    said, engine.say = engine.say, _thinks
    asked: Any = {
        "model": "assistant",
        "max_tokens": 2000,
        "messages": HELLO,
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    try:
        with anthropic.Anthropic(base_url=served.url, api_key=served.admin_key) as client:
            whole = client.messages.create(**asked)
            with client.messages.stream(**asked) as stream:
                message = stream.get_final_message()
            result = {"type": "tool_result", "tool_use_id": "c1", "content": "blue"}
            turn: Any = [
                {"role": "assistant", "content": message.content},
                {"role": "user", "content": [result]},
            ]
            client.messages.create(**{**asked, "messages": [*HELLO, *turn]})
    finally:
        engine.say = said

    thoughts = [
        {"type": "thinking", "thinking": "I must look.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
    ]
    assert [block.to_dict() for block in message.content[:2]] == thoughts
    assert message.to_dict(exclude_none=True)["content"] == whole.to_dict(exclude_none=True)["content"]
    remembered = [(one.message, one.thought) for one in engine.asked[-1][0].thoughts]
    assert remembered == [(1, Thought("I must look.", "c2ln", "", 0)), (1, Thought("", "", "c2VjcmV0", 1))]


def test_a_provider_that_is_busy_is_told_as_that(served: Program, engine: WatchedEngine) -> None:
    said, engine.say = engine.say, fails(RateLimitExceeded("slow", retry_after_s=5))
    try:
        with (
            anthropic.Anthropic(base_url=served.url, api_key=served.admin_key, max_retries=0) as client,
            pytest.raises(anthropic.InternalServerError) as caught,
        ):
            client.messages.create(model="assistant", max_tokens=9, messages=HELLO)
    finally:
        engine.say = said

    assert (caught.value.status_code, caught.value.type) == (529, "overloaded_error")
