"""Attached to a real MLServer, as its users run it: over HTTP and over gRPC."""

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest

from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines.kserve import KServeDriver
from pilothouse.adapters.engines.mlserver import MLServerDriver
from pilothouse.domain.errors import EngineUnavailable, PilothouseError, UpstreamError
from pilothouse.domain.tensors import InferRequest, Tensor
from pilothouse.ports.engine import Engine
from pilothouse.testing.conformance_engine import ANYWHERE, answer, ask, ends_of, text_of, usage_of

FOUND = MLServerDriver().installed()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]
READY_S = 120.0
FIXTURES = Path(__file__).parents[2] / "fixtures"
ENGINES = Path(__file__).parents[3] / "src" / "pilothouse" / "adapters" / "engines"
PLAIN = '''
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Doubled(MLModel):
    """Numbers, and nothing of texts."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        numbers = [2 * number for number in NumpyCodec.decode_input(payload.inputs[0]).tolist()]
        output = ResponseOutput(name="y", datatype="FP32", shape=[len(numbers)], data=numbers)
        return InferenceResponse(model_name=self.name, outputs=[output])
'''


def _free_ports(count: int) -> list[int]:
    with closing(socket.socket()) as one, closing(socket.socket()) as two, closing(socket.socket()) as three:
        sockets = [one, two, three][:count]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Of one server with a model of text and one of numbers."""
    folder = tmp_path_factory.mktemp("mlserver")
    python = python_of("mlserver")
    script = str(FIXTURES / "make_onnx.py")
    subprocess.run([python, "-I", script, "llama", str(folder / "weights")], check=True, timeout=120)
    rest, grpc, metrics = _free_ports(3)
    settings = {"host": "127.0.0.1", "http_port": rest, "grpc_port": grpc, "metrics_port": metrics}
    (folder / "settings.json").write_text(
        json.dumps(settings | {"debug": False, "parallel_workers": 0, "gzip_enabled": False})
    )
    extra = {"threads": 1, "context_tokens": 512, "places": 2}
    _model(folder / "story", "story", "runtime.OnnxModel", {"uri": str(folder / "weights"), "extra": extra})
    (folder / "story" / "runtime.py").write_text((ENGINES / "_mlserver_runtime.py").read_text())
    known = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}]}
    _model(folder / "doubled", "doubled", "plain.Doubled", {}, **known)
    (folder / "doubled" / "plain.py").write_text(PLAIN)
    command = [python, "-I", "-c", "from mlserver.cli import main; main()", "start", str(folder)]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield {"rest": rest, "grpc": grpc}
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _model(folder: Path, name: str, implementation: str, parameters: dict[str, Any], **more: Any) -> None:
    folder.mkdir()
    settings = {"name": name, "implementation": implementation, "parameters": parameters, **more}
    (folder / "model-settings.json").write_text(json.dumps(settings))


def attached(ports: dict[str, int], protocol: str, *, model: str = "story", **options: Any) -> Engine:
    return KServeDriver().connect(
        f"http://127.0.0.1:{ports[protocol]}",
        model=model,
        context_tokens=512,
        allow_private=True,
        options={"protocol": protocol, **options},
    )


@pytest.fixture(params=["rest", "grpc"])
async def engine(ports: dict[str, int], request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    async with aclosing(attached(ports, request.param, messages_input="messages")) as made:
        async with asyncio.timeout(READY_S):
            while not (await made.health(deadline_s=10)).ok:
                await asyncio.sleep(0.2)
        yield made


async def test_it_is_streamed_with_its_usage_and_its_end(engine: Engine) -> None:
    chunks = await answer(engine, ask(max_tokens=5))

    usage = usage_of(chunks)
    assert sum(bool(delta.text) for chunk in chunks for delta in chunk.deltas) > 1
    assert ends_of(chunks) == {0: "length"}
    assert usage.output == 5
    assert 1 < usage.input < 20


async def test_whole_and_in_pieces_it_is_the_same(engine: Engine) -> None:
    streamed = await answer(engine, ask(max_tokens=6))

    at_once = await engine.complete(ask(max_tokens=6, stream=False), ANYWHERE, deadline_s=60)

    assert text_of([at_once]) == text_of(streamed)
    assert at_once.usage == usage_of(streamed)


async def test_a_stop_text_that_the_server_is_not_told_is_cut_here(engine: Engine) -> None:
    unstopped = text_of(await answer(engine, ask(max_tokens=8)))
    stop = unstopped[len(unstopped) // 2 :][:4]

    chunks = await answer(engine, ask(max_tokens=8, stop=[stop]))

    assert text_of(chunks) == unstopped[: unstopped.index(stop)]
    assert ends_of(chunks) == {0: "stop"}


async def test_a_seed_is_passed_on(engine: Engine) -> None:
    asked = [ask(temperature=1.5, seed=seed, max_tokens=12) for seed in (7, 7, 8)]

    texts = [text_of(await answer(engine, one)) for one in asked]

    assert texts[0] == texts[1] != texts[2]


async def test_a_chat_goes_as_messages_to_a_server_that_takes_them(engine: Engine) -> None:
    chunks = await answer(engine, ask([{"role": "user", "content": "Hello"}], kind="chat", max_tokens=3))

    assert usage_of(chunks).output == 3


async def test_a_stream_that_is_left_costs_the_server_nothing_more(engine: Engine) -> None:
    """Both places are left by hang-ups; who comes next does not wait for answers of 400 tokens."""
    for _ in range(3):
        stream = engine.stream(ask(max_tokens=400), ANYWHERE, deadline_s=60)
        await anext(stream)
        await stream.aclose()

    assert usage_of(await answer(engine, ask(max_tokens=2))).output == 2


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
async def test_tensors_pass_and_health_is_an_answer(ports: dict[str, int], protocol: str) -> None:
    asked = InferRequest(endpoint="", inputs=(Tensor("x", "FP32", (2,), [1.5, 2.0]),))

    async with aclosing(attached(ports, protocol, model="doubled", task="tensors")) as made:
        async with asyncio.timeout(READY_S):
            while not (health := await made.health(deadline_s=10)).ok:
                await asyncio.sleep(0.2)
        inferred = await made.infer(asked, deadline_s=10)  # type: ignore[attr-defined]

    assert health.ok
    assert list(inferred.outputs[0].values) == [3.0, 4.0]


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.usefixtures("engine")
async def test_a_model_that_is_not_there_is_told(ports: dict[str, int], protocol: str) -> None:
    async with aclosing(attached(ports, protocol, model="nobody")) as made:
        with pytest.raises(PilothouseError):
            await answer(made, ask())
        health = await made.health(deadline_s=10)

    assert not health.ok


async def test_nobody_there_is_unavailable_over_both() -> None:
    for protocol in ("rest", "grpc"):
        async with aclosing(attached({protocol: 1}, protocol)) as made:
            with pytest.raises((EngineUnavailable, UpstreamError)):
                await made.complete(ask(), ANYWHERE, deadline_s=10)
