"""A snapshot takes effect at once, and what it no longer names is let go."""

import pytest

from gateway_rig import PEPPER, endpoint_entry, replica_entry, snapshot
from pilothouse.domain.errors import EngineUnavailable
from pilothouse.domain.snapshot import DeploymentEntry, ReplicaEntry
from pilothouse.gateway.authenticate import Authenticator
from pilothouse.gateway.state import GatewayState
from pilothouse.ports.engine import Engine
from watched_engine import WatchedEngine


class Worker:
    """A state, and what it connected to and let go of."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self.retired: list[Engine] = []
        self.refused: list[str] = []
        self.unreachable: set[str] = set()
        self.state = GatewayState(
            Authenticator(PEPPER),
            self._connect,
            self.retired.append,
            lambda name, _: self.refused.append(name),
        )

    def _connect(self, entry: ReplicaEntry) -> Engine:
        if entry.name in self.unreachable:
            raise EngineUnavailable("its token cannot be read")
        self.connected.append(entry.name)
        return WatchedEngine(slots=bool(entry.slots))


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_replica_is_connected_to_once(worker):
    for _ in range(3):
        worker.state.apply(snapshot(replica_entry()))

    assert worker.connected == ["chat-0"]
    assert worker.retired == []


@pytest.mark.parametrize("change", [{"address": "scripted:new"}, {"model": "m2"}, {"context_tokens": 9}])
def test_a_replica_that_is_spoken_to_otherwise_is_connected_to_anew(worker, change):
    worker.state.apply(snapshot(replica_entry()))
    first = worker.state.places["chat"].replicas["chat-0"].engine

    worker.state.apply(snapshot(replica_entry(**change)))

    assert worker.connected == ["chat-0", "chat-0"]
    assert worker.retired == [first]


def test_new_limits_need_no_new_connection(worker):
    worker.state.apply(snapshot(replica_entry(max_inflight=1)))
    place = worker.state.places["chat"].try_take("a")

    worker.state.apply(snapshot(replica_entry(max_inflight=2)))

    assert worker.connected == ["chat-0"]
    assert worker.state.places["chat"].try_take("b") is not None
    worker.state.places["chat"].release(place)
    assert worker.state.inflight == 1


def test_a_replica_that_is_gone_is_retired(worker):
    worker.state.apply(snapshot(replica_entry(), replica_entry("chat-1")))
    gone = worker.state.places["chat"].replicas["chat-1"].engine

    worker.state.apply(snapshot(replica_entry()))

    assert worker.retired == [gone]


def test_a_deployment_that_is_gone_takes_its_engines_along(worker):
    worker.state.apply(snapshot(replica_entry(), replica_entry("other-0", "other")))
    gone = worker.state.places["other"].replicas["other-0"].engine

    worker.state.apply(snapshot(replica_entry()))

    assert worker.retired == [gone]
    assert "other" not in worker.state.places


def test_a_replica_that_cannot_be_spoken_to_leaves_the_others_served(worker):
    worker.unreachable = {"chat-1"}

    worker.state.apply(snapshot(replica_entry(), replica_entry("chat-1")))

    assert list(worker.state.places["chat"].replicas) == ["chat-0"]
    assert worker.refused == ["chat-1"]


def test_demand_is_kept_for_endpoints_that_stay_and_forgotten_for_others(worker):
    served = snapshot(replica_entry(), replica_entry("other-0", "other"))
    worker.state.apply(served)
    worker.state.routes["chat"].demand, worker.state.routes["other"].demand = 3, 4

    worker.state.apply(snapshot(replica_entry()))

    assert worker.state.demand == {"chat": 3}


def test_leases_that_are_held_are_told_to_the_next_controller(worker):
    worker.state.apply(snapshot(replica_entry(slots=(1, 3)), replica_entry("chat-1")))

    assert worker.state.held_slots() == {"chat-0": (1, 3)}


def test_a_deployment_without_replicas_says_why(worker):
    why = DeploymentEntry(name="chat", phase="failed", reason="the disk is full")
    worker.state.apply(
        snapshot(replica_entry("x", "else"), endpoints=(endpoint_entry("chat"),), deployments=(why,))
    )

    assert worker.state.places["chat"].entry.reason == "the disk is full"
    assert worker.state.places["chat"].try_take("a") is None
