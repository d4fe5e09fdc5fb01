"""
The usage report: who used how much in a month.

From the minute rollups; by subject from the records, for as long as those are
kept. Months are UTC, as rollups are, so that every minute is in exactly one.
"""

import calendar
import re
import time

from msgspec import Struct

from pilothouse.control.transact import Transact
from pilothouse.domain.errors import InvalidRequest
from pilothouse.domain.usage import Sums, UsageBy, UsageLine

_MONTH = re.compile(r"(20[0-9]{2})-(0[1-9]|1[0-2])")


class UsageReport(Struct, frozen=True, kw_only=True):
    """`total` adds up all lines. Times are Unix seconds, [since, until)."""

    by: UsageBy
    month: str
    since: float
    until: float
    lines: tuple[UsageLine, ...]
    total: Sums


def month_of(now: float) -> str:
    """The month of a moment, as `YYYY-MM`, in UTC."""
    return time.strftime("%Y-%m", time.gmtime(now))


def month_bounds(month: str) -> tuple[float, float]:
    """
    First second of the month and of the next one, in UTC.

    Raises:
        InvalidRequest: Not `YYYY-MM`.
    """
    found = _MONTH.fullmatch(month)
    if not found:
        raise InvalidRequest("month: write it as YYYY-MM, such as 2026-11", param="month")
    year, number = int(found[1]), int(found[2])
    following = (year + 1, 1) if number == 12 else (year, number + 1)
    return calendar.timegm((year, number, 1, 0, 0, 0)), calendar.timegm((*following, 1, 0, 0, 0))


async def usage_report(transact: Transact, by: UsageBy, *, month: str, team: str | None) -> UsageReport:
    """
    Add up a month.

    Args:
        team: Whose usage; None is everybody's.
    """
    since, until = month_bounds(month)
    lines = await transact(lambda unit: unit.usage.report(by, since=since, until=until, team=team))
    return UsageReport(
        by=by,
        month=month,
        since=since,
        until=until,
        lines=tuple(lines),
        total=sum((line.sums for line in lines), Sums()),
    )
