"""The engine suite on a real TorchServe, with a small model of random weights, and how it fails and heals."""

import asyncio
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from engine_home import Home
from pilothouse.adapters.engines._torchserve_http import TorchServeEngine
from pilothouse.adapters.engines.torchserve import TorchServeDriver
from pilothouse.domain.errors import (
    EngineUnavailable,
    NotSupported,
    Overloaded,
    PilothouseError,
    UpstreamError,
)
from pilothouse.domain.model import Artifact
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Replica
from pilothouse.kit import processes
from pilothouse.kit.folders import make_private
from pilothouse.kit.http1.client import request_bytes
from pilothouse.kit.http1.peer import Timeouts
from pilothouse.ports.engine import Launch, Machine
from pilothouse.testing.conformance_engine import (
    ANYWHERE,
    DEADLINE_S,
    EngineConformance,
    answer,
    ask,
    running,
    text_of,
)
from tiny_llama import make_tiny_llama

FOUND = TorchServeDriver().installed()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]
READY_S = 300.0
QUEUE = 8


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"), engine="torchserve")


def launch_of(artifact: Artifact) -> Launch:
    machine = Machine(cpus=2, memory_available_bytes=8 * 10**9)
    spec = DeploymentSpec(model="m", engine="torchserve", engine_options={"queue_size": QUEUE})
    return TorchServeDriver().launch("", spec, artifact, machine)


def connected(address: str) -> TorchServeEngine:
    return TorchServeDriver().connect(address, model="m", context_tokens=1024)


async def healthy(engine: TorchServeEngine) -> float:
    """Seconds until it gave a token."""
    began = time.monotonic()
    async with asyncio.timeout(READY_S):
        while not (await engine.health(deadline_s=60.0)).ok:
            await asyncio.sleep(0.1)
    return time.monotonic() - began


@pytest.fixture(scope="session")
def replica(tiny: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    home = Home(make_private(tmp_path_factory.mktemp("t")))

    async def begin() -> Replica:
        replica = await home.start(launch_of(tiny))
        engine = connected(replica.address)
        await healthy(engine)
        await engine.aclose()
        return replica

    try:
        yield asyncio.run(begin())
    finally:
        asyncio.run(home.stop_all())


class Lab:
    cannot = TorchServeDriver.cannot

    def __init__(self, replica: Replica) -> None:
        self.context_tokens = replica.context_tokens
        self.engine = connected(replica.address)

    def dead(self) -> TorchServeEngine:
        return connected("unix:/nowhere/inference.sock")


@pytest.fixture
async def lab(replica: Replica) -> AsyncIterator[Lab]:
    lab = Lab(replica)
    yield lab
    await lab.engine.aclose()


def folder_of(replica: Replica) -> Path:
    return Path(replica.address.removeprefix("unix:")).parent


def worker_of(replica: Replica) -> psutil.Process:
    (worker,) = [
        one for one in psutil.Process(replica.pid).children() if "model_service_worker" in str(one.cmdline())
    ]
    return worker


class TestTorchServe(EngineConformance):
    async def test_what_it_would_ignore_is_refused(self, lab: Lab) -> None:
        with pytest.raises(NotSupported):
            await answer(lab.engine, ask(choices=2))

    async def test_it_inherits_nothing_and_listens_at_loopback_alone(self, replica: Replica) -> None:
        server = psutil.Process(replica.pid)

        for process in (server, worker_of(replica)):
            listening = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            assert {one.laddr.ip.removeprefix("::ffff:") for one in listening} <= {"127.0.0.1"}
            assert not {"PILOTHOUSE_HOME", "USER", "JAVA_HOME"} & process.environ().keys()
        assert not {
            path.stat().st_mode & 0o077 for path in (folder_of(replica), folder_of(replica) / "key_file.json")
        } - {0}

    async def test_nobody_asks_it_without_its_key(self, lab: Lab) -> None:
        data = request_bytes("POST", "/predictions/model", "localhost", b"", b"{}")

        exchange = await lab.engine._client.request(data, Timeouts(), total_s=DEADLINE_S)
        told = await exchange.read_all(10_000)
        exchange.release()

        assert exchange.status == 400
        assert b"InvalidKeyException" in told

    async def test_a_key_that_others_renewed_is_read_again(self, lab: Lab, replica: Replica) -> None:
        other = connected(replica.address)
        await answer(lab.engine, ask())
        await answer(other, ask())
        former = await other._keys.current()

        await other._keys.renew(former)

        assert await other._keys.current() != former
        assert text_of(await answer(lab.engine, ask()))
        assert text_of(await answer(other, ask()))
        await other.aclose()

    async def test_a_key_that_ran_out_is_renewed(self, lab: Lab, replica: Replica) -> None:
        """As after an hour: what the file says is refused."""
        file = folder_of(replica) / "key_file.json"
        keys = json.loads(file.read_bytes())
        keys["inference"]["key"] = "c29tZXRo"
        file.write_text(json.dumps(keys))

        assert text_of(await answer(lab.engine, ask()))

    async def test_no_key_is_in_its_log_or_its_command_line(self, replica: Replica) -> None:
        keys = json.loads((folder_of(replica) / "key_file.json").read_bytes())
        (log,) = (folder_of(replica).parents[1] / "logs").glob("*.log")

        texts = [log.read_text(), *(str(one.info["cmdline"]) for one in psutil.process_iter(["cmdline"]))]

        for key in keys.values():
            assert not any(key["key"] in text for text in texts)

    async def test_more_than_its_queue_holds_is_overloaded(self, lab: Lab) -> None:
        asked = [asyncio.create_task(answer(lab.engine, ask(max_tokens=200))) for _ in range(QUEUE + 6)]

        await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION, timeout=DEADLINE_S)
        for task in asked:
            task.cancel()
        ended = await asyncio.gather(*asked, return_exceptions=True)

        assert [one for one in ended if isinstance(one, Overloaded)]
        assert not [
            one for one in ended if isinstance(one, PilothouseError) and not isinstance(one, Overloaded)
        ]
        await running(lab.engine, lambda count: count == 0, timeout_s=DEADLINE_S)

    async def test_who_hung_up_while_waiting_is_never_served(self, lab: Lab) -> None:
        first = lab.engine.stream(ask(max_tokens=400), ANYWHERE, deadline_s=DEADLINE_S)
        await anext(first)
        waiting = [asyncio.create_task(answer(lab.engine, ask(max_tokens=900))) for _ in range(4)]
        while (await lab.engine.load()).waiting < len(waiting):
            await asyncio.sleep(0.02)

        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await first.aclose()

        began = time.monotonic()
        assert text_of(await answer(lab.engine, ask(max_tokens=2)))
        assert time.monotonic() - began < 5.0


