"""Anthropic's published client finds its service: against a scripted engine, and the real one."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import MessageParam, ToolParam

from gateway_rig import DEVELOPER, SCOPED, endpoint_entry, house_in_thread, key, replica_entry, snapshot
from pilothouse.domain.chat import Aside, ToolCall
from pilothouse.domain.chunk import Chunk, Delta
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    Overloaded,
    PilothouseError,
    RateLimitExceeded,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from watched_engine import WatchedEngine, fails, words

HELLO: list[MessageParam] = [{"role": "user", "content": "Say hello."}]
LOOK: ToolParam = {
    "name": "look",
    "description": "Looks somewhere.",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}
SERVED = snapshot(
    replica_entry(),
    replica_entry("other-0", "other"),
    endpoints=(endpoint_entry("chat"), endpoint_entry("other")),
)


@pytest.fixture(scope="module")
def real(served: Any) -> Iterator[anthropic.Anthropic]:
    """A client of both servers of this folder."""
    with _client(served.base_url, served.api_key) as client:
        yield client


def _client(url: str, api_key: str, **more: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=url.removesuffix("/v1"), api_key=api_key, max_retries=0, timeout=60, **more
    )


@contextmanager
def client_of(engine: WatchedEngine, as_key: str = DEVELOPER, **more: Any) -> Iterator[anthropic.Anthropic]:
    with house_in_thread(engine, SERVED) as house, _client(house.url, key(as_key), **more) as client:
        yield client


def test_a_message_is_answered_whole_and_streamed(real: anthropic.Anthropic):
    asked: Any = {"model": "chat", "max_tokens": 4, "messages": HELLO, "extra_body": {"temperature": 0}}
    whole = real.messages.create(**asked)
    with real.messages.stream(**asked) as stream:
        pieces = list(stream.text_stream)
        message = stream.get_final_message()

    assert whole.content[0].type == "text"
    assert "".join(pieces) == message.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert (whole.stop_reason, message.stop_reason) == ("max_tokens", "max_tokens")
    assert whole.usage.output_tokens == message.usage.output_tokens == 4
    assert whole.usage.input_tokens + (whole.usage.cache_read_input_tokens or 0) > 0
    assert whole.id.startswith("msg_")


def test_the_words_of_a_system_and_earlier_turns_are_read(real: anthropic.Anthropic):
    short = real.messages.create(model="chat", max_tokens=1, messages=HELLO)
    longer = real.messages.create(
        model="chat",
        max_tokens=1,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[*HELLO, {"role": "assistant", "content": "Hello."}, *HELLO],
        stop_sequences=["END"],
        metadata={"user_id": "somebody"},
    )

    assert longer.role == "assistant"
    assert _read(longer) >= _read(short)


def _read(message: anthropic.types.Message) -> int:
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_tokens_are_counted_as_the_engine_reads_them(real: anthropic.Anthropic, served: Any):
    if served.is_scripted:
        with pytest.raises(anthropic.APIStatusError, match="does not say how many") as caught:
            real.messages.count_tokens(model="chat", messages=HELLO)
        assert (caught.value.status_code, caught.value.error_code) == (501, "not_supported")
        return
    counted = real.messages.count_tokens(model="chat", messages=HELLO, system="Be brief.")
    answer = real.messages.create(model="chat", max_tokens=1, messages=HELLO, system="Be brief.")

    assert counted.input_tokens == _read(answer)


def test_offered_tools_are_a_part_of_what_the_real_engine_reads(real: anthropic.Anthropic, served: Any):
    if served.is_scripted:
        pytest.skip("the scripted engine takes no tools here; see the tests with scripts of their own")
    asked: Any = {"model": "chat", "messages": HELLO, "tools": [LOOK]}
    counted = real.messages.count_tokens(**asked)
    answer = real.messages.create(max_tokens=1, **asked)
    without = real.messages.count_tokens(model="chat", messages=HELLO)

    assert counted.input_tokens == _read(answer) >= without.input_tokens


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "look"}, {"type": "any"}], ids=["tool", "any"])
def test_a_tool_that_is_demanded_is_called_by_the_real_engine(
    real: anthropic.Anthropic, served: Any, choice: dict[str, Any]
):
    if served.is_scripted:
        pytest.skip("the scripted engine takes no tools here; see the tests with scripts of their own")
    places = {"type": "object", "properties": {"at": {"enum": ["sky", "sea"]}}, "required": ["at"]}
    asked: Any = {
        "model": "chat",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "What colour is the sky? Look at it."}],
        "tools": [{"name": "look", "input_schema": places}, {"name": "hear", "input_schema": places}],
        "tool_choice": choice,
    }
    same: Any = {"extra_body": {"temperature": 0}}
    whole = real.messages.create(**asked, **same)
    with real.messages.stream(**asked, **same) as stream:
        message = stream.get_final_message()
    counted = real.messages.count_tokens(
        **{name: value for name, value in asked.items() if name != "max_tokens"}
    )

    for answer in (whole, message):
        (call,) = answer.content
        assert call.type == "tool_use"
        assert call.name == "look" if "name" in choice else call.name in ("look", "hear")
        assert call.input["at"] in ("sky", "sea")
        assert answer.stop_reason == "tool_use"
    assert counted.input_tokens == _read(whole)


def test_models_are_listed_in_their_shape(real: anthropic.Anthropic):
    found = real.models.list(limit=1)
    names = [model.id for model in found]
    one = real.models.retrieve("chat")

    assert {"chat", "vectors"} <= set(names)
    assert names == sorted(names)
    assert (one.id, one.type, one.lifecycle) == ("chat", "model", "active")
    with pytest.raises(anthropic.NotFoundError) as caught:
        real.models.retrieve("nobody")
    assert caught.value.type == "not_found_error"


async def _calls(ask: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    pieces = (
        ToolCall(0, "c1", "look"),
        ToolCall(0, "", "", '{"at":'),
        ToolCall(0, "", "", ' "sky"}'),
        ToolCall(1, "c2", "look", '{"at":"sea"}'),
    )
    yield Chunk((Delta("", 0, None, None, Aside(reasoning="Hmm.")),))
    yield Chunk((Delta("Let me look."),))
    for piece in pieces:
        yield Chunk((Delta("", 0, None, None, Aside(tools=(piece,))),))
    yield Chunk((Delta("", 0, "tool_calls"),), Usage(5, 3))


def test_tools_are_called_and_their_results_come_back():
    engine = WatchedEngine(_calls, can=frozenset({"tools"}))
    with client_of(engine) as client:
        asked: Any = {
            "model": "chat",
            "max_tokens": 2000,
            "messages": HELLO,
            "tools": [LOOK],
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        }
        whole = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            kinds = [event.type for event in stream]
            message = stream.get_final_message()
        results: Any = [
            {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "green"}]},
            {"type": "tool_result", "tool_use_id": "c1", "content": "blue", "is_error": True},
        ]
        back = [
            *HELLO,
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": results},
        ]
        client.messages.create(**{**asked, "messages": back})

    assert message.to_dict(exclude_none=True)["content"] == whole.to_dict(exclude_none=True)["content"]
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [block.input for block in whole.content if block.type == "tool_use"] == [
        {"at": "sky"},
        {"at": "sea"},
    ]
    assert whole.stop_reason == message.stop_reason == "tool_use"
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 4
    asked_last = bytes(engine.asked[2][0].prompt)
    assert b'"reasoning_content":"Hmm."' in asked_last
    assert (
        b'{"role":"tool","content":"green","tool_call_id":"c2"},'
        b'{"role":"tool","content":"Error: blue","tool_call_id":"c1"}'
    ) in asked_last


def test_the_header_of_older_clients_holds_a_key_as_well():
    asked = {"model": "chat", "max_tokens": 9, "messages": HELLO, "temperature": 0.5}
    engine = WatchedEngine(words("Hi."))
    with house_in_thread(engine, SERVED) as house:
        headers = {"x-api-key": key(DEVELOPER), "anthropic-version": "2023-06-01"}
        answer = httpx2.post(f"{house.url}/messages", json=asked, headers=headers)

    assert answer.json()["stop_reason"] == "end_turn"
    assert engine.asked[0][0].sampling.temperature == 0.5


@pytest.mark.parametrize(
    ("error", "status", "kind", "shown"),
    [
        (ContextLengthExceeded("too long"), 400, anthropic.BadRequestError, "invalid_request_error"),
        (RateLimitExceeded("slow", retry_after_s=7), 429, anthropic.RateLimitError, "rate_limit_error"),
        (UpstreamError("broken"), 502, anthropic.InternalServerError, "api_error"),
        (EngineUnavailable("away"), 503, anthropic.InternalServerError, "api_error"),
        (DeadlineExceeded("late"), 504, anthropic.InternalServerError, "timeout_error"),
        (Overloaded("busy", retry_after_s=3), 529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
def test_every_error_arrives_as_the_clients_own(
    error: PilothouseError, status: int, kind: type[anthropic.APIStatusError], shown: str
):
    with client_of(WatchedEngine(fails(error))) as client, pytest.raises(kind, match=error.message) as caught:
        client.messages.create(model="chat", max_tokens=9, messages=HELLO)

    assert (caught.value.status_code, caught.value.type) == (status, shown)
    assert caught.value.error_code == error.code
    if error.retry_after_s is not None:
        assert caught.value.response.headers["retry-after"] == str(round(error.retry_after_s))


def test_who_may_not_is_told_in_the_clients_own_words():
    engine = WatchedEngine(words("Hi."))
    with client_of(engine, SCOPED) as client, pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="chat", max_tokens=9, messages=HELLO)
    with client_of(engine) as client:
        with pytest.raises(anthropic.AuthenticationError):
            client.with_options(api_key="nonsense").messages.create(
                model="chat", max_tokens=9, messages=HELLO
            )
        with pytest.raises(anthropic.BadRequestError, match="2023-01-01"):
            client.messages.create(
                model="chat", max_tokens=9, messages=HELLO, extra_headers={"anthropic-version": "2023-01-01"}
            )
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.batches.list()
    assert (caught.value.status_code, caught.value.type) == (501, "invalid_request_error")


def test_a_stream_that_breaks_ends_in_the_clients_error_and_no_message():
    broken = WatchedEngine(fails(UpstreamError("it broke"), after=("One ",)))
    with (
        client_of(broken) as client,
        pytest.raises(anthropic.APIStatusError, match="it broke") as caught,
        client.messages.stream(model="chat", max_tokens=9, messages=HELLO) as stream,
    ):
        for _ in stream:
            pass
    assert caught.value.type == "api_error"
