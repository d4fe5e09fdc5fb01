"""
Gemini, as the engine port has it.

No account was to be had: a server that answers by script follows the published
protocol. Google's own client, where it is installed, says what must be sent and what
is read; it is no dependency, for it weighs more than all of the others.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from anthropic_rig import next_turn
from anthropic_rig import whole as seen_whole
from pilothouse.adapters.engines._gemini_http import GeminiEngine
from pilothouse.adapters.engines.gemini import GeminiDriver
from pilothouse.domain.chat import EmbedRequest, Sampling
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.secret import Secret
from pilothouse.kit.sse import EventParser
from pilothouse.ports.engine import Placement
from pilothouse.wire.gemini import outbound, said
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream, whole

KEY = "gemini-key-0123"
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks.", "parameters": SCHEMA}}
CALLS = [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q":"sails"}'}}]
TALK: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "content": '{"found":2}'},
    {"role": "user", "content": "go on"},
]


def answer(*parts: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "r1", "modelVersion": "m", **more}


USED = {"promptTokenCount": 9, "candidatesTokenCount": 2, "totalTokenCount": 16, "thoughtsTokenCount": 5}
SAID = Usage(9, 7, 0)
TEXT = [answer({"text": "hm", "thought": True}), answer({"text": "Ah"}), answer({"text": "oy ⛵"})]
TEXT += [answer(finish="STOP", usageMetadata=USED)]
TOOLS = [answer({"functionCall": {"name": "look_up", "args": {"q": "sails"}}})]
TOOLS += [answer({"functionCall": {"name": "look_up", "args": {}}}, finish="STOP", usageMetadata=USED)]
UNSAFE = [answer({"text": "Ah"}), answer(finish="SAFETY", usageMetadata=USED)]
BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": USED}
STREAMS = [TEXT, TOOLS, UNSAFE]


def written(events: list[dict[str, Any]]) -> bytes:
    return "".join(f"data: {json.dumps(one, ensure_ascii=False)}\r\n\r\n" for one in events).encode()


def ask(talk: list[Any] | None = None, **more: Any) -> GenerateRequest:
    prompt = json.dumps(talk or [{"role": "user", "content": "hi"}]).encode()
    return GenerateRequest("chat", "m", Raw(prompt), len(prompt)).changed(**{"max_tokens": 8, **more})


SHAPED = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=7,
    seed=3,
    stop=["x"],
    presence_penalty=0.1,
    tools=Raw(json.dumps([TOOL]).encode()),
    tool_choice=Raw(b'{"type":"function","function":{"name":"look_up"}}'),
    response_format=Raw(json.dumps({"type": "json_schema", "json_schema": {"schema": SCHEMA}}).encode()),
    reasoning_effort="low",
)


@asynccontextmanager
async def gemini(
    script: Callable[[Upstream, int], Awaitable[None]], model: str = "gemini-x"
) -> AsyncIterator[GeminiEngine]:
    async with upstream(script) as server:
        engine = GeminiDriver().connect(
            f"http://127.0.0.1:{server.port}",
            model=model,
            context_tokens=0,
            secret=Secret(KEY),
            allow_private=True,
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


def streaming(body: bytes, size: int = 50) -> bytes:
    return CHUNKED_HEAD + chunked(*(body[i : i + size] for i in range(0, len(body), size)))


async def read(engine: GeminiEngine, request: GenerateRequest) -> list[Chunk]:
    async with aclosing(engine.stream(request, Placement(), deadline_s=5)) as stream:
        return [chunk async for chunk in stream]


def summed(chunks: list[Chunk]) -> dict[str, Any]:
    deltas = [delta for chunk in chunks for delta in chunk.deltas]
    asides = [delta.aside for delta in deltas if delta.aside]
    return {
        "text": "".join(delta.text for delta in deltas),
        "thoughts": "".join(aside.reasoning for aside in asides),
        "calls": [(call.name, json.loads(call.arguments)) for aside in asides for call in aside.tools],
        "finish": [delta.finish_reason for delta in deltas if delta.finish_reason],
        "usage": [chunk.usage for chunk in chunks if chunk.usage],
    }


def asked_by_the_sdk(call: Callable[[Any, Any], object], body: bytes) -> httpx.Request:
    genai = pytest.importorskip("google.genai", reason="Google's client is not installed here")
    seen: list[httpx.Request] = []

    def reply(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        kind = "text/event-stream" if body.startswith(b"data:") else "application/json"
        return httpx.Response(200, content=body, headers={"content-type": kind})

    http = httpx.Client(transport=httpx.MockTransport(reply))
    options = genai.types.HttpOptions(base_url="https://gemini.example", httpx_client=http)
    call(genai.Client(api_key=KEY, http_options=options), genai.types)
    return seen[-1]


def same(ours: bytes, theirs: httpx.Request) -> None:
    """Target, key and body are the client's own; the order of fields means nothing."""
    head, _, body = ours.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    known = dict(header.lower().split(": ", 1) for header in headers)
    assert line.split(" ")[:2] == [theirs.method, theirs.url.raw_path.decode()]
    assert known["x-goog-api-key"] == theirs.headers["x-goog-api-key"]
    assert json.loads(body) == camel(json.loads(theirs.content))


