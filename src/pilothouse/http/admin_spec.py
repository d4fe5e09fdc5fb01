"""The declaration: what runs, and the one way to change it."""

import msgspec
from litestar import Response, get, put
from litestar.types import ControllerRouterHandler
from msgspec import Struct

from pilothouse.config import read_spec_json
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.spec import Spec
from pilothouse.http.access import Asked, needs
from pilothouse.http.paging import Flag
from pilothouse.http.plane import plane_of
from pilothouse.ports.store import StoredSpec


class SpecView(Struct, frozen=True, kw_only=True):
    revision: int
    author: str
    """Id of the key that declared it."""
    time: float
    spec: Spec


@get("/spec", opt=needs("spec.read"))
async def get_spec(request: Asked) -> Response[SpecView]:
    """What is declared now. The ETag is its revision, for `If-Match`."""
    return _answer(await plane_of(request).specs.current())


@put("/spec", opt=needs("spec.write"))
async def put_spec(request: Asked, *, dry_run: Flag = False) -> Response[SpecView]:
    """
    Declare a new spec, whole.

    `If-Match` names the revision that it was made from, or `*` for whatever is
    there; another one is a conflict. With `dry_run=true` it is only checked.
    """
    expected = _expected_revision(request.headers.get("if-match"))
    spec = read_spec_json(await request.body())
    stored = await plane_of(request).specs.declare(
        spec, expected_revision=expected, author=request.user.key_id, dry_run=dry_run
    )
    return _answer(stored)


def _answer(stored: StoredSpec) -> Response[SpecView]:
    view = SpecView(revision=stored.revision, author=stored.author, time=stored.time, spec=stored.spec)
    return Response(msgspec.to_builtins(view), headers={"etag": f'"{stored.revision}"'})


def _expected_revision(if_match: str | None) -> int | None:
    text = (if_match or "").strip()
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


ROUTES: list[ControllerRouterHandler] = [get_spec, put_spec]
