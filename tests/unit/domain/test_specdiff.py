from msgspec.structs import replace

from pilothouse.domain.spec import (
    DEFAULT_SPEC,
    DeploymentSpec,
    EndpointSpec,
    LimitsSpec,
    ModelSpec,
    ReplicaRange,
    RouteSpec,
    Spec,
)
from pilothouse.domain.specdiff import Change, changes, plain


def test_the_same_spec_changes_nothing() -> None:
    assert changes(DEFAULT_SPEC, DEFAULT_SPEC) == []


def test_a_default_that_is_written_out_is_no_change() -> None:
    written = replace(
        DEFAULT_SPEC,
        endpoints={
            "smollm2": EndpointSpec(routes=[RouteSpec(deployment="smollm2", weight=100)], limits=LimitsSpec())
        },
    )

    assert changes(DEFAULT_SPEC, written) == []


def test_a_changed_field_is_told_with_both_values() -> None:
    more = replace(DEFAULT_SPEC.deployments["smollm2"], replicas=ReplicaRange(min=1, max=3))

    assert changes(DEFAULT_SPEC, replace(DEFAULT_SPEC, deployments={"smollm2": more})) == [
        Change(kind="changed", path="deployments.smollm2.replicas.max", before=1, after=3)
    ]


def test_what_is_added_or_removed_is_told_without_its_defaults() -> None:
    new = Spec(
        models={"m": ModelSpec(source="file:/m.gguf")},
        deployments=DEFAULT_SPEC.deployments | {"d": DeploymentSpec(model="m")},
        endpoints=DEFAULT_SPEC.endpoints,
    )

    assert changes(DEFAULT_SPEC, new) == [
        Change(kind="removed", path="models.smollm2", before=plain(DEFAULT_SPEC.models["smollm2"])),
        Change(kind="added", path="models.m", after={"source": "file:/m.gguf"}),
        Change(kind="added", path="deployments.d", after={"model": "m"}),
    ]


def test_a_list_changes_as_a_whole() -> None:
    routes = [RouteSpec(deployment="a", weight=90), RouteSpec(deployment="b", weight=10)]
    new = replace(DEFAULT_SPEC, endpoints={"smollm2": EndpointSpec(routes=routes)})

    (change,) = changes(DEFAULT_SPEC, new)

    assert (change.kind, change.path) == ("changed", "endpoints.smollm2.routes")
    assert change.after == [{"deployment": "a", "weight": 90}, {"deployment": "b", "weight": 10}]
