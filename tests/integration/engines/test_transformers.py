"""The engine suite on transformers' own server, with a small model of random weights, and its life."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from engine_home import Home
from pilothouse.adapters.engines.transformers import TransformersDriver, TransformersEngine
from pilothouse.control.models import Artifact
from pilothouse.domain.errors import NotSupported, PilothouseError
from pilothouse.domain.spec import DeploymentSpec
from pilothouse.domain.status import Replica
from pilothouse.kit import processes
from pilothouse.kit.folders import make_private
from pilothouse.ports.engine import Launch, Machine
from pilothouse.testing.conformance_engine import ANYWHERE, EngineConformance, answer, ask, text_of
from pilothouse.testing.conformance_target import seen_as
from tiny_llama import make_tiny_llama

FOUND = TransformersDriver().installed()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOUND.ok, reason=f"{FOUND.missing} is missing: {FOUND.install_command}"),
]
READY_S = 300.0
BATCHED = 3
"""Slots of the one that batches."""
CANNOT = TransformersDriver.cannot
BATCHED_CANNOT = {"seed": "a batch has one seed", "cancel_prompt": CANNOT["cancel_prompt"]}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"), engine="transformers")


def launch_of(artifact: Artifact, *, slots: int = 1) -> Launch:
    machine = Machine(cpus=2, memory_available_bytes=8 * 10**9)
    spec = DeploymentSpec(model="m", engine="transformers", engine_options={"slots": slots})
    return TransformersDriver().launch("", spec, artifact, machine)


def connected(address: str) -> TransformersEngine:
    return TransformersDriver().connect(address, model="m", context_tokens=1024)


async def ready(home: Home, replica: Replica) -> None:
    engine = connected(replica.address)
    try:
        async with asyncio.timeout(READY_S):
            while not (await engine.health(deadline_s=60.0)).ok:
                (seen,) = await home.target().observe()
                assert seen.state == "starting", seen.reason
                await asyncio.sleep(0.2)
    finally:
        await engine.aclose()


@pytest.fixture(scope="session", params=[1, BATCHED])
def slots(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="session")
def running_replica(
    tiny: Artifact, tmp_path_factory: pytest.TempPathFactory, slots: int
) -> Iterator[tuple[Home, Replica]]:
    home = Home(make_private(tmp_path_factory.mktemp("t")))

    async def begin() -> Replica:
        replica = await home.start(launch_of(tiny, slots=slots))
        await ready(home, replica)
        return replica

    try:
        yield home, asyncio.run(begin())
    finally:
        asyncio.run(home.stop_all())


class Lab:
    def __init__(self, replica: Replica, slots: int) -> None:
        self.cannot = BATCHED_CANNOT if slots > 1 else CANNOT
        self.slots = slots
        self.context_tokens = replica.context_tokens
        self.engine = connected(replica.address)

    def dead(self) -> TransformersEngine:
        return connected("unix:/nobody.sock")


class TestTransformers(EngineConformance):
    @pytest.fixture
    async def lab(self, running_replica: tuple[Home, Replica], slots: int) -> AsyncIterator[Lab]:
        lab = Lab(running_replica[1], slots)
        yield lab
        await lab.engine.aclose()

    async def test_what_it_would_ignore_is_refused(self, lab: Lab) -> None:
        with pytest.raises(NotSupported):
            await answer(lab.engine, ask(choices=2))

    async def test_a_batch_refuses_a_seed_and_samples_each_as_it_was_asked_to(self, lab: Lab) -> None:
        if lab.slots == 1:
            pytest.skip("it takes turns")
        with pytest.raises(NotSupported):
            await answer(lab.engine, ask(seed=7))
        greedy = text_of(await answer(lab.engine, ask(max_tokens=24)))

        drawn = [answer(lab.engine, ask(max_tokens=24, temperature=1.5)) for _ in range(2)]
        first, again, *hot = await asyncio.gather(
            *(answer(lab.engine, ask(max_tokens=24)) for _ in range(2)), *drawn
        )

        assert text_of(first) == text_of(again) == greedy
        assert len({greedy, *map(text_of, hot)}) == 3

    async def test_no_request_chooses_the_model(self, running_replica: tuple[Home, Replica]) -> None:
        engine = TransformersDriver().connect(running_replica[1].address, model="/etc", context_tokens=1024)

        assert await answer(engine, ask(max_tokens=2))
        await engine.aclose()

    async def test_it_inherits_nothing_and_listens_nowhere_but_at_its_socket(
        self, running_replica: tuple[Home, Replica]
    ) -> None:
        process = psutil.Process(running_replica[1].pid)

        assert not [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
        assert not {"PILOTHOUSE_HOME", "PYTHONPATH", "USER"} & process.environ().keys()


async def test_a_crash_is_told_and_a_new_one_takes_its_place(tiny: Artifact, tmp_path: Path) -> None:
    home = Home(tmp_path)
    replica = await home.start(launch_of(tiny))
    try:
        await ready(home, replica)
        engine = connected(replica.address)
        stream = engine.stream(ask(max_tokens=400), ANYWHERE, deadline_s=60)
        await anext(stream)

        os.kill(replica.pid, signal.SIGKILL)

        with pytest.raises(PilothouseError):
            async for _ in stream:
                pass
        await engine.aclose()
        failed = await seen_as(home.target(), replica.name, "failed")
        assert "SIGKILL" in failed.reason
        again = await home.start(launch_of(tiny))
        await ready(home, again)
    finally:
        await home.stop_all()
    assert not processes.find(["--replica", replica.name, "--home-id", home.target()._book.home_id])
