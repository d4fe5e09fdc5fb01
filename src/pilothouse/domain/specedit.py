"""
Small changes to a spec, as functions from one spec to the next.

Pure. The one idea: whoever changes one thing (a button, a command, the
improvement loop) changes the whole declaration in one step, so that there is one
history and one way back.
"""

from collections.abc import Iterator
from typing import Literal, get_args

from msgspec.structs import replace

from pilothouse.domain.errors import Conflict, InvalidRequest, NotFound
from pilothouse.domain.model_name import split_reference
from pilothouse.domain.spec import ModelSpec, ReplicaRange, Spec

DeclaredKind = Literal["models", "deployments", "endpoints"]
DECLARED_KINDS: tuple[DeclaredKind, ...] = get_args(DeclaredKind)


def without(spec: Spec, kind: DeclaredKind, name: str) -> Spec:
    """
    The spec without that thing.

    Raises:
        NotFound: It is not declared.
        Conflict: Something else refers to it; the message says what.
    """
    declared = getattr(spec, kind)
    if name not in declared:
        known = ", ".join(sorted(declared)) or "none"
        raise NotFound(f"no {kind.removesuffix('s')} {name[:64]!r} is declared; there are: {known}")
    if users := list(users_of(spec, kind, name)):
        raise Conflict(
            f"{kind}.{name} is used by {', '.join(users[:5])}{' and others' if len(users) > 5 else ''}; "
            "change or delete that first"
        )
    return replace(spec, **{kind: {key: one for key, one in declared.items() if key != name}})


def users_of(spec: Spec, kind: DeclaredKind, name: str) -> Iterator[str]:
    """Paths of the fields that refer to it."""
    if kind == "models":
        for key, deployment in spec.deployments.items():
            if deployment.model and split_reference(deployment.model)[0] == name:
                yield f"deployments.{key}.model"
    elif kind == "deployments":
        for key, endpoint in spec.endpoints.items():
            for place, route in enumerate(endpoint.routes):
                if route.deployment == name:
                    yield f"endpoints.{key}.routes[{place}]"


def scaled(spec: Spec, deployment: str, *, least: int, most: int) -> Spec:
    """
    The spec with another range of replicas; what else a range says stays.

    Raises:
        NotFound: The deployment is not declared.
    """
    declared = spec.deployments.get(deployment)
    if declared is None:
        known = ", ".join(sorted(spec.deployments)) or "none"
        raise NotFound(f"no deployment {deployment[:64]!r} is declared; there are: {known}")
    changed = replace(declared, replicas=replace(declared.replicas, min=least, max=most))
    return replace(spec, deployments={**spec.deployments, deployment: changed})


def staged(spec: Spec, name: str, stage: str, *, version: str) -> Spec:
    """
    The spec with a stage of a model at another version; with an empty one, without that stage.

    Raises:
        NotFound: The stage that is to go is not there.
    """
    declared = spec.models.get(name, ModelSpec())
    if not version and stage not in declared.stages:
        known = ", ".join(sorted(declared.stages)) or "none"
        raise NotFound(f"model {name[:64]!r} has no stage {stage[:64]!r}; there are: {known}")
    others = {key: value for key, value in declared.stages.items() if key != stage}
    stages = {**others, stage: version} if version else others
    changed = {**spec.models, name: replace(declared, stages=stages)}
    if not stages and not declared.source:
        del changed[name]
    return replace(spec, models=changed)


def parse_replicas(text: str) -> ReplicaRange:
    """
    `3`, or `1..4`.

    Raises:
        InvalidRequest: Neither of them.
    """
    least, dots, most = text.partition("..")
    if not dots:
        most = least
    if not (least.isascii() and least.isdigit() and most.isascii() and most.isdigit() and len(text) < 12):
        raise InvalidRequest(
            f"{text[:32]!r} is no number of replicas. fix: such as 2, or a range as 1..4", param="replicas"
        )
    return ReplicaRange(min=int(least), max=int(most))
