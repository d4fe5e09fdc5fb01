"""Cached answers: end them."""

from typing import Annotated

from litestar import post
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from pilothouse.domain.errors import NotFound
from pilothouse.http.access import Asked, needs, team_filter
from pilothouse.http.plane import plane_of

Name = Annotated[str, Meta(min_length=1, max_length=100)]


class PurgeBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    endpoint: Name | None = None
    """Only answers of this endpoint; absent or null is all."""
    team: Name | None = None
    """Only answers of this team; absent or null is all teams for an admin, else the key's own."""


class PurgeView(Struct, frozen=True, kw_only=True):
    endpoint: str | None
    team: str | None


@post("/cache/purge", opt=needs("cache.purge"), status_code=200)
async def purge_cache(request: Asked, data: JSONBody[PurgeBody]) -> PurgeView:
    """From now on no worker gives any of these answers again; it outlasts restarts."""
    plane = plane_of(request)
    team = team_filter(request, "cache.purge", data.team)
    if data.endpoint is not None and data.endpoint not in (await plane.specs.current()).spec.endpoints:
        raise NotFound(f"no endpoint {data.endpoint!r}; GET /admin/v1/endpoints lists them")
    await plane.purges.purge(team=team, endpoint=data.endpoint)
    return PurgeView(endpoint=data.endpoint, team=team)


ROUTES: list[ControllerRouterHandler] = [purge_cache]
