from typing import Any

import pytest
from msgspec.structs import replace

from control_fakes import TickingClock, model
from pilothouse.control.fleet import Fleet
from pilothouse.control.lease import SlotLeases
from pilothouse.control.publish import Publishing
from pilothouse.control.totals import WorkerTotals
from pilothouse.domain.model import ModelHeader
from pilothouse.domain.snapshot import KeyEntry, Shadow, Snapshot, WorkerHello, WorkerReport
from pilothouse.domain.spec import (
    DeploymentSpec,
    EndpointSpec,
    LimitsSpec,
    ModelSpec,
    RouteSpec,
    Spec,
)
from pilothouse.domain.status import DeploymentStatus, Replica, SystemStatus
from pilothouse.testing.memory_feed import MemoryPublisher

SPEC = Spec(
    models={"m": ModelSpec(source="file:/m.gguf")},
    deployments={"d": DeploymentSpec(model="m")},
    endpoints={
        "e": EndpointSpec(routes=[RouteSpec(deployment="d")], limits=LimitsSpec(max_tokens=9, timeout="2m"))
    },
)


def replica(name: str = "d-1", state: Any = "ready", slots: int = 4) -> Replica:
    return Replica(
        name=name,
        deployment="d",
        model_digest="sha256:aa",
        state=state,
        engine="llama.cpp",
        address="unix:/s",
        slots=slots,
        context_tokens=512,
    )


def status(*replicas: Replica, phase: Any = "ready", message: str = "") -> SystemStatus:
    return SystemStatus(
        revision=3,
        deployments={"d": DeploymentStatus(name="d", phase=phase, reason="why", message=message)},
        replicas=replicas,
    )


class Rig:
    def __init__(self, workers: int = 1) -> None:
        self.keys = {"k": KeyEntry(id="k", team="t", role="developer", mac=b"")}
        self.clock = TickingClock()
        self.publisher = MemoryPublisher()
        self.fleet = Fleet(WorkerTotals())
        self.leases = SlotLeases(workers, self.clock)
        self.publishing = Publishing(
            self.publisher,
            self.leases,
            self.fleet,
            keys=lambda: dict(self.keys),
            epoch="life",
            first_revision=100,
        )

    def update(self, *replicas: Replica, spec: Spec = SPEC, **more: Any) -> bool:
        return self.publishing.update(spec, status(*replicas, **more), models={"m": model()}, declared_at=5.0)

    def view(self, worker: str = "w", **slots: tuple[int, ...]) -> Snapshot:
        return self.publishing._view(WorkerHello(worker=worker, pid=1, slots=slots))


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_ready_replicas_are_published_with_the_workers_slots(rig):
    rig.update(replica(), replica("d-2", "starting"), replica("d-3", "draining"))

    (entry,) = rig.view().replicas["d"]

    assert (entry.name, entry.slots, entry.context_tokens, entry.model) == ("d-1", (0, 1, 2, 3), 512, "m")


def test_an_endpoint_carries_its_limits_and_its_tasks(rig):
    rig.update(replica())

    entry = rig.view().endpoints["e"]

    assert (entry.max_tokens, entry.timeout_s, entry.revision, entry.created_at) == (9, 120.0, 3, 7)
    assert entry.tasks == ("chat", "completion")


def test_a_model_that_embeds_makes_an_endpoint_that_embeds(rig):
    header = ModelHeader(
        architecture="bert", context_tokens=1, quantization="F16", parameters=1, pooling="mean"
    )
    embedding = replace(model(), header=header)

    rig.publishing.update(SPEC, status(), models={"m": embedding}, declared_at=0)

    assert rig.view().endpoints["e"].tasks == ("embedding",)


def test_nothing_is_ruled_out_for_a_model_that_is_not_here_yet(rig):
    rig.publishing.update(SPEC, status(phase="pulling"), models={}, declared_at=0)

    assert rig.view().endpoints["e"].tasks == ("chat", "completion", "embedding")


