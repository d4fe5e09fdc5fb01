"""TensorFlow Serving's REST protocol against a server of others: KServe's, which speaks it as its V1."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines._tensorflow_engine import Reading, TensorFlowEngine
from pilothouse.adapters.engines._tensorflow_rest import RestServer
from pilothouse.domain.errors import InvalidRequest, PilothouseError, UpstreamError
from pilothouse.ports.engine import EngineInfo
from pilothouse.testing.conformance_engine import answer, ask, ends_of, text_of

SCRIPT = Path(__file__).parents[2] / "fixtures" / "kserve_v1.py"
PYTHON = python_of("kserve")
READY_S = 120.0
NAMES = Reading(
    inputs={"prompt": "question", "max_tokens": "max_tokens", "temperature": "heat", "state": "state"},
    outputs={"text": "answer", "state": "state"},
    piece_tokens=4,
)


def _can_isolate() -> bool:
    try:
        return subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path(PYTHON).exists(), reason="kserve 0.21.0 is not in an environment of that name"
    ),
    pytest.mark.skipif(not _can_isolate(), reason="it listens on all addresses, and no network can be made"),
]


@pytest.fixture(scope="module")
def kserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("kserve")
    with (folder / "log").open("wb") as log:
        argv = ["unshare", "-n", PYTHON, "-I", str(SCRIPT), str(folder / "s")]
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        )
        try:
            asyncio.run(_until_ready(folder, process))
            yield folder / "s"
        finally:
            process.kill()
            process.wait(timeout=30)


async def _until_ready(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    async with asyncio.timeout(READY_S):
        while True:
            engine = connected(folder / "s")
            health = await engine.health(deadline_s=5.0)
            await engine.aclose()
            if health.ok:
                return
            assert process.poll() is None, (folder / "log").read_text()
            await asyncio.sleep(0.2)


def connected(path: Path, reading: Reading = NAMES, model: str = "count") -> TensorFlowEngine:
    info = EngineInfo(name="tensorflow", context_tokens=64)
    return TensorFlowEngine(info, RestServer(f"unix:{path}", model=model), reading)


@pytest.fixture
async def engine(kserve: Path) -> AsyncIterator[TensorFlowEngine]:
    engine = connected(kserve)
    yield engine
    await engine.aclose()


async def test_an_answer_is_made_of_calls_that_go_on(engine: TensorFlowEngine) -> None:
    chunks = await answer(engine, ask(max_tokens=9))

    assert text_of(chunks) == " 0 1 2 3 4 5 6 7 8"
    assert len(chunks) == 4
    assert chunks[-1].usage is None


async def test_stop_texts_are_kept_on_this_side(engine: TensorFlowEngine) -> None:
    chunks = await answer(engine, ask(max_tokens=40, stop=[" 6"]))

    assert text_of(chunks) == " 0 1 2 3 4 5"
    assert ends_of(chunks) == {0: "stop"}


async def test_a_model_that_fails_is_a_typed_error(engine: TensorFlowEngine) -> None:
    with pytest.raises(PilothouseError):
        await answer(engine, ask("broken"))

    assert text_of(await answer(engine, ask(max_tokens=1))) == " 0"


async def test_a_server_that_tells_no_signatures_needs_names(kserve: Path) -> None:
    engine = connected(kserve, Reading(piece_tokens=4))

    with pytest.raises(UpstreamError, match=r"name its tensors by engine_options\.inputs"):
        await answer(engine, ask())
    await engine.aclose()


async def test_a_model_that_is_not_there_is_said_so(kserve: Path) -> None:
    engine = connected(kserve, model="other")

    with pytest.raises(UpstreamError, match="knows no such model"):
        await answer(engine, ask())
    await engine.aclose()


async def test_the_server_is_not_asked_without_a_limit(kserve: Path) -> None:
    engine = connected(kserve)
    engine.info = EngineInfo(name="tensorflow", context_tokens=0)

    with pytest.raises(InvalidRequest, match="max_tokens"):
        await answer(engine, ask(max_tokens=None))
    await engine.aclose()
