"""The declaration: what runs, its revisions, and the one way to change it."""

from typing import Annotated

import msgspec
from litestar import Response, delete, get, put
from litestar.params import JSONBody
from litestar.types import ControllerRouterHandler
from msgspec import UNSET, Meta, Struct, UnsetType

from pilothouse.config import read_spec_json
from pilothouse.domain.errors import InvalidRequest, NotFound
from pilothouse.domain.spec import Spec
from pilothouse.domain.specdiff import Change, changes
from pilothouse.domain.specedit import DECLARED_KINDS, scaled, without
from pilothouse.http.access import Asked, needs
from pilothouse.http.paging import Cursor, Flag, Id, Limit
from pilothouse.http.plane import plane_of
from pilothouse.http.views import Items
from pilothouse.ports.store import StoredSpec


class SpecView(Struct, frozen=True, kw_only=True):
    revision: int
    author: str
    """Whose key declared it: its name, or else its team, and its id."""
    time: float
    spec: Spec
    changes: list[Change] | UnsetType = UNSET
    """What a `PUT` changed, or with `dry_run` would change."""
    warnings: list[str] | UnsetType = UNSET
    """Of a `PUT`: what is not refused but may go wrong, such as memory that not all replicas can have."""


class RevisionView(Struct, frozen=True, kw_only=True):
    revision: int
    author: str
    time: float
    changes: list[Change]
    """Against the revision before it."""


class ScaleBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    min: Annotated[int, Meta(ge=0, le=1_000_000)]
    max: Annotated[int, Meta(ge=0, le=1_000_000)]


@get("/spec", opt=needs("spec.read"))
async def get_spec(request: Asked) -> Response[SpecView]:
    """What is declared now. The ETag is its revision, for `If-Match`."""
    return _answer(await plane_of(request).specs.current())


@put("/spec", opt=needs("spec.write"))
async def put_spec(request: Asked, *, dry_run: Flag = False) -> Response[SpecView]:
    """
    Declare a new spec, whole; the answer says what it changed.

    `If-Match` names the revision that it was made from, or `*` for whatever is
    there; another one is a conflict. With `dry_run=true` it is only checked.
    """
    specs = plane_of(request).specs
    expected = _expected_revision(request, or_any=False)
    spec = read_spec_json(await request.body())
    before = await specs.current()
    warnings = specs.warnings(spec)
    stored = await specs.declare(
        spec, expected_revision=expected, author=request.user.author, dry_run=dry_run
    )
    return _answer(stored, changed=changes(before.spec, spec), warnings=warnings)


@delete("/spec/{kind:str}/{name:str}", opt=needs("spec.write"), status_code=200)
async def delete_declared(request: Asked, kind: Id, name: Id) -> Response[SpecView]:
    """
    Declare the present spec without one of its `models`, `deployments` or `endpoints`.

    Refused while something else refers to it; the message says what. `If-Match` may
    name the revision that was looked at.
    """
    known = next((one for one in DECLARED_KINDS if one == kind), None)
    if known is None:
        raise NotFound(f"{kind[:64]!r} is no kind of a spec; there are: {', '.join(DECLARED_KINDS)}")
    stored = await plane_of(request).specs.edit(
        lambda spec: without(spec, known, name),
        expected_revision=_expected_revision(request, or_any=True),
        author=request.user.author,
    )
    return _answer(stored)


@put("/deployments/{name:str}/scale", opt=needs("spec.write"))
async def scale_deployment(request: Asked, name: Id, data: JSONBody[ScaleBody]) -> Response[SpecView]:
    """Declare the present spec with another number of replicas of one deployment."""
    stored = await plane_of(request).specs.edit(
        lambda spec: scaled(spec, name, least=data.min, most=data.max),
        expected_revision=_expected_revision(request, or_any=True),
        author=request.user.author,
    )
    return _answer(stored)


@get("/spec/revisions", opt=needs("spec.read"))
async def list_revisions(request: Asked, cursor: Cursor = None, limit: Limit = 20) -> Items[RevisionView]:
    """Newest first, each with what it changed."""
    specs = plane_of(request).specs
    # One more than asked for, so that the last has its predecessor to be compared with.
    page = await specs.revisions(cursor=cursor, limit=limit)
    older = await specs.revisions(cursor=page.next, limit=1) if page.next else None
    stored = [*page.items, *(older.items if older else [])]
    views = [
        RevisionView(
            revision=one.revision,
            author=one.author,
            time=one.time,
            changes=changes(stored[place + 1].spec if place + 1 < len(stored) else Spec(), one.spec),
        )
        for place, one in enumerate(page.items)
    ]
    return Items(views, page.next)


@get("/spec/revisions/{revision:str}", opt=needs("spec.read"))
async def get_revision(request: Asked, revision: Id) -> Response[SpecView]:
    """One of them, whole. To go back to it, declare its spec anew."""
    if not (revision.isascii() and revision.isdigit() and len(revision) < 16):
        raise NotFound(f"{revision[:64]!r} is no revision: they are numbers from 1")
    specs = plane_of(request).specs
    stored = await specs.revision(int(revision))
    before = (await specs.revision(stored.revision - 1)).spec if stored.revision > 1 else Spec()
    return _answer(stored, changed=changes(before, stored.spec))


def _answer(
    stored: StoredSpec,
    *,
    changed: list[Change] | UnsetType = UNSET,
    warnings: list[str] | UnsetType = UNSET,
) -> Response[SpecView]:
    view = SpecView(
        revision=stored.revision,
        author=stored.author,
        time=stored.time,
        spec=stored.spec,
        changes=changed,
        warnings=warnings,
    )
    return Response(msgspec.to_builtins(view), headers={"etag": f'"{stored.revision}"'})


def _expected_revision(request: Asked, *, or_any: bool) -> int | None:
    """The revision of `If-Match`; None is any. `or_any`: also when there is no such header."""
    text = request.headers.get("if-match", "*" if or_any else "").strip()
    if text == "*":
        return None
    digits = text.removeprefix("W/").strip('"')
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise InvalidRequest(
            'send If-Match with the revision that the change was made from, such as "7" (the ETag of '
            "GET /admin/v1/spec), or * to replace whatever is there",
            param="If-Match",
        )
    return int(digits)


ROUTES: list[ControllerRouterHandler] = [
    get_spec,
    put_spec,
    delete_declared,
    scale_deployment,
    list_revisions,
    get_revision,
]
