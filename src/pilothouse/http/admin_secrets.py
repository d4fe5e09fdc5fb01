"""Secrets of providers: set, list, remove. No answer holds a value."""

from typing import Annotated

from litestar import delete, get, put
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from pilothouse.domain.policy import Action, sees_all_teams
from pilothouse.domain.provider_secret import SealedSecret, users_of
from pilothouse.http.access import Asked, allow, needs
from pilothouse.http.paging import Id
from pilothouse.http.plane import plane_of
from pilothouse.http.views import Items
from pilothouse.kit.secret import Secret


class SecretBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    value: Annotated[str, Meta(max_length=64 * 1024)]
    host: Annotated[str, Meta(max_length=300)]
    """The only one that it is sent to: `host`, or `host:port` where the port is not 443."""
    team: Annotated[str, Meta(max_length=63)] = ""
    """Whose endpoints may use it; by default all teams', which only an admin may set."""

    def __repr__(self) -> str:
        return f"SecretBody(host={self.host!r}, team={self.team!r}, ***)"


class SecretView(Struct, frozen=True, kw_only=True):
    name: str
    host: str
    team: str
    created_at: float
    changed_at: float
    used_by: list[str]
    """Deployments that name it."""


@get("/secrets", opt=needs("secrets.read"))
async def list_secrets(request: Asked) -> Items[SecretView]:
    """Names and hosts; no value leaves. All for an admin, those of his team for anybody else."""
    found = plane_of(request).secrets.sealed
    visible = [one for one in found.values() if sees_all_teams(request.user) or one.team == request.user.team]
    return Items([await _view(request, one) for one in sorted(visible, key=lambda one: one.name)])


@put("/secrets/{name:str}", opt=needs("secrets.write"), status_code=200)
async def set_secret(request: Asked, name: Id, data: JSONBody[SecretBody]) -> SecretView:
    """Set it, or give it another value; all workers use that within a second."""
    plane = plane_of(request)
    if (present := plane.secrets.sealed.get(name)) is not None:
        _allow(request, "secrets.write", present)
    allow(
        plane.policy(request.user, "secrets.write", data.team),
        missing="only an admin sets secrets for all teams or for another one; name your own in team",
    )
    done = await plane.secrets.set(
        name, Secret(data.value), host=data.host, team=data.team, author=request.user.key_id
    )
    return await _view(request, done)


@delete("/secrets/{name:str}", opt=needs("secrets.write"), status_code=200)
async def remove_secret(request: Asked, name: Id) -> SecretView:
    """For good. Refused while a deployment names it."""
    secrets = plane_of(request).secrets
    _allow(request, "secrets.write", secrets.get(name))
    return await _view(request, await secrets.remove(name, author=request.user.key_id))


def _allow(request: Asked, action: Action, secret: SealedSecret) -> None:
    missing = f"no secret {secret.name!r}, or this key may not see it; see: pilothouse secret list"
    allow(plane_of(request).policy(request.user, action, secret.team), missing=missing)


async def _view(request: Asked, secret: SealedSecret) -> SecretView:
    stored = await plane_of(request).specs.current()
    return SecretView(
        name=secret.name,
        host=secret.host,
        team=secret.team,
        created_at=secret.created_at,
        changed_at=secret.changed_at,
        used_by=users_of(secret.name, stored.spec),
    )


ROUTES: list[ControllerRouterHandler] = [list_secrets, set_secret, remove_secret]
