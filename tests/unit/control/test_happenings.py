from collections.abc import Callable
from typing import TypeVar

import pytest

from control_fakes import TickingClock
from pilothouse.control import happenings
from pilothouse.control.happenings import AGAIN_S, Happenings
from pilothouse.domain.errors import StoreUnavailable
from pilothouse.domain.events import Event, Occurrence, transitions
from pilothouse.domain.status import DeploymentStatus, EndpointStatus, Replica, SystemStatus
from pilothouse.ports.store import UnitOfWork
from pilothouse.testing.memory_store import MemoryStore

T = TypeVar("T")
FAILED = Occurrence(kind="replica", name="d-1", reason="failed", message="exit 1", is_warning=True)


class House:
    def __init__(self) -> None:
        self.clock = TickingClock()
        self.store = MemoryStore()
        self.happenings = Happenings(self.clock, revision=lambda: 7)
        self.broken = False

    async def transact(self, work: Callable[[UnitOfWork], T], /, *, urgent: bool = False) -> T:
        if self.broken:
            raise StoreUnavailable("gone")
        with self.store.unit(urgent=urgent) as unit:
            return work(unit)

    async def written(self) -> list[Event]:
        await self.happenings.flush(self.transact)
        with self.store.unit() as unit:
            return unit.events.page(limit=1000).items


@pytest.fixture
def house() -> House:
    return House()


async def test_what_happened_is_written_with_its_time_and_revision(house: House) -> None:
    house.happenings.note(FAILED)

    (event,) = await house.written()

    assert (event.kind, event.name, event.reason, event.message) == ("replica", "d-1", "failed", "exit 1")
    assert (event.time, event.revision, event.count, event.is_warning) == (1000.0, 7, 1, True)


async def test_the_same_again_counts_up(house: House) -> None:
    house.happenings.note(FAILED)
    await house.written()
    house.clock.time += AGAIN_S - 1
    house.happenings.note(FAILED)

    (event,) = await house.written()

    assert (event.count, event.first_time, event.time) == (2, 1000.0, 1000.0 + AGAIN_S - 1)


async def test_the_same_much_later_is_told_anew(house: House) -> None:
    house.happenings.note(FAILED)
    house.clock.time += AGAIN_S
    house.happenings.note(FAILED)

    assert len(await house.written()) == 2


async def test_what_could_not_be_written_is_written_later(house: House) -> None:
    house.happenings.note(FAILED)
    house.broken = True
    with pytest.raises(StoreUnavailable):
        await house.written()
    house.broken = False

    assert len(await house.written()) == 1


async def test_only_the_newest_are_kept(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(happenings, "KEPT", 10)
    for number in range(25):
        house.clock.time += 1
        house.happenings.note(Occurrence(kind="model", name=f"m{number}", reason="pull"))
        events = await house.written()

    assert [event.name for event in events] == [f"m{number}" for number in range(24, 14, -1)]


def status(phase: str, state: str = "ready", message: str = "") -> SystemStatus:
    return SystemStatus(
        deployments={"d": DeploymentStatus(name="d", phase=phase, message=message)},  # type: ignore[arg-type]
        endpoints={"e": EndpointStatus(name="e", phase=phase, message=message)},  # type: ignore[arg-type]
        replicas=(
            Replica(name="d-1", deployment="d", model_digest="", state=state, engine="x", address=""),  # type: ignore[arg-type]
        ),
    )


def test_a_change_of_phase_is_an_event_and_a_change_of_words_is_none() -> None:
    before, after = status("starting", message="1 %"), status("starting", message="2 %")

    assert list(transitions(before, after)) == []
    assert [one.message for one in transitions(before, status("ready"))] == ["starting -> ready"] * 2


def test_another_cause_of_what_stays_broken_is_an_event_and_another_figure_is_none() -> None:
    memory = status("failed", message="it needs 900 MB, but 120 MB are free")
    less = status("failed", message="it needs 900 MB, but 95 MB are free")
    digest = status("failed", message="its file is not what was pulled")

    (deployment, endpoint) = transitions(memory, digest)

    assert deployment.message == "failed -> failed: its file is not what was pulled"
    assert (deployment.name, endpoint.name, deployment.is_warning) == ("d", "e", True)
    assert list(transitions(memory, less)) == []


def test_replicas_that_come_fail_and_go_are_events() -> None:
    failed = list(transitions(status("ready"), status("ready", "failed")))
    gone = list(transitions(status("ready"), SystemStatus(deployments=status("ready").deployments)))

    assert [(one.name, one.reason, one.is_warning) for one in failed] == [("d-1", "failed", True)]
    assert [(one.name, one.reason) for one in gone] == [("d-1", "gone")]
