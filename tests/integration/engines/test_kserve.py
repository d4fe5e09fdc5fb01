"""Servers of the Open Inference Protocol by script: what they say over HTTP and gRPC, as the port has it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import aio

from pilothouse.adapters.engines import _inference_pb2 as pb
from pilothouse.adapters.engines.kserve import KServeDriver
from pilothouse.domain.chat import EmbedRequest
from pilothouse.domain.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotSupported,
    OperationFailed,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import Engine
from pilothouse.testing.conformance_engine import ANYWHERE, answer, ask, ends_of, text_of, usage_of
from upstream_rig import CHUNKED_HEAD, Upstream, chunked, upstream, whole

SERVICE = "inference.GRPCInferenceService"


@asynccontextmanager
async def over_http(
    script: Callable[[Upstream, int], Awaitable[None]], secret: Secret | None = None, **options: Any
) -> AsyncIterator[Engine]:
    async with upstream(script) as listening:
        engine = KServeDriver().connect(
            f"http://127.0.0.1:{listening.port}",
            model="a model",
            context_tokens=0,
            secret=secret,
            allow_private=True,
            options=options,
        )
        async with aclosing(engine):
            yield engine


class Heard(list[bytes]):
    """What was asked of a server."""


def saying(data: bytes, heard: Heard | None = None) -> Callable[[Upstream, int], Awaitable[None]]:
    async def script(talk: Upstream, number: int) -> None:
        request = await talk.request()
        if heard is not None:
            heard.append(request)
        await talk.say(data)

    return script


def tensors(text: str, **said: Any) -> dict[str, Any]:
    """An answer with one text and what is said beside it."""
    return {
        "model_name": "m",
        "outputs": [{"name": "text_output", "datatype": "BYTES", "shape": [1], "data": [text]}],
        "parameters": said,
    }


def events(*said: dict[str, Any]) -> bytes:
    return chunked(*(b"data: " + json.dumps(one).encode() + b"\n\n" for one in said))


async def test_tensors_are_streamed_to_an_answer_with_its_end_and_usage() -> None:
    heard = Heard()
    body = events(
        tensors("Ahoy"), tensors(" there", finish_reason="length", prompt_tokens=2, completion_tokens=2)
    )

    async with over_http(saying(CHUNKED_HEAD + body, heard), Secret("s3cret")) as engine:
        chunks = await answer(engine, ask("Hello", max_tokens=2))

    assert text_of(chunks) == "Ahoy there"
    assert ends_of(chunks) == {0: "length"}
    assert (usage_of(chunks).input, usage_of(chunks).output) == (2, 2)
    head, _, sent = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/models/a%20model/generate_stream HTTP/1.1")
    assert b"authorization: Bearer s3cret" in head
    assert json.loads(sent) == {
        "inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Hello"]}],
        "parameters": {"max_tokens": 2, "temperature": 0.0},
    }


async def test_generate_is_asked_in_plain_json() -> None:
    heard = Heard()
    body = events({"text_output": "One"}, {"text_output": " two"})

    async with over_http(
        saying(CHUNKED_HEAD + body, heard), api="generate", model_version="3", parameters_as="tensors"
    ) as engine:
        chunks = await answer(engine, ask("Hello", max_tokens=2))

    assert text_of(chunks) == "One two"
    assert ends_of(chunks) == {0: "stop"}
    assert b"POST /v2/models/a%20model/versions/3/generate_stream " in heard[0]
    assert json.loads(heard[0].partition(b"\r\n\r\n")[2]) == {
        "text_input": "Hello",
        "max_tokens": 2,
        "temperature": 0.0,
    }


async def test_a_server_that_does_not_stream_is_asked_whole_and_what_nobody_counted_is_bounded() -> None:
    heard = Heard()

    async with over_http(saying(whole(json.dumps(tensors("Ahoy")).encode()), heard), stream=False) as engine:
        chunks = await answer(engine, ask("Hello"))
        at_once = await engine.complete(ask("Hello"), ANYWHERE, deadline_s=5)

    assert text_of(chunks) == text_of([at_once]) == "Ahoy"
    assert b"/infer HTTP" in heard[0]
    assert at_once.usage is not None
    assert at_once.usage.output == 4, "no token is shorter than a character"


async def test_a_stop_text_ends_the_answer_and_hangs_up() -> None:
    is_gone = asyncio.Event()

    async def script(talk: Upstream, number: int) -> None:
        await talk.request()
        await talk.say(CHUNKED_HEAD)
        piece = b"data: " + json.dumps(tensors("one. two. ")).encode() + b"\n\n"
        await talk.say(b"%x\r\n%s\r\n" % (len(piece), piece))
        await talk.hears_a_hang_up()
        is_gone.set()

    async with over_http(script) as engine:
        chunks = await answer(engine, ask("Hello", stop=[" two"]))
        await asyncio.wait_for(is_gone.wait(), 10)

    assert text_of(chunks) == "one."
    assert ends_of(chunks) == {0: "stop"}


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (whole(b"{}", status=b"400 Bad Request"), InvalidRequest),
        (whole(b"{}", status=b"404 Not Found"), UpstreamError),
        (whole(b"{}", status=b"501 Not Implemented"), UpstreamError),
        (whole(b"{}", status=b"429 Too Many Requests"), Overloaded),
        (whole(b"{}", status=b"500 Internal Server Error"), UpstreamError),
        (CHUNKED_HEAD + events({"error": "out of memory"}), UpstreamError),
        (CHUNKED_HEAD + events(), UpstreamError),
        (CHUNKED_HEAD + events(tensors("x"))[:-9], UpstreamError),
        (CHUNKED_HEAD + chunked(b"data: garbage\n\n"), UpstreamError),
        (CHUNKED_HEAD + events({"outputs": [{"name": "x", "datatype": "FP9", "shape": [1]}]}), UpstreamError),
        (CHUNKED_HEAD + events({"outputs": []}), UpstreamError),
        (b"garbage\r\n\r\n", PilothouseError),
    ],
)
async def test_what_goes_wrong_is_typed_and_without_the_servers_words(
    said: bytes, error: type[Exception]
) -> None:
    async with over_http(saying(said)) as engine:
        with pytest.raises(error) as failed:
            await answer(engine, ask("Hello"))

    assert "out of memory" not in str(failed.value)


async def test_vectors_come_from_a_tensor() -> None:
    said = {"outputs": [{"name": "embedding", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}]}

    async with over_http(saying(whole(json.dumps(said).encode())), task="embedding") as engine:
        found = await engine.embed(EmbedRequest(endpoint="m", inputs=["a", "b"]), deadline_s=5)
        with pytest.raises(NotSupported):
            await answer(engine, ask("Hello"))

    assert found.vectors == [[1.0, 2.0], [3.0, 4.0]]


async def test_a_server_that_answers_nonsense_is_not_healthy_and_says_why() -> None:
    async with over_http(saying(whole(b"{}", status=b"404 Not Found"))) as engine:
        health = await engine.health(deadline_s=5)

    assert not health.ok
    assert "engine_options.api" in health.reason


async def test_a_model_of_tensors_is_tried_with_zeros_of_what_it_says_it_takes() -> None:
    heard = Heard()
    known = {"name": "iris", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]}
    answer_ = {"outputs": [{"name": "y", "datatype": "INT64", "shape": [1], "data": [1]}]}

    async def script(talk: Upstream, number: int) -> None:
        for said in (known, answer_):
            heard.append(await talk.request())
            await talk.say(whole(json.dumps(said).encode()))

    async with over_http(script, task="tensors") as engine:
        health = await engine.health(deadline_s=5)
    async with over_http(saying(whole(b'{"name":"m"}')), task="tensors") as engine:
        silent = await engine.health(deadline_s=5)

    assert health.ok
    assert heard[0].startswith(b"GET /v2/models/a%20model HTTP")
    assert json.loads(heard[1].partition(b"\r\n\r\n")[2])["inputs"][0]["data"] == [0.0, 0.0]
    assert not silent.ok
    assert "does not say which tensors" in silent.reason


# gRPC


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """GRPCInferenceService of one model, by script: what it says to each request."""

    def __init__(self, answers: Callable[[pb.InferRequest], list[bytes] | Exception], *, bare: bool) -> None:
        self.answers, self.bare = answers, bare
        self.metadata: list[tuple[str, str]] = []
        self.cancelled = 0

    def service(self, details: Any) -> Any:
        self.metadata = [(one.key, one.value) for one in details.invocation_metadata]
        if details.method == f"/{SERVICE}/ModelInfer":
            return grpc.unary_unary_rpc_method_handler(self._infer)
        if details.method == f"/{SERVICE}/ServerMetadata":
            return grpc.unary_unary_rpc_method_handler(self._metadata)
        if details.method == f"/{SERVICE}/ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return None

    async def _metadata(self, data: bytes, context: Any) -> bytes:
        return pb.ServerMetadata(name="other" if self.bare else "triton").SerializeToString()

    async def _infer(self, data: bytes, context: Any) -> bytes:
        return self._said(data)[0]

    async def _stream(self, requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for data in requests:
            for said in self._said(data):
                yield said if self.bare else pb.Streamed(answer_or_version=said).SerializeToString()

    def _said(self, data: bytes) -> list[bytes]:
        said = self.answers(pb.InferRequest.FromString(data))
        if isinstance(said, Exception):
            raise said
        return said


def message(text: str, **parameters: Any) -> bytes:
    said = pb.InferAnswer(
        model_name="m", outputs=[pb.Tensor(name="text_output", datatype="BYTES", shape=[1])]
    )
    said.raw_output_contents.append(len(text.encode()).to_bytes(4, "little") + text.encode())
    for name, value in parameters.items():
        kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
        setattr(said.parameters[name], kind, value)
    return said.SerializeToString()


@asynccontextmanager
async def over_grpc(service: Service, **options: Any) -> AsyncIterator[Engine]:
    server = aio.server()
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    engine = KServeDriver().connect(
        f"http://127.0.0.1:{port}",
        model="m",
        context_tokens=0,
        secret=Secret("s3cret"),
        allow_private=True,
        options={"protocol": "grpc", **options},
    )
    try:
        yield engine
    finally:
        await engine.aclose()
        await server.stop(None)


@pytest.mark.parametrize("is_bare", [True, False])
async def test_both_ways_of_streaming_over_grpc_are_read(is_bare: bool) -> None:
    asked: list[pb.InferRequest] = []

    def answers(request: pb.InferRequest) -> list[bytes]:
        asked.append(request)
        return [
            message("Ahoy"),
            message(" there", prompt_tokens=2, completion_tokens=2, finish_reason="length"),
        ]

    service = Service(answers, bare=is_bare)
    async with over_grpc(service) as engine:
        chunks = await answer(engine, ask("Hello", max_tokens=2))

    assert text_of(chunks) == "Ahoy there"
    assert ends_of(chunks) == {0: "length"}
    assert usage_of(chunks).output == 2
    assert asked[0].raw_input_contents[0] == b"\x05\x00\x00\x00Hello"
    assert asked[0].parameters["max_tokens"].int64_param == 2
    heat = asked[0].parameters["temperature"]
    assert (heat.WhichOneof("choice"), heat.string_param) == (
        ("string_param", "0.0") if is_bare else ("double_param", "")
    )
    assert ("authorization", "Bearer s3cret") in service.metadata


async def test_an_answer_over_grpc_comes_whole_and_health_is_one() -> None:
    async with over_grpc(Service(lambda _: [message("Ahoy")], bare=False), stream=False) as engine:
        chunks = await answer(engine, ask("Hello"))
        health = await engine.health(deadline_s=5)

    assert text_of(chunks) == "Ahoy"
    assert health.ok


async def test_a_failure_over_grpc_is_typed() -> None:
    failing = Service(lambda _: RuntimeError("out of memory"), bare=False)

    async with over_grpc(failing) as engine:
        with pytest.raises(UpstreamError) as failed:
            await answer(engine, ask("Hello"))
        with pytest.raises(UpstreamError):
            await engine.complete(ask("Hello"), ANYWHERE, deadline_s=5)

    assert "out of memory" not in str(failed.value)


async def test_nobody_there_over_grpc_is_unavailable() -> None:
    engine = KServeDriver().connect(
        "http://127.0.0.1:1", model="m", context_tokens=0, allow_private=True, options={"protocol": "grpc"}
    )
    async with aclosing(engine):
        with pytest.raises((EngineUnavailable, DeadlineExceeded)):
            await answer(engine, ask("Hello"))
        health = await engine.health(deadline_s=5)

    assert not health.ok


async def test_a_private_address_is_refused_unless_it_is_allowed() -> None:
    for protocol in ("rest", "grpc"):
        with pytest.raises(OperationFailed, match="base_url"):
            KServeDriver().connect(
                "http://127.0.0.1:1", model="m", context_tokens=0, options={"protocol": protocol}
            )