def test_a_deployment_that_cannot_serve_says_why_and_when_to_come_back(rig):
    rig.update(phase="pulling", message="Fetching.")

    entry = rig.view().deployments["d"]

    assert (entry.phase, entry.reason, entry.retry_after_s) == ("pulling", "why: Fetching.", 15.0)


def test_a_change_is_a_new_revision_and_no_change_is_none(rig):
    assert rig.update(replica())
    first = rig.publishing.revision

    assert not rig.update(replica())
    assert rig.update(replica(state="draining"))

    assert (first, rig.publishing.revision) == (101, 102)


def test_an_endpoint_says_who_answers_copies_of_its_requests(rig):
    rig.publishing.release_by(
        lambda _, declared: declared, lambda name: Shadow("d", "next") if name == "e" else None
    )
    rig.update(replica())
    assert rig.view().endpoints["e"].shadow == Shadow("d", "next")

    rig.publishing.release_by(lambda _, declared: declared, lambda _: None)
    assert rig.update(replica())
    assert rig.view().endpoints["e"].shadow is None


def test_a_key_that_is_gone_is_published_at_once(rig):
    rig.update(replica())
    rig.keys.clear()

    rig.publishing.keys_changed()

    assert rig.view().keys == {}
    assert rig.view().replicas["d"]


def test_the_epoch_is_that_of_this_controllers_life(rig):
    assert rig.view().epoch == "life"


def test_an_engine_that_runs_elsewhere_has_places_instead_of_slots(rig):
    spec = Spec(
        deployments={
            "d": DeploymentSpec(
                engine="openai",
                provider_model="big",
                engine_options={"base_url": "http://a/v1", "max_inflight": 7, "secret": "s"},
            )
        },
        endpoints=SPEC.endpoints,
    )
    rig.update(replica(slots=0), spec=spec)

    (entry,) = rig.view().replicas["d"]

    assert (entry.slots, entry.max_inflight, entry.secret, entry.model) == ((), 7, "s", "big")


def test_slots_of_a_worker_that_left_are_published_to_the_next(rig):
    rig.update(replica())
    rig.view("old")
    assert rig.view("new").replicas["d"][0].slots == ()

    rig.publishing._leave("old")

    assert rig.view("new").replicas["d"][0].slots == (0, 1, 2, 3)


def test_adopted_slots_are_published_anew_when_the_time_for_claims_is_over():
    rig = Rig()
    rig.leases.adopt(["d-1"])
    rig.leases.open()
    rig.update(replica())
    assert rig.view().replicas["d"][0].slots == ()

    rig.clock.time += 60

    assert rig.update(replica())
    assert rig.view().replicas["d"][0].slots == (0, 1, 2, 3)


def test_adopted_slots_are_published_as_soon_as_all_workers_that_live_came_back():
    rig = Rig()
    rig.leases.adopt(["d-1"])
    rig.leases.open()
    rig.update(replica())
    rig.view()
    before = rig.publishing.revision

    assert not rig.publishing.call_roll([1, 2])
    assert rig.publishing.revision == before
    assert rig.publishing.call_roll([1])

    assert rig.publishing.revision == before + 1
    assert rig.view().replicas["d"][0].slots == (0, 1, 2, 3)


def test_a_fleet_follows_a_revision_when_each_connected_worker_said_so(rig):
    rig.view("a")
    rig.view("b")

    def hear(name: str, revision: int) -> None:
        rig.fleet.hear(WorkerReport(worker=name, pid=1, time=float(revision), revision=revision))

    hear("a", 7)
    assert not rig.fleet.follows(7)
    hear("b", 6)
    assert not rig.fleet.follows(7)
    hear("b", 7)
    assert rig.fleet.follows(7)
    rig.view("c")
    assert not rig.fleet.follows(7)
    rig.publishing._leave("c")
    assert rig.fleet.follows(7)
