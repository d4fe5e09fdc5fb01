"""
Azure OpenAI, as the engine port has it.

No account was to be had: a server that answers by script follows the published
protocol, and OpenAI's own Azure client says what must be sent and what is read.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from msgspec import Raw

from pilothouse.adapters.engines._openai_http import OpenAIEngine
from pilothouse.adapters.engines.azure_openai import AzureOpenAIDriver
from pilothouse.domain.chat import EmbedRequest, Sampling
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import Placement
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream, whole

KEY = "azure-key-0123"
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    },
}
HI: list[Any] = [{"role": "user", "content": "hi"}]
FILTER = {"hate": {"filtered": False, "severity": "safe"}}


def piece(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "content_filter_results": FILTER}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
        **more,
    }


FIRST = {**piece({}), "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": ""}}
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
LAST = {**piece({}), "choices": [], "usage": USAGE}
TEXT = [
    FIRST,
    piece({"role": "assistant", "content": ""}),
    piece({"content": "Ah"}),
    piece({"content": "oy ⛵"}),
]
TEXT += [piece({}, "stop"), LAST]
TOOLS = [FIRST, piece({"role": "assistant", "tool_calls": [CALL]})]
TOOLS += [
    piece({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in ('{"q":', '"sails"}')
]
TOOLS += [piece({}, "tool_calls"), LAST]
CUT = [FIRST, piece({"content": "Ah"}), piece({}, "content_filter"), LAST]


def written(events: list[dict[str, Any]]) -> bytes:
    lines = [*(json.dumps(event, ensure_ascii=False) for event in events), "[DONE]"]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def ask(**more: Any) -> GenerateRequest:
    prompt = json.dumps(HI, separators=(",", ":")).encode()
    return GenerateRequest("chat", "m", Raw(prompt), len(prompt)).changed(**{"max_tokens": 8, **more})


@asynccontextmanager
async def azure(
    script: Callable[[Upstream, int], Awaitable[None]], **options: Any
) -> AsyncIterator[OpenAIEngine]:
    async with upstream(script) as server:
        url = f"http://127.0.0.1:{server.port}"
        engine = AzureOpenAIDriver().connect(
            url,
            model="gpt four",
            context_tokens=0,
            secret=Secret(KEY),
            allow_private=True,
            options={"base_url": url, "api_version": "2024-10-21", **options},
        )
        try:
            yield engine
        finally:
            await engine.aclose()


def answering(data: bytes, seen: list[bytes] | None = None) -> Callable[[Upstream, int], Awaitable[None]]:
    async def script(talk: Upstream, _: int) -> None:
        request = await talk.request()
        if seen is not None:
            seen.append(request)
        await talk.say(data)

    return script


def streaming(body: bytes, size: int) -> bytes:
    return CHUNKED_HEAD + chunked(*(body[i : i + size] for i in range(0, len(body), size)))


async def read(engine: OpenAIEngine, request: GenerateRequest) -> list[Chunk]:
    async with aclosing(engine.stream(request, Placement(), deadline_s=5)) as stream:
        return [chunk async for chunk in stream]


def asked_by_the_sdk(call: Callable[[openai.AzureOpenAI], object], answer: bytes) -> httpx.Request:
    seen: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        kind = "text/event-stream" if answer.startswith(b"data:") else "application/json"
        return httpx.Response(200, content=answer, headers={"content-type": kind})

    client = openai.AzureOpenAI(
        azure_endpoint="https://resource.example",
        api_key=KEY,
        api_version="2024-10-21",
        http_client=httpx.Client(transport=httpx.MockTransport(reply)),
    )
    with client:
        call(client)
    return seen[0]


def same(ours: bytes, theirs: httpx.Request) -> None:
    """Target, key and body are the client's own; the order of fields means nothing."""
    head, _, body = ours.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    known = dict(header.lower().split(": ", 1) for header in headers)
    assert line.split(" ")[:2] == [theirs.method, theirs.url.raw_path.decode()]
    assert known["api-key"] == theirs.headers["api-key"]
    assert known["content-type"] == theirs.headers["content-type"]
    assert json.loads(body) == json.loads(theirs.content)


ANSWER = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Ahoy"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_asked_is_what_azures_client_asks(stream: bool) -> None:
    sampling = Sampling(
        temperature=0.5, stop=["x"], tools=Raw(json.dumps([TOOL]).encode()), tool_choice=Raw(b'"required"')
    )
    more: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer = written(TEXT) if stream else json.dumps(ANSWER).encode()
    theirs = asked_by_the_sdk(
        lambda client: client.chat.completions.create(
            model="gpt four", messages=HI, max_tokens=8, temperature=0.5, stop=["x"], tools=[TOOL],
            tool_choice="required", **more,
        ),
        answer,
    )  # fmt: skip
    seen: list[bytes] = []

    async with azure(answering(streaming(answer, 99) if stream else whole(answer), seen)) as engine:
        request = ask(sampling=sampling)
        if stream:
            await read(engine, request)
        else:
            await engine.complete(request, Placement(), deadline_s=5)

    same(seen[0], theirs)


