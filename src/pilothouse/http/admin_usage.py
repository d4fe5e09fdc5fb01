"""The usage report, as JSON, or as CSV for a spreadsheet."""

import csv
import io
from typing import Annotated

from litestar import Response, get
from litestar.params import FromQuery, QueryParameter
from litestar.types import ControllerRouterHandler

from pilothouse.control.usage import UsageReport, month_of, usage_report
from pilothouse.domain.usage import UsageBy
from pilothouse.http.access import Asked, needs, team_filter
from pilothouse.http.paging import Word
from pilothouse.http.plane import plane_of

_COLUMNS = (
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_micro_usd",
    "duration_ms",
)


@get("/usage", opt=needs("usage.read"))
async def get_usage(
    request: Asked,
    by: FromQuery[UsageBy] = "team",
    month: Annotated[
        str | None, QueryParameter(max_length=7, description="YYYY-MM, UTC.", required=False)
    ] = None,
    team: Word = None,
) -> Response[UsageReport | str]:
    """A month's totals; by default of this month. `Accept: text/csv` gives CSV."""
    plane = plane_of(request)
    report = await usage_report(
        plane.transact,
        by,
        month=month or month_of(plane.clock.now()),
        team=team_filter(request, "usage.read", team),
    )
    if "text/csv" in request.headers.get("accept", ""):
        return Response(_csv(report), media_type="text/csv; charset=utf-8")
    return Response(report, media_type="application/json")


def _csv(report: UsageReport) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    # By team, the group is the team.
    writer.writerow(("month", *dict.fromkeys((report.by, "team")), *_COLUMNS))
    for line in report.lines:
        totals = [round(getattr(line.sums, column)) for column in _COLUMNS]
        owner = () if report.by == "team" else (_as_text(line.team),)
        writer.writerow((report.month, _as_text(line.group), *owner, *totals))
    return text.getvalue()


def _as_text(value: str) -> str:
    """A spreadsheet would run what begins like a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


ROUTES: list[ControllerRouterHandler] = [get_usage]
