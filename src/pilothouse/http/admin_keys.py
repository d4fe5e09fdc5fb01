"""Keys and teams: make, list, rotate, revoke."""

from typing import Annotated

from litestar import delete, get, patch, post
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import Meta, Struct

from pilothouse.control.keyring import NewKey
from pilothouse.control.tenants import check_new_key, renewed_expiry
from pilothouse.domain.duration import parse_duration_s
from pilothouse.domain.errors import InvalidRequest, NotFound
from pilothouse.domain.limits import LimitChange, LimitWords, limits_of
from pilothouse.domain.policy import Action, Grant, decide_grant, sees_all_teams
from pilothouse.domain.tenancy import ApiKeyRow
from pilothouse.http.access import Asked, allow, needs, team_filter
from pilothouse.http.paging import Cursor, Id, Limit, Word
from pilothouse.http.plane import plane_of
from pilothouse.http.views import (
    CreatedKeyView,
    Items,
    KeyView,
    TeamView,
    created_key_view,
    key_view,
    team_view,
)

Name = Annotated[str, Meta(max_length=100)]


class KeyBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    team: Annotated[str, Meta(max_length=63)]
    role: Annotated[str, Meta(max_length=32)] = "developer"
    name: Name = ""
    endpoints: Annotated[list[Name], Meta(max_length=1000)] | None = None
    """Endpoints it may call; absent or null is all of them."""
    expires: Annotated[str, Meta(max_length=32)] = "never"
    """A duration from now, such as 30d or 12h, or never."""
    limits: LimitWords = LimitWords()
    token_sha256: Annotated[str, Meta(max_length=64)] | None = None
    """SHA-256, in hex, of a key `sk-...` of another gateway: it goes on working, and no key is made."""


class RotateBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    overlap: Annotated[str, Meta(max_length=32)] = ""
    """How long the old key goes on working, such as 1h; by default it ends at once."""


class TeamBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=1000)]
    limits: LimitWords = LimitWords()
    per_subject: LimitWords = LimitWords()
    """For each person whom its requests are about."""


class KeyLimitsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limits: LimitChange


class TeamLimitsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    limits: LimitChange = LimitChange()
    """What is absent stays as it is."""
    per_subject: LimitChange = LimitChange()


@get("/keys", opt=needs("keys.read"))
async def list_keys(
    request: Asked, team: Word = None, cursor: Cursor = None, limit: Limit = 100
) -> Items[KeyView]:
    """Newest first, revoked and expired ones too. No secret is in it."""
    plane = plane_of(request)
    about = team_filter(request, "keys.read", team)
    page = await plane.tenants.keys(team=about, cursor=cursor, limit=limit)
    now = plane.clock.now()
    return Items([key_view(row, now) for row in page.items], page.next)


@post("/keys", opt=needs("keys.create"))
async def create_key(request: Asked, data: JSONBody[KeyBody]) -> CreatedKeyView:
    """The answer is the only place where the key is ever shown; a key carried over is not known here."""
    plane = plane_of(request)
    life_s = parse_duration_s(data.expires, param="expires")
    new = NewKey(
        team=data.team,
        role=data.role,
        name=data.name,
        endpoints=None if data.endpoints is None else frozenset(data.endpoints),
        expires_at=None if life_s is None else plane.clock.now() + life_s,
        limits=limits_of(data.limits),
    )
    check_new_key(new)
    grant = Grant(team=new.team, role=new.role, expires_at=new.expires_at)
    allow(
        decide_grant(request.user, "keys.create", grant, decide=plane.policy),
        missing=f"no team {new.team!r}, or this key may not see it",
    )
    if data.token_sha256 is not None:
        return created_key_view(await plane.tenants.carry_key(new, data.token_sha256))
    made = await plane.tenants.create_key(new)
    return created_key_view(made.row, made.key)


