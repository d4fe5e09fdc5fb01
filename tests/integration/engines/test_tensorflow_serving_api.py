"""Our messages of TensorFlow Serving against the published ones, both ways, over real connections."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine_home import Home
from pilothouse.adapters.engines._environment import environment, python_of
from pilothouse.adapters.engines._tensorflow_engine import TensorFlowEngine
from pilothouse.adapters.engines.tensorflow import TensorFlowDriver
from pilothouse.adapters.targets._places import free_ports
from pilothouse.domain.errors import EngineUnavailable, PilothouseError, UpstreamError
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.folders import make_private
from pilothouse.ports.engine import Machine
from pilothouse.testing.conformance_engine import answer, ask, ends_of, text_of, usage_of
from tensorflow_model import artifact_of, make_savedmodel, needs_tensorflow

SCRIPT = Path(__file__).parents[2] / "fixtures" / "serving_api.py"
HAS_API = any(environment("tensorflow").glob("lib/python*/site-packages/tensorflow_serving_api-*"))
READY_S = 300.0
NAMES = {
    "inputs": {"prompt": "question", "temperature": "heat"},
    "outputs": {"text": "answer"},
    "piece_tokens": 4,
}
pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    needs_tensorflow,
    pytest.mark.skipif(
        not HAS_API, reason="tensorflow-serving-api 2.21.0 is not in the environment `tensorflow`"
    ),
]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    number = free_ports(["grpc"])["grpc"]
    log = tmp_path_factory.mktemp("api") / "log"
    with log.open("wb") as out:
        argv = [python_of("tensorflow"), "-I", str(SCRIPT), "serve", str(number)]
        process = subprocess.Popen(argv, stdout=out, stderr=out)
        try:
            asyncio.run(_until_ready(number, process, log))
            yield number
        finally:
            process.kill()
            process.wait(timeout=30)


async def _until_ready(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            engine = connected(port)
            health = await engine.health(deadline_s=5.0)
            await engine.aclose()
            if health.ok:
                return
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.2)


def connected(port: int, *, model: str = "count") -> TensorFlowEngine:
    address = f"http://127.0.0.1:{port}"
    return TensorFlowDriver().connect(
        address,
        model=model,
        context_tokens=64,
        allow_private=True,
        options={"base_url": address, "protocol": "grpc", **NAMES},
    )


@pytest.fixture
async def engine(port: int) -> AsyncIterator[TensorFlowEngine]:
    engine = connected(port)
    yield engine
    await engine.aclose()


async def test_a_server_of_the_published_messages_is_understood(engine: TensorFlowEngine) -> None:
    chunks = await answer(engine, ask(max_tokens=9))

    assert text_of(chunks) == " 0 1 2 3 4 5 6 7 8"
    assert len(chunks) == 4
    assert ends_of(chunks)
    assert (usage_of(chunks).input, usage_of(chunks).output) == (3, 9)


async def test_what_fails_there_is_typed_and_the_next_one_is_answered(engine: TensorFlowEngine) -> None:
    with pytest.raises(PilothouseError):
        await answer(engine, ask("broken"))

    assert text_of(await answer(engine, ask(max_tokens=1))) == " 0"


@pytest.mark.parametrize(
    ("model", "kind", "part"),
    [("other", UpstreamError, "knows no such model"), ("soon", EngineUnavailable, "is loading the model")],
)
async def test_a_model_that_is_not_there_is_told_from_one_that_will_be(
    port: int, model: str, kind: type[PilothouseError], part: str
) -> None:
    engine = connected(port, model=model)

    with pytest.raises(kind, match=part):
        await answer(engine, ask())
    await engine.aclose()


async def test_a_client_of_the_published_messages_understands_our_host(tmp_path: Path) -> None:
    artifact = artifact_of(make_savedmodel(tmp_path / "tiny"))
    spec = DeploymentSpec(model="m", engine="tensorflow", engine_options={"protocol": "grpc"})
    launch = TensorFlowDriver().launch("", spec, artifact, Machine(cpus=2, memory_available_bytes=8 * 10**9))
    home = Home(make_private(tmp_path / "h"))
    replica = await home.start(launch)
    try:
        ours = TensorFlowDriver().connect(
            replica.address, model="m", context_tokens=64, options=replica.options
        )
        async with asyncio.timeout(READY_S):
            while not (await ours.health(deadline_s=60.0)).ok:
                await asyncio.sleep(0.2)
        path = replica.address.removeprefix("unix:")
        done = await asyncio.to_thread(
            subprocess.run,
            [python_of("tensorflow"), "-I", str(SCRIPT), "ask", path],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        chunks = await answer(ours, ask("The gateway", max_tokens=3, temperature=1.0, seed=0))
        await ours.aclose()
    finally:
        await home.stop_all()

    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["method"] == "tensorflow/serving/predict"
    assert (told["inputs"]["prompt"], told["inputs"]["max_tokens"]) == ("DT_STRING", "DT_INT32")
    assert (told["dims"], told["states"]) == ([1], ["AVAILABLE"])
    assert told["text"] == text_of(chunks)
    assert told["counts"] == [usage_of(chunks).input, usage_of(chunks).output]
    assert told["refused"] == ["NOT_FOUND", "INVALID_ARGUMENT"]
