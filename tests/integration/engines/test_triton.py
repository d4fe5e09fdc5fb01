"""The engine suite on a real Triton Inference Server, with a small model of random weights, and its life."""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from engine_home import Home
from pilothouse.adapters.engines._environment import python_of
from pilothouse.adapters.engines._triton_engine import TritonEngine
from pilothouse.adapters.engines.triton import TritonDriver
from pilothouse.app.inspect_folder import inspect
from pilothouse.control.models import Artifact
from pilothouse.domain.errors import EngineUnavailable, NotSupported, Overloaded, PilothouseError
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Replica
from pilothouse.kit.folders import make_private
from pilothouse.ports.engine import Launch, Machine
from pilothouse.testing.conformance_engine import ANYWHERE, EngineConformance, answer, ask, running
from pilothouse.testing.conformance_target import seen_as

FOUND = TritonDriver().installed()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]
READY_S = 300.0
PROTOCOLS = ("rest", "grpc")
by_each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
SCRIPT = Path(__file__).parents[2] / "fixtures" / "make_tiny_llama.py"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("tiny")
    subprocess.run([python_of("triton"), "-I", str(SCRIPT), str(folder), "4096"], check=True, timeout=300)
    found = inspect(folder)
    return Artifact(
        name="tiny",
        digest="sha256:aa",
        path=str(folder),
        bytes=found.bytes,
        header=found.header,
        format="safetensors",
    )


def launch_of(artifact: Artifact, **options: object) -> Launch:
    machine = Machine(cpus=2, memory_available_bytes=8 * 10**9)
    spec = DeploymentSpec(model="m", engine="triton", engine_options=options)
    return TritonDriver().launch("", spec, artifact, machine)


def connected(replica: Replica) -> TritonEngine:
    return TritonDriver().connect(
        replica.address, model="m", context_tokens=replica.context_tokens, options=replica.options
    )


async def ready(home: Home, replica: Replica) -> None:
    engine = connected(replica)
    try:
        async with asyncio.timeout(READY_S):
            while not (await engine.health(deadline_s=60.0)).ok:
                (seen,) = await home.target().observe()
                assert seen.state == "starting", seen.reason
                await asyncio.sleep(0.2)
    finally:
        await engine.aclose()


@pytest.fixture(scope="session", params=PROTOCOLS)
def running_replica(
    tiny: Artifact, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Home, Replica]]:
    home = Home(make_private(tmp_path_factory.mktemp("t")))

    async def begin() -> Replica:
        replica = await home.start(launch_of(tiny, slots=2, max_queue=6, protocol=request.param))
        await ready(home, replica)
        return replica

    try:
        yield home, asyncio.run(begin())
    finally:
        asyncio.run(home.stop_all())


class Lab:
    cannot = TritonDriver.cannot

    def __init__(self, replica: Replica) -> None:
        self.context_tokens = replica.context_tokens
        self.engine = connected(replica)
        self.options = replica.options

    def dead(self) -> TritonEngine:
        return TritonDriver().connect(
            "unix:/nobody.sock", model="m", context_tokens=1024, options=self.options
        )


class TestTriton(EngineConformance):
    @pytest.fixture
    async def lab(self, running_replica: tuple[Home, Replica]) -> AsyncIterator[Lab]:
        lab = Lab(running_replica[1])
        yield lab
        await lab.engine.aclose()

    async def test_what_it_has_no_word_for_is_refused_by_name(self, lab: Lab) -> None:
        with pytest.raises(NotSupported, match="not supported by engine triton: logprobs"):
            await answer(lab.engine, ask(logprobs=2))

    async def test_more_than_may_wait_is_refused(self, lab: Lab) -> None:
        requests = [answer(lab.engine, ask(f"{i}:", max_tokens=60)) for i in range(11)]

        said = await asyncio.gather(*requests, return_exceptions=True)

        assert sum(isinstance(one, list) for one in said) == 8
        assert all(isinstance(one, list | Overloaded) for one in said)
        await running(lab.engine, lambda count: count == 0, timeout_s=5.0)

    async def test_it_inherits_nothing_and_listens_nowhere_but_at_its_socket(
        self, running_replica: tuple[Home, Replica]
    ) -> None:
        process = psutil.Process(running_replica[1].pid)
        family = [process, *process.children(recursive=True)]

        assert model_process(running_replica[1]) in family
        for one in family:
            assert not [c for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN]
            assert not {"PILOTHOUSE_HOME", "PYTHONPATH", "USER"} & one.environ().keys()

    async def test_what_its_server_was_told_stands_in_its_folder(
        self, running_replica: tuple[Home, Replica]
    ) -> None:
        home, replica = running_replica

        folder = home.target()._book.work_folder(replica.name)
        config = (folder / "models" / "model" / "config.pbtxt").read_text()

        assert 'key: "slots" value: { string_value: "2" }' in config
        assert 'key: "max_queue" value: { string_value: "6" }' in config


