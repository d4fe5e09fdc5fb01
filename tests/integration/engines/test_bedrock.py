"""
Amazon Bedrock, as the engine port has it.

No account was to be had: a server that answers by script follows the published
protocol, and AWS's own client says what must be sent and what is read.
"""

import asyncio
import json
from calendar import timegm
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from time import strptime
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import EventStreamError
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from anthropic_rig import next_turn, streamed
from eventstream_rig import event, fault
from pilothouse.adapters.engines._bedrock_http import BedrockEngine
from pilothouse.adapters.engines.bedrock import BedrockDriver, signing_key
from pilothouse.domain.chat import Sampling
from pilothouse.domain.chunk import Chunk
from pilothouse.domain.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    NotSupported,
    OperationFailed,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.generate_request import GenerateRequest
from pilothouse.domain.used_tokens import Usage
from pilothouse.kit.secret import Secret
from pilothouse.kit.sigv4 import sign
from pilothouse.ports.engine import Placement
from pilothouse.wire.bedrock import outbound, said
from pilothouse.wire.bedrock.eventstream import MessageParser
from upstream_rig import Upstream, chunked, upstream, whole

ID, KEY, TOKEN = (
    "AKIAIOSFODNN7EXAMPLE",
    "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "FwoGZXIvYXdz+session/0==",
)
SECRET = Secret(json.dumps({"Version": 1, "AccessKeyId": ID, "SecretAccessKey": KEY, "SessionToken": TOKEN}))
MODEL = "vendor.model-20241022-v2:0"
SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look_up", "description": "Looks.", "parameters": SCHEMA}}
CALLS = [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q":"sails"}'}}]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}}
PAPER = {
    "type": "file",
    "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "my_log.pdf"},
}
TALK: list[Any] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hi"}, PICTURE, PAPER]},
    {"role": "assistant", "content": "Looking.", "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "content": "2"},
    {"role": "user", "content": "go on"},
]
SHAPED = Sampling(
    temperature=0.5,
    top_p=0.9,
    stop=["x"],
    tools=Raw(json.dumps([TOOL]).encode()),
    tool_choice=Raw(b'{"type":"function","function":{"name":"look_up"}}'),
    response_format=Raw(
        json.dumps({"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}).encode()
    ),
    reasoning_effort="low",
)
USED = {"inputTokens": 9, "outputTokens": 7, "totalTokens": 18, "cacheReadInputTokens": 2}
SAID = Usage(11, 7, 2)
BEGIN = event("messageStart", {"role": "assistant"})


def piece(index: int, **delta: Any) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta, "p": "abcd"})


def closing(index: int) -> bytes:
    return event("contentBlockStop", {"contentBlockIndex": index})


def ending(reason: str) -> list[bytes]:
    metadata = {"usage": USED, "metrics": {"latencyMs": 12}}
    return [event("messageStop", {"stopReason": reason}), event("metadata", metadata)]


def calling(index: int, name: str, tool: str = "look_up") -> bytes:
    start = {"toolUse": {"toolUseId": name, "name": tool}}
    return event("contentBlockStart", {"contentBlockIndex": index, "start": start})


TEXT = [BEGIN, piece(0, reasoningContent={"text": "hm"}), piece(0, reasoningContent={"signature": "c2ln"})]
TEXT += [closing(0), piece(1, text="Ah"), piece(1, text="oy ⛵"), closing(1), *ending("end_turn")]
TOOLS = [BEGIN, piece(0, text="Looking."), closing(0), calling(1, "t1")]
TOOLS += [piece(1, toolUse={"input": '{"q":'}), piece(1, toolUse={"input": '"sails"}'}), closing(1)]
TOOLS += [calling(2, "t2"), piece(2, toolUse={"input": ""}), closing(2), *ending("tool_use")]
CUT = [BEGIN, piece(0, text="Ah"), closing(0), *ending("guardrail_intervened")]
STREAMS = {"text": TEXT, "tools": TOOLS, "filtered": CUT}
WHOLE = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
                {"text": "Ahoy"},
                {"toolUse": {"toolUseId": "t1", "name": "look_up", "input": {"q": "sails"}}},
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": USED,
    "metrics": {"latencyMs": 12},
}
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def ask(talk: list[Any] | None = None, **more: Any) -> GenerateRequest:
    prompt = json.dumps(talk or [{"role": "user", "content": "hi"}]).encode()
    return GenerateRequest("chat", "m", Raw(prompt), len(prompt)).changed(**{"max_tokens": 8, **more})


