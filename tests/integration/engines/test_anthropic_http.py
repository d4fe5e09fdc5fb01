"""
What a provider says over Anthropic's protocol, as the engine port has it.

The provider cannot be had here: a server that answers by script stands in for it, with
streams in the published form, and its own client says what must be sent to it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anthropic
import pytest
from msgspec import Raw

from gateway_rig import DEVELOPER, house_in_thread, key, replica_entry, snapshot
from pilothouse.adapters.engines._anthropic_http import AnthropicEngine
from pilothouse.domain.chat import EmbedRequest, Sampling
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    RequestTooLarge,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.ports.engine import EngineInfo, Placement
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream, whole
from watched_engine import WatchedEngine, words

START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 1},
    },
}
OPEN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
AHOY = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Ahoy"}}
CLOSE = {"type": "content_block_stop", "index": 0}
END = {
    "type": "message_delta",
    "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    "usage": {"output_tokens": 2},
}
STOP = {"type": "message_stop"}
MESSAGE = START["message"] | {  # type: ignore[operator]
    "content": [{"type": "text", "text": "Ahoy"}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 2},
}


def ask(text: str = "hi", **more: Any) -> GenerateRequest:
    prompt = json.dumps([{"role": "user", "content": text}]).encode()
    return GenerateRequest("chat", "m", Raw(prompt), len(prompt)).changed(**{"max_tokens": 8, **more})


def events(*said: dict[str, Any]) -> bytes:
    """A stream's answer, each event in a chunk of its own."""
    pieces = [b"event: %s\ndata: %s\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in said]
    return CHUNKED_HEAD + chunked(*pieces)


def fault(kind: str, message: str = "secret prompt") -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


@asynccontextmanager
async def engine_that(script: Callable[[Upstream, int], Awaitable[None]]) -> AsyncIterator[AnthropicEngine]:
    async with upstream(script) as listening:
        engine = AnthropicEngine(
            EngineInfo(name="anthropic", whole=True),
            f"http://127.0.0.1:{listening.port}/v1",
            model="claude",
            credential="authorization: Bearer k-1",
        )
        async with aclosing(engine):
            yield engine


def answering(
    *answers: bytes, asked: list[bytes] | None = None
) -> Callable[[Upstream, int], Awaitable[None]]:
    async def script(talk: Upstream, number: int) -> None:
        for data in answers:
            request = await talk.request()
            if asked is not None:
                asked.append(request)
            await talk.say(data)

    return script


async def streamed(engine: AnthropicEngine, request: GenerateRequest) -> list[Chunk]:
    async with aclosing(engine.stream(request, Placement(), deadline_s=10)) as stream:
        return [chunk async for chunk in stream]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(delta.text for chunk in chunks for delta in chunk.deltas)


async def test_an_answer_is_read_whole_and_as_a_stream() -> None:
    asked: list[bytes] = []
    script = answering(
        events(START, OPEN, AHOY, CLOSE, END, STOP), whole(json.dumps(MESSAGE).encode()), asked=asked
    )

    async with engine_that(script) as engine:
        chunks = await streamed(engine, ask())
        answer = await engine.complete(ask(), Placement(), deadline_s=10)

    assert text_of(chunks) == answer.deltas[0].text == "Ahoy"
    assert chunks[-1].usage == answer.usage == Usage(9, 2)
    assert chunks[-1].deltas[0].finish_reason == answer.deltas[0].finish_reason == "stop"
    assert [json.loads(one.partition(b"\r\n\r\n")[2]).get("stream") for one in asked] == [True, None]


async def test_what_arrives_at_the_provider_is_what_its_own_client_sends() -> None:
    asked: list[bytes] = []
    script = answering(whole(json.dumps(MESSAGE).encode()), asked=asked)
    async with upstream(script) as listening:
        base = f"http://127.0.0.1:{listening.port}"
        async with anthropic.AsyncAnthropic(base_url=base, api_key="k-1", max_retries=0) as client:
            await client.messages.create(
                model="claude", max_tokens=8, messages=[{"role": "user", "content": "hi"}]
            )
        engine = AnthropicEngine(
            EngineInfo(name="anthropic"), base, model="claude", credential="authorization: Bearer k-1"
        )
        async with aclosing(engine):
            await engine.complete(ask(), Placement(), deadline_s=10)

    theirs, ours = map(_told, asked)
    assert ours == theirs


def _told(request: bytes) -> tuple[bytes, dict[bytes, bytes], Any]:
    """The first line, the lines of the head that mean something to a server, and the body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    known = (b"host", b"anthropic-version", b"content-type", b"authorization", b"x-api-key")
    told = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    return first, {name: told[name] for name in known if name in told}, json.loads(body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (b"400 Bad", fault("invalid_request_error"), InvalidRequest),
        (
            b"400 Bad",
            fault("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
            ContextLengthExceeded,
        ),
        (b"401 No", fault("authentication_error"), UpstreamError),
        (b"403 No", fault("permission_error"), UpstreamError),
        (b"404 No", fault("not_found_error"), UpstreamError),
        (b"413 Long", fault("request_too_large"), RequestTooLarge),
        (b"429 Slow", fault("rate_limit_error"), Overloaded),
        (b"500 Bad", fault("api_error"), UpstreamError),
        (b"504 Late", fault("timeout_error"), DeadlineExceeded),
        (b"529 Busy", fault("overloaded_error"), Overloaded),
        (b"302 Found", b"<html>secret prompt</html>", UpstreamError),
        (b"200 OK", fault("api_error"), UpstreamError),
        (b"200 OK", fault("overloaded_error"), Overloaded),
        (b"200 OK", b"{}", UpstreamError),
    ],
)
async def test_an_error_before_the_answer_is_one_of_ours_without_its_text(
    status: bytes, body: bytes, kind: type[PilothouseError]
) -> None:
    async with engine_that(answering(whole(body, status=status))) as engine:
        with pytest.raises(kind) as caught:
            await engine.complete(ask(), Placement(), deadline_s=10)

    assert type(caught.value) is kind
    assert "secret" not in caught.value.message


async def test_how_long_to_wait_is_what_the_provider_says() -> None:
    busy = whole(fault("rate_limit_error"), status=b"429 Slow", headers=b"retry-after: 17\r\n")

    async with engine_that(answering(busy)) as engine:
        with pytest.raises(Overloaded) as caught:
            await streamed(engine, ask())

    assert caught.value.retry_after_s == 17


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (
            events(
                START,
                OPEN,
                AHOY,
                {"type": "error", "error": {"type": "overloaded_error", "message": "secret"}},
            ),
            Overloaded,
        ),
        (events(START, OPEN, AHOY), UpstreamError),
        (events(START, OPEN, AHOY, CLOSE, END), UpstreamError),
        (events(START, OPEN, AHOY, STOP), UpstreamError),
        (events(START, OPEN, AHOY, START), UpstreamError),
        (CHUNKED_HEAD + chunked(*[b"event: x\ndata: {\n\n"]), UpstreamError),
    ],
)
async def test_a_stream_that_breaks_is_never_a_whole_answer(
    answer: bytes, kind: type[PilothouseError]
) -> None:
    async with engine_that(answering(answer)) as engine:
        with pytest.raises(kind) as caught:
            await streamed(engine, ask())

    assert "secret" not in caught.value.message


async def test_a_stream_that_is_cut_off_is_an_error() -> None:
    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(events(START, OPEN, AHOY)[:-5])
        talk.reset()

    async with engine_that(script) as engine:
        with pytest.raises(UpstreamError):
            await streamed(engine, ask())


async def test_who_hangs_up_hangs_up_on_the_provider() -> None:
    gone = asyncio.Event()

    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(events(START, OPEN, AHOY)[:-5])
        await talk.hears_a_hang_up()
        gone.set()

    async with engine_that(script) as engine:
        stream = engine.stream(ask(), Placement(), deadline_s=10)
        assert (await anext(stream)).deltas[0].text == "Ahoy"
        await stream.aclose()
        async with asyncio.timeout(1):
            await gone.wait()


async def test_what_it_cannot_do_is_refused_before_anything_is_sent() -> None:
    asked: list[bytes] = []
    async with engine_that(answering(b"", asked=asked)) as engine:
        with pytest.raises(NotSupported):
            await engine.embed(EmbedRequest(endpoint="m", inputs=["a"]), deadline_s=1)
        with pytest.raises(NotSupported, match="seed"):
            await streamed(engine, ask(sampling=Sampling(seed=3)))
    assert asked == []


async def test_tokens_are_counted_by_the_provider_and_its_health_is_a_token() -> None:
    asked: list[bytes] = []
    script = answering(whole(b'{"input_tokens":12}'), whole(json.dumps(MESSAGE).encode()), asked=asked)

    async with engine_that(script) as engine:
        counted = await engine.count(ask(), deadline_s=10)
        health = await engine.health(deadline_s=10)

    assert (counted, health.ok) == (12, True)
    assert asked[0].startswith(b"POST /v1/messages/count_tokens HTTP/1.1\r\n")
    assert "max_tokens" not in json.loads(asked[0].partition(b"\r\n\r\n")[2])


async def test_a_provider_that_is_not_there_is_unavailable() -> None:
    engine = AnthropicEngine(EngineInfo(name="anthropic"), "http://127.0.0.1:9", model="claude")
    async with aclosing(engine):
        with pytest.raises(EngineUnavailable):
            await streamed(engine, ask())
        assert not (await engine.health(deadline_s=5)).ok


async def test_one_pilothouse_is_a_provider_of_another() -> None:
    """Both codecs together, over a real connection and a real server."""
    served = snapshot(replica_entry())
    with house_in_thread(WatchedEngine(words("One ", "two.", usage=Usage(7, 2))), served) as house:
        engine = AnthropicEngine(
            EngineInfo(name="anthropic"),
            house.url,
            model="chat",
            credential=f"authorization: Bearer {key(DEVELOPER)}",
        )
        async with aclosing(engine):
            chunks = await streamed(engine, ask())
            answer = await engine.complete(ask(), Placement(), deadline_s=10)

    assert text_of(chunks) == answer.deltas[0].text == "One two."
    assert chunks[-1].usage == answer.usage == Usage(7, 2)
