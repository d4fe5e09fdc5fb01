from typing import Any

import pytest

from control_fakes import Silent, TickingClock
from pilothouse.control.autoscale import Autoscaler
from pilothouse.control.fleet import Fleet
from pilothouse.control.latency import FEWEST, LOOK_S, METRIC
from pilothouse.control.totals import WorkerTotals
from pilothouse.domain.plan import Observed, replica_name
from pilothouse.domain.snapshot import WorkerReport
from pilothouse.domain.spec import (
    DeploymentSpec,
    EndpointSpec,
    ModelSpec,
    ReplicaRange,
    RouteSpec,
    SloSpec,
    Spec,
)
from pilothouse.domain.status import Load, Replica
from pilothouse.kit.metrics import DURATION_BUCKETS_S, Registry

DIGEST = "sha256:aa"


def declared(slo: str = "never", **replicas: Any) -> Spec:
    return Spec(
        models={"m": ModelSpec(source="file:/m.gguf")},
        deployments={"d": DeploymentSpec(model="m", replicas=ReplicaRange(**replicas))},
        endpoints={"e": EndpointSpec(routes=[RouteSpec(deployment="d")], slo=SloSpec(ttft_p95=slo))},
    )


NAME = replica_name("d", declared().deployments["d"], DIGEST, 0)


def seen(*states: Any, kv_used: float | None = None, **more: Any) -> Observed:
    replicas = tuple(
        Replica(
            name=NAME[:-1] + str(number),
            deployment="d",
            model_digest=DIGEST,
            state=state,
            engine="llama.cpp",
            address="unix:/s",
            slots=4,
            load=Load(kv_used=kv_used),
        )
        for number, state in enumerate(states)
    )
    return Observed(replicas=replicas, models={"m": DIGEST}, **more)


class Rig:
    def __init__(self) -> None:
        self.clock = TickingClock()
        self.fleet = Fleet(WorkerTotals())
        self.log = Silent()
        self.scaler = Autoscaler(self.fleet, clock=self.clock, log=self.log)
        self.reported = 0.0

    def report(self, worker: str = "w", **facts: Any) -> None:
        self.reported += 1
        self.fleet.hear(WorkerReport(worker=worker, pid=1, time=self.reported, revision=1, **facts))

    def pass_by(self, seconds: int, spec: Spec, observed: Observed) -> int:
        for _ in range(seconds):
            self.clock.time += 1
            self.scaler.follow(spec, observed)
        return self.scaler.follow(spec, observed)["d"]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_load_of_all_workers_together_asks_for_more(rig):
    for worker in ("a", "b"):
        rig.report(worker, replicas={NAME: 2}, queues={"d": 1})

    assert rig.pass_by(5, declared(max=3), seen("ready")) == 2
    assert [fields["after"] for name, fields in rig.log.events if name == "scaled"] == [2]


def test_an_endpoints_requests_keep_its_deployment_awake(rig):
    spec = declared(scale_to_zero_after="10s")
    rig.report(demand={"e": 7})
    rig.pass_by(9, spec, seen("ready"))
    rig.report(demand={"e": 8})

    assert rig.pass_by(9, spec, seen("ready")) == 1
    assert rig.pass_by(2, spec, seen("ready")) == 0
    assert rig.scaler.asleep == {"d"}


def test_what_waits_for_a_sleeping_deployment_wakes_it(rig):
    spec = declared(min=0)
    heard: list[None] = []
    rig.fleet.heard = lambda: heard.append(None)
    assert rig.pass_by(1, spec, seen()) == 0

    rig.report(queues={"d": 1})

    assert heard
    assert rig.scaler.follow(spec, seen())["d"] == 1
    assert not rig.scaler.asleep


def test_a_worker_that_is_met_again_brings_no_old_requests(rig):
    spec = declared(min=0)
    rig.report(demand={"e": 100})
    rig.fleet.leave("w")
    rig.report(demand={"e": 100})

    assert rig.pass_by(3, spec, seen()) == 0


def test_a_start_that_is_under_way_counts_as_loading(rig):
    spec = declared(scale_to_zero_after="10s")

    assert rig.pass_by(60, spec, seen(busy=frozenset({NAME}))) == 1
    assert rig.pass_by(60, spec, seen("starting")) == 1
    assert rig.pass_by(60, spec, seen("ready")) == 0


def test_first_tokens_slower_than_promised_are_seen_in_the_workers_histograms(rig):
    registry = Registry()
    series = registry.histogram(METRIC, "", ("endpoint", "deployment"), DURATION_BUCKETS_S).labels("e", "d")
    spec = declared(slo="1s", max=2)
    rig.report(metrics=registry.dump(), replicas={NAME: 1})
    rig.pass_by(int(LOOK_S) * 3, spec, seen("ready"))
    for _ in range(FEWEST):
        series.observe(2.0)
    rig.report(metrics=registry.dump(), replicas={NAME: 1})

    assert rig.pass_by(int(LOOK_S) + 1, spec, seen("ready")) == 2


def test_a_full_cache_of_keys_and_values_is_seen_in_the_replicas_load(rig):
    rig.report(replicas={NAME: 1})

    assert rig.pass_by(20, declared(max=2), seen("ready", kv_used=0.95)) == 2


def test_a_deployment_that_runs_elsewhere_is_not_counted(rig):
    spec = Spec(deployments={"cloud": DeploymentSpec(engine="openai")})

    assert rig.scaler.follow(spec, Observed(attached=frozenset({"cloud"}))) == {}


def test_a_deployment_that_is_gone_is_forgotten(rig):
    rig.pass_by(1, declared(min=3, max=3), seen("ready"))
    rig.scaler.follow(Spec(), Observed())

    assert rig.pass_by(1, declared(), seen("ready")) == 1
