"""Deployments, endpoints and replicas: what was declared beside what is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from litestar import get
from litestar.params import QueryParameter
from litestar.response import Stream
from litestar.types import ControllerRouterHandler

from pilothouse.domain.errors import NotFound, PilothouseError
from pilothouse.http.access import Asked, needs
from pilothouse.http.paging import Flag, Id
from pilothouse.http.plane import Plane, plane_of
from pilothouse.http.views import (
    DeploymentView,
    EndpointView,
    Items,
    ReplicaView,
    endpoint_view,
    replica_view,
)

FOLLOW_S = 0.5
"""Between two looks at a log that is followed."""
MOST_LINES = 10_000
FOLLOW_LINES = 1000
"""Looked at in each round: more than a busy engine writes between two."""


@get("/deployments", opt=needs("deployments.read"))
async def list_deployments(request: Asked) -> Items[DeploymentView]:
    """Each as it is declared, and how far it is."""
    plane = plane_of(request)
    stored = await plane.specs.current()
    status = plane.system().deployments
    return Items(
        [
            DeploymentView(name=name, spec=spec, status=status.get(name))
            for name, spec in sorted(stored.spec.deployments.items())
        ]
    )


@get("/endpoints", opt=needs("endpoints.read"))
async def list_endpoints(request: Asked) -> Items[EndpointView]:
    """A key that is limited to endpoints sees those."""
    plane = plane_of(request)
    stored = await plane.specs.current()
    status, scope = plane.system().endpoints, request.user.endpoints
    return Items(
        [
            endpoint_view(
                name,
                spec,
                revision=stored.revision,
                status=status.get(name),
                rollout=plane.rollouts.active.get(name),
            )
            for name, spec in sorted(stored.spec.endpoints.items())
            if scope is None or name in scope
        ]
    )


@get("/replicas", opt=needs("replicas.read"))
async def list_replicas(request: Asked) -> Items[ReplicaView]:
    """Those that run or are about to, by name."""
    plane = plane_of(request)
    replicas = sorted(plane.system().replicas, key=lambda replica: replica.name)
    used = {one.name: one for one in plane.processes() if one.role == "replica"}
    return Items([replica_view(replica, used.get(replica.name)) for replica in replicas])


@get("/replicas/{name:str}/logs", opt=needs("replicas.logs"))
async def read_logs(
    request: Asked,
    name: Id,
    lines: Annotated[int, QueryParameter(ge=1, le=MOST_LINES, required=False)] = 100,
    *,
    follow: Flag = False,
) -> Stream:
    """The newest lines as text; with `follow=true` the stream goes on until either side ends it."""
    plane = plane_of(request)
    newest = await _lines(plane, name, max(lines, FOLLOW_LINES) if follow else lines)
    content = _follow(plane, name, newest, lines) if follow else iter([_text(newest)])
    return Stream(content, media_type="text/plain; charset=utf-8")


async def _follow(plane: Plane, name: str, seen: list[str], lines: int) -> AsyncIterator[bytes]:
    yield _text(seen[-lines:])
    while True:
        await asyncio.sleep(FOLLOW_S)
        try:
            newest = await _lines(plane, name, FOLLOW_LINES)
        except NotFound:
            return  # the replica was cleared away: its log has ended
        except PilothouseError as exc:
            yield f"[the log ends here: {exc.message}]\n".encode()
            return
        yield _text(newer_lines(seen, newest))
        seen = newest


async def _lines(plane: Plane, name: str, lines: int) -> list[str]:
    if all(replica.name != name for replica in plane.system().replicas):
        raise NotFound(f"no replica {name[:64]!r}; see: pilothouse get replicas")
    return await plane.logs(name, lines=lines)


def newer_lines(seen: list[str], newest: list[str]) -> list[str]:
    """
    Those of `newest` that come after `seen`, both being ends of one growing log.

    Where nothing of `seen` is left (more was written than the ring holds), all.
    """
    if newest[: len(seen)] == seen:
        return newest[len(seen) :]
    for start in range(len(newest), 0, -1):
        overlap = min(start, len(seen))
        if overlap and newest[start - overlap : start] == seen[-overlap:]:
            return newest[start:]
    return newest


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode(errors="replace")


ROUTES: list[ControllerRouterHandler] = [list_deployments, list_endpoints, list_replicas, read_logs]