def model_process(replica: Replica) -> psutil.Process:
    (stub,) = [
        one
        for one in psutil.Process(replica.pid).children(recursive=True)
        if "stub" in " ".join(one.cmdline())
    ]
    return stub


@by_each_protocol
async def test_a_model_that_was_killed_is_told_cut_off_and_loaded_anew(
    tiny: Artifact, tmp_path: Path, protocol: str
) -> None:
    """Triton itself says ready for ever, and ends none of the dead model's streams."""
    home = Home(make_private(tmp_path / "h"))
    replica = await home.start(launch_of(tiny, protocol=protocol))
    try:
        await ready(home, replica)
        engine, controller = connected(replica), connected(replica)
        stream = engine.stream(ask(max_tokens=900), ANYWHERE, deadline_s=120)
        await anext(stream)

        model_process(replica).kill()
        killed_at = time.monotonic()

        with pytest.raises(PilothouseError):
            async for _ in stream:
                pass
        told_s = time.monotonic() - killed_at
        with pytest.raises(EngineUnavailable):
            await answer(engine, ask())
        with pytest.raises(EngineUnavailable):
            await controller.load()
        await engine.aclose()
        try:
            await ready(home, replica)
        except AssertionError:  # it held a lock that Triton then cannot take, and aborts at
            assert "SIGABRT" in (await seen_as(home.target(), replica.name, "failed")).reason
            await ready(home, await home.start(launch_of(tiny, protocol=protocol)))
        print(f"told after {told_s:.1f} s, healed after {time.monotonic() - killed_at:.1f} s")
        assert told_s < 30
        await controller.aclose()
    finally:
        await home.stop_all()


@by_each_protocol
async def test_a_crash_is_told_and_a_new_one_takes_its_place(
    tiny: Artifact, tmp_path: Path, protocol: str
) -> None:
    home = Home(make_private(tmp_path / "h"))
    replica = await home.start(launch_of(tiny, protocol=protocol))
    try:
        await ready(home, replica)
        engine, stub = connected(replica), model_process(replica)
        stream = engine.stream(ask(max_tokens=900), ANYWHERE, deadline_s=60)
        await anext(stream)

        os.kill(replica.pid, signal.SIGKILL)

        with pytest.raises(PilothouseError):
            async for _ in stream:
                pass
        await engine.aclose()
        failed = await seen_as(home.target(), replica.name, "failed")
        assert "SIGKILL" in failed.reason
        again = await home.start(launch_of(tiny, protocol=protocol))
        assert not stub.is_running() or stub.status() == psutil.STATUS_ZOMBIE
        await ready(home, again)
        await home.target().stop(again.name, grace_s=30.0)
    finally:
        await home.stop_all()
    assert not list(Path("/dev/shm").glob(f"pilothouse_{home.target()._book.home_id}_*"))


@by_each_protocol
async def test_stopping_does_not_wait_for_a_stream_whose_model_is_dead(
    tiny: Artifact, tmp_path: Path, protocol: str
) -> None:
    home = Home(make_private(tmp_path / "h"))
    replica = await home.start(launch_of(tiny, protocol=protocol))
    await ready(home, replica)
    engine = connected(replica)
    stream = engine.stream(ask(max_tokens=900), ANYWHERE, deadline_s=60)
    await anext(stream)
    model_process(replica).kill()

    began = time.monotonic()
    await home.target().stop(replica.name, grace_s=30.0)

    assert time.monotonic() - began < 20
    with pytest.raises(PilothouseError):
        async for _ in stream:
            pass
    await engine.aclose()


async def test_a_model_that_cannot_be_loaded_ends_the_server_and_the_log_says_why(
    tiny: Artifact, tmp_path: Path
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "model.safetensors").write_bytes(b"garbage")
    home = Home(make_private(tmp_path / "h"))
    replica = await home.start(launch_of(replace(tiny, path=str(folder))))
    try:
        async with asyncio.timeout(READY_S):
            while (await home.target().observe())[0].state != "failed":
                await asyncio.sleep(0.1)
        log = "\n".join(await home.target().logs(replica.name, lines=200))
        assert "failed to load 'model'" in log
    finally:
        await home.stop_all()
