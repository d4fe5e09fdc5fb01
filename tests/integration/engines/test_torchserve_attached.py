"""A real TorchServe with somebody else's handler, attached to: text in, text out, and no more."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine_home import Home
from pilothouse.adapters.engines.torchserve import TorchServeDriver
from pilothouse.domain.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    NotSupported,
    OperationFailed,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.model import Artifact, ModelHeader
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.kit.folders import make_private
from pilothouse.kit.secret import Secret
from pilothouse.ports.engine import Engine, Machine
from pilothouse.testing.conformance_engine import ANYWHERE, answer, ask, ends_of, text_of

FOUND = TorchServeDriver().installed()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]
READY_S = 300.0
HEADER = ModelHeader(
    architecture="llama",
    context_tokens=64,
    quantization="F32",
    parameters=1,
    layers=1,
    kv_heads=1,
    head_dim=8,
)
PARROT = """
import time
from ts.handler_utils.utils import send_intermediate_predict_response

def handle(data, context):
    if data is None:
        return None
    asked = data[0]["body"]
    if asked == "Whole":
        return ["all at once"]
    if asked == "Fail":
        raise ValueError(asked)
    if asked == "Bytes":
        return [bytes([0xFF, 0xFE])]
    said = asked.encode()
    for i in range(len(said)):  # so that characters come in parts
        send_intermediate_predict_response([said[i : i + 1]], context.request_ids, "", 200, context)
        time.sleep(0.5 if asked.startswith("Slow") else 0.005)
    return [b"."]
"""


class Theirs:
    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self.folder = folder

    def key_file(self) -> str:
        file = self.folder / "key_file.json"
        return file.read_text() if file.exists() else ""

    def key(self) -> str:
        return str(json.loads(self.key_file())["inference"]["key"])

    def attached(self, key: str, *, model: str = "model", address: str = "", allow: bool = True) -> Engine:
        return TorchServeDriver().connect(
            address or self.address, model=model, context_tokens=0, secret=Secret(key), allow_private=allow
        )


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theirs]:
    home = Home(make_private(tmp_path_factory.mktemp("t")))
    model = Artifact(name="x", digest="x", path="/none", bytes=0, header=HEADER, format="safetensors")
    machine = Machine(cpus=2, memory_available_bytes=8 * 10**9)
    ours = TorchServeDriver().launch("", DeploymentSpec(model="m", engine="torchserve"), model, machine)
    launch = replace(
        ours,
        config=ours.config.replace("unix:{folder}/inference.sock", "http://127.0.0.1:{port.http}"),
        files=ours.files | {"store/model/pilothouse_handler.py": PARROT},
        ports=(*ours.ports, "http"),
        address="http://127.0.0.1:{port.http}",
    )

    async def begin() -> Theirs:
        replica = await home.start(launch)
        (folder,) = (home.folder / "run").glob("*.d")
        theirs = Theirs(replica.address, folder)
        async with asyncio.timeout(READY_S):
            while "API" not in theirs.key_file():
                await asyncio.sleep(0.1)
            engine = theirs.attached(theirs.key())
            while not (await engine.health(deadline_s=60.0)).ok:
                await asyncio.sleep(0.1)
            await engine.aclose()
        return theirs

    try:
        yield asyncio.run(begin())
    finally:
        asyncio.run(home.stop_all())


@pytest.fixture
async def engine(theirs: Theirs) -> AsyncIterator[Engine]:
    engine = theirs.attached(theirs.key())
    yield engine
    await engine.aclose()


def say(prompt: str, **changes: object) -> object:
    return ask(prompt, **{"temperature": None, "max_tokens": 100} | changes)


@pytest.mark.parametrize("prompt", ["One, two", "Grüße, 東京, 🚢", "Whole"])
async def test_what_the_handler_says_is_the_answer(engine: Engine, prompt: str) -> None:
    chunks = await answer(engine, say(prompt))

    assert text_of(chunks) == ("all at once" if prompt == "Whole" else f"{prompt}.")
    assert ends_of(chunks) == {0: "stop"}


async def test_stop_texts_and_the_limit_are_kept_on_this_side(engine: Engine) -> None:
    stopped = await answer(engine, say("One, two, three", stop=["wo, t"]))
    limited = await answer(engine, say("One, two, three " * 20, max_tokens=4))

    assert text_of(stopped) == "One, t"
    assert ends_of(stopped) == {0: "stop"}
    assert ends_of(limited) == {0: "length"}
    assert len(text_of(limited)) < 300


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"temperature": 0.5}, "temperature"),
        ({"seed": 1, "choices": 2}, "n, seed"),
        ({"kind": "chat"}, "chats"),
    ],
)
async def test_what_a_handler_of_text_cannot_be_told_is_refused(
    engine: Engine, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(NotSupported, match=field):
        await answer(engine, say("x", **changes))


async def test_a_refused_secret_is_told_with_the_fix(theirs: Theirs) -> None:
    engine = theirs.attached("c29tZXRo")

    with pytest.raises(UpstreamError, match="pilothouse secret set") as refused:
        await answer(engine, say("x"))
    health = await engine.health(deadline_s=5.0)
    await engine.aclose()

    assert "c29tZXRo" not in refused.value.message
    assert not health.ok


@pytest.mark.parametrize(
    ("prompt", "model", "error"),
    [("Fail", "model", EngineUnavailable), ("Bytes", "model", UpstreamError), ("x", "other", UpstreamError)],
)
async def test_its_failures_are_typed(
    theirs: Theirs, prompt: str, model: str, error: type[PilothouseError]
) -> None:
    engine = theirs.attached(theirs.key(), model=model)

    with pytest.raises(error):
        await answer(engine, say(prompt))
    await engine.aclose()


async def test_a_deadline_is_kept(engine: Engine) -> None:
    async with aclosing(engine.stream(say("Slow"), ANYWHERE, deadline_s=1.0)) as chunks:
        with pytest.raises(DeadlineExceeded):
            async for _ in chunks:
                pass


async def test_where_it_may_be_is_as_for_every_attached_engine(theirs: Theirs) -> None:
    with pytest.raises(OperationFailed):
        theirs.attached("x", address="ftp://127.0.0.1")
    with pytest.raises((OperationFailed, EngineUnavailable)):
        await answer(theirs.attached("x", allow=False), say("x"))
