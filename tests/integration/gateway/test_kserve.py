"""`/v2`: the Open Inference Protocol through the whole request path, and by a client of its authors."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway_rig import (
    AUDITOR,
    OTHER_TEAM,
    SCOPED,
    House,
    endpoint_entry,
    house,
    key,
    replica_entry,
    snapshot,
)
from http1_rig import Answer
from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines.kserve import KServeDriver
from pilothouse.adapters.engines.mlserver import MLServerDriver
from pilothouse.domain.errors import UpstreamError
from pilothouse.domain.limits import Limits
from pilothouse.domain.snapshot import Task
from pilothouse.domain.tensors import InferRequest, Tensor
from pilothouse.domain.used_tokens import Usage
from pilothouse.wire.kserve_v2 import infer
from upstream_rig import Upstream, upstream, whole
from watched_engine import WatchedEngine, fails, words

ASKED = {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [1], "data": ["Hi"]}]}
CLIENT = Path(__file__).parents[2] / "fixtures" / "ask_by_tritonclient.py"


@pytest.fixture
async def text_house() -> AsyncIterator[House]:
    engine = WatchedEngine(words("Ahoy", " there", usage=Usage(3, 2)))
    async with house(engine) as made:
        yield made


def doing(*tasks: Task, **more: object) -> Any:
    return snapshot(replica_entry(), endpoints=(endpoint_entry("chat", tasks=tasks, **more),))


def said(answer: Answer) -> Any:
    return json.loads(answer.body)


async def post(at: House, verb: str, body: object, **more: Any) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await at.ask(f"/v2/models/chat/{verb}", data, **more)


async def test_a_text_is_asked_for_by_tensors(text_house: House) -> None:
    body = ASKED | {"id": "7", "parameters": {"max_tokens": 5, "temperature": 0, "stop": '["."]'}}

    answer = await post(text_house, "infer", body)

    assert answer.status == 200
    assert said(answer) == {
        "model_name": "chat",
        "model_version": "1",
        "id": "7",
        "parameters": {"finish_reason": "stop", "prompt_tokens": 3, "completion_tokens": 2},
        "outputs": [{"name": "text_output", "datatype": "BYTES", "shape": [1], "data": ["Ahoy there"]}],
    }
    (record,) = text_house.records
    assert (record.code, record.input_tokens, record.output_tokens) == ("ok", 3, 2)


async def test_wishes_may_be_tensors_and_the_answer_may_be_bytes(text_house: House) -> None:
    tensors = (Tensor.of_texts("text_input", ["Hi"]), Tensor("max_tokens", "INT32", (1,), [5]))
    body, length = infer.write_request(InferRequest(endpoint="", inputs=tensors), binary=True)
    header = f"Inference-Header-Content-Length: {length}\r\n".encode()

    answer = await post(text_house, "infer", body, headers=header)

    ends = int(answer.headers[infer.LENGTH_HEADER])
    again = infer.read_answer(answer.body, ends)
    assert again.outputs[0].texts() == ["Ahoy there"]


async def test_generate_is_plain_json_and_streams_events(text_house: House) -> None:
    body = {"text_input": "Hi", "max_tokens": 5}

    at_once = await post(text_house, "generate", body)
    streamed = await post(text_house, "generate_stream", body)

    assert said(at_once)["text_output"] == "Ahoy there"
    assert said(at_once)["completion_tokens"] == 2
    events = [json.loads(line[6:]) for line in streamed.body.decode().splitlines() if line]
    assert "".join(event["text_output"] for event in events) == "Ahoy there"
    assert events[-1]["finish_reason"] == "stop"
    assert events[-1]["prompt_tokens"] == 3


async def test_pilothouse_attaches_to_itself(text_house: House) -> None:
    """Its own engine reads what it writes, by default options."""
    from pilothouse.kit.secret import Secret
    from pilothouse.testing.conformance_engine import answer, ask, ends_of, text_of, usage_of

    engine = KServeDriver().connect(
        f"http://127.0.0.1:{text_house.port}",
        model="chat",
        context_tokens=0,
        secret=Secret(key("developer0")),
        allow_private=True,
    )
    chunks = await answer(engine, ask("Hi", max_tokens=5))
    await engine.aclose()

    assert text_of(chunks) == "Ahoy there"
    assert ends_of(chunks) == {0: "stop"}
    assert usage_of(chunks) == Usage(3, 2)


async def test_a_stream_that_is_cut_ends_in_an_error() -> None:
    engine = WatchedEngine(fails(UpstreamError("it broke"), after=["Ahoy"]))
    async with house(engine) as made:
        answer = await post(made, "generate_stream", {"text_input": "Hi"})

    last = json.loads(answer.body.decode().strip().splitlines()[-1][6:])
    assert last == {"error": "it broke", "code": "upstream_error"}


async def test_vectors_come_as_a_tensor() -> None:
    async with house(WatchedEngine(), doing("embedding")) as made:
        body = {"inputs": [{"name": "text_input", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}]}
        answer = await post(made, "infer", body)
        about = await made.ask("/v2/models/chat", method="GET")

    (output,) = said(answer)["outputs"]
    assert output["name"] == "embedding"
    assert output["shape"][0] == 2
    assert said(about)["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, -1]}]


async def test_tensors_pass_as_they_are_to_a_server_of_them() -> None:
    heard: list[bytes] = []

    async def script(talk: Upstream, number: int) -> None:
        heard.append(await talk.request())
        answer = {"outputs": [{"name": "label", "datatype": "INT64", "shape": [1], "data": [3]}]}
        await talk.say(whole(json.dumps(answer).encode()))

    async with upstream(script) as listening:

        def connect(entry: Any) -> Any:
            return KServeDriver().connect(
                f"http://127.0.0.1:{listening.port}",
                model="iris",
                context_tokens=0,
                allow_private=True,
                options={"task": "tensors"},
            )

        async with house(connect, doing("tensors")) as made:
            body = {
                "inputs": [
                    {
                        "name": "x",
                        "datatype": "FP32",
                        "shape": [1, 2],
                        "data": [0.5, 1.0],
                        "parameters": {"content_type": "np"},
                    }
                ],
                "parameters": {"threshold": 0.5},
            }
            answer = await post(made, "infer", body)
            refused = await made.ask("/v1/completions", b'{"model":"chat","prompt":"x"}')

    sent = json.loads(heard[0].partition(b"\r\n\r\n")[2])
    assert heard[0].startswith(b"POST /v2/models/iris/infer ")
    assert sent == body
    assert said(answer)["outputs"][0]["data"] == [3]
    assert refused.status == 501
    assert [record.code for record in made.records] == ["ok", "not_supported"]


async def test_tensors_of_an_engine_that_knows_none_are_refused_in_their_shape() -> None:
    async with house(WatchedEngine(), doing("tensors")) as made:
        answer = await post(made, "infer", ASKED)
        generate = await post(made, "generate", {"text_input": "x"})

    assert answer.status == generate.status == 501
    assert set(said(answer)) == {"error", "code"}
    assert said(generate)["code"] == "not_supported"


async def test_limits_hold_here_as_everywhere() -> None:
    async with house(WatchedEngine(), doing("completion", limits=Limits(rpm=1))) as made:
        first = await post(made, "infer", ASKED)
        second = await post(made, "infer", ASKED)

    assert first.status == 200
    assert second.status == 429
    assert said(second)["code"] == "rate_limit_exceeded"
    assert "retry-after" in second.headers


@pytest.mark.parametrize(
    ("as_key", "status"), [(None, 401), (SCOPED, 404), (AUDITOR, 403), (OTHER_TEAM, 200)]
)
async def test_keys_hold_here_as_everywhere(text_house: House, as_key: str | None, status: int) -> None:
    answer = await post(text_house, "infer", ASKED, as_key=as_key)

    assert answer.status == status
    assert status == 200 or set(said(answer)) == {"error", "code"}


async def test_what_there_is_is_said(text_house: House) -> None:
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/chat", "/v2/models/chat/ready"):
        answer = await text_house.ask(path, method="GET")
        assert answer.status == 200, path
    assert said(answer) == {"name": "chat", "ready": True}
    about = await text_house.ask("/v2/models/chat/versions/1", method="GET")
    assert said(about)["inputs"] == [{"name": "text_input", "datatype": "BYTES", "shape": [1]}]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/chat/versions/2", 404),
        ("GET", "/v2/models/chat/stats", 501),
        ("POST", "/v2/repository/index", 501),
        ("POST", "/v2/systemsharedmemory/region/x/register", 501),
        ("GET", "/v2/models/chat/infer", 405),
        ("POST", "/v2/models/chat/ready", 405),
    ],
)
async def test_what_there_is_not_is_told_in_its_shape(
    text_house: House, method: str, path: str, status: int
) -> None:
    answer = await text_house.ask(path, method=method)

    assert answer.status == status
    assert set(said(answer)) == {"error", "code"}


@pytest.mark.parametrize(
    ("verb", "body", "names"),
    [
        ("infer", b"{", "JSON"),
        ("infer", {"inputs": []}, "inputs"),
        ("infer", ASKED | {"outputs": [{"name": "logits"}]}, "logits"),
        ("infer", ASKED | {"parameters": {"beams": 3}}, "beams"),
        ("infer", ASKED | {"parameters": {"temperature": 9}}, "temperature"),
        ("infer", {"inputs": [ASKED["inputs"][0] | {"datatype": "FP32", "data": [1]}]}, "text_input"),
        ("infer", {"inputs": [ASKED["inputs"][0] | {"data": [""]}]}, "text_input"),
        ("infer", {"inputs": [ASKED["inputs"][0] | {"shape": [2], "data": ["a", "b"]}]}, "text_input"),
        ("generate", {"prompt": "x"}, "text_input"),
        ("generate", {"text_input": "x", "best_of": 3}, "best_of"),
        ("generate", {"text_input": "x", "seed": 1, "parameters": {"seed": 2}}, "seed"),
        ("generate_stream", b"\xff", "text_input"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_name(
    text_house: House, verb: str, body: object, names: str
) -> None:
    answer = await post(text_house, verb, body)

    assert answer.status in (400, 501)
    assert names in said(answer)["error"]


async def test_a_length_that_is_none_is_refused(text_house: House) -> None:
    for value in (b"x", b"-1", b"99999"):
        header = b"Inference-Header-Content-Length: " + value + b"\r\n"
        answer = await post(text_house, "infer", ASKED, headers=header)
        assert answer.status == 400, value


@pytest.mark.skipif(
    not MLServerDriver().installed().ok, reason="tritonclient comes with MLServer's environment"
)
async def test_tritonclient_is_answered(text_house: House) -> None:
    """NVIDIA's own client, with the bytes that it sends and wants by default."""
    asking = await asyncio.create_subprocess_exec(
        python_of("mlserver"),
        "-I",
        str(CLIENT),
        f"127.0.0.1:{text_house.port}",
        key("developer0"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(asking.communicate(), 60)

    found = json.loads(out)
    assert asking.returncode == 0
    assert found == {
        "live": True,
        "ready": True,
        "model_ready": True,
        "server": "pilothouse",
        "inputs": ["text_input"],
        "text": "Ahoy there",
        "text_json": "Ahoy there",
        "refused": "[501] beams is not supported; leave it out",
    }
