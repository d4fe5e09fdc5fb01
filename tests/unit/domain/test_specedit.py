import pytest

from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound
from pilothouse.domain.spec import DEFAULT_SPEC, ReplicaRange
from pilothouse.domain.specedit import parse_replicas, scaled, without


@pytest.mark.parametrize(
    ("kind", "user"),
    [("models", "deployments.smollm2.model"), ("deployments", r"endpoints.smollm2.routes\[0\]")],
)
def test_what_is_referred_to_is_not_deleted_and_it_is_said_by_whom(kind: str, user: str) -> None:
    with pytest.raises(Conflict, match=user):
        without(DEFAULT_SPEC, kind, "smollm2")  # type: ignore[arg-type]


def test_what_nobody_refers_to_is_deleted() -> None:
    spec = without(without(DEFAULT_SPEC, "endpoints", "smollm2"), "deployments", "smollm2")

    assert (spec.endpoints, spec.deployments, spec.models) == ({}, {}, DEFAULT_SPEC.models)


def test_what_is_not_declared_is_not_found() -> None:
    with pytest.raises(NotFound, match="there are: smollm2"):
        without(DEFAULT_SPEC, "endpoints", "smollm")
    with pytest.raises(NotFound, match="there are: smollm2"):
        scaled(DEFAULT_SPEC, "none", least=1, most=1)


def test_scaling_changes_the_range_alone() -> None:
    spec = scaled(DEFAULT_SPEC, "smollm2", least=2, most=4)

    assert spec.deployments["smollm2"].replicas == ReplicaRange(min=2, max=4)
    assert spec.endpoints == DEFAULT_SPEC.endpoints


@pytest.mark.parametrize(("text", "least", "most"), [("2", 2, 2), ("1..4", 1, 4), ("0..1", 0, 1)])
def test_a_number_of_replicas_is_one_or_a_range(text: str, least: int, most: int) -> None:
    assert parse_replicas(text) == ReplicaRange(min=least, max=most)


@pytest.mark.parametrize("text", ["", "..", "1..", "-1", "a", "1...2", "²"])
def test_any_other_number_of_replicas_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="such as 2, or a range"):
        parse_replicas(text)
