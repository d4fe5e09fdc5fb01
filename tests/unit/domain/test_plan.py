from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.domain.plan import (
    DrainReplica,
    Observed,
    Policy,
    PullModel,
    Retry,
    ServeReplica,
    StartReplica,
    StopReplica,
    plan,
    pull_subject,
    replica_name,
    wanted_replicas,
)
from pilothouse.domain.spec import DeploymentSpec, ModelSpec, ReplicaRange, Spec
from pilothouse.domain.status import Replica

DIGEST = "sha256:" + "a" * 64
SPEC = Spec(
    models={"m": ModelSpec(source="file:/m.gguf")}, deployments={"d": DeploymentSpec(model="m")}, endpoints={}
)
CHANGED = Spec(
    models=SPEC.models,
    deployments={"d": DeploymentSpec(model="m", engine_options={"slots": 2})},
    endpoints={},
)
NONE = Spec(models=SPEC.models)
NAME = replica_name("d", SPEC.deployments["d"], DIGEST, 0)
NEW = replica_name("d", CHANGED.deployments["d"], DIGEST, 0)


def replica(name: str = NAME, state: Any = "ready") -> Replica:
    return Replica(
        name=name, deployment="d", model_digest=DIGEST, state=state, engine="llama.cpp", address="unix:/s"
    )


def seen(*replicas: Replica, **more: Any) -> Observed:
    return Observed(replicas=replicas, models={"m": DIGEST}, **more)


def test_a_wanted_replica_that_is_absent_is_started():
    assert plan(SPEC, seen(), 0) == [StartReplica(NAME, "d")]


def test_nothing_is_planned_when_all_is_as_declared():
    assert plan(SPEC, seen(replica()), 0) == []
    assert plan(SPEC, seen(replica(state="starting")), 0) == []


def test_nothing_is_planned_for_a_busy_subject():
    assert plan(SPEC, seen(busy=frozenset({NAME})), 0) == []


def test_a_model_that_is_not_here_is_pulled_and_nothing_started():
    assert plan(SPEC, Observed(), 0) == [PullModel("m", "file:/m.gguf")]


def test_a_failed_pull_waits_for_its_turn():
    waiting = Observed(retries={pull_subject("m", "file:/m.gguf"): Retry(1, next_at=5)})

    assert plan(SPEC, waiting, 4) == []
    assert plan(SPEC, waiting, 5) == [PullModel("m", "file:/m.gguf")]


def test_a_model_that_nobody_deploys_is_not_pulled():
    assert plan(NONE, Observed(), 0) == []


def test_a_dead_replica_keeps_its_traces_until_its_next_start_is_due():
    dead = seen(replica(state="failed"), retries={NAME: Retry(1, next_at=5)})

    assert plan(SPEC, dead, 4) == []
    assert plan(SPEC, dead, 5) == [StopReplica(NAME, "failed")]


def test_a_replica_is_not_started_before_its_turn():
    assert plan(SPEC, seen(retries={NAME: Retry(3, next_at=5)}), 4) == []


def test_a_changed_spec_starts_the_new_one_and_keeps_the_old_one_serving():
    assert plan(CHANGED, seen(replica()), 0) == [StartReplica(NEW, "d")]
    assert plan(CHANGED, seen(replica(), replica(NEW, "starting")), 0) == []


def test_the_old_one_is_drained_when_the_new_one_is_ready_and_stopped_when_unused():
    both = seen(replica(), replica(NEW))
    draining = seen(replica(state="draining"), replica(NEW), draining={NAME: 0.0})

    assert plan(CHANGED, both, 0) == [DrainReplica(NAME, "replaced")]
    assert plan(CHANGED, draining, 1) == []
    assert plan(CHANGED, replace(draining, unused=frozenset({NAME})), 1) == [StopReplica(NAME, "replaced")]


def test_a_drain_ends_with_its_grace():
    draining = seen(replica(state="draining"), replica(NEW), draining={NAME: 0.0})

    assert plan(CHANGED, draining, 60) == [StopReplica(NAME, "replaced")]


def test_the_old_one_serves_again_when_the_new_one_dies():
    state = seen(
        replica(state="draining"),
        replica(NEW, "failed"),
        draining={NAME: 0.0},
        retries={NEW: Retry(1, next_at=9)},
    )

    assert plan(CHANGED, state, 1) == [ServeReplica(NAME)]


def test_a_draining_replica_that_is_wanted_again_serves_again():
    assert plan(SPEC, seen(replica(state="draining"), draining={NAME: 0.0}), 1) == [ServeReplica(NAME)]


def test_replicas_of_a_deployment_that_is_gone_are_drained_and_stopped():
    assert plan(NONE, seen(replica()), 0) == [DrainReplica(NAME, "deployment_removed")]
    assert plan(NONE, seen(replica(state="failed")), 0) == [StopReplica(NAME, "deployment_removed")]


def test_what_runs_goes_on_while_the_new_model_is_being_pulled():
    assert plan(SPEC, Observed(replicas=(replica(),)), 0) == [PullModel("m", "file:/m.gguf")]


def test_zero_replicas_drain_those_that_run():
    none = Spec(
        models=SPEC.models, deployments={"d": DeploymentSpec(model="m", replicas=ReplicaRange(min=0))}
    )

    assert plan(none, seen(replica()), 0) == [DrainReplica(NAME, "scaled_down")]


def test_what_scaling_decided_goes_before_the_least():
    assert plan(SPEC, seen(desired={"d": 2}), 0) == [
        StartReplica(NAME, "d"),
        StartReplica(NAME[:-1] + "1", "d"),
    ]


def test_the_last_ones_are_drained_when_fewer_are_desired():
    two = [replica(), replica(NAME[:-1] + "1")]

    assert plan(SPEC, seen(*two, desired={"d": 1}), 0) == [DrainReplica(two[1].name, "scaled_down")]
    assert plan(SPEC, seen(*two, desired={"d": 2}), 0) == []


def test_a_replica_too_many_serves_until_those_that_stay_are_ready():
    loading = [replica(state="starting"), replica(NAME[:-1] + "1")]

    assert plan(SPEC, seen(*loading, desired={"d": 1}), 0) == []


def test_the_number_of_replicas_is_not_part_of_their_names():
    more = Spec(
        models=SPEC.models, deployments={"d": DeploymentSpec(model="m", replicas=ReplicaRange(min=2, max=2))}
    )

    assert wanted_replicas(more, seen())["d"][0] == NAME
    assert plan(more, seen(replica()), 0) == [StartReplica(NAME[:-1] + "1", "d")]


def test_an_attached_engine_is_neither_started_nor_pulled_for():
    spec = Spec(deployments={"cloud": DeploymentSpec(engine="openai", provider_model="x")})

    assert plan(spec, Observed(attached=frozenset({"cloud"})), 0) == []


@pytest.mark.parametrize("busy", [frozenset(), frozenset({"other-1", "other-2"})])
def test_no_more_actions_at_once_than_the_policy_allows(busy):
    many = Spec(
        models=SPEC.models, deployments={"d": DeploymentSpec(model="m", replicas=ReplicaRange(min=9, max=9))}
    )

    assert len(plan(many, seen(busy=busy), 0, policy=Policy(replica_actions=4))) == 4 - len(busy)


def test_slow_pulls_hold_back_no_restart():
    busy = frozenset({pull_subject("x", "https://models.example/x")})

    assert plan(SPEC, seen(busy=busy), 0, policy=Policy(replica_actions=1)) == [StartReplica(NAME, "d")]