@post("/keys/{key_id:str}/rotate", opt=needs("keys.rotate"))
async def rotate_key(request: Asked, key_id: Id, data: JSONBody[RotateBody | None] = None) -> CreatedKeyView:
    """Give a new secret under a new id; the old key ends at once, or after `overlap`."""
    plane = plane_of(request)
    row = await _visible_key(request, "keys.rotate", key_id)
    overlap_s = parse_duration_s(data.overlap, param="overlap") if data and data.overlap else 0.0
    if overlap_s is None:
        raise InvalidRequest(
            "overlap: the old key has to end some time; write a duration such as 1h", param="overlap"
        )
    _may_hand_out(request, "keys.rotate", row, expires_at=renewed_expiry(row, plane.clock.now()))
    made = await plane.tenants.rotate(row.id, overlap_s=overlap_s)
    return created_key_view(made.row, made.key)


@patch("/keys/{key_id:str}/limits", opt=needs("keys.create"))
async def limit_key(request: Asked, key_id: Id, data: JSONBody[KeyLimitsBody]) -> KeyView:
    """Change the limits of a key; all workers know within a second."""
    plane = plane_of(request)
    row = await _visible_key(request, "keys.create", key_id)
    _may_hand_out(request, "keys.create", row, expires_at=row.expires_at)
    return key_view(await plane.tenants.limit_key(row.id, data.limits.of(row.limits)), plane.clock.now())


@delete("/keys/{key_id:str}", opt=needs("keys.revoke"), status_code=200)
async def revoke_key(request: Asked, key_id: Id) -> KeyView:
    """End the key at once; all workers know within a second. A second call changes nothing."""
    plane = plane_of(request)
    row = await _visible_key(request, "keys.revoke", key_id)
    _may_hand_out(request, "keys.revoke", row, expires_at=row.expires_at)
    return key_view(await plane.tenants.revoke(row.id), plane.clock.now())


@get("/teams", opt=needs("teams.read"))
async def list_teams(request: Asked) -> Items[TeamView]:
    """All teams for an admin, his own for anybody else."""
    teams = await plane_of(request).tenants.teams()
    return Items(
        [team_view(team) for team in teams if sees_all_teams(request.user) or team.name == request.user.team]
    )


@post("/teams", opt=needs("teams.create"))
async def create_team(request: Asked, data: JSONBody[TeamBody]) -> TeamView:
    """Make a team; its limits hold for all of its keys together."""
    made = await plane_of(request).tenants.create_team(
        data.name,
        limits=limits_of(data.limits),
        per_subject=limits_of(data.per_subject, param="per_subject"),
    )
    return team_view(made)


@patch("/teams/{name:str}/limits", opt=needs("teams.create"))
async def limit_team(request: Asked, name: Id, data: JSONBody[TeamLimitsBody]) -> TeamView:
    """Change the limits of a team; all workers know within a second."""
    tenants = plane_of(request).tenants
    team = await tenants.team(name)
    changed = await tenants.limit_team(
        name,
        limits=data.limits.of(team.limits),
        per_subject=data.per_subject.of(team.per_subject, param="per_subject"),
    )
    return team_view(changed)


async def _visible_key(request: Asked, action: Action, key_id: str) -> ApiKeyRow:
    """Another team's key and one that never was give the same answer."""
    plane = plane_of(request)
    missing = f"no key {key_id[:64]!r}, or this key may not see it"
    try:
        row = await plane.tenants.key(key_id)
    except NotFound as exc:
        raise NotFound(missing) from exc
    allow(plane.policy(request.user, action, row.team), missing=missing)
    return row


def _may_hand_out(request: Asked, action: Action, row: ApiKeyRow, *, expires_at: float | None) -> None:
    grant = Grant(team=row.team, role=row.role, expires_at=expires_at)
    allow(decide_grant(request.user, action, grant, decide=plane_of(request).policy))


ROUTES: list[ControllerRouterHandler] = [
    list_keys,
    create_key,
    rotate_key,
    limit_key,
    revoke_key,
    list_teams,
    create_team,
    limit_team,
]
