"""
Events: what the control loop did and saw, and why, for people who ask afterwards.

Pure: made from two statuses in a row and from actions. Progress and figures that
change in each round are no events.
"""

import re
from collections.abc import Iterator
from typing import Literal, get_args

from msgspec import Struct

from pilothouse.domain.plan import Action, DrainReplica, PullModel, StartReplica, StopReplica
from pilothouse.domain.status import DeploymentStatus, EndpointStatus, SystemStatus

EventKind = Literal["spec", "model", "deployment", "endpoint", "replica", "secret"]
EVENT_KINDS: tuple[EventKind, ...] = get_args(EventKind)
MAX_MESSAGE_CHARS = 1000
_FAULTS = frozenset({"start_failed", "pull_failed"})
"""Reasons that are no wait, also where something else still serves."""
_FIGURES = re.compile(r"\d+")


class Occurrence(Struct, frozen=True, kw_only=True):
    """Something that happened, without its time."""

    kind: EventKind
    name: str
    reason: str
    """A word for machines."""
    message: str = ""
    is_warning: bool = False


class Event(Struct, frozen=True, kw_only=True):
    """An occurrence as it is kept; the same one again soon counts up instead of being told twice."""

    id: str
    kind: EventKind
    name: str
    reason: str
    message: str
    is_warning: bool
    first_time: float
    time: float
    """When it last happened."""
    count: int = 1
    revision: int = 0
    """Of the spec, at that time."""


def transitions(before: SystemStatus, after: SystemStatus) -> Iterator[Occurrence]:
    """What changed from one look to the next."""
    for name, deployment in after.deployments.items():
        yield from _phase("deployment", before.deployments.get(name), deployment)
    for name, endpoint in after.endpoints.items():
        yield from _phase("endpoint", before.endpoints.get(name), endpoint)
    known = {replica.name: replica for replica in before.replicas}
    for replica in after.replicas:
        earlier = known.get(replica.name)
        if earlier is None or earlier.state != replica.state:
            yield Occurrence(
                kind="replica",
                name=replica.name,
                reason=replica.state,
                message=replica.reason,
                is_warning=replica.state == "failed",
            )
    present = {replica.name for replica in after.replicas}
    for name in known.keys() - present:
        yield Occurrence(kind="replica", name=name, reason="gone", message="its process has ended")


def planned(action: Action) -> Iterator[Occurrence]:
    """What is begun, where the status alone would not say why."""
    match action:
        case StartReplica(name=name):
            yield Occurrence(kind="replica", name=name, reason="start", message="it is wanted and not there")
        case StopReplica(name=name, reason=reason):
            yield Occurrence(kind="replica", name=name, reason="stop", message=reason)
        case DrainReplica(name=name, reason=reason):
            yield Occurrence(kind="replica", name=name, reason="drain", message=reason)
        case PullModel(name=name, source=source):
            yield Occurrence(kind="model", name=name, reason="pull", message=source)
        case _:
            return


def _phase(
    kind: EventKind,
    before: DeploymentStatus | EndpointStatus | None,
    after: DeploymentStatus | EndpointStatus,
) -> Iterator[Occurrence]:
    is_same = before is not None and (before.phase, before.reason) == (after.phase, after.reason)
    if before is not None and is_same and not _has_another_cause(before, after):
        return
    came_from = f"{before.phase} -> {after.phase}" if before is not None else after.phase
    yield Occurrence(
        kind=kind,
        name=after.name,
        reason=after.reason or after.phase,
        message=f"{came_from}: {after.message}" if after.message else came_from,
        is_warning=after.phase in ("failed", "degraded"),
    )


def _has_another_cause(
    before: DeploymentStatus | EndpointStatus, after: DeploymentStatus | EndpointStatus
) -> bool:
    """Of what stays broken: free memory and other figures change in the same words, and are no cause."""
    is_broken = after.phase == "failed" or after.reason in _FAULTS
    return is_broken and _FIGURES.sub("", before.message) != _FIGURES.sub("", after.message)