def camel(value: Any) -> Any:
    """The JSON of protobuf has each name in two spellings; the client mixes them."""
    if isinstance(value, list):
        return [camel(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {re.sub(r"_(\w)", lambda at: at[1].upper(), name): camel(one) for name, one in value.items()}


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_asked_is_what_googles_client_asks(stream: bool) -> None:
    def call(client: Any, types: Any) -> None:
        part = types.Part
        contents = [
            types.Content(role="user", parts=[part(text="hi")]),
            types.Content(role="model", parts=[part.from_function_call(name="look_up", args={"q": "sails"})]),
            types.Content(
                role="user", parts=[part.from_function_response(name="look_up", response={"found": 2})]
            ),
            types.Content(role="user", parts=[part(text="go on")]),
        ]
        declared = types.FunctionDeclaration(
            name="look_up", description="Looks.", parameters_json_schema=SCHEMA
        )
        calling = types.FunctionCallingConfig(mode="ANY", allowed_function_names=["look_up"])
        config = types.GenerateContentConfig(
            system_instruction=types.Content(parts=[part(text="Be brief.")]),
            temperature=0.5,
            top_p=0.9,
            top_k=7,
            seed=3,
            stop_sequences=["x"],
            presence_penalty=0.1,
            max_output_tokens=8,
            tools=[types.Tool(function_declarations=[declared])],
            tool_config=types.ToolConfig(function_calling_config=calling),
            response_mime_type="application/json",
            response_json_schema=SCHEMA,
            thinking_config=types.ThinkingConfig(thinking_budget=1024, include_thoughts=True),
        )
        asked = {"model": "gemini-x", "contents": contents, "config": config}
        if stream:
            list(client.models.generate_content_stream(**asked))
        else:
            client.models.generate_content(**asked)

    body = written(TEXT) if stream else json.dumps(answer({"text": "Ahoy"}, finish="STOP")).encode()
    theirs = asked_by_the_sdk(call, body)
    seen: list[bytes] = []

    async with gemini(answering(streaming(body) if stream else whole(body), seen)) as engine:
        request = ask(TALK, sampling=SHAPED)
        if stream:
            await read(engine, request)
        else:
            await engine.complete(request, Placement(), deadline_s=5)

    same(seen[0], theirs)


def test_signatures_go_back_as_in_the_history_of_googles_client() -> None:
    parts = [
        {"text": "hm", "thought": True},
        {"functionCall": {"name": "look", "args": {"at": "sky"}}, "thoughtSignature": "QUI="},
    ]
    body = json.dumps(answer(*parts, finish="STOP")).encode()

    def talk(client: Any, types: Any) -> None:
        chat = client.chats.create(model="gemini-x")
        chat.send_message("What is at the sky?")
        chat.send_message(types.Part.from_function_response(name="look", response={"output": "blue"}))

    theirs = asked_by_the_sdk(talk, body)
    blocks = seen_whole(said.read_whole(body, choices=1).deltas[0], thinking={"type": "adaptive"})
    call = next(block["id"] for block in blocks if block["type"] == "tool_use")

    ours = json.loads(outbound.write_request(next_turn(blocks, call=call)))

    assert ours["contents"] == camel(json.loads(theirs.content))["contents"]


async def test_vectors_are_asked_for_as_googles_client_does() -> None:
    body = json.dumps({"embeddings": [{"values": [1.0, 0.0]}, {"values": [0.0, 1.0]}]}).encode()
    theirs = asked_by_the_sdk(
        lambda client, types: client.models.embed_content(
            model="gemini-x",
            contents=[types.Content(parts=[types.Part(text=text)]) for text in ("a", "b")],
        ),
        body,
    )
    seen: list[bytes] = []

    async with gemini(answering(whole(body), seen)) as engine:
        found = await engine.embed(EmbedRequest(endpoint="m", inputs=["a", "b"]), deadline_s=5)

    head, _, sent = seen[0].partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == theirs.url.raw_path
    ours, wanted = json.loads(sent)["requests"], json.loads(theirs.content)["requests"]
    assert [(one["model"], one["content"]["parts"]) for one in ours] == [
        (one["model"], one["content"]["parts"]) for one in wanted
    ]
    assert found.vectors == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("events", STREAMS, ids=["text", "tools", "unsafe"])
async def test_what_is_read_is_what_googles_client_reads(events: list[dict[str, Any]]) -> None:
    heard: list[Any] = []
    asked_by_the_sdk(
        lambda client, _: heard.extend(
            client.models.generate_content_stream(model="gemini-x", contents="hi")
        ),
        written(events),
    )
    parts = [part for one in heard for part in (one.candidates[0].content.parts or [])]

    async with gemini(answering(streaming(written(events), 7))) as engine:
        ours = summed(await read(engine, ask()))

    assert ours["text"] == "".join(part.text or "" for part in parts if not part.thought)
    assert ours["thoughts"] == "".join(part.text or "" for part in parts if part.thought)
    calls = [part.function_call for part in parts if part.function_call]
    assert ours["calls"] == [(call.name, call.args or {}) for call in calls]
    used = heard[-1].usage_metadata
    assert ours["usage"] == [
        Usage(used.prompt_token_count, used.candidates_token_count + used.thoughts_token_count)
    ]


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        (TEXT, {"text": "Ahoy ⛵", "thoughts": "hm", "calls": [], "finish": ["stop"]}),
        (
            TOOLS,
            {"text": "", "calls": [("look_up", {"q": "sails"}), ("look_up", {})], "finish": ["tool_calls"]},
        ),
        (UNSAFE, {"text": "Ah", "finish": ["content_filter"]}),
        ([answer({"text": "A"}, finish="MAX_TOKENS", usageMetadata=USED)], {"finish": ["length"]}),
        (
            [{"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": USED}],
            {"finish": ["content_filter"]},
        ),
    ],
    ids=["text", "tools", "unsafe", "long", "blocked"],
)
@given(cuts=st.lists(st.integers(1, 60), max_size=30))
def test_however_a_stream_is_cut_it_says_the_same(
    events: list[dict[str, Any]], wanted: dict[str, Any], cuts: list[int]
) -> None:
    data, parser, reader, chunks = written(events), EventParser(), said.AnswerReader(1), []
    for size in [*cuts, len(data)]:
        for event in parser.feed(data[:size]):
            chunk = reader.read(event)
            if chunk is not None:
                chunks.append(chunk)
        data = data[size:]

    assert summed(chunks) | {"usage": reader.usage} == summed(chunks) | wanted | {"usage": SAID}
    assert reader.end() == Chunk((), SAID)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [("gemini-3-pro-preview", "skip_thought_signature_validator"), ("gemini-2.5-flash", None), ("x", None)],
)
async def test_only_a_model_that_insists_is_told_that_a_signature_is_gone(
    model: str, wanted: str | None
) -> None:
    seen: list[bytes] = []
    body = json.dumps(answer({"text": "Ahoy"}, finish="STOP", usageMetadata=USED)).encode()

    async with gemini(answering(whole(body), seen), model) as engine:
        await engine.complete(ask(TALK[:-1]), Placement(), deadline_s=5)

    sent = json.loads(seen[0].partition(b"\r\n\r\n")[2])
    assert sent["contents"][1]["parts"][0].get("thoughtSignature") == wanted


