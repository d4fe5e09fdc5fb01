"""The server as a whole: its status, its engines, and what is not built yet."""

from litestar import get, route
from litestar.handlers import HTTPRouteHandler
from litestar.types import ControllerRouterHandler

from pilothouse.control.status import StatusReport
from pilothouse.domain.errors import InvalidRequest, NotSupported
from pilothouse.domain.events import EVENT_KINDS, Event
from pilothouse.http.access import Asked, needs
from pilothouse.http.paging import Cursor, Limit, Word
from pilothouse.http.plane import EngineView, plane_of
from pilothouse.http.views import Items

NOT_BUILT = (
    "datasets",
    "jobs",
    "evaluations",
    "drift",
    "audit",
    "subjects",
    "guards",
)
"""Resources of the contract that later versions bring."""


@get("/status", opt=needs("status.read"))
async def get_status(request: Asked) -> StatusReport:
    """All that `pilothouse status` prints."""
    return await plane_of(request).status()


@get("/engines", opt=needs("engines.read"))
async def list_engines(request: Asked) -> Items[EngineView]:
    """Those that a deployment may name, and what each lacks here."""
    return Items(list(plane_of(request).engines()))


@get("/events", opt=needs("status.read"))
async def list_events(
    request: Asked, kind: Word = None, name: Word = None, cursor: Cursor = None, limit: Limit = 100
) -> Items[Event]:
    """What the control loop did and saw, and why: newest first."""
    if kind is not None and kind not in EVENT_KINDS:
        raise InvalidRequest(
            f"{kind[:64]!r} is no kind of events; there are: {', '.join(EVENT_KINDS)}", param="kind"
        )
    page = await plane_of(request).transact(
        lambda unit: unit.events.page(kind=kind, name=name, cursor=cursor, limit=limit)
    )
    return Items(page.items, page.next)


def _not_built(resource: str) -> HTTPRouteHandler:
    async def refuse(request: Asked) -> None:  # noqa: ARG001 - a handler's shape
        raise NotSupported(f"{resource} are not supported in this version; see the documentation's roadmap")

    return route(
        [f"/{resource}", f"/{resource}/{{rest:path}}"],
        http_method=["GET", "POST", "PUT", "PATCH", "DELETE"],
        opt=needs("admin.other"),
        status_code=200,
        include_in_schema=False,
    )(refuse)


ROUTES: list[ControllerRouterHandler] = [get_status, list_engines, list_events, *map(_not_built, NOT_BUILT)]