@asynccontextmanager
async def bedrock(
    script: Callable[[Upstream, int], Awaitable[None]], secret: Secret | None = SECRET, **options: Any
) -> AsyncIterator[BedrockEngine]:
    async with upstream(script) as server:
        engine = BedrockDriver().connect(
            f"http://127.0.0.1:{server.port}",
            model=MODEL,
            context_tokens=0,
            secret=secret,
            allow_private=True,
            options={"region": "eu-west-1", **options},
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
    return HEAD + chunked(*(body[i : i + size] for i in range(0, len(body), size)))


async def read(engine: BedrockEngine, request: GenerateRequest) -> list[Chunk]:
    async with aclosing(engine.stream(request, Placement(), deadline_s=5)) as stream:
        return [chunk async for chunk in stream]


def summed(chunks: list[Chunk]) -> dict[str, Any]:
    deltas = [delta for chunk in chunks for delta in chunk.deltas]
    asides = [delta.aside for delta in deltas if delta.aside]
    calls: dict[int, list[str]] = {}
    for call in (call for aside in asides for call in aside.tools):
        known = calls.setdefault(call.index, ["", "", ""])
        for i, text in enumerate((call.id, call.name, call.arguments)):
            known[i] += text
    return {
        "text": "".join(delta.text for delta in deltas),
        "thoughts": "".join(aside.reasoning for aside in asides),
        "calls": [(name, tool, json.loads(arguments)) for name, tool, arguments in calls.values()],
        "finish": [delta.finish_reason for delta in deltas if delta.finish_reason],
        "usage": [chunk.usage for chunk in chunks if chunk.usage],
    }


class Said:
    """The raw answer that AWS's client reads."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        for at in range(0, len(self.body), 33):
            yield self.body[at : at + 33]

    def close(self) -> None: ...


@contextmanager
def aws_client(body: bytes, seen: list[AWSPreparedRequest]) -> Iterator[Any]:
    def reply(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        seen.append(request)
        return AWSResponse(request.url, 200, {"content-type": "application/json"}, Said(body))

    session = botocore.session.Session()
    session.set_credentials(ID, KEY, TOKEN)
    config = Config(region_name="eu-west-1", retries={"total_max_attempts": 1})
    client = session.create_client("bedrock-runtime", config=config)
    client.meta.events.register("before-send.bedrock-runtime", reply)
    try:
        yield client
    finally:
        client.close()


def asked_by_aws(body: bytes, *, stream: bool, **asked: Any) -> AWSPreparedRequest:
    seen: list[AWSPreparedRequest] = []
    with aws_client(body, seen) as client:
        given = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "hi"}]}], **asked}
        (client.converse_stream if stream else client.converse)(**given)
    return seen[0]


WORDS: dict[str, Any] = {
    "system": [{"text": "Be brief."}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"text": "hi"},
                {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}},
                {"document": {"format": "pdf", "name": "my log pdf", "source": {"bytes": b"%PDF-"}}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"text": "Looking."},
                {"toolUse": {"toolUseId": "c1", "name": "look_up", "input": {"q": "sails"}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "c1", "content": [{"text": "2"}]}},
                {"text": "go on"},
            ],
        },
    ],
    "inferenceConfig": {"maxTokens": 8, "temperature": 0.5, "topP": 0.9, "stopSequences": ["x"]},
    "toolConfig": {
        "tools": [
            {"toolSpec": {"name": "look_up", "description": "Looks.", "inputSchema": {"json": SCHEMA}}}
        ],
        "toolChoice": {"tool": {"name": "look_up"}},
    },
    "outputConfig": {
        "effort": "low",
        "textFormat": {
            "type": "json_schema",
            "structure": {"jsonSchema": {"name": "s", "schema": json.dumps(SCHEMA, separators=(",", ":"))}},
        },
    },
}


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_asked_is_what_aws_own_client_asks(stream: bool) -> None:
    body = b"".join(TEXT) if stream else json.dumps(WHOLE).encode()
    theirs = asked_by_aws(body, stream=stream, **WORDS)
    seen: list[bytes] = []

    async with bedrock(answering(streaming(body) if stream else whole(body), seen)) as engine:
        request = ask(TALK, sampling=SHAPED)
        if stream:
            await read(engine, request)
        else:
            await engine.complete(request, Placement(), deadline_s=5)

    head, _, sent = seen[0].partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    known = dict(header.split(": ", 1) for header in headers)
    assert line.split(" ")[:2] == ["POST", theirs.url.removeprefix("https://" + host_of(theirs))]
    assert json.loads(sent) == json.loads(theirs.body)
    assert known["content-type"] == "application/json"
    assert known["x-amz-security-token"] == TOKEN
    ours, wanted = known["authorization"], theirs.headers["Authorization"].decode()
    assert signed_parts(ours) == signed_parts(wanted)


def host_of(request: AWSPreparedRequest) -> str:
    return str(request.url).split("/")[2]


def signed_parts(authorization: str) -> tuple[str, str]:
    """Scope without its date, and the names of what was signed."""
    scope = authorization.partition("Credential=")[2].partition(",")[0].split("/")
    return "/".join([scope[0], *scope[2:]]), authorization.partition("SignedHeaders=")[2].partition(",")[0]


@pytest.mark.parametrize("stream", [False, True])
def test_what_aws_own_client_sends_is_signed_here_as_there(stream: bool) -> None:
    body = b"".join(TEXT) if stream else json.dumps(WHOLE).encode()
    theirs = asked_by_aws(body, stream=stream, **WORDS)
    moment = timegm(strptime(theirs.headers["X-Amz-Date"].decode(), "%Y%m%dT%H%M%SZ"))
    host = host_of(theirs)

    ours = sign(
        "POST",
        host,
        theirs.url.removeprefix(f"https://{host}"),
        {"content-type": "application/json"},
        key=signing_key(SECRET, "eu-west-1"),
        now=moment,
        body=theirs.body,
    )

    assert ours["authorization"] == theirs.headers["Authorization"].decode()


@pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS)
async def test_what_is_read_is_what_aws_own_client_reads(events: list[bytes]) -> None:
    text, thoughts, finish, usage = "", "", "", {}
    calls: dict[int, list[str]] = {}
    with aws_client(b"".join(events), []) as client:
        asked = client.converse_stream(modelId=MODEL, messages=WORDS["messages"])
        for one in asked["stream"]:
            if "contentBlockStart" in one:
                start = one["contentBlockStart"]["start"]["toolUse"]
                calls[one["contentBlockStart"]["contentBlockIndex"]] = [
                    start["toolUseId"],
                    start["name"],
                    "",
                ]
            elif "contentBlockDelta" in one:
                delta = one["contentBlockDelta"]["delta"]
                text += delta.get("text", "")
                thoughts += delta.get("reasoningContent", {}).get("text", "")
                if "toolUse" in delta:
                    calls[one["contentBlockDelta"]["contentBlockIndex"]][2] += delta["toolUse"]["input"]
            finish = one.get("messageStop", {}).get("stopReason", finish)
            usage = one.get("metadata", {}).get("usage", usage)

    async with bedrock(answering(streaming(b"".join(events), 7))) as engine:
        ours = summed(await read(engine, ask()))

    assert (ours["text"], ours["thoughts"]) == (text, thoughts)
    assert ours["calls"] == [(name, tool, json.loads(given or "{}")) for name, tool, given in calls.values()]
    assert ours["finish"] == [said.finish_of(finish)]
    assert ours["usage"] == [
        Usage(
            usage["inputTokens"] + usage["cacheReadInputTokens"],
            usage["outputTokens"],
            usage["cacheReadInputTokens"],
        )
    ]


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        (TEXT, {"text": "Ahoy ⛵", "thoughts": "hm", "calls": [], "finish": ["stop"]}),
        (
            TOOLS,
            {
                "text": "Looking.",
                "calls": [("t1", "look_up", {"q": "sails"}), ("t2", "look_up", {})],
                "finish": ["tool_calls"],
            },
        ),
        (CUT, {"text": "Ah", "finish": ["content_filter"]}),
    ],
    ids=["text", "tools", "filtered"],
)
@given(cuts=st.lists(st.integers(1, 90), max_size=30))
def test_however_a_stream_is_cut_it_says_the_same(
    events: list[bytes], wanted: dict[str, Any], cuts: list[int]
) -> None:
    data, parser, reader, chunks = b"".join(events), MessageParser(), said.StreamReader(), []
    for size in [*cuts, len(data)]:
        for message in parser.feed(data[:size]):
            chunk = reader.read(message)
            if chunk is not None:
                chunks.append(chunk)
        data = data[size:]

    assert reader.is_over
    assert summed(chunks) == summed(chunks) | wanted | {"usage": [SAID]}


REASONED: list[Any] = [
    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "c2ln"}}},
    {"reasoningContent": {"redactedContent": b"hidden"}},
    {"text": "Looking."},
    {"toolUse": {"toolUseId": "toolu_1", "name": "look", "input": {"q": "sails"}}},
]
"""Of an answer, as AWS's client has it."""


async def test_thoughts_are_read_as_aws_own_client_reads_them_and_sent_as_it_sends_them() -> None:
    events = [
        BEGIN,
        piece(0, reasoningContent={"text": "hm"}),
        piece(0, reasoningContent={"signature": "c2"}),
    ]
    events += [piece(0, reasoningContent={"signature": "ln"}), closing(0)]
    events += [piece(1, reasoningContent={"redactedContent": "aGlkZGVu"}), closing(1)]
    events += [piece(2, text="Looking."), closing(2), calling(3, "toolu_1", "look")]
    events += [piece(3, toolUse={"input": '{"q":"sails"}'}), closing(3), *ending("tool_use")]
    said_by_aws = {"text": "", "signature": "", "redactedContent": b""}
    with aws_client(b"".join(events), []) as client:
        for one in client.converse_stream(modelId=MODEL, messages=WORDS["messages"])["stream"]:
            delta = one.get("contentBlockDelta", {}).get("delta", {})
            for name, heard in delta.get("reasoningContent", {}).items():
                said_by_aws[name] += heard

    async with bedrock(answering(streaming(b"".join(events), 7))) as engine:
        blocks = streamed(await read(engine, ask()), thinking={"type": "adaptive"})
    asked = [{"role": "user", "content": [{"text": "What is at the sky?"}]}]
    result = {"toolResult": {"toolUseId": "toolu_1", "content": [{"text": "blue"}]}}
    asked += [{"role": "assistant", "content": REASONED}, {"role": "user", "content": [result]}]
    theirs = asked_by_aws(json.dumps(WHOLE).encode(), stream=False, messages=asked)

    assert said_by_aws == {"text": "hm", "signature": "c2ln", "redactedContent": b"hidden"}
    assert blocks[0] == {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    ours = json.loads(outbound.write_request(next_turn(blocks)))
    assert ours["messages"] == json.loads(theirs.body)["messages"]


async def test_a_whole_answer_says_what_its_stream_would() -> None:
    async with bedrock(answering(whole(json.dumps(WHOLE).encode()))) as engine:
        found = summed([await engine.complete(ask(), Placement(), deadline_s=5)])

    assert found == {
        "text": "Ahoy",
        "thoughts": "hm",
        "calls": [("t1", "look_up", {"q": "sails"})],
        "finish": ["tool_calls"],
        "usage": [SAID],
    }


@pytest.mark.parametrize(
    ("request_", "kind", "param"),
    [
        (ask(sampling=Sampling(top_k=3)), NotSupported, "top_k"),
        (ask(sampling=Sampling(seed=3)), NotSupported, "seed"),
        (ask(sampling=Sampling(logprobs=True)), NotSupported, "logprobs"),
        (ask(sampling=Sampling(temperature=1.5)), InvalidRequest, "temperature"),
        (ask(sampling=Sampling(reasoning_effort="none")), NotSupported, "reasoning_effort"),
        (
            ask(sampling=Sampling(response_format=Raw(b'{"type":"json_object"}'))),
            NotSupported,
            "response_format",
        ),
        (
            ask(sampling=Sampling(tools=SHAPED.tools, parallel_tool_calls=False)),
            NotSupported,
            "parallel_tool_calls",
        ),
        (
            ask(TALK, sampling=Sampling(tools=SHAPED.tools, tool_choice=Raw(b'"none"'))),
            NotSupported,
            "tool_choice",
        ),
        (ask(choices=2), NotSupported, "n"),
        (ask([{"role": "user", "name": "ann", "content": "hi"}]), NotSupported, "messages[0].name"),
        (
            ask([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a/b"}}]}]),
            NotSupported,
            "messages[0].content[0]",
        ),
    ],
)
def test_what_it_has_no_word_for_is_refused_by_name(
    request_: GenerateRequest, kind: type[PilothouseError], param: str
) -> None:
    with pytest.raises(kind) as caught:
        outbound.write_request(request_)

    assert caught.value.param == param


def test_the_id_of_a_call_that_bedrock_would_refuse_gets_one_that_stands_for_it() -> None:
    name = "call|" + "x" * 80
    talk = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "tool_calls": [{**CALLS[0], "id": name}]},
        {"role": "tool", "tool_call_id": name, "content": "2"},
    ]

    turns = json.loads(outbound.write_request(ask(talk)))["messages"]

    called, given = turns[1]["content"][0]["toolUse"]["toolUseId"], turns[2]["content"][0]["toolResult"]
    assert given["toolUseId"] == called
    assert len(called) <= 64


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "The model returned the following errors: Input is too long for requested model.", None),
        (400, "else", InvalidRequest),
        (403, "not authorized", UpstreamError),
        (404, "Could not resolve the foundation model", UpstreamError),
        (408, "timed out", DeadlineExceeded),
        (424, "model error", UpstreamError),
        (429, "Too many requests", Overloaded),
        (500, "", UpstreamError),
        (503, "", Overloaded),
    ],
)
async def test_each_refusal_has_its_error_and_none_of_its_text(
    status: int, message: str, kind: type[PilothouseError] | None
) -> None:
    body = json.dumps({"message": f"{message} {KEY}"}).encode()
    head = f"HTTP/1.1 {status} x\r\nretry-after: 7\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async with bedrock(answering(head + body)) as engine:
        with pytest.raises(PilothouseError) as caught:
            await read(engine, ask())

    assert type(caught.value) is (kind or ContextLengthExceeded)
    assert KEY not in caught.value.message
    if kind is Overloaded:
        assert caught.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("throttlingException", Overloaded),
        ("serviceUnavailableException", Overloaded),
        ("modelStreamErrorException", UpstreamError),
        ("internalServerException", UpstreamError),
        ("validationException", InvalidRequest),
    ],
)
async def test_an_exception_within_a_stream_is_an_error_here_and_in_aws_own_client(
    name: str, kind: type[PilothouseError]
) -> None:
    body = b"".join([*TEXT[:5], fault(name, f"secret words {KEY}")])
    with aws_client(body, []) as client:
        stream = client.converse_stream(modelId=MODEL, messages=WORDS["messages"])["stream"]
        with pytest.raises(EventStreamError):
            list(stream)

    async with bedrock(answering(streaming(body))) as engine:
        with pytest.raises(PilothouseError) as caught:
            await read(engine, ask())

    assert type(caught.value) is kind
    assert "secret words" not in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"".join(TEXT[:5]),
        b"".join(TEXT[:-1]),
        b"".join(TEXT)[:-3],
        b"".join(TEXT[1:]),
        b"".join([*TEXT[:-1], TEXT[4]]),
        b"".join([BEGIN, *ending("malformed_tool_use")]),
        b"".join(TEXT[:5]).replace(b"hm", b"hn"),
    ],
    ids=["early", "no metadata", "cut", "no start", "goes on", "malformed", "flipped"],
)
async def test_a_stream_that_is_not_as_it_must_be_is_no_answer(body: bytes) -> None:
    async with bedrock(answering(streaming(body))) as engine:
        with pytest.raises(UpstreamError):
            await read(engine, ask())