async def test_a_whole_answer_has_its_usage() -> None:
    body = json.dumps(answer({"text": "Ahoy"}, finish="STOP", usageMetadata=USED)).encode()

    async with gemini(answering(whole(body))) as engine:
        found = await engine.complete(ask(), Placement(), deadline_s=5)

    assert (found.deltas[0].text, found.deltas[0].finish_reason, found.usage) == ("Ahoy", "stop", SAID)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ask(sampling=Sampling(min_p=0.1)), "min_p"),
        (ask(sampling=Sampling(logprobs=True)), "logprobs"),
        (ask(sampling=Sampling(reasoning_effort="extreme")), "reasoning_effort"),
        (ask([{"role": "user", "name": "ann", "content": "hi"}]), "messages[0].name"),
    ],
)
def test_what_it_has_no_word_for_is_refused_by_name(request_: GenerateRequest, param: str) -> None:
    with pytest.raises(NotSupported) as caught:
        outbound.write_request(request_)

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (
            400,
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            ContextLengthExceeded,
        ),
        (400, "API key not valid. Please pass a valid API key.", UpstreamError),
        (400, "else", InvalidRequest),
        (401, "", UpstreamError),
        (403, "", UpstreamError),
        (404, "", UpstreamError),
        (408, "", DeadlineExceeded),
        (429, "quota", Overloaded),
        (500, "", UpstreamError),
        (503, "busy", Overloaded),
    ],
)
async def test_each_refusal_has_its_error_and_none_of_its_text(
    status: int, message: str, kind: type[PilothouseError]
) -> None:
    fault = {"error": {"code": status, "message": f"{message} {KEY}", "status": "X"}}
    body = json.dumps(fault).encode()
    head = f"HTTP/1.1 {status} x\r\nretry-after: 7\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async with gemini(answering(head + body)) as engine:
        with pytest.raises(PilothouseError) as caught:
            await read(engine, ask())

    assert type(caught.value) is kind
    assert KEY not in caught.value.message
    if kind is Overloaded:
        assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        (TEXT[:2], UpstreamError),
        ([*TEXT[:2], {"error": {"code": 500, "status": "INTERNAL", "message": "x"}}], UpstreamError),
        ([*TEXT[:2], {"error": {"code": 503, "status": "UNAVAILABLE", "message": "x"}}], Overloaded),
        ([*TEXT, answer({"text": "more"})], UpstreamError),
        ([answer(finish="MALFORMED_FUNCTION_CALL")], UpstreamError),
    ],
    ids=["cut", "error", "busy", "after its end", "no call"],
)
async def test_a_stream_that_breaks_off_is_no_end(
    events: list[dict[str, Any]], kind: type[PilothouseError]
) -> None:
    async with gemini(answering(streaming(written(events)))) as engine:
        with pytest.raises(kind):
            await read(engine, ask())


async def test_a_caller_who_goes_hangs_up_on_google() -> None:
    heard = asyncio.Event()

    async def script(talk: Upstream, _: int) -> None:
        await talk.request()
        begun = written(TEXT[:2])
        await talk.say(CHUNKED_HEAD + b"%x\r\n%s\r\n" % (len(begun), begun))
        await talk.hears_a_hang_up()
        heard.set()

    async with gemini(script) as engine:
        async with aclosing(engine.stream(ask(), Placement(), deadline_s=5)) as stream:
            async for _ in stream:
                break
        await asyncio.wait_for(heard.wait(), 5)
