from typing import Any

from msgspec.structs import replace

from pilothouse.domain.phase import system_status
from pilothouse.domain.plan import Observed, Retry, pull_subject, replica_name
from pilothouse.domain.spec import DeploymentSpec, EndpointSpec, ModelSpec, ReplicaRange, RouteSpec, Spec
from pilothouse.domain.status import Progress, Replica, SystemStatus

SPEC = Spec(
    models={"m": ModelSpec(source="file:/m.gguf")},
    deployments={"d": DeploymentSpec(model="m")},
    endpoints={"e": EndpointSpec(routes=[RouteSpec(deployment="d")])},
)
NAME = replica_name("d", SPEC.deployments["d"], "x", 0)
PULL = pull_subject("m", "file:/m.gguf")


def replica(state: Any, name: str = NAME, reason: str = "") -> Replica:
    return Replica(
        name=name, deployment="d", model_digest="x", state=state, engine="e", address="", reason=reason
    )


def status(observed: Observed, spec: Spec = SPEC, **progress: Progress) -> SystemStatus:
    return system_status(spec, observed, revision=3, progress=dict(progress))


def test_a_deployment_is_ready_when_all_wanted_replicas_are():
    seen = status(Observed(models={"m": "x"}, replicas=(replica("ready"),)))

    assert (seen.deployments["d"].phase, seen.deployments["d"].ready) == ("ready", 1)
    assert seen.endpoints["e"].phase == "ready"
    assert seen.endpoints["e"].observed_revision == 3


def test_a_pull_shows_how_far_it_is():
    progress = {PULL: Progress(stage="download", done_bytes=5, total_bytes=10)}

    seen = system_status(SPEC, Observed(busy=frozenset({PULL})), revision=1, progress=progress)

    assert seen.deployments["d"].phase == "pulling"
    assert seen.deployments["d"].progress == progress[PULL]
    assert seen.endpoints["e"].phase == "pulling"


def test_a_failed_pull_says_why():
    seen = status(Observed(retries={PULL: Retry(1, 9, "no such package")}))

    assert (seen.deployments["d"].phase, seen.deployments["d"].message) == ("failed", "no such package")
    assert seen.endpoints["e"].phase == "failed"


def test_a_replica_that_died_says_why():
    seen = status(Observed(models={"m": "x"}, replicas=(replica("failed", reason="killed by signal 9"),)))

    assert seen.deployments["d"].phase == "failed"
    assert "killed by signal 9" in seen.deployments["d"].message


def test_a_start_that_was_refused_says_why():
    seen = status(Observed(models={"m": "x"}, retries={NAME: Retry(1, 9, "needs 9 GB, 2 GB are free")}))

    assert "needs 9 GB" in seen.deployments["d"].message


def test_the_earlier_revision_that_still_serves_is_degraded_and_not_failed():
    old = replica("ready", name="d-0ld-0")

    seen = status(Observed(models={"m": "x"}, replicas=(old,), retries={NAME: Retry(1, 9, "no memory")}))

    assert seen.deployments["d"].phase == "degraded"
    assert "no memory" in seen.deployments["d"].message
    assert seen.endpoints["e"].phase == "degraded"


def test_a_model_that_is_not_declared_is_named():
    spec = Spec(deployments={"d": DeploymentSpec(model="lost")})

    seen = status(Observed(), spec)

    assert seen.deployments["d"].reason == "unknown_model"
    assert "`lost`" in seen.deployments["d"].message


def test_a_route_to_a_deployment_that_is_not_declared_is_named():
    spec = Spec(endpoints={"e": EndpointSpec(routes=[RouteSpec(deployment="lost")])})

    seen = status(Observed(), spec)

    assert seen.endpoints["e"].reason == "unknown_deployment"
    assert "`lost`" in seen.endpoints["e"].message


def test_one_ready_deployment_of_two_makes_an_endpoint_degraded():
    spec = Spec(
        models=SPEC.models,
        deployments={"d": DeploymentSpec(model="m"), "z": DeploymentSpec(model="lost")},
        endpoints={"e": EndpointSpec(routes=[RouteSpec(deployment="d"), RouteSpec(deployment="z")])},
    )

    seen = status(Observed(models={"m": "x"}, replicas=(replica("ready"),)), spec)

    assert seen.endpoints["e"].phase == "degraded"


def test_a_deployment_of_no_replicas_is_what_was_asked_for():
    spec = Spec(
        models=SPEC.models, deployments={"d": DeploymentSpec(model="m", replicas=ReplicaRange(min=0))}
    )

    seen = status(Observed(models={"m": "x"}), spec)

    assert (seen.deployments["d"].phase, seen.deployments["d"].reason) == ("ready", "scaled_to_zero")


def test_a_replica_that_is_missed_because_it_cannot_start_is_told_from_one_that_starts():
    spec = replace(SPEC, deployments={"d": DeploymentSpec(model="m", replicas=ReplicaRange(min=2, max=2))})
    first, second = (replica_name("d", spec.deployments["d"], "x", number) for number in range(2))
    seen = Observed(models={"m": "x"}, replicas=(replica("ready", first),))

    waiting = status(seen, spec).deployments["d"]
    failing = status(replace(seen, retries={second: Retry(1, 9, "no memory")}), spec).deployments["d"]

    assert (waiting.phase, waiting.reason) == ("degraded", "replicas_missing")
    assert (failing.phase, failing.reason) == ("degraded", "start_failed")
    assert "no memory" in failing.message