async def test_vectors_are_asked_for_as_azures_client_does() -> None:
    answer = json.dumps(
        {"data": [{"embedding": [1.0, 0.0], "index": 0, "object": "embedding"}], "usage": USAGE}
    )
    theirs = asked_by_the_sdk(
        lambda client: client.embeddings.create(model="gpt four", input=["a"], encoding_format="float"),
        answer.encode(),
    )
    seen: list[bytes] = []

    async with azure(answering(whole(answer.encode()), seen)) as engine:
        found = await engine.embed(EmbedRequest(endpoint="m", inputs=["a"]), deadline_s=5)

    same(seen[0], theirs)
    assert found.vectors == [[1.0, 0.0]]


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("events", [TEXT, TOOLS, CUT], ids=["text", "tools", "filtered"])
async def test_what_is_read_is_what_azures_client_reads(events: list[dict[str, Any]], size: int) -> None:
    text, arguments, names, finish = "", "", "", None
    theirs: list[Any] = []
    asked_by_the_sdk(
        lambda client: theirs.extend(client.chat.completions.create(model="m", messages=HI, stream=True)),
        written(events),
    )
    for chunk in theirs:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
            for call in choice.delta.tool_calls or []:
                names += call.function.name or ""
                arguments += call.function.arguments or ""

    async with azure(answering(streaming(written(events), size))) as engine:
        ours = await read(engine, ask())

    deltas = [delta for chunk in ours for delta in chunk.deltas]
    calls = [call for delta in deltas if delta.aside for call in delta.aside.tools]
    assert "".join(delta.text for delta in deltas) == text
    assert "".join(call.arguments for call in calls) == arguments
    assert "".join(call.name for call in calls) == names
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == [finish]
    usage = next(chunk.usage for chunk in ours if chunk.usage)
    assert (usage.input, usage.output) == (9, 2)


async def test_a_token_of_entra_is_a_bearer_token() -> None:
    seen: list[bytes] = []

    async with azure(answering(whole(json.dumps(ANSWER).encode()), seen), auth="entra") as engine:
        await engine.complete(ask(), Placement(), deadline_s=5)

    assert f"authorization: Bearer {KEY}".encode() in seen[0]
    assert b"api-key" not in seen[0]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "context_length_exceeded", ContextLengthExceeded),
        (400, "content_filter", InvalidRequest),
        (400, "else", InvalidRequest),
        (401, "401", UpstreamError),
        (403, None, UpstreamError),
        (404, "DeploymentNotFound", UpstreamError),
        (408, "Timeout", DeadlineExceeded),
        (429, "429", Overloaded),
        (500, None, UpstreamError),
        (503, 503, Overloaded),
    ],
)
async def test_each_refusal_has_its_error_and_none_of_its_text(
    status: int, code: str | int | None, kind: type[PilothouseError]
) -> None:
    body = json.dumps({"error": {"code": code, "message": f"secret words {KEY}"}}).encode()
    head = f"HTTP/1.1 {status} x\r\nretry-after: 7\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async with azure(answering(head + body)) as engine:
        with pytest.raises(PilothouseError) as caught:
            await read(engine, ask())

    assert type(caught.value) is kind
    assert "secret words" not in caught.value.message
    if kind is Overloaded:
        assert caught.value.retry_after_s == 7


@pytest.mark.parametrize("ends", [b"", b'data: {"error":{"message":"server had an error"}}\n\n'])
async def test_a_stream_that_breaks_off_is_no_end(ends: bytes) -> None:
    begun = written(TEXT[:3]).removesuffix(b"data: [DONE]\n\n")

    async with azure(answering(streaming(begun + ends, 50))) as engine:
        with pytest.raises(UpstreamError):
            await read(engine, ask())


async def test_a_caller_who_goes_hangs_up_on_azure() -> None:
    heard = asyncio.Event()

    async def script(talk: Upstream, _: int) -> None:
        await talk.request()
        begun = written(TEXT[:3]).removesuffix(b"data: [DONE]\n\n")
        await talk.say(CHUNKED_HEAD + b"%x\r\n%s\r\n" % (len(begun), begun))
        await talk.hears_a_hang_up()
        heard.set()

    async with azure(script) as engine:
        async with aclosing(engine.stream(ask(), Placement(), deadline_s=5)) as stream:
            async for _ in stream:
                break
        await asyncio.wait_for(heard.wait(), 5)