async def why_failed(home: Home) -> str:
    async with asyncio.timeout(READY_S):
        while True:
            (seen,) = await home.target().observe()
            if seen.state == "failed":
                return seen.reason
            await asyncio.sleep(0.1)


async def test_a_crash_is_told_and_heals_or_leaves_nothing_behind(tiny: Artifact, tmp_path: Path) -> None:
    home = Home(make_private(tmp_path / "h"))
    try:
        replica = await home.start(launch_of(tiny))
        engine = connected(replica.address)
        await healthy(engine)
        stream = engine.stream(ask(max_tokens=900), ANYWHERE, deadline_s=DEADLINE_S)
        await anext(stream)
        waiting = asyncio.create_task(answer(engine, ask()))
        while (await engine.load()).waiting < 1:
            await asyncio.sleep(0.02)

        worker_of(replica).kill()

        async with aclosing(stream):
            with pytest.raises(UpstreamError):
                async for _ in stream:
                    pass
        with pytest.raises(EngineUnavailable):
            await answer(engine, ask())
        assert not (await engine.health(deadline_s=5.0)).ok
        took_s = await healthy(engine)
        with pytest.raises(EngineUnavailable):
            await waiting
        print(f"healthy {took_s:.1f} s after its worker was killed")
        assert text_of(await answer(engine, ask()))
        worker = worker_of(replica)
        stream = engine.stream(ask(max_tokens=900), ANYWHERE, deadline_s=DEADLINE_S)
        await anext(stream)

        os.kill(replica.pid, signal.SIGKILL)

        with pytest.raises(PilothouseError):
            async for _ in stream:
                pass
        await engine.aclose()
        assert "SIGKILL" in await why_failed(home)
    finally:
        await home.stop_all()
    assert not processes.find(["--replica", replica.name, "--home-id", home.target()._book.home_id])
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


async def test_a_server_that_says_ready_and_is_not_ends_with_the_reason(
    tiny: Artifact, tmp_path: Path
) -> None:
    """Its ports open and it says that it started, whatever its worker found."""
    broken = tmp_path / "broken"
    shutil.copytree(tiny.path, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").chmod(0o600)
    (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    home = Home(make_private(tmp_path / "h"))
    try:
        replica = await home.start(launch_of(replace(tiny, path=str(broken))))

        assert "the model cannot be loaded" in await why_failed(home)
        assert any(
            "Model server started" in line for line in await home.target().logs(replica.name, lines=200)
        )
    finally:
        await home.stop_all()


async def test_a_port_that_is_taken_is_told(tiny: Artifact, tmp_path: Path) -> None:
    home = Home(make_private(tmp_path / "h"))
    launch = launch_of(tiny)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        config = launch.config.replace("{port.grpc_inference}", port)
        try:
            replica = await home.start(replace(launch, config=config))

            assert "ended with status 1" in await why_failed(home)
            log = "\n".join(await home.target().logs(replica.name, lines=200))
            assert f"Failed to bind to address /127.0.0.1:{port}" in log
            assert "Address already in use" in log
        finally:
            await home.stop_all()
