import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from control_fakes import model
from pilothouse.control.registry import Registry
from pilothouse.domain.errors import Conflict, NotFound, OperationFailed, PermissionDenied
from pilothouse.domain.model import ModelVersion
from pilothouse.domain.spec import DeploymentSpec, LicenceSpec, ModelSpec, Spec
from pilothouse.domain.status import Progress
from pilothouse.ports.source import Progress as Tell
from pilothouse.ports.store import UnitOfWork
from pilothouse.testing.memory_store import MemoryStore

T = TypeVar("T")


class FakeModels:
    """Brings what it is told to; `gate` holds a pull until it is set."""

    def __init__(self) -> None:
        self.known: ModelVersion | None = None
        self.kept: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.outcome = ""

    def pull(
        self, source: str, *, name: str | None, licence: str, progress: Tell, known: ModelVersion | None
    ) -> ModelVersion:
        self.known = known
        self.began.set()
        self.gate.wait(5)
        try:
            progress("downloading", 1, 2)
        except OperationFailed:
            self.outcome = "ended"
            raise
        self.outcome = "done"
        return known or model(name or "named-by-source", source)

    def collect(self, keep: Iterable[str]) -> list[Any]:
        self.kept = set(keep)
        return []


class House:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.models = FakeModels()
        self.spec = Spec()
        self.arrived: list[ModelVersion] = []
        self.running: frozenset[str] = frozenset()
        models: Any = self.models
        self.registry = Registry(
            models,
            self.transact,
            declared=lambda: self.spec,
            arrived=self.arrived.append,
            in_use=lambda: self.running,
        )

    async def transact(self, work: Callable[[UnitOfWork], T], /, *, urgent: bool = False) -> T:
        with self.store.unit(urgent=urgent) as unit:
            return work(unit)

    async def pull(self, source: str, name: str | None = None) -> ModelVersion:
        return await self.registry.pull(source, name=name, licence="", progress=lambda progress: None)


@pytest.fixture
def house() -> House:
    return House()


async def test_a_pulled_model_is_recorded_and_told(house):
    told: list[Progress] = []

    pulled = await house.registry.pull("file:/m.gguf", name="m", licence="", progress=told.append)

    assert await house.registry.versions() == [pulled]
    assert house.arrived == [pulled]
    assert told == [Progress(stage="downloading", done_bytes=1, total_bytes=2)]


async def test_the_digest_that_was_recorded_first_is_what_later_pulls_are_held_to(house):
    first = await house.pull("file:/m.gguf", "m")

    await house.pull("file:/m.gguf", "m")
    assert house.models.known == first

    await house.pull("file:/other.gguf", "other")
    assert house.models.known is None


async def test_a_cancelled_pull_ends_in_its_thread_too(house):
    house.models.gate.clear()
    pulling = asyncio.ensure_future(house.pull("file:/m.gguf", "m"))
    await asyncio.to_thread(house.models.began.wait, 5)

    pulling.cancel()
    await asyncio.wait([pulling])
    house.models.gate.set()
    for _ in range(500):
        if house.models.outcome:
            break
        await asyncio.sleep(0.001)

    assert house.models.outcome == "ended"
    assert await house.registry.versions() == []


async def test_a_removed_model_leaves_the_files_that_others_need(house):
    await house.pull("file:/m.gguf", "m")
    with house.store.unit() as unit:
        unit.models.put(replace(model("kept", "file:/k.gguf", "sha256:bb"), version="2"))
    house.running = frozenset({"sha256:cc"})

    removed = await house.registry.remove("m")

    assert [one.name for one in removed] == ["m"]
    assert [one.name for one in await house.registry.versions()] == ["kept"]
    assert house.models.kept == {"sha256:bb", "sha256:cc"}


async def test_a_model_that_is_deployed_or_still_runs_is_not_removed(house):
    pulled = await house.pull("file:/m.gguf", "m")
    house.spec = Spec(
        models={"m": ModelSpec(source="file:/m.gguf")}, deployments={"d": DeploymentSpec(model="m")}
    )
    with pytest.raises(Conflict, match="used by deployment d"):
        await house.registry.remove("m")

    house.spec = Spec()
    house.running = frozenset({pulled.digest})
    with pytest.raises(Conflict, match="still runs"):
        await house.registry.remove("m")


async def test_a_second_name_of_a_file_that_runs_is_removed_and_the_file_stays(house):
    pulled = await house.pull("file:/m.gguf", "m")
    with house.store.unit() as unit:
        unit.models.put(replace(pulled, name="again", source="file:/copy.gguf"))
    house.running = frozenset({pulled.digest})

    await house.registry.remove("again")

    assert [one.name for one in await house.registry.versions()] == ["m"]
    assert house.models.kept == {pulled.digest}


async def test_a_model_that_is_not_there_cannot_be_removed(house):
    with pytest.raises(NotFound, match="no model 'm'"):
        await house.registry.remove("m")


async def test_a_version_of_its_own_may_be_another_file_from_the_same_address(house):
    first = await house.pull("file:/m.gguf", "m")
    await house.registry.pull(
        "file:/m.gguf", name="m", licence="", progress=lambda progress: None, version="2"
    )

    assert house.models.known is None
    assert [model.version for model in await house.registry.versions()] == ["2", first.version]


async def test_a_version_never_becomes_another_file(house):
    await house.pull("file:/m.gguf", "m")
    house.models.pull = lambda source, **_: model("m", source, digest="sha256:bb")

    with pytest.raises(Conflict, match="sha256"):
        await house.pull("file:/other.gguf", "m")


async def test_a_licence_that_no_policy_allows_is_refused_before_and_after_a_pull(house):
    house.spec = Spec(licences=LicenceSpec(allowed=("MIT",)))

    with pytest.raises(PermissionDenied, match="GPL"):
        await house.registry.pull("file:/m.gguf", name="m", licence="GPL-3.0", progress=lambda _: None)
    assert not house.models.began.is_set()
    with pytest.raises(PermissionDenied, match="not known"):
        await house.pull("file:/m.gguf", "m")
    assert await house.registry.versions() == []


async def test_one_version_is_removed_and_one_with_a_stage_is_not(house):
    await house.pull("file:/m.gguf", "m")
    await house.registry.pull("file:/m.gguf", name="m", licence="", progress=lambda _: None, version="2")
    house.spec = Spec(models={"m": ModelSpec(stages={"production": "2"})})

    with pytest.raises(Conflict, match=r"models\.m\.stages\.production"):
        await house.registry.remove("m@2")
    assert [gone.version for gone in await house.registry.remove("m@1")] == ["1"]