async def test_a_caller_who_goes_hangs_up_on_bedrock() -> None:
    heard = asyncio.Event()

    async def script(talk: Upstream, _: int) -> None:
        await talk.request()
        begun = b"".join(TEXT[:5])
        await talk.say(HEAD + b"%x\r\n%s\r\n" % (len(begun), begun))
        await talk.hears_a_hang_up()
        heard.set()

    async with bedrock(script) as engine:
        async with aclosing(engine.stream(ask(), Placement(), deadline_s=5)) as stream:
            async for _ in stream:
                break
        await asyncio.wait_for(heard.wait(), 5)


async def test_an_api_key_of_bedrock_is_a_bearer_token() -> None:
    seen: list[bytes] = []

    async with bedrock(
        answering(whole(json.dumps(WHOLE).encode()), seen), Secret("bedrock-api-key-1"), auth="api_key"
    ) as engine:
        await engine.complete(ask(), Placement(), deadline_s=5)

    assert b"authorization: Bearer bedrock-api-key-1\r\n" in seen[0]
    assert b"x-amz-date" not in seen[0]


@pytest.mark.parametrize(
    "value", ["AKIA:secret", "{}", f'{{"AccessKeyId":"{ID}"}}', '{"AccessKeyId":"a\\r\\nb"}']
)
def test_a_secret_that_is_no_access_key_is_refused_without_its_text(value: str) -> None:
    with pytest.raises(OperationFailed, match="AccessKeyId") as caught:
        signing_key(Secret(value), "eu-west-1")

    assert value not in caught.value.message
    assert caught.value.__cause__ is None
