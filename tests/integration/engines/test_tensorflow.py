"""The engine suite on our own host, with a SavedModel that was trained here, and its life."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from engine_home import Home
from pilothouse.adapters.engines._tensorflow_engine import TensorFlowEngine
from pilothouse.adapters.engines.tensorflow import TensorFlowDriver
from pilothouse.domain.errors import NotSupported, PilothouseError
from pilothouse.domain.model import Artifact
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Replica
from pilothouse.kit import processes
from pilothouse.kit.folders import make_private
from pilothouse.ports.engine import Launch, Machine
from pilothouse.testing.conformance_engine import ANYWHERE, EngineConformance, answer, ask, text_of
from pilothouse.testing.conformance_target import seen_as
from tensorflow_model import artifact_of, make_savedmodel, needs_tensorflow

pytestmark = [pytest.mark.engine, pytest.mark.slow, needs_tensorflow]
READY_S = 300.0
CONTEXT_TOKENS = 4096
PROTOCOLS = ("rest", "grpc")
CHAT = {"user": "{content}\n", "assistant": "{content}\n"}


@pytest.fixture(scope="session")
def savedmodel(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return artifact_of(make_savedmodel(tmp_path_factory.mktemp("savedmodel") / "tiny"))


def launch_of(artifact: Artifact, **options: object) -> Launch:
    spec = DeploymentSpec(
        model="m", engine="tensorflow", engine_options={"context_tokens": CONTEXT_TOKENS} | options
    )
    machine = Machine(cpus=2, memory_available_bytes=8 * 10**9)
    return TensorFlowDriver().launch("", spec, artifact, machine)


def connected(replica: Replica) -> TensorFlowEngine:
    return TensorFlowDriver().connect(
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
    savedmodel: Artifact, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Home, Replica]]:
    home = Home(make_private(tmp_path_factory.mktemp("tf")))

    async def begin() -> Replica:
        replica = await home.start(launch_of(savedmodel, protocol=request.param))
        await ready(home, replica)
        return replica

    try:
        yield home, asyncio.run(begin())
    finally:
        asyncio.run(home.stop_all())


class Lab:
    cannot = TensorFlowDriver.cannot
    pace = 8

    def __init__(self, replica: Replica) -> None:
        self.context_tokens = replica.context_tokens
        self.engine = connected(replica)
        self.options = replica.options

    def dead(self) -> TensorFlowEngine:
        return TensorFlowDriver().connect(
            "unix:/nobody.sock", model="m", context_tokens=1024, options=self.options
        )


class TestTensorFlow(EngineConformance):
    @pytest.fixture
    async def lab(self, running_replica: tuple[Home, Replica]) -> AsyncIterator[Lab]:
        lab = Lab(running_replica[1])
        yield lab
        await lab.engine.aclose()

    async def test_pieces_of_any_size_make_the_same_answer(self, lab: Lab, running_replica) -> None:
        request = ask("The gateway", max_tokens=40, temperature=0.9, seed=11)
        texts = set()
        for size in (1, 7, 64):
            engine = TensorFlowDriver().connect(
                running_replica[1].address,
                model="m",
                context_tokens=4096,
                options=lab.options | {"piece_tokens": size},
            )
            texts.add(text_of(await answer(engine, request)))
            await engine.aclose()

        assert len(texts) == 1

    async def test_the_context_bounds_an_answer_that_names_no_limit(self, lab: Lab, running_replica) -> None:
        engine = TensorFlowDriver().connect(
            running_replica[1].address,
            model="m",
            context_tokens=50,
            options=lab.options | {"piece_tokens": 16},
        )

        chunks = await answer(engine, ask(max_tokens=None))
        await engine.aclose()

        usage = chunks[-1].usage
        assert usage is not None
        assert usage.input + usage.output == 50
        assert chunks[-1].deltas[0].finish_reason == "length"

    async def test_a_chat_needs_a_form_and_has_the_deployments(self, lab: Lab, running_replica) -> None:
        chat = ask([{"role": "user", "content": "Say something."}], kind="chat")
        with pytest.raises(NotSupported, match=r"engine_options\.chat"):
            await answer(lab.engine, chat)
        engine = TensorFlowDriver().connect(
            running_replica[1].address,
            model="m",
            context_tokens=4096,
            options=lab.options | {"piece_tokens": 16, "chat": CHAT},
        )

        formed = text_of(await answer(engine, chat))
        await engine.aclose()

        assert formed == text_of(await answer(lab.engine, ask("Say something.\n")))

    @pytest.mark.parametrize(
        "wish", [{"choices": 2}, {"top_k": 5}, {"frequency_penalty": 0.5}, {"logprobs": True}]
    )
    async def test_what_the_signature_has_not_is_refused(self, lab: Lab, wish: dict[str, object]) -> None:
        with pytest.raises(NotSupported):
            await answer(lab.engine, ask(**wish))

    async def test_it_inherits_nothing_and_listens_nowhere_but_at_its_socket(
        self, running_replica: tuple[Home, Replica]
    ) -> None:
        process = psutil.Process(running_replica[1].pid)

        assert not [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
        assert not {"PILOTHOUSE_HOME", "PYTHONPATH", "USER"} & process.environ().keys()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_crash_is_told_and_a_new_one_takes_its_place(
    savedmodel: Artifact, tmp_path: Path, protocol: str
) -> None:
    home = Home(tmp_path)
    replica = await home.start(launch_of(savedmodel, protocol=protocol))
    try:
        await ready(home, replica)
        engine = connected(replica)
        stream = engine.stream(ask(max_tokens=2000), ANYWHERE, deadline_s=60)
        await anext(stream)

        os.kill(replica.pid, signal.SIGKILL)

        with pytest.raises(PilothouseError):
            async for _ in stream:
                pass
        await engine.aclose()
        failed = await seen_as(home.target(), replica.name, "failed")
        assert "SIGKILL" in failed.reason
        again = await home.start(launch_of(savedmodel, protocol=protocol))
        await ready(home, again)
    finally:
        await home.stop_all()
    assert not processes.find(["--replica", replica.name, "--home-id", home.target()._book.home_id])
