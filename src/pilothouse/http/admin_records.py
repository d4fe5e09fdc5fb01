"""
Records: what was asked, by which key, how it ended; and the content, for the few.

Content is opened at reading, never stored open, and every opening is logged.
"""

import asyncio
from typing import Annotated

from litestar import get
from litestar.params import QueryParameter
from litestar.types import ControllerRouterHandler

from pilothouse.domain.errors import NotFound
from pilothouse.domain.record import Content, InferenceRecord
from pilothouse.http.access import Asked, allow, allow_on, needs, team_filter
from pilothouse.http.errors import request_id_of
from pilothouse.http.paging import Cursor, Flag, Id, Limit, Word
from pilothouse.http.plane import Plane, plane_of
from pilothouse.http.views import Items, RecordView, record_view
from pilothouse.ports.store import Page, RecordFilter

MAX_OPENED = 100
"""Contents on one page: they are prompts of up to 4 MiB each."""


@get("/records", opt=needs("records.read"))
async def list_records(
    request: Asked,
    team: Word = None,
    endpoint: Word = None,
    code: Word = None,
    since: Annotated[float | None, QueryParameter(description="Unix seconds.", required=False)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
    *,
    content: Flag = False,
) -> Items[RecordView]:
    """Newest first. With `content=true`, at most 100 a page, opened for roles that may read prompts."""
    plane = plane_of(request)
    about = team_filter(request, "records.read", team)
    if content:
        allow(plane.policy(request.user, "records.content", about))
    where = RecordFilter(team=about, endpoint=endpoint, code=code, since=since)
    size = min(limit, MAX_OPENED) if content else limit
    page: Page[InferenceRecord] = await plane.transact(
        lambda unit: unit.records.page(where, cursor=cursor, limit=size)
    )
    opened = await _open_all(request, page.items) if content else {}
    return Items([record_view(record, opened.get(record.id)) for record in page.items], page.next)


@get("/records/{record_id:str}", opt=needs("records.read"))
async def get_record(
    request: Asked,
    record_id: Id,
    *,
    content: Flag = False,
) -> RecordView:
    """One record, by the `x-request-id` of its answer."""
    plane = plane_of(request)
    missing = f"no record {record_id[:64]!r} (yet), or this key may not see it"
    try:
        record = await plane.transact(lambda unit: unit.records.get(record_id))
    except NotFound as exc:
        raise NotFound(missing) from exc
    allow_on(request, "records.read", record.team, missing=missing)
    if not content:
        return record_view(record)
    allow_on(request, "records.content", record.team, missing=missing)
    return record_view(record, (await _open_all(request, [record])).get(record.id))


async def _open_all(request: Asked, records: list[InferenceRecord]) -> dict[str, Content]:
    """What is kept of their contents; said in the log before anything is opened."""
    plane = plane_of(request)
    if not records:
        return {}
    plane.log.event(
        "record_content_opened",
        request_id=request_id_of(request.scope),
        by_key=request.user.key_id,
        by_team=request.user.team,
        records=[record.id for record in records],
    )
    opened = await asyncio.gather(*(_open(plane, record.id) for record in records))
    return {record.id: content for record, content in zip(records, opened, strict=True) if content}


async def _open(plane: Plane, record_id: str) -> Content | None:
    """None where none is kept, or where it was erased between the two looks."""
    try:
        sealed = await plane.transact(lambda unit: unit.records.content(record_id))
        return await plane.open_content(sealed) if sealed.content is not None else None
    except NotFound:
        return None


ROUTES: list[ControllerRouterHandler] = [list_records, get_record]
